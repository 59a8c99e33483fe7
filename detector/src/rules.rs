//! PURE. Custom log rules: which lines of which log mean which fault. Patterns are regular
//! expressions of the regex crate (RE2's style): a line takes time in proportion to its length.

use std::collections::{BTreeMap, BTreeSet};

use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};

use crate::host_log;
use crate::reason::{ConditionType, Reason};
use crate::signal::What;
use crate::text;

/// Where a line came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Lines of the kernel itself; whoever writes to /dev/kmsg has another facility.
    KernelLog,
    Journal {
        unit: String,
    },
    File {
        path: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogRule {
    pub name: String,
    pub origin: Origin,
    pub pattern: String,
    pub reason: &'static str,
    pub condition: ConditionType,
}

impl LogRule {
    pub(crate) fn reason(&self) -> Reason {
        Reason::Custom {
            name: self.reason,
            condition: self.condition,
        }
    }
}

/// Which logs this agent reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub kernel_log: bool,
    pub files: bool,
    pub journal: bool,
}

/// The rules, compiled: one pass over a line for all that look at its log.
#[derive(Debug, Default)]
pub(crate) struct LogRules {
    rules: Vec<LogRule>,
    by_origin: BTreeMap<Origin, Group>,
    /// With what nodemend itself knows of the host's logs ([`host_log`]).
    host_logs: bool,
}

#[derive(Debug)]
struct Group {
    set: RegexSet,
    /// Of each pattern of the set.
    rules: Vec<usize>,
}

/// A pattern that is larger when compiled is a mistake: `\w{1000}`.
const PATTERN_SIZE: usize = 256 << 10;
const SET_SIZE: usize = 16 << 20;
/// For the states that have been visited; a set that needs more starts anew, still in linear time.
const CACHE_SIZE: usize = 2 << 20;
const LINE_SHOWN: usize = 256;

/// As systemd names it: `kubelet` is `kubelet.service`.
pub(crate) fn unit_name(name: &str) -> String {
    const TYPES: [&str; 11] = [
        "service",
        "socket",
        "device",
        "mount",
        "automount",
        "swap",
        "target",
        "path",
        "timer",
        "slice",
        "scope",
    ];
    match name.rsplit_once('.') {
        Some((_, kind)) if TYPES.contains(&kind) => name.to_owned(),
        _ => format!("{name}.service"),
    }
}

pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    let regex = RegexBuilder::new(pattern)
        .size_limit(PATTERN_SIZE)
        .build()
        .map_err(|error| explain(&error))?;
    if regex.is_match(b"") {
        return Err("matches every line".to_owned());
    }
    Ok(())
}

/// The last line of a syntax error says what is wrong; those before draw a picture of where.
fn explain(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "larger than a pattern may be when compiled".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!(
                "not a regular expression: {}",
                last.trim_start_matches("error: ")
            )
        }
    }
}

impl LogRules {
    pub(crate) fn new(rules: Vec<LogRule>) -> Result<Self, String> {
        let mut groups: BTreeMap<Origin, Vec<usize>> = BTreeMap::new();
        for (index, rule) in rules.iter().enumerate() {
            groups.entry(rule.origin.clone()).or_default().push(index);
        }
        let mut by_origin = BTreeMap::new();
        for (origin, indices) in groups {
            let patterns = indices.iter().map(|&index| rules[index].pattern.as_str());
            let set = RegexSetBuilder::new(patterns)
                .size_limit(SET_SIZE)
                .dfa_size_limit(CACHE_SIZE)
                .build()
                .map_err(|error| explain(&error))?;
            by_origin.insert(
                origin,
                Group {
                    set,
                    rules: indices,
                },
            );
        }
        Ok(Self {
            rules,
            by_origin,
            host_logs: false,
        })
    }

    pub(crate) fn with_host_logs(mut self) -> Self {
        self.host_logs = true;
        self
    }

    /// What this line means: one for each rule that it fits.
    pub(crate) fn read(&self, origin: &Origin, line: &[u8]) -> Vec<What> {
        let own = self.host_logs.then(|| host_log::read(origin, line));
        let own = own.flatten().into_iter();
        let Some(group) = self.by_origin.get(origin) else {
            return own.collect();
        };
        let log = match origin {
            Origin::KernelLog => None,
            Origin::Journal { unit } => Some(unit.clone()),
            Origin::File { path } => Some(path.clone()),
        };
        let what = |pattern: usize| {
            let rule = &self.rules[group.rules[pattern]];
            What::LogRule {
                rule: rule.name.clone(),
                reason: rule.reason,
                condition: rule.condition,
                log: log.clone(),
                // The separator of a condition's parts, which the next agent reads.
                line: text::part(line, LINE_SHOWN),
            }
        };
        own.chain(group.set.matches(line).into_iter().map(what))
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &LogRule> {
        self.rules.iter()
    }

    pub(crate) fn reasons(&self) -> impl Iterator<Item = &'static str> {
        self.rules.iter().map(|rule| rule.reason)
    }

    pub(crate) fn files(&self) -> BTreeSet<&str> {
        let own = self.host_logs.then_some(host_log::FILES);
        self.asked_files()
            .chain(own.into_iter().flatten())
            .collect()
    }

    /// That a rule of the configuration names.
    pub(crate) fn asked_files(&self) -> impl Iterator<Item = &str> {
        self.by_origin.keys().filter_map(|origin| match origin {
            Origin::File { path } => Some(path.as_str()),
            Origin::KernelLog | Origin::Journal { .. } => None,
        })
    }

    /// Of the journal.
    pub(crate) fn units(&self) -> BTreeSet<&str> {
        let own = self.host_logs.then_some(host_log::UNITS);
        self.asked_units()
            .chain(own.into_iter().flatten())
            .collect()
    }

    /// That a rule of the configuration names.
    pub(crate) fn asked_units(&self) -> impl Iterator<Item = &str> {
        self.by_origin.keys().filter_map(|origin| match origin {
            Origin::Journal { unit } => Some(unit.as_str()),
            Origin::KernelLog | Origin::File { .. } => None,
        })
    }

    /// The conditions that some rule looks after whose log is read; kubelet's and the runtime's lines
    /// are in the journal.
    pub(crate) fn conditions(&self, live: Live) -> BTreeSet<ConditionType> {
        let watched = self
            .rules
            .iter()
            .filter(|rule| rule.unwatched(live).is_none());
        let own = (self.host_logs && live.journal).then_some(ConditionType::ContainerRuntimeReady);
        watched.map(|rule| rule.condition).chain(own).collect()
    }
}

impl LogRule {
    /// Why no line will ever come to it, if so.
    pub(crate) fn unwatched(&self, live: Live) -> Option<&'static str> {
        match self.origin {
            Origin::KernelLog => (!live.kernel_log).then_some("the kernel log is not read"),
            Origin::File { .. } => (!live.files).then_some("no log file can be followed"),
            Origin::Journal { .. } => (!live.journal).then_some("the journal cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests;
