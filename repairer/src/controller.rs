//! The loop: look, decide, do, wait until something changes. It decides nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::api::repair::Phase;
use crate::aws::Aws;
use crate::cluster::{Cluster, InstanceView, Limits};
use crate::decide::{self, Plan, Retention};
use crate::episode::Episodes;
use crate::kubelet::Kubelets;
use crate::lease::Leadership;
use crate::step::Pass;
use crate::store::Stores;
use crate::tell::Teller;
use crate::{act, clock};

/// Changes come in bursts; this makes one pass of each.
const PAUSE: Duration = Duration::from_millis(200);
/// Steps of one pass run side by side, so many at a time.
const CONCURRENCY: usize = 8;
/// What failed once is likely to fail again.
const AFTER_A_FAILURE: Duration = Duration::from_secs(3);
/// How long after a step of ours to look again, should the watch be slow to tell of it.
const AFTER_A_STEP: Duration = Duration::from_secs(1);
/// AWS is not asked more often than this.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
/// Which group a node that is well belongs to changes rarely.
const MEMBERSHIP_AGE: Duration = Duration::from_secs(60);

/// What the command line says.
pub struct Rules {
    pub limits: Limits,
    pub retention: Retention,
}

pub struct Controller {
    rules: Rules,
    client: Client,
    aws: Aws,
    stores: Stores,
    leadership: Leadership,
    teller: Teller,
    episodes: Episodes,
    kubelets: Kubelets,
    instances: BTreeMap<String, InstanceView>,
    /// When AWS was asked about every instance, and when about any.
    asked_all: Option<Instant>,
    asked: Option<Instant>,
}

impl Controller {
    pub fn new(
        client: Client,
        aws: Aws,
        stores: Stores,
        leadership: Leadership,
        teller: Teller,
        rules: Rules,
    ) -> Self {
        Self {
            rules,
            client,
            aws,
            stores,
            leadership,
            teller,
            episodes: Episodes::default(),
            kubelets: Kubelets::default(),
            instances: BTreeMap::new(),
            asked_all: None,
            asked: None,
        }
    }

    /// Ends only with an error.
    pub async fn run(mut self) -> anyhow::Result<()> {
        self.stores.ready().await?;
        info!("watching the nodes");
        loop {
            self.teller.metrics.pass_begins();
            let mut cluster = self.stores.cluster();
            cluster.limits = self.rules.limits.clone();
            let all_asked = self.look_at_aws(&mut cluster).await;
            self.look_at_pods(&mut cluster).await;
            self.kubelets.look(&self.client, &mut cluster).await;
            let (began, now) = (Instant::now(), clock::now());
            self.episodes.observe(&cluster, now);
            let plan = decide::decide(&cluster, &self.episodes, self.rules.retention, now);
            let metrics = &self.teller.metrics;
            metrics.decided(&cluster, &plan, began.elapsed(), now);

            let wake_at = plan.wake_at;
            let soon = (!plan.steps.is_empty()).then_some(AFTER_A_STEP);
            let ask_again = (!all_asked).then_some(BETWEEN_QUESTIONS);
            let lost = cluster.unreachable_since.map(|_| BETWEEN_QUESTIONS);
            let done = self.carry_out(&cluster, plan).await;
            self.teller.metrics.pass_ends();

            sleep(if done { PAUSE } else { AFTER_A_FAILURE }).await;
            // Zero where it is past.
            let until_due = wake_at
                .map(|at| Duration::try_from(at.duration_since(clock::now())).unwrap_or_default());
            let changed = self.stores.changed.notified();
            match [until_due, soon, ask_again, lost]
                .into_iter()
                .flatten()
                .min()
            {
                // Whichever comes first.
                Some(wait) => drop(timeout(wait, changed).await),
                None => changed.await,
            }
        }
    }

    /// Adds what AWS says. An instance about which it has not answered is unknown. False: there is
    /// more to ask.
    async fn look_at_aws(&mut self, cluster: &mut Cluster) -> bool {
        let in_repair = cluster
            .repairs
            .values()
            .filter_map(|repair| repair.status.as_ref())
            .filter(|status| matches!(status.phase, Phase::Replacing | Phase::Verifying))
            .filter_map(|status| status.instance_id.clone());
        let in_repair: BTreeSet<_> = in_repair.collect();
        let nodes = cluster
            .nodes
            .values()
            .filter_map(|node| Some(node.instance().ok()?.to_string()));
        let all: BTreeSet<_> = nodes.chain(in_repair.iter().cloned()).collect();
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
        let mut done = ask.is_empty();
        if !ask.is_empty() && !too_soon {
            self.asked = Some(Instant::now());
            match self.aws.describe(&ask).await {
                Ok(found) => {
                    self.instances.extend(found);
                    if ask_all {
                        self.asked_all = self.asked;
                    }
                    done = true;
                }
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "AWS did not describe the instances: nothing is decided about them"
                    );
                    self.instances.retain(|id, _| !ask.contains(id));
                }
            }
        }
        cluster.instances.clone_from(&self.instances);
        done
    }

    /// Adds the pods of nodes whose drain is under way or just done.
    async fn look_at_pods(&self, cluster: &mut Cluster) {
        let drained = cluster.repairs.values().filter(|repair| {
            let phase = repair.status.as_ref().map(|status| status.phase);
            matches!(phase, Some(Phase::Draining | Phase::Replacing))
        });
        let nodes: BTreeSet<_> = drained
            .filter_map(|repair| Some(cluster.node_of(repair)?.name.clone()))
            .collect();
        for node in nodes {
            match act::pods_on(&self.client, &node).await {
                Ok(pods) => drop(cluster.pods.insert(node, pods)),
                Err(error) => warn!(node, error = format!("{error:#}"), "its drain waits"),
            }
        }
    }

    /// False: some of it failed.
    async fn carry_out(&self, cluster: &Cluster, plan: Plan) -> bool {
        let mut done = true;
        for policy in &cluster.policies {
            let name = policy.metadata.name.as_deref().unwrap_or_default();
            let wanted = plan
                .policies
                .get(name)
                .filter(|wanted| policy.status.as_ref() != Some(wanted));
            let Some(wanted) = wanted else { continue };
            match act::record_policy(&self.client, name, wanted).await {
                Ok(()) => self.teller.policy(policy, wanted),
                Err(error) => {
                    warn!(
                        policy = name,
                        error = format!("{error:#}"),
                        "its status is out of date"
                    );
                    done = false;
                }
            }
        }
        let pass = Pass {
            client: &self.client,
            aws: &self.aws,
            leadership: &self.leadership,
            cluster,
            episodes: &self.episodes,
            teller: &self.teller,
        };
        futures::stream::iter(plan.steps)
            .map(|step| pass.carry_out(step))
            .buffer_unordered(CONCURRENCY)
            .fold(done, async |done, step_done| done && step_done)
            .await
    }
}
