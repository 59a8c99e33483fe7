//! What AWS is asked, and when: of all instances once a minute, of those in a repair every second,
//! and what only matters to a repair only while there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::api::repair::{NodeRepair, Phase};
use crate::aws::{Aws, Managed};
use crate::clock;
use crate::cluster::{Asked, Checks, Cluster, InstanceView, LastFacts, Launches, NodeView};
use crate::owner::{CLUSTER_TAG, Owner};
use crate::unjoined::Members;

/// AWS is not asked more often than this.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
/// Which group a node that is well belongs to changes rarely.
const MEMBERSHIP_AGE: Duration = Duration::from_secs(60);
/// What stands against a repair is asked again before the call anyway.
const PENDING_AGE: Duration = Duration::from_secs(30);
/// Of the members of groups, while an instance that is no Node is to be replaced.
const UNJOINED_AGE: Duration = Duration::from_secs(5);
const CHECKS_AGE: Duration = Duration::from_secs(60);
/// After an error.
const AGAIN: Duration = Duration::from_secs(5);
/// ARC has not answered for so long: a person should know.
const ALARM: Duration = Duration::from_secs(600);

#[derive(Default)]
pub struct Survey {
    /// Given on the command line, or else the one that all instances name.
    pub eks_cluster: Option<String>,
    instances: BTreeMap<String, InstanceView>,
    /// When AWS was asked about every instance, and when about any.
    asked_all: Option<Instant>,
    asked: Option<Instant>,
    members: Option<Members>,
    members_asked: Option<Instant>,
    checks: Option<Checks>,
    checks_due: Option<Instant>,
    launches: BTreeMap<String, (Instant, Launches)>,
    last: BTreeMap<String, (Instant, LastFacts)>,
    shift: Shift,
}

#[derive(Default)]
struct Shift {
    /// By the cluster's name.
    arn: Option<(String, String)>,
    answer: Option<Result<BTreeSet<String>, String>>,
    due: Option<Instant>,
    /// Since when there has been no answer.
    silent: Option<Instant>,
    alarmed: bool,
}

impl Survey {
    pub fn new(eks_cluster: Option<String>) -> Self {
        Self {
            eks_cluster,
            ..Self::default()
        }
    }

    /// Adds what AWS says. What it has not said is unknown. Then tells when there is more to ask.
    pub async fn look(&mut self, aws: &Aws, cluster: &mut Cluster) -> Option<Duration> {
        let mut done = self.look_at_instances(aws, cluster).await;
        self.look_at_members(aws, cluster).await;
        if let Some(members) = &self.members {
            let mut unjoined = members.without_node(cluster);
            done &= unjoined.all(|member| self.instances.contains_key(member.id.as_str()));
        }
        cluster.instances.clone_from(&self.instances);
        cluster.members.clone_from(&self.members);
        cluster.see_unjoined();
        self.look_at_checks(aws, cluster).await;
        cluster.checks.clone_from(&self.checks);
        cluster.see_checks();
        self.look_at_pending(aws, cluster).await;
        let now = Instant::now();
        let members_due = self.members_asked.map(|at| at + members_age(cluster));
        let due = [self.checks_due, members_due, self.shift.due];
        let due = due.into_iter().flatten();
        let due = due.map(|at| at.saturating_duration_since(now).max(BETWEEN_QUESTIONS));
        due.chain((!done).then_some(BETWEEN_QUESTIONS)).min()
    }

    /// A look that is not whole changes nothing: what the last one said grows old.
    async fn look_at_members(&mut self, aws: &Aws, cluster: &Cluster) {
        if !cluster.wants_members() {
            (self.members, self.members_asked) = (None, None);
            return;
        }
        let age = members_age(cluster);
        if self.members_asked.is_some_and(|at| at.elapsed() < age) {
            return;
        }
        // Groups are known by their Nodes, when AWS has described those.
        let views = cluster.nodes.values().filter_map(|node| {
            let id = node.instance().ok()?;
            self.instances.get(id.as_str())
        });
        let groups: BTreeSet<_> = views.filter_map(|view| view.group.clone()).collect();
        if groups.is_empty() {
            return;
        }
        self.members_asked = Some(Instant::now());
        match aws.members(&groups).await {
            Ok(in_service) => {
                let at = clock::now();
                self.members = Some(Members { at, in_service });
            }
            Err(error) => {
                let error = format!("{error:#}");
                warn!(error, "which instances never became Nodes is not known");
            }
        }
    }

