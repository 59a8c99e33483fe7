//! The commands that the README tells to type.

use std::fs;

use anyhow::{Context, ensure};
use nodemend_tests::repo;

/// Those of the section `Install`, in their order; a line that ends in `\` goes on.
pub(crate) fn commands() -> anyhow::Result<Vec<String>> {
    let path = repo().join("README.md");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let section = text
        .split("\n## ")
        .find(|section| section.starts_with("Install"))
        .context("the README has no section Install")?;
    let mut commands = Vec::new();
    for block in section.split("```sh\n").skip(1) {
        let (block, _) = block.split_once("\n```").context("a block has no end")?;
        let block = block.replace("\\\n", " ");
        commands.extend(block.lines().map(str::to_owned));
    }
    ensure!(!commands.is_empty(), "the README says no command");
    Ok(commands)
}
