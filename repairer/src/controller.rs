//! The loop: look, decide, do, wait until something changes. It decides nothing itself.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::aws::Aws;
use crate::cluster::{Cluster, Limits};
use crate::decide::{self, Plan, Retention};
use crate::drain::{PodView, Tries};
use crate::episode::Episodes;
use crate::kubelet::Kubelets;
use crate::lease::Leadership;
use crate::step::Pass;
use crate::store::Stores;
use crate::survey::Survey;
use crate::tell::Teller;
use crate::{act, clock, look};

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
    /// Namespace and name of the pod that this process runs in.
    pub own_pod: Option<String>,
}

pub struct Controller {
    rules: Rules,
    client: Client,
    aws: Aws,
    stores: Stores,
    leadership: Leadership,
    teller: Teller,
    episodes: Episodes,
    survey: Survey,
    tries: Mutex<Tries>,
    step_down: watch::Sender<Option<PodView>>,
    kubelets: Kubelets,
}

impl Controller {
    pub fn new(
        client: Client,
        aws: Aws,
        stores: Stores,
        leadership: Leadership,
        step_down: watch::Sender<Option<PodView>>,
        teller: Teller,
        rules: Rules,
    ) -> Self {
        Self {
            survey: Survey::new(rules.eks_cluster.clone()),
            rules,
            client,
            aws,
            stores,
            leadership,
            teller,
            episodes: Episodes::default(),
            tries: Mutex::default(),
            step_down,
            kubelets: Kubelets::default(),
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
            let ask_again = self.survey.look(&self.aws, &mut cluster).await;
            cluster.tries = self.tries().clone();
            cluster.own_pod.clone_from(&self.rules.own_pod);
            look::drains(&self.client, &mut cluster).await;
            self.tries().clone_from(&cluster.tries);
            self.kubelets.look(&self.client, &mut cluster).await;
            let (began, now) = (Instant::now(), clock::now());
            self.episodes.observe(&cluster, now);
            let plan = decide::decide(&cluster, &self.episodes, self.rules.retention, now);
            let metrics = &self.teller.metrics;
            metrics.decided(&cluster, &plan, began.elapsed(), now);

            let wake_at = plan.wake_at;
            let soon = (!plan.steps.is_empty()).then_some(AFTER_A_STEP);
            let lost = cluster.unreachable_since.map(|_| AFTER_A_STEP);
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

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
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
            tries: &self.tries,
            step_down: &self.step_down,
            teller: &self.teller,
        };
        futures::stream::iter(plan.steps)
            .map(|step| pass.carry_out(step))
            .buffer_unordered(CONCURRENCY)
            .fold(done, async |done, step_done| done && step_done)
            .await
    }
}
