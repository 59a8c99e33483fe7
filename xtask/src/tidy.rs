//! Rules of the house that no lint knows: what a PURE file may import, and what never lands.

use std::fs;
use std::path::{Path, PathBuf};

/// I/O, clocks and logging: what decides takes inputs and `now`, and returns a decision.
const FORBIDDEN_IN_PURE: &[&str] = &[
    "use tokio",
    "tokio::",
    "kube::Client",
    "kube::Api",
    "kube::client",
    "aws_",
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "tracing::",
    "Instant::now",
    "Timestamp::now",
    "SystemTime",
    "thread::",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for member in [
        "detector-ebpf/src",
        "detector/src",
        "repairer/src",
        "xtask/src",
        "tests/src",
        "tests/tests",
        "tests/nvml/src",
    ] {
        sources(&crate::repo().join(member), &mut found);
    }
    found
}

#[test]
fn pure_files_do_no_io_and_read_no_clock() {
    let mut pure = 0;
    for path in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        if !text.starts_with("//! PURE.") {
            continue;
        }
        pure += 1;
        // Tests below the code may do what they like.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            for word in FORBIDDEN_IN_PURE {
                assert!(
                    !line.contains(word),
                    "{}: PURE, but has `{word}`: {line}",
                    path.display()
                );
            }
        }
    }
    assert!(
        pure > 5,
        "only {pure} PURE files found: the marker `//! PURE.` is the first line of each"
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//! "),
            "{}: begin with a `//!` line that says what the file is for",
            path.display()
        );
    }
}