    async fn look_at_instances(&mut self, aws: &Aws, cluster: &Cluster) -> bool {
        let in_repair = cluster
            .repairs
            .values()
            .filter_map(|repair| repair.status.as_ref())
            .filter(|status| {
                matches!(
                    status.phase,
                    Phase::Draining | Phase::Rebooting | Phase::Replacing | Phase::Verifying
                )
            })
            .filter_map(|status| status.instance_id.clone());
        let in_repair: BTreeSet<_> = in_repair.collect();
        let members = self.members.iter();
        let unjoined = members.flat_map(|members| members.without_node(cluster));
        let all: BTreeSet<_> = instances_of(cluster)
            .chain(unjoined.map(|member| member.id.to_string()))
            .chain(in_repair.iter().cloned())
            .collect();
        self.instances.retain(|id, _| all.contains(id));

        let ask_all = self
            .asked_all
            .is_none_or(|at| at.elapsed() >= MEMBERSHIP_AGE);
        let ask: BTreeSet<_> = all
            .into_iter()
            .filter(|id| ask_all || in_repair.contains(id) || !self.instances.contains_key(id))
            .collect();
        let too_soon = self
            .asked
            .is_some_and(|at| at.elapsed() < BETWEEN_QUESTIONS);
        if ask.is_empty() || too_soon {
            return ask.is_empty();
        }
        self.asked = Some(Instant::now());
        match aws.describe(&ask).await {
            Ok(found) => {
                self.instances.extend(found);
                if ask_all {
                    self.asked_all = self.asked;
                }
                true
            }
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "AWS did not describe the instances: nothing is decided about them"
                );
                self.instances.retain(|id, _| !ask.contains(id));
                false
            }
        }
    }

    /// A scan that is not whole changes nothing: what the last one said grows old.
    async fn look_at_checks(&mut self, aws: &Aws, cluster: &Cluster) {
        if self.checks_due.is_some_and(|due| due > Instant::now())
            || instances_of(cluster).next().is_none()
        {
            return;
        }
        match aws.checks(clock::now()).await {
            Ok(checks) => {
                self.checks = Some(checks);
                // What is to be acted on has to be confirmed.
                let age = if pending(cluster).any {
                    PENDING_AGE
                } else {
                    CHECKS_AGE
                };
                self.checks_due = Some(Instant::now() + age);
            }
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "EC2 did not tell of its status checks: what it said before stands"
                );
                self.checks_due = Some(Instant::now() + AGAIN);
            }
        }
    }

    /// What only matters to a repair.
    async fn look_at_pending(&mut self, aws: &Aws, cluster: &mut Cluster) {
        let pending = pending(cluster);
        self.launches
            .retain(|group, _| pending.groups.contains_key(group));
        self.last.retain(|id, _| pending.doomed.contains(id));
        if !pending.any {
            self.shift = Shift {
                arn: self.shift.arn.take(),
                ..Shift::default()
            };
            return;
        }
        for (group, managed) in pending.groups {
            let fresh = self.launches.get(&group).is_some_and(|(at, launches)| {
                let age = if launches.unknown.is_some() {
                    AGAIN
                } else {
                    PENDING_AGE
                };
                at.elapsed() < age
            });
            if !fresh {
                let launches = launches(aws, &group, managed.as_ref()).await;
                self.launches.insert(group, (Instant::now(), launches));
            }
        }
        for id in pending.doomed {
            let fresh = self
                .last
                .get(&id)
                .is_some_and(|(at, _)| at.elapsed() < PENDING_AGE);
            let Some(view) = self.instances.get(&id).filter(|_| !fresh) else {
                continue;
            };
            match aws.last_facts(&id, &view.facts).await {
                Ok(last) => drop(self.last.insert(id, (Instant::now(), last))),
                // It is asked again before the call, and held there.
                Err(error) => warn!(
                    instance = id,
                    error = format!("{error:#}"),
                    "not all is known"
                ),
            }
        }
        let known = self.launches.iter();
        let known = known.map(|(group, (_, launches))| (group.clone(), launches.clone()));
        cluster.launches = Asked::Yes(known.collect());
        for (id, (_, last)) in &self.last {
            if let Some(view) = cluster.instances.get_mut(id) {
                view.facts.last = Some(last.clone());
            }
        }
        cluster.shifted = self.look_at_shift(aws, cluster).await;
    }

    async fn look_at_shift(
        &mut self,
        aws: &Aws,
        cluster: &mut Cluster,
    ) -> Asked<Result<BTreeSet<String>, String>> {
        cluster.eks_cluster = self.eks_cluster.clone().or_else(|| tagged_cluster(cluster));
        let Some(name) = cluster.eks_cluster.clone() else {
            return Asked::No;
        };
        let due = self.shift.due.is_none_or(|due| due <= Instant::now());
        if let Some(answer) = self.shift.answer.as_ref().filter(|_| !due) {
            return Asked::Yes(answer.clone());
        }
        let answer = self.ask_for_shift(aws, &name).await;
        let after = if answer.is_ok() { PENDING_AGE } else { AGAIN };
        self.shift.due = Some(Instant::now() + after);
        match &answer {
            Ok(_) => (self.shift.silent, self.shift.alarmed) = (None, false),
            Err(error) => {
                let since = *self.shift.silent.get_or_insert_with(Instant::now);
                warn!(
                    error,
                    "whether a zonal shift is on is not known: repairs are held"
                );
                if since.elapsed() >= ALARM && !self.shift.alarmed {
                    self.shift.alarmed = true;
                    error!(
                        error,
                        "ARC has not answered for {} s, and no repair goes on: mend its permission or its endpoint, or set zonalShift: Ignore",
                        since.elapsed().as_secs()
                    );
                }
            }
        }
        self.shift.answer = Some(answer.clone());
        Asked::Yes(answer)
    }

    async fn ask_for_shift(&mut self, aws: &Aws, name: &str) -> Result<BTreeSet<String>, String> {
        let text = |error: anyhow::Error| format!("{error:#}");
        let arn = match &self.shift.arn {
            Some((of, arn)) if of == name => arn.clone(),
            Some(_) | None => {
                let arn = aws.cluster_arn(name).await.map_err(text)?;
                self.shift.arn = Some((name.to_owned(), arn.clone()));
                arn
            }
        };
        aws.shifted(&arn, clock::now()).await.map_err(text)
    }
}

