//! Writes the conditions: at once when a status changes, rarely otherwise, and under names of our own
//! where somebody else writes the same types.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tracing::{error, info, warn};

use super::event::Notice;
use super::foreign::{self, Coexistence, Foreign, Suspicion};
use super::retry::Retry;
use super::schedule::{self, Bucket, Due};
use super::wire::{self, Types};
use super::{Exporter, nanoseconds, random, says};
use crate::clock;
use crate::core::{Condition, Existing};
use crate::finding::Now;
use crate::reason::ConditionType;

/// A fleet that has waited for the same server is let in over this time.
const CATCH_UP: Duration = Duration::from_secs(5);
/// An agent that writes conditions does so at least this often, in terms of our own heartbeats.
const BEATS_OF_OTHERS: u32 = 4;

pub(super) struct Conditions {
    wanted: Option<Wanted>,
    written: Option<(Vec<Condition>, Duration)>,
    status_budget: Bucket,
    /// When the budget has room again.
    status_not_before: Duration,
    pub(super) retry: Retry,
    /// The part of the heartbeat's interval that passes before the next one.
    share: f64,
    /// None where another writer is and we refuse to write beside it.
    types: Option<Types>,
    /// The shared types that another writer has.
    contested: Vec<ConditionType>,
    /// Types to be taken off the Node with the next write: ours, but not to be written any more.
    gone: Vec<String>,
    /// What stands on the Node may not be what we wrote.
    disturbed: bool,
    suspicion: Suspicion,
}

struct Wanted {
    conditions: Vec<Condition>,
    fault: Option<Duration>,
    found: Now,
}

impl Conditions {
    pub(super) fn new(status_burst: u32) -> Self {
        Self {
            wanted: None,
            written: None,
            status_budget: Bucket::new(status_burst, Duration::from_secs(30)),
            status_not_before: Duration::ZERO,
            retry: Retry::default(),
            share: schedule::share(true, random()),
            types: Some(Types::Shared),
            contested: Vec::new(),
            gone: Vec::new(),
            disturbed: false,
            suspicion: Suspicion::default(),
        }
    }

    pub(super) fn want(&mut self, conditions: Vec<Condition>, fault: Option<Duration>, found: Now) {
        let last = self
            .wanted
            .as_ref()
            .map(|wanted| wanted.conditions.as_slice());
        if !wire::changed(last, &conditions).is_empty() {
            self.retry.hurry();
        }
        self.wanted = Some(Wanted {
            conditions,
            fault,
            found,
        });
    }

    /// What is ours of the shared types goes: a word that nobody renews would be a lie before long.
    fn take_back(&mut self, node: &Node) {
        self.gone = foreign::ours_alone(node)
            .into_iter()
            .filter(|kind| !self.contested.contains(kind))
            .map(|kind| kind.name().to_owned())
            .collect();
    }

    fn written(&self) -> &[Condition] {
        self.written
            .as_ref()
            .map(|(conditions, _)| conditions.as_slice())
            .unwrap_or_default()
    }

    /// The names of what was written and is watched no more.
    fn unwatched(&self, wanted: &[Condition], types: Types) -> Vec<String> {
        self.written()
            .iter()
            .map(|condition| condition.kind)
            .filter(|kind| wanted.iter().all(|condition| condition.kind != *kind))
            .map(|kind| types.name(kind).into_owned())
            .collect()
    }
}

impl Exporter {
    /// What stands on the Node, which nobody has answered for yet.
    pub(super) fn meet(&mut self, node: &Node) -> Vec<Existing> {
        self.node_says = Some(says::of(node));
        let now = clock::now();
        let alive = self.options.intervals.heartbeat * BEATS_OF_OTHERS;
        let alive = alive.max(Duration::from_secs(15 * 60));
        if let Some(foreign) = foreign::writer_before_us(node, now.wall, alive) {
            self.give_way(&foreign, node, now);
        } else {
            // From a time when there was another writer.
            self.conditions.gone = wire::own_types(node);
        }
        let shadow = self.conditions.types == Some(Types::Own);
        foreign::existing(node, shadow)
    }

    pub(super) fn conditions_due(&self, now: Duration) -> Option<(Due, Duration)> {
        let state = &self.conditions;
        let not_before = state.retry.not_before();
        if state.types.is_none() {
            return (!state.gone.is_empty()).then_some((Due::Text, not_before.max(now)));
        }
        let written = state
            .written
            .as_ref()
            .map(|(conditions, at)| (conditions.as_slice(), *at));
        let stands = !state.written().is_empty() || !state.gone.is_empty();
        let wanted = state
            .wanted
            .as_ref()
            .filter(|wanted| !wanted.conditions.is_empty() || stands)?;
        if state.disturbed && state.written.is_some() {
            return Some((Due::Text, not_before.max(now)));
        }
        let intervals = &self.options.intervals;
        let (due, at) = schedule::due(&wanted.conditions, written, intervals, state.share, now);
        let at = match due {
            Due::Status => at.max(state.status_not_before),
            Due::Text | Due::Heartbeat => at,
        };
        Some((due, at.max(not_before)))
    }

