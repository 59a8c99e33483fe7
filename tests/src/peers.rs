//! What other node agents' tests feed them, given to `nodemend-detector replay`: how far the two
//! agree, and why not where they do not. `cargo xtask peers` writes it down in docs/peers.md.

#![expect(clippy::disallowed_methods, reason = "the harness runs other programs")]

mod case;
mod page;
mod verdict;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use self::case::Input;
use self::verdict::{Compared, Said};
use crate::daemon;

/// Where the page is, in the repository.
pub const PAGE: &str = "docs/peers.md";

/// Feeds every case to the detector; the page. An error names what is not explained.
pub fn page(repo: &Path) -> anyhow::Result<String> {
    let read = |name: &str| {
        let path = repo.join("tests/peers").join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let mut cases = case::peers(&read("peer_cases.tsv")?).context("peer_cases.tsv")?;
    cases.extend(case::eks(&read("nma_cases.tsv")?).context("nma_cases.tsv")?);
    let explained = verdict::explanations(&read("explained.tsv")?).context("explained.tsv")?;
    let detector = daemon::binary("nodemend-detector")?;
    let mut compared = Vec::new();
    for case in cases {
        let said = match &case.input {
            Input::Log(log) => Some(
                replay(&detector, log.as_bytes()).with_context(|| format!("replay {}", case.id))?,
            ),
            Input::NoLog(_) => None,
        };
        compared.push(Compared::new(case, said));
    }
    let problems = verdict::explain(&mut compared, explained);
    ensure!(
        problems.is_empty(),
        "tests/peers/explained.tsv:\n{}",
        problems.join("\n")
    );
    Ok(page::render(&compared))
}

/// The page as it was committed.
pub fn committed(repo: &Path) -> anyhow::Result<String> {
    let path = repo.join(PAGE);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// The part of the page that a terminal has room for.
pub fn tables(page: &str) -> &str {
    let end = page.find("\n## Missed").unwrap_or(page.len());
    page.get(..end).unwrap_or(page)
}

/// What the detector opens for this log.
fn replay(detector: &Path, log: &[u8]) -> anyhow::Result<Vec<Said>> {
    let mut child = Command::new(detector)
        .args(["replay", "-o", "json", "-"])
        .env_remove("NODEMEND_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(|| format!("start {}", detector.display()))?;
    let mut stdin = child.stdin.take().context("reach its standard input")?;
    // All of it fits into the pipe: the longest case has some 10 kB.
    stdin.write_all(log).context("write the log to it")?;
    drop(stdin);
    let output = child.wait_with_output().context("wait for it")?;
    if !output.status.success() {
        bail!("it failed ({})", output.status);
    }
    verdict::said(&String::from_utf8(output.stdout).context("read what it said")?)
}
