//! Carries out the steps of one pass. What a step comes to is stored; what is not stored is found
//! out by looking, in a later pass or by a later process.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::act::Written;
use crate::api::repair::{AttemptResult, Blocked, NodeRepair, NodeRepairStatus};
use crate::aws::{Aws, Outcome};
use crate::cluster::Cluster;
use crate::decide::{self, Act, Clearance, Step};
use crate::drain::{Eviction, PodView};
use crate::episode::Episodes;
use crate::lease::Leadership;
use crate::tell::Teller;
use crate::{act, clock, store};

/// A hanging API server must not stop the other steps for ever.
const TIMEOUT: Duration = Duration::from_secs(60);
const NOT_LEADING: &str = "the lease is not ours any more: nothing is done";

pub struct Pass<'a> {
    pub client: &'a Client,
    pub aws: &'a Aws,
    pub leadership: &'a Leadership,
    pub cluster: &'a Cluster,
    pub episodes: &'a Episodes,
    pub teller: &'a Teller,
}

impl Pass<'_> {
    /// False: it failed, and trying again at once would bring the same.
    pub async fn carry_out(&self, step: Step) -> bool {
        let name = match &step {
            Step::Open(repair) => repair.metadata.name.clone().unwrap_or_default(),
            Step::Record { repair, .. } | Step::Act { repair, .. } | Step::Forget { repair } => {
                repair.clone()
            }
        };
        match timeout(TIMEOUT, self.step(step)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => warn!(
                repair = name,
                error = format!("{error:#}"),
                "a step failed; it is decided again"
            ),
            Err(_elapsed) => warn!(repair = name, "a step did not end; it is decided again"),
        }
        false
    }

    async fn step(&self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Open(repair) => {
                info!(
                    node = repair.spec.node_ref.name,
                    repair = repair.metadata.name,
                    "unhealthy"
                );
                act::create(self.client, &repair).await
            }
            Step::Record { repair, status } => self.record(&repair, *status).await,
            Step::Act { repair, act } => self.act(&repair, act).await,
            Step::Forget { repair } => {
                act::forget(self.client, &repair, self.repair(&repair)?).await
            }
        }
    }

    fn repair(&self, name: &str) -> anyhow::Result<&NodeRepair> {
        self.cluster
            .repairs
            .get(name)
            .with_context(|| format!("find NodeRepair {name}"))
    }

    async fn record(&self, name: &str, status: NodeRepairStatus) -> anyhow::Result<()> {
        let seen = self.repair(name)?;
        match act::record(self.client, name, seen, status.clone()).await? {
            Written::Done(_) => self.teller.repair(seen, &status),
            Written::Stale => debug!(repair = name, "seen too late; decided again"),
        }
        Ok(())
    }

    async fn act(&self, name: &str, act: Act) -> anyhow::Result<()> {
        let repair = self.repair(name)?;
        let node = self
            .cluster
            .node_of(repair)
            .context("find the Node of the repair")?;
        // Asked again, for its proof, right before the call that destroys.
        self.leadership.term().context(NOT_LEADING)?;
        match act {
            Act::Cordon => {
                act::cordon(self.client, node, clock::now()).await?;
            }
            Act::Uncordon => {
                let found_cordoned = repair
                    .status
                    .as_ref()
                    .is_some_and(|status| status.found_cordoned);
                act::uncordon(self.client, node, found_cordoned).await?;
            }
            Act::Evict(pods) => self.evict(name, repair, &pods).await?,
            Act::Replace(clearance) => self.replace(name, repair, clearance).await?,
        }
        Ok(())
    }

    async fn evict(&self, name: &str, repair: &NodeRepair, pods: &[PodView]) -> anyhow::Result<()> {
        let mut blocked = Vec::new();
        for pod in pods {
            match act::evict(self.client, pod).await? {
                Eviction::Done => info!(repair = name, pod = pod.label(), "evicted"),
                Eviction::Blocked(why) | Eviction::Later(why) => blocked.push(Blocked {
                    pod: pod.label(),
                    why,
                }),
            }
        }
        let stored = repair.status.clone().unwrap_or_default();
        let mut status = stored.clone();
        status.set_blocked(pods, blocked);
        if status != stored {
            act::record(self.client, name, repair, status).await?;
        }
        Ok(())
    }

    /// Intent, a second look, the fence, the call, its end: in this order.
    async fn replace(
        &self,
        name: &str,
        repair: &NodeRepair,
        clearance: Clearance,
    ) -> anyhow::Result<()> {
        let mut status = repair.status.clone().unwrap_or_default();
        status.begin_attempt(&clearance, clock::now());
        let Written::Done(stored) = act::record(self.client, name, repair, status).await? else {
            return Ok(());
        };

        let outcome = match self.second_look(name).await {
            Ok(clearance) => match self.leadership.term() {
                Some(term) => {
                    info!(repair = name, instance = %clearance.instance(), group = clearance.group(), "terminating");
                    self.aws.terminate(clearance, term).await
                }
                // Whoever leads now finds an attempt without an end, and looks.
                None => anyhow::bail!(NOT_LEADING),
            },
            Err(error) => {
                let message = format!("{error:#}");
                return self
                    .end_attempt(name, &stored, AttemptResult::Withheld, None, message)
                    .await;
            }
        };
        let (result, request_id, message) = match outcome {
            Outcome::Accepted {
                request_id,
                message,
            } => {
                let message = message.unwrap_or_else(|| "no activity was returned".to_owned());
                (AttemptResult::Accepted, request_id, message)
            }
            Outcome::Refused {
                request_id,
                message,
            } => (AttemptResult::Refused, request_id, message),
            Outcome::Throttled {
                request_id,
                message,
            } => (AttemptResult::NotApplied, request_id, message),
            Outcome::Unknown { message } => {
                warn!(
                    repair = name,
                    error = message,
                    "AWS may or may not have acted: the instance will tell"
                );
                return Ok(());
            }
        };
        self.end_attempt(name, &stored, result, request_id, message)
            .await
    }

    /// All gates and the pods again, on what the API server and AWS say now.
    async fn second_look(&self, name: &str) -> anyhow::Result<Clearance> {
        let mut cluster = store::list(self.client).await?;
        let repair = cluster
            .repairs
            .get(name)
            .context("the NodeRepair is gone")?;
        let node = cluster.node_of(repair).context("the Node is gone")?.clone();
        cluster.pods.insert(
            node.name.clone(),
            act::pods_on(self.client, &node.name).await?,
        );
        cluster.instances.clone_from(&self.cluster.instances);
        cluster.limits.clone_from(&self.cluster.limits);
        cluster.leases.clone_from(&self.cluster.leases);
        cluster.launches.clone_from(&self.cluster.launches);
        cluster.shifted.clone_from(&self.cluster.shifted);
        let instance = node.instance()?.to_string();
        cluster
            .instances
            .extend(self.aws.describe(&[instance].into()).await?);
        let now = clock::now();
        // What this list shows for the first time counts as seen now.
        let mut episodes = self.episodes.clone();
        episodes.observe(&cluster, now);
        decide::clearance(&cluster, &episodes, name, now).map_err(|held| anyhow::anyhow!("{held}"))
    }

    async fn end_attempt(
        &self,
        name: &str,
        stored: &NodeRepair,
        result: AttemptResult,
        request_id: Option<String>,
        message: String,
    ) -> anyhow::Result<()> {
        let mut status = stored.status.clone().unwrap_or_default();
        status.end_attempt(result, request_id, Some(message), clock::now());
        if let Written::Done(_) = act::record(self.client, name, stored, status.clone()).await? {
            self.teller.repair(stored, &status);
        }
        Ok(())
    }
}