    pub(super) async fn write_conditions(&mut self) {
        let now = clock::now();
        let due = self.conditions_due(now.boot);
        let Some((due, _)) = due.filter(|&(_, at)| at <= now.boot) else {
            return;
        };
        let state = &mut self.conditions;
        let types = state.types.unwrap_or(Types::Shared);
        let (conditions, fault, found) = match (&state.wanted, state.types) {
            (Some(wanted), Some(_)) => (wanted.conditions.clone(), wanted.fault, wanted.found),
            (None, _) | (_, None) => (Vec::new(), None, now),
        };
        // A status that flaps must not become a stream of writes. The first write is free.
        let budgeted = due == Due::Status && state.written.is_some();
        if budgeted && let Err(at) = state.status_budget.take(now.boot) {
            state.status_not_before = at;
            return;
        }
        let mut gone = state.unwatched(&conditions, types);
        gone.extend(state.gone.iter().cloned());
        let patch = wire::patch(&conditions, types, &gone, now.wall, due != Due::Heartbeat);
        match self.connection.patch_node_status(patch).await {
            Ok(node) => {
                let state = &mut self.conditions;
                let waited = state.retry.was_long();
                state.retry.succeeded();
                state.share = schedule::share(waited || state.written.is_none(), random());
                state.gone.clear();
                state.disturbed = false;
                let exported = clock::now();
                for condition in wire::changed(
                    state.written.as_ref().map(|(last, _)| last.as_slice()),
                    &conditions,
                ) {
                    info!(
                        kind = "condition",
                        condition = %types.name(condition.kind),
                        status = wire::status(condition.healthy),
                        reason = %condition.reason,
                        fault_ns = fault.map(nanoseconds),
                        found_ns = nanoseconds(found.boot),
                        exported_ns = nanoseconds(exported.boot),
                        "exported"
                    );
                    let latency = fault.map(|fault| exported.boot.saturating_sub(fault));
                    self.metrics.exported("condition", latency);
                }
                self.metrics.wrote_conditions(exported);
                let state = &mut self.conditions;
                state.written = Some((conditions, exported.boot));
                if waited {
                    let spread = CATCH_UP.mul_f64(random());
                    self.events.retry.not_later_than(exported.boot + spread);
                }
                self.read_answer(&node, due, exported);
            }
            Err(refusal) => {
                let state = &mut self.conditions;
                if budgeted {
                    state.status_budget.give_back();
                }
                let delay = state.retry.failed(clock::boot(), refusal.asked, random());
                self.connection
                    .complain("patch status of Node", &refusal.error, delay);
            }
        }
    }

    /// Who else was there since our last write.
    fn read_answer(&mut self, node: &Node, due: Due, now: Now) {
        self.node_says = Some(says::of(node));
        let uid = node.metadata.uid.clone().unwrap_or_default();
        if uid != self.uid {
            info!(node = self.options.node, uid, "the Node was created again");
            self.uid = uid;
            // A heartbeat has no messages.
            self.conditions.disturbed = due == Due::Heartbeat;
            return;
        }
        if self.conditions.types == Some(Types::Own) {
            // The other writes the whole list: it can bring back what we have taken away.
            self.conditions.take_back(node);
            self.conditions.disturbed = !self.conditions.gone.is_empty();
            return;
        }
        if due != Due::Heartbeat {
            return;
        }
        let Some(foreign) = foreign::words_of_others(node, self.conditions.written()) else {
            return;
        };
        let window = self.options.intervals.heartbeat * BEATS_OF_OTHERS;
        if !foreign.is_a_person() && self.conditions.suspicion.confirmed(now.boot, window) {
            self.give_way(&foreign, node, now);
        } else {
            warn!(
                conditions = names(&foreign),
                manager = foreign.manager.as_deref(),
                "conditions of this agent were changed by somebody else; they are written again"
            );
            self.conditions.disturbed = true;
        }
    }

    /// From here on the shared types are the other's.
    fn give_way(&mut self, foreign: &Foreign, node: &Node, now: Now) {
        let who = foreign.manager.as_deref().unwrap_or("another writer");
        let what = match self.options.coexistence {
            Coexistence::Shadow => {
                "nodemend leaves these types to it and writes NodemendKernelReady and so on"
            }
            Coexistence::Refuse => {
                "nodemend writes no conditions on this node (--coexistence=refuse); its Events and metrics go on"
            }
        };
        let note = format!(
            "{who} also writes {} of this node: {what}. Remove one of the two agents.",
            names(foreign)
        );
        error!(manager = foreign.manager.as_deref(), "{note}");
        let state = &mut self.conditions;
        state.contested.clone_from(&foreign.kinds);
        state.take_back(node);
        state.types = match self.options.coexistence {
            Coexistence::Shadow => Some(Types::Own),
            Coexistence::Refuse => None,
        };
        state.written = None;
        state.disturbed = false;
        self.metrics.foreign_writer(self.options.coexistence);
        self.notice(Notice {
            reason: "ForeignConditionWriter",
            note,
            at: now,
        });
    }
}

fn names(foreign: &Foreign) -> String {
    let names: Vec<_> = foreign.kinds.iter().map(|kind| kind.name()).collect();
    names.join(", ")
}
