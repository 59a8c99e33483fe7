//! PURE. A breaker that opens again does so half way: one repair, more with each success, one again
//! after a failure. Or all that have piled up behind it would start at once.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::history::width;
use super::tally::group_of;
use super::{Planner, count};
use crate::api::policy::{Breaker, RepairPolicy};
use crate::api::repair::{Gate, NodeRepair};
use crate::cluster::NodeView;

/// Of one policy; more would make its status long.
const MOST_BREAKERS: usize = 32;
/// The scope of a gate that is about all nodes of a policy.
const ALL: &str = "*";

/// One breaker as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) gate: Gate,
    /// The group, the zone, or `*`.
    pub(super) scope: String,
    pub(super) closed_since: Timestamp,
    pub(super) reopened: Option<Timestamp>,
    pub(super) width: u32,
    /// Until when the next repair waits, after one has failed.
    pub(super) not_before: Option<Timestamp>,
}

/// What a breaker's scope is.
enum Kind {
    Group,
    Zone,
    All,
}

impl Pace {
    fn kind(&self) -> Kind {
        if self.gate == Gate::Partition {
            Kind::All
        } else if self.gate == Gate::ZoneShare {
            Kind::Zone
        } else {
            Kind::Group
        }
    }

    pub(super) fn status(&self) -> Breaker {
        Breaker {
            group: self.scope.clone(),
            gate: self.gate,
            closed_since: MicroTime(self.closed_since),
            reopened: self.reopened.map(MicroTime),
            width: self.width,
        }
    }

    fn has(&self, repair: &NodeRepair) -> bool {
        let status = repair.status.as_ref();
        let place = match self.kind() {
            Kind::Zone => status.and_then(|status| status.zone.as_deref()),
            Kind::All => Some(ALL),
            Kind::Group => status.and_then(|status| status.counted_in()),
        };
        place == Some(self.scope.as_str())
    }
}

impl Planner<'_> {
    /// What the policy's breakers are now, going by what they were and what has been proven since.
    pub(super) fn paces(&self, policy: &RepairPolicy) -> Vec<Pace> {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let before = policy.status.iter().flat_map(|status| &status.breakers);
        let before: Vec<_> = before.collect();
        let known = |gate: Gate, scope: &str| {
            before
                .iter()
                .find(|known| known.gate == gate && known.group == scope)
        };
        let closed = self.closed(policy, name);
        let mut paces: Vec<_> = closed
            .iter()
            .map(|(gate, scope)| {
                let closed = known(*gate, scope).filter(|known| known.reopened.is_none());
                Pace {
                    gate: *gate,
                    scope: scope.clone(),
                    closed_since: closed.map_or(self.now, |known| known.closed_since.0),
                    reopened: None,
                    width: 0,
                    not_before: None,
                }
            })
            .collect();
        for known in before {
            let is_closed =
                |(gate, scope): &(Gate, String)| *gate == known.gate && *scope == known.group;
            if closed.iter().any(is_closed) {
                continue;
            }
            let reopened = known.reopened.as_ref().map_or(self.now, |at| at.0);
            let mut pace = Pace {
                gate: known.gate,
                scope: known.group.clone(),
                closed_since: known.closed_since.0,
                reopened: Some(reopened),
                width: 1,
                not_before: None,
            };
            let proofs = self.history.proofs(name, reopened);
            let proven = width(proofs.filter(|proof| pace.has(proof.repair)));
            pace.width = proven.width;
            pace.not_before = proven.not_before;
            let wide = proven.successes > 0 && proven.width as usize >= self.parallel_of(policy);
            if !wide && self.is_sick(&pace, name) {
                paces.push(pace);
            }
        }
        paces.truncate(MOST_BREAKERS);
        paces
    }

    /// The gates that stop more than one node, closed now.
    fn closed(&self, policy: &RepairPolicy, name: &str) -> Vec<(Gate, String)> {
        let spec = &policy.spec;
        let groups = self.tally.groups(name);
        let groups = groups.filter(|(_, g)| count::exceeded(&spec.unhealthy_threshold, g.share));
        let zones = self.tally.zones(name);
        let zones = zones.filter(|(_, share)| count::zone_exceeded(&spec.zones, *share));
        let partition = self.partitions.get(name);
        let all = partition.map(|_| (Gate::Partition, ALL.to_owned()));
        let groups = groups.map(|(group, _)| (Gate::UnhealthyThreshold, group.to_owned()));
        let zones = zones.map(|(zone, _)| (Gate::ZoneShare, zone.to_owned()));
        all.into_iter().chain(groups).chain(zones).collect()
    }

    /// Whether there is anything left to be careful about.
    fn is_sick(&self, pace: &Pace, policy: &str) -> bool {
        let unhealthy = match pace.kind() {
            Kind::Zone => self.tally.zone(policy, &pace.scope).unhealthy,
            Kind::All => self.tally.counts(policy).bad,
            Kind::Group => self
                .tally
                .group(policy, &pace.scope)
                .map_or(0, |group| group.share.unhealthy),
        };
        unhealthy > 0
    }

    /// Those that have opened again and that a node falls under.
    pub(super) fn breakers_of(&self, policy: &RepairPolicy, node: &NodeView) -> Vec<Pace> {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let group = group_of(self.cluster, node, policy);
        let paces = self.breakers.get(name).map_or(&[][..], Vec::as_slice);
        let of_node = |pace: &&Pace| {
            let scope = Some(pace.scope.as_str());
            pace.reopened.is_some()
                && match pace.kind() {
                    Kind::Zone => node.zone() == scope,
                    Kind::All => true,
                    Kind::Group => group == scope,
                }
        };
        paces.iter().filter(of_node).cloned().collect()
    }

    /// Repairs under way in the scope of a breaker, but for one.
    pub(super) fn busy_in(&self, pace: &Pace, policy: &str, except: &str) -> usize {
        let busy = self.in_progress.get(policy).into_iter().flatten();
        busy.filter(|name| *name != except)
            .filter_map(|name| self.cluster.repairs.get(name))
            .filter(|repair| pace.has(repair))
            .count()
    }
}
