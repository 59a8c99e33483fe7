//! PURE. What `explain` says of a node: its episodes, its repair, and every gate with its numbers.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::policy::RepairAction;
use crate::api::repair::{Gate, Outcome, Phase};
use crate::cluster::{Cluster, NodeView};
use crate::decide::{self, State, Verdict};
use crate::episode::Episodes;
use crate::rule::{Assigned, Choice};

#[derive(Debug, Serialize)]
pub struct Shown {
    pub node: String,
    /// Its policy; several, where none of them wins.
    pub policies: Vec<String>,
    pub episodes: Vec<ShownEpisode>,
    pub repair: Option<ShownRepair>,
    /// The first closed gate.
    pub held: Option<Gate>,
    pub gates: Vec<Verdict>,
}

#[derive(Debug, Serialize)]
pub struct ShownEpisode {
    pub condition: String,
    pub reasons: Vec<String>,
    pub since: Timestamp,
    pub recovered: Option<Timestamp>,
    pub flaps: u32,
    /// False: the policy says to leave it alone.
    pub acts: bool,
}

#[derive(Debug, Serialize)]
pub struct ShownRepair {
    pub name: String,
    pub phase: Phase,
    pub action: Option<RepairAction>,
    pub outcome: Option<Outcome>,
    pub last: String,
}

pub fn node(cluster: &Cluster, episodes: &Episodes, node: &NodeView, now: Timestamp) -> Shown {
    let assigned = Assigned::of(cluster);
    let policies = match assigned.choice(node) {
        Choice::None => Vec::new(),
        Choice::One(policy) => policy.metadata.name.iter().cloned().collect(),
        Choice::Tie(names) => names.clone(),
    };
    let gates = decide::explain(cluster, episodes, node, now);
    let closed = |verdict: &&Verdict| verdict.state == State::Closed;
    let mut open: Vec<_> = episodes.all_of(&node.uid).collect();
    open.sort_by_key(|episode| episode.since);
    let episodes = open.into_iter().map(|episode| ShownEpisode {
        condition: episode.condition.clone(),
        reasons: episode
            .reasons
            .iter()
            .map(|seen| seen.reason.clone())
            .collect(),
        since: episode.since,
        recovered: episode.recovered,
        flaps: episode.flaps,
        acts: episode.acts,
    });
    let repair = cluster.open_repair(&node.uid).map(|(name, repair)| {
        let status = repair.status.clone().unwrap_or_default();
        ShownRepair {
            name: name.clone(),
            phase: status.phase,
            action: status.action,
            outcome: status.outcome,
            last: status
                .timeline
                .last()
                .map(|entry| entry.event.clone())
                .unwrap_or_default(),
        }
    });
    Shown {
        node: node.name.clone(),
        policies,
        episodes: episodes.collect(),
        repair,
        held: gates.iter().find(closed).map(|verdict| verdict.gate),
        gates,
    }
}

impl Shown {
    /// Nothing that a policy would act on.
    pub fn is_well(&self) -> bool {
        self.repair.is_none() && !self.episodes.iter().any(|episode| episode.acts)
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let policies = match self.policies.as_slice() {
            [] => "none selects it".to_owned(),
            names => names.join(", "),
        };
        let _ = writeln!(out, "Node    {}\nPolicy  {policies}", self.node);
        match &self.repair {
            None => out.push_str("Repair  none\n"),
            Some(repair) => {
                let _ = writeln!(
                    out,
                    "Repair  {}: {:?}, {}",
                    repair.name, repair.phase, repair.last
                );
            }
        }
        for episode in &self.episodes {
            let mut more = String::new();
            if let Some(recovered) = episode.recovered {
                let _ = write!(more, ", healthy again since {recovered}");
            }
            if episode.flaps > 0 {
                let _ = write!(more, ", has come back {} times", episode.flaps);
            }
            if !episode.acts {
                more.push_str(", which the policy leaves alone");
            }
            let reasons = episode.reasons.join(", ");
            let (condition, since) = (&episode.condition, episode.since);
            let _ = writeln!(out, "Episode {condition} ({reasons}) since {since}{more}");
        }
        if self.episodes.is_empty() {
            out.push_str("Episode none: every condition that a rule is about is well\n");
        }
        out.push_str("\nGates, as the next step is asked:\n");
        for verdict in &self.gates {
            let state = match verdict.state {
                State::Open => "open",
                State::Closed => "CLOSED",
                State::Overridden => "overridden",
                State::NotAsked => "not asked",
            };
            let gate = format!("{:?}", verdict.gate);
            let _ = writeln!(out, "  {gate:<19} {state:<10} {}", verdict.message);
            if !verdict.opens.is_empty() {
                let _ = writeln!(out, "  {:<30} opens: {}", "", verdict.opens);
            }
        }
        match self.held {
            _ if self.is_well() => out.push_str("\nThere is nothing to repair.\n"),
            Some(gate) => {
                let _ = writeln!(out, "\nHeld by {gate:?}.");
            }
            None => out.push_str("\nNothing holds it.\n"),
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::{self, SICK_SINCE, at, sick_cluster};

    #[test]
    fn every_gate_is_told_with_its_numbers() {
        let mut cluster = sick_cluster();
        fixture::add_repair(&mut cluster, "node-0", Phase::Waiting, SICK_SINCE);
        fixture::make_sick(&mut cluster, "node-1");
        let episodes = fixture::episodes_since(&cluster, SICK_SINCE);
        let now = at(SICK_SINCE + 1700);
        let shown = node(&cluster, &episodes, &cluster.nodes["node-0"], now);
        assert!(!shown.is_well());
        insta::assert_snapshot!(shown.text());
    }

    #[test]
    fn a_healthy_node_is_nothing_to_repair() {
        let cluster = fixture::cluster(3);
        let episodes = fixture::episodes_since(&cluster, 0);
        let shown = node(&cluster, &episodes, &cluster.nodes["node-0"], at(10));
        assert!(shown.is_well());
        assert!(
            shown.text().ends_with("There is nothing to repair.\n"),
            "{}",
            shown.text()
        );
    }
}