/// All that stands against the destruction of a node's instance, asked anew right before it. What
/// AWS does not answer now is an error.
pub async fn again(
    aws: &Aws,
    seen: &Cluster,
    cluster: &mut Cluster,
    node: &NodeView,
) -> anyhow::Result<()> {
    cluster.instances.clone_from(&seen.instances);
    cluster.launches.clone_from(&seen.launches);
    cluster.shifted.clone_from(&seen.shifted);
    cluster.checks.clone_from(&seen.checks);
    cluster.eks_cluster.clone_from(&seen.eks_cluster);
    let id = node.instance()?.to_string();
    cluster
        .instances
        .extend(aws.describe(&[id.clone()].into()).await?);
    // What ends an instance of Karpenter's is Karpenter's business.
    let karpenters = cluster.is_karpenters(node);
    if let Some(view) = cluster.instances.get_mut(&id).filter(|_| !karpenters) {
        view.facts.last = Some(aws.last_facts(&id, &view.facts).await?);
    }
    if let Some((group, managed)) = managed(cluster, node) {
        let launches = aws.launches(&group, managed.as_ref()).await?;
        let launches = launches.with_context(|| format!("Auto Scaling does not know {group}"))?;
        if let Asked::Yes(known) = &mut cluster.launches {
            known.insert(group, launches);
        } else {
            cluster.launches = Asked::Yes([(group, launches)].into());
        }
    }
    if let Some(name) = &cluster.eks_cluster {
        let arn = aws.cluster_arn(name).await?;
        cluster.shifted = Asked::Yes(Ok(aws.shifted(&arn, clock::now()).await?));
    }
    cluster.see_checks();
    Ok(())
}

