//! Each gate taken out in turn: its example in docs/simulate.md must then fail.

use std::path::PathBuf;

use super::super::gate::{GATES, REMOVED};
use super::*;
use crate::simulate;

/// What cannot come about in a simulation; `gates.rs` closes each of them alone.
const NOT_SIMULATED: [Gate; 2] = [Gate::Unreadable, Gate::Denied];

fn repo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The file that the table of the gates links to.
fn example(page: &str, gate: Gate) -> Option<String> {
    let row = format!("| `{gate:?}` |");
    let row = page.lines().find(|line| line.starts_with(&row))?;
    let (_, link) = row.split_once("](../")?;
    let (path, _) = link.split_once(')')?;
    Some(std::fs::read_to_string(repo().join(path)).unwrap())
}

#[test]
fn without_a_gate_its_example_fails() {
    let page = std::fs::read_to_string(repo().join("docs/simulate.md")).unwrap();
    for gate in GATES {
        let Some(text) = example(&page, gate) else {
            assert!(NOT_SIMULATED.contains(&gate), "{gate:?} has no example");
            continue;
        };
        let run = || simulate::simulate(&text).map(|report| report.is_as_expected());
        assert!(run().unwrap(), "{gate:?}: its example fails as it is");
        REMOVED.set(Some(gate));
        let without = run();
        REMOVED.set(None);
        assert!(
            !without.unwrap_or_default(),
            "nothing is wrong without {gate:?}"
        );
    }
}
