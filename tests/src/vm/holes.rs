//! The faults that are known not to be seen, with the reason of each: `tests/vm/holes.tsv`. The list
//! may only shrink.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::ensure;

use super::{Outcome, Way};

/// Of a kernel, `*` being each of them, and a class; by which way it is not seen, and why.
pub struct Hole {
    kernel: String,
    class: String,
    way: String,
    why: String,
}

const FILE: &str = "tests/vm/holes.tsv";
const TEXT: &str = include_str!("../../vm/holes.tsv");

pub struct Holes(Vec<Hole>);

impl Holes {
    pub fn read() -> anyhow::Result<Self> {
        let hole = |line: &str| {
            let fields: Vec<_> = line.split('\t').collect();
            let [kernel, class, way, why] = fields.as_slice() else {
                anyhow::bail!("{FILE}: {line:?} is not kernel, class, way, why");
            };
            ensure!(
                ["hooks", "log", "both"].contains(way),
                "{FILE}: {way} is not hooks, log or both"
            );
            Ok(Hole {
                kernel: (*kernel).to_owned(),
                class: (*class).to_owned(),
                way: (*way).to_owned(),
                why: (*why).to_owned(),
            })
        };
        TEXT.lines()
            .skip(1)
            .map(hole)
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    pub fn all(&self) -> impl Iterator<Item = &Hole> {
        self.0.iter()
    }

    pub fn of(&self, kernel: &str, class: &str, way: Way) -> Option<&Hole> {
        self.0.iter().find(|hole| hole.is(kernel, class, way))
    }

    /// What is not seen and not listed, and what is listed and seen.
    pub fn differences(&self, kernel: &str, outcomes: &BTreeMap<String, Outcome>) -> Vec<String> {
        let mut differences = Vec::new();
        for (class, outcome) in outcomes {
            for way in [Way::Hooks, Way::Log] {
                let known = self.of(kernel, class, way);
                match (outcome.seen.get(&way), known) {
                    (None, None) => differences.push(format!(
                        "Linux {kernel}: {class} is not seen by {way:?}{}",
                        outcome
                            .missing
                            .as_ref()
                            .map(|why| format!(": {why}"))
                            .unwrap_or_default()
                    )),
                    (Some(seen), Some(hole)) => differences.push(format!(
                        "Linux {kernel}: {class} is seen by {way:?} ({}), though {FILE} says: {}",
                        seen.reason, hole.why
                    )),
                    (None, Some(_)) | (Some(_), None) => {}
                }
            }
        }
        differences
    }
}

impl fmt::Display for Hole {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = match self.kernel.as_str() {
            "*" => "every kernel",
            kernel => kernel,
        };
        let way = match self.way.as_str() {
            "hooks" => "without the log",
            "log" => "without hooks",
            _ => "at all",
        };
        write!(out, "{}, {way}, {kernel}: {}", self.class, self.why)
    }
}

impl Hole {
    fn is(&self, kernel: &str, class: &str, way: Way) -> bool {
        let ways = match way {
            Way::Hooks => ["hooks", "both"],
            Way::Log => ["log", "both"],
        };
        (self.kernel == "*" || self.kernel == kernel)
            && self.class == class
            && ways.contains(&self.way.as_str())
    }
}
