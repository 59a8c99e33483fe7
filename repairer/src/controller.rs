//! The loop: look, decide, do, wait until something changes. It decides nothing itself.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::api::repair::Phase;
use crate::aws::Aws;
use crate::cluster::{Cluster, Limits};
use crate::decide::{self, Plan, Retention};
use crate::episode::Episodes;
use crate::lease::Leadership;
use crate::step::Pass;
use crate::store::Stores;
use crate::survey::Survey;
use crate::{act, clock};

/// Changes come in bursts; this makes one pass of each.
const PAUSE: Duration = Duration::from_millis(200);
/// Steps of one pass run side by side, so many at a time.
const CONCURRENCY: usize = 8;
/// What failed once is likely to fail again.
const AFTER_A_FAILURE: Duration = Duration::from_secs(3);
/// How long after a step of ours to look again, should the watch be slow to tell of it.
const AFTER_A_STEP: Duration = Duration::from_secs(1);
/// What the command line says.
pub struct Rules {
    pub limits: Limits,
    pub retention: Retention,
    pub eks_cluster: Option<String>,
}

pub struct Controller {
    rules: Rules,
    client: Client,
    aws: Aws,
    stores: Stores,
    leadership: Leadership,
    episodes: Episodes,
    survey: Survey,
}

impl Controller {
    pub fn new(
        client: Client,
        aws: Aws,
        stores: Stores,
        leadership: Leadership,
        rules: Rules,
    ) -> Self {
        Self {
            survey: Survey::new(rules.eks_cluster.clone()),
            rules,
            client,
            aws,
            stores,
            leadership,
            episodes: Episodes::default(),
        }
    }

    /// Ends only with an error.
    pub async fn run(mut self) -> anyhow::Result<()> {
        self.stores.ready().await?;
        info!("watching the nodes");
        loop {
            let mut cluster = self.stores.cluster();
            cluster.limits = self.rules.limits.clone();
            let ask_again = self.survey.look(&self.aws, &mut cluster).await;
            self.look_at_pods(&mut cluster).await;
            let now = clock::now();
            self.episodes.observe(&cluster, now);
            let plan = decide::decide(&cluster, &self.episodes, self.rules.retention, now);

            let wake_at = plan.wake_at;
            let soon = (!plan.steps.is_empty()).then_some(AFTER_A_STEP);
            let done = self.carry_out(&cluster, plan).await;

            sleep(if done { PAUSE } else { AFTER_A_FAILURE }).await;
            // Zero where it is past.
            let until_due = wake_at
                .map(|at| Duration::try_from(at.duration_since(clock::now())).unwrap_or_default());
            let changed = self.stores.changed.notified();
            match [until_due, soon, ask_again].into_iter().flatten().min() {
                // Whichever comes first.
                Some(wait) => drop(timeout(wait, changed).await),
                None => changed.await,
            }
        }
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
            if let Some(wanted) = wanted
                && let Err(error) = act::record_policy(&self.client, name, wanted).await
            {
                warn!(
                    policy = name,
                    error = format!("{error:#}"),
                    "its status is out of date"
                );
                done = false;
            }
        }
        let pass = Pass {
            client: &self.client,
            aws: &self.aws,
            leadership: &self.leadership,
            cluster,
            episodes: &self.episodes,
        };
        futures::stream::iter(plan.steps)
            .map(|step| pass.carry_out(step))
            .buffer_unordered(CONCURRENCY)
            .fold(done, async |done, step_done| done && step_done)
            .await
    }
}
