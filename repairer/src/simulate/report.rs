//! PURE. What a simulation tells: every decision when it changes, and what was expected of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::file::{Expectation, File};
use crate::api::duration::Wait;
use crate::api::repair::{Gate, NodeRepairStatus, Outcome, Phase};
use crate::cluster::Cluster;

/// One change of what is decided about one node.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Since the start.
    pub at: Wait,
    pub node: String,
    pub repair: String,
    /// `unhealthy`, `held`, `phase`, `cordoned`, `evicted`, `terminated` ...
    pub event: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<Gate>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub opens: String,
}

impl Line {
    pub fn new(at: Duration, node: String, repair: String, event: &str, message: String) -> Self {
        Self {
            at: Wait(at),
            node,
            repair,
            event: event.to_owned(),
            message,
            gate: None,
            behind: Vec::new(),
            values: BTreeMap::new(),
            opens: String::new(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub about: String,
    pub lines: Vec<Line>,
    pub outcomes: Vec<End>,
    /// Nodes whose instance was terminated, in order.
    pub destroyed: Vec<String>,
    pub expected: usize,
    /// What was expected and is not so.
    pub failures: Vec<String>,
    /// What must hold in every simulation and did not.
    pub broken: Vec<String>,
}

/// How one repair stands in the end.
#[derive(Clone, Debug, Serialize)]
pub struct End {
    pub node: String,
    pub repair: String,
    pub phase: Phase,
    pub outcome: Option<Outcome>,
    pub gate: Option<Gate>,
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub opens: String,
}

impl Report {
    pub fn new(file: &File) -> Self {
        Self {
            about: file.about.trim().to_owned(),
            lines: Vec::new(),
            outcomes: Vec::new(),
            destroyed: Vec::new(),
            expected: 0,
            failures: Vec::new(),
            broken: Vec::new(),
        }
    }

    pub fn line(&mut self, line: Line) {
        self.lines.push(line);
    }

    pub fn broken(&mut self, at: Duration, what: String) {
        self.broken.push(format!("at {}: {what}", Wait(at)));
    }

    pub fn expected(&mut self, expectation: &Expectation, failures: Vec<String>) {
        self.expected += 1;
        let at = expectation
            .at
            .map_or("the end".to_owned(), |at| at.to_string());
        let about = expectation
            .node
            .as_deref()
            .or(expectation.policy.as_deref());
        let about = about.map(|about| format!(", {about}")).unwrap_or_default();
        let told = failures
            .into_iter()
            .map(|said| format!("at {at}{about}: {said}"));
        self.failures.extend(told);
    }

    pub fn end(&mut self, cluster: &Cluster, destroyed: &[String]) {
        destroyed.clone_into(&mut self.destroyed);
        for (name, repair) in &cluster.repairs {
            let status = repair.status.clone().unwrap_or_default();
            let hold = status.hold.as_ref();
            let last = status.timeline.last().map(|entry| entry.event.as_str());
            let last = match status.outcome {
                Some(outcome) => without(last.unwrap_or_default(), &format!("{outcome:?}")),
                None => last.unwrap_or_default().to_owned(),
            };
            self.outcomes.push(End {
                node: repair.spec.node_ref.name.clone(),
                repair: name.clone(),
                phase: status.phase,
                outcome: status.outcome,
                gate: hold.map(|hold| hold.gate),
                message: hold.map_or(last, |hold| hold.message.clone()),
                opens: hold.map(|hold| hold.opens.clone()).unwrap_or_default(),
            });
        }
    }

    pub fn is_as_expected(&self) -> bool {
        self.failures.is_empty() && self.broken.is_empty()
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        if !self.about.is_empty() {
            let _ = writeln!(out, "{}\n", self.about);
        }
        for line in &self.lines {
            let at = format!("T+{}", line.at);
            let what = match line.gate {
                Some(gate) => format!("held by {gate:?}"),
                None => line.event.clone(),
            };
            let _ = writeln!(
                out,
                "{at:<12} {:<12} {what}{}",
                line.node,
                after(&line.message)
            );
            if !line.behind.is_empty() {
                let _ = writeln!(out, "{:<25} behind it: {:?}", "", line.behind);
            }
        }
        let _ = writeln!(out, "\nIn the end:");
        for end in &self.outcomes {
            let state = match (end.outcome, end.gate) {
                (Some(outcome), _) => format!("{outcome:?}"),
                (None, Some(gate)) => format!("{:?}, held by {gate:?}", end.phase),
                (None, None) => format!("{:?}", end.phase),
            };
            let _ = writeln!(out, "  {:<12} {state}{}", end.node, after(&end.message));
            if !end.opens.is_empty() {
                let _ = writeln!(out, "  {:<12} opens: {}", "", end.opens);
            }
        }
        if self.outcomes.is_empty() {
            let _ = writeln!(out, "  no repair");
        }
        let destroyed = match self.destroyed.join(", ") {
            none if none.is_empty() => "none".to_owned(),
            some => some,
        };
        let _ = writeln!(out, "Destroyed: {destroyed}");
        if self.expected > 0 {
            let met = self.expected;
            let _ = match self.failures.len() {
                0 => writeln!(out, "As expected: {met} of {met}"),
                failures => writeln!(out, "Not as expected, {failures} times:"),
            };
        }
        for failure in &self.failures {
            let _ = writeln!(out, "  {failure}");
        }
        for broken in &self.broken {
            let _ = writeln!(out, "BROKEN {broken}");
        }
        out
    }
}

/// The timeline says the outcome in front of its reason.
fn without(event: &str, outcome: &str) -> String {
    let rest = event
        .strip_prefix(outcome)
        .and_then(|rest| rest.strip_prefix(": "));
    rest.unwrap_or(event).to_owned()
}

fn after(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

/// What a person would want to see of a new status.
pub fn changes(
    at: Duration,
    node: &str,
    repair: &str,
    before: &NodeRepairStatus,
    status: &NodeRepairStatus,
) -> Vec<Line> {
    let line = |event: &str, message: String| {
        Line::new(at, node.to_owned(), repair.to_owned(), event, message)
    };
    let mut lines = Vec::new();
    let last = status.timeline.last().map(|entry| entry.event.clone());
    if let Some(outcome) = status.outcome.filter(|_| before.outcome.is_none()) {
        let word = format!("{outcome:?}");
        let message = without(&last.unwrap_or_default(), &word);
        lines.push(line(&word, message));
        return lines;
    }
    if before.phase != status.phase {
        lines.push(line(&format!("{:?}", status.phase), String::new()));
    }
    if before.action != status.action
        && let Some(action) = status.action
        && before.action.is_some()
    {
        let reason = status.reasons.first().map(|reason| &reason.reason);
        let message = format!("{action:?}, by {}", reason.map_or("", String::as_str));
        lines.push(line("action", message));
    }
    if before.shadow != status.shadow && status.shadow.is_some() {
        lines.push(line("shadow", last.unwrap_or_default()));
    }
    let gate = |status: &NodeRepairStatus| {
        let hold = status.hold.as_ref();
        hold.map(|hold| (hold.gate, hold.behind.clone()))
    };
    if let Some(hold) = status
        .hold
        .as_ref()
        .filter(|_| gate(before) != gate(status))
    {
        lines.push(Line {
            gate: Some(hold.gate),
            behind: hold.behind.clone(),
            values: hold.values.clone(),
            opens: hold.opens.clone(),
            ..line("held", hold.message.clone())
        });
    }
    lines
}
