//! Every file of `tests/scenarios`: a policy, a cluster, a timeline and what must come of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use nodemend_repairer::simulate::{self, file::File};

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::from_args();
    let trials = files()?.into_iter().map(|path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Trial::test(name.into_owned(), move || check(&path))
    });
    let page = Trial::test("what_docs_simulate_md_names_is_there", named);
    libtest_mimic::run(&arguments, trials.chain([page]).collect()).exit();
}

/// Every file that the page links to, and every test that it names.
fn named() -> Result<(), Failed> {
    let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(repo.join("docs/simulate.md"))?;
    let tests = std::fs::read_to_string(repo.join("tests/tests/cluster/repairer.rs"))?;
    let missing =
        |what: &str| Err(format!("docs/simulate.md names {what}, which is not there").into());
    for link in page.split("](../").skip(1) {
        let path = link.split(')').next().unwrap_or_default();
        if !repo.join(path).exists() {
            return missing(path);
        }
    }
    for test in page.split("`repairer::").skip(1) {
        let name = test.split('`').next().unwrap_or_default();
        if !name.is_empty() && !tests.contains(&format!("\"repairer::{name}\"")) {
            return missing(name);
        }
    }
    Ok(())
}

fn files() -> anyhow::Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path);
        }
    }
    files.sort();
    ensure!(
        files.len() >= 20,
        "only {} scenarios in {}",
        files.len(),
        folder.display()
    );
    Ok(files)
}

fn check(path: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(path)?;
    let file = File::read(&text).map_err(|error| format!("{error:#}"))?;
    if file.expect.is_empty() {
        return Err("nothing is expected, so it cannot fail".into());
    }
    let report = simulate::simulate(&text).map_err(|error| format!("{error:#}"))?;
    if !report.is_as_expected() {
        return Err(report.text().into());
    }
    // The order of simultaneous events in the file has no meaning.
    let mut turned = file;
    turned.timeline.reverse();
    let again = simulate::run(&turned).map_err(|error| format!("{error:#}"))?;
    if again.text() != report.text() {
        return Err(format!("another order, another result:\n{}", again.text()).into());
    }
    Ok(())
}