/// What is to be acted on has to be confirmed.
fn members_age(cluster: &Cluster) -> Duration {
    let of_instance = |repair: &NodeRepair| {
        let status = repair.status.as_ref();
        repair.is_of_instance() && !status.is_some_and(|status| status.is_finished())
    };
    if cluster.repairs.values().any(of_instance) {
        UNJOINED_AGE
    } else {
        MEMBERSHIP_AGE
    }
}

async fn launches(aws: &Aws, group: &str, managed: Option<&Managed>) -> Launches {
    let unknown = match aws.launches(group, managed).await {
        Ok(Some(launches)) => return launches,
        Ok(None) => format!("Auto Scaling does not know {group}"),
        Err(error) => format!("{error:#}"),
    };
    warn!(
        group,
        error = unknown,
        "whether the group can launch instances is not known"
    );
    Launches {
        unknown: Some(unknown),
        ..Launches::default()
    }
}

fn instances_of(cluster: &Cluster) -> impl Iterator<Item = String> {
    let nodes = cluster.nodes.values();
    nodes.filter_map(|node| Some(node.instance().ok()?.to_string()))
}

#[derive(Default)]
struct Pending {
    any: bool,
    /// Of nodes in repair.
    groups: BTreeMap<String, Option<Managed>>,
    /// Instances on their way to a destruction.
    doomed: BTreeSet<String>,
}

fn pending(cluster: &Cluster) -> Pending {
    let mut pending = Pending::default();
    let open = cluster.repairs.values().filter(|repair| {
        !repair
            .status
            .as_ref()
            .is_some_and(|status| status.is_finished())
    });
    for repair in open {
        pending.any = true;
        let Some(node) = cluster.node_of(repair) else {
            continue;
        };
        pending.groups.extend(managed(cluster, node));
        let phase = repair.status.as_ref().map(|status| status.phase);
        if matches!(
            phase,
            Some(Phase::Waiting | Phase::Draining | Phase::Replacing)
        ) && let Ok(instance) = node.instance()
            && !cluster.is_karpenters(node)
        {
            pending.doomed.insert(instance.to_string());
        }
    }
    pending
}

/// The group of a node, and the managed node group above it.
fn managed(cluster: &Cluster, node: &NodeView) -> Option<(String, Option<Managed>)> {
    let view = cluster.instances.get(node.instance().ok()?.as_str());
    let Owner::Group {
        group, node_group, ..
    } = Owner::of(node, view)
    else {
        return None;
    };
    let of_tag = view.and_then(|view| view.facts.tags.get(CLUSTER_TAG).cloned());
    let cluster_name = of_tag.or_else(|| cluster.eks_cluster.clone());
    let managed = node_group
        .zip(cluster_name)
        .map(|(name, cluster)| Managed { cluster, name });
    Some((group, managed))
}

/// All managed node groups of the nodes.
pub fn node_groups(cluster: &Cluster) -> BTreeSet<Managed> {
    let nodes = cluster.nodes.values();
    nodes.filter_map(|node| managed(cluster, node)?.1).collect()
}

/// The one EKS cluster that the instances name in their tags.
fn tagged_cluster(cluster: &Cluster) -> Option<String> {
    let views = cluster.instances.values();
    let mut names: Vec<_> = views
        .filter_map(|view| view.facts.tags.get(CLUSTER_TAG))
        .collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [one] => Some((*one).clone()),
        _ => None,
    }
}
