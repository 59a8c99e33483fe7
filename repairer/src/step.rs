//! Carries out the steps of one pass. What a step comes to is stored; what is not stored is found
//! out by looking, in a later pass or by a later process.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::act::Written;
use crate::api::policy::{RepairAction, ReplaceBy};
use crate::api::repair::{AttemptResult, NodeRepair, NodeRepairStatus};
use crate::aws::{Aws, Outcome};
use crate::cluster::Cluster;
use crate::decide::{self, Act, Clearance, Step, Target};
use crate::drain::{Answer, Deletion, PodView, Tries};
use crate::episode::Episodes;
use crate::explain::explain;
use crate::lease::Leadership;
use crate::tell::Teller;
use crate::{act, clock, look, store, survey};

/// Events and conditions are looked at before the call that destroys, but do not hold it up.
const EVIDENCE: Duration = Duration::from_secs(5);
/// A hanging API server must not stop the other steps for ever.
const TIMEOUT: Duration = Duration::from_secs(60);
const NOT_LEADING: &str = "the lease is not ours any more: nothing is done";

pub struct Pass<'a> {
    pub client: &'a Client,
    pub aws: &'a Aws,
    pub leadership: &'a Leadership,
    pub cluster: &'a Cluster,
    pub episodes: &'a Episodes,
    /// What is answered to evictions.
    pub tries: &'a Mutex<Tries>,
    /// Told when another replica is to lead, with our own pod, which is then evicted.
    pub step_down: &'a watch::Sender<Option<PodView>>,
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
            Step::Dismiss { node } => node.clone(),
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
            Step::Dismiss { node } => self.dismiss(&node).await,
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
            Act::Evict(pods) => self.evict(name, &pods).await?,
            Act::Delete(deletions) => self.delete(name, &deletions).await?,
            Act::StepDown(pod) => {
                info!(
                    repair = name,
                    pod = pod.label(),
                    "only our own pod is left: another replica is to lead"
                );
                self.step_down.send_replace(Some(*pod));
            }
            Act::OutOfService => {
                info!(
                    repair = name,
                    node = node.name,
                    "the machine is off: its volumes are freed"
                );
                act::out_of_service(self.client, node, clock::now()).await?;
            }
            Act::BackInService => {
                act::back_in_service(self.client, node).await?;
            }
            Act::Reboot(clearance) | Act::Replace(clearance) => {
                self.destroy(name, repair, clearance).await?;
            }
        }
        Ok(())
    }

    /// A person has deleted the record. Asked anew: a store may not have seen it yet.
    async fn dismiss(&self, name: &str) -> anyhow::Result<()> {
        let node = self.cluster.nodes.get(name);
        let node = node.with_context(|| format!("find Node {name}"))?;
        self.leadership.term().context(NOT_LEADING)?;
        let api: Api<NodeRepair> = Api::all(self.client.clone());
        let repairs = api.list(&ListParams::default()).await;
        let repairs = repairs.map_err(explain).context("list noderepairs")?.items;
        let of_node = |repair: &NodeRepair| repair.spec.node_ref.uid == node.uid;
        if repairs.iter().any(of_node) {
            return Ok(());
        }
        info!(
            node = name,
            "its NodeRepair was deleted: the node is given back"
        );
        act::dismiss(self.client, node, clock::now()).await?;
        Ok(())
    }

    /// One after the other; an answer that concerns all of them ends the round.
    async fn evict(&self, name: &str, pods: &[PodView]) -> anyhow::Result<()> {
        for pod in pods {
            self.leadership.term().context(NOT_LEADING)?;
            let answer = act::evict(self.client, pod).await?;
            if self.note(name, pod, answer, "evicted") {
                break;
            }
        }
        Ok(())
    }

    async fn delete(&self, name: &str, deletions: &[Deletion]) -> anyhow::Result<()> {
        for deletion in deletions {
            self.leadership.term().context(NOT_LEADING)?;
            let answer = act::delete(self.client, deletion).await?;
            let what = "deleted past its budget (onTimeout: Force)";
            if self.note(name, &deletion.pod, answer, what) {
                break;
            }
        }
        Ok(())
    }

    /// True: nobody else would fare better now.
    fn note(&self, name: &str, pod: &PodView, answer: Answer, what: &str) -> bool {
        let ends = matches!(answer, Answer::Throttled(_) | Answer::Forbidden(_));
        match answer.in_the_way() {
            None => info!(repair = name, pod = pod.label(), what),
            Some(why) => debug!(repair = name, pod = pod.label(), why, "not {what}"),
        }
        let mut tries = self
            .tries
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tries.note(&pod.uid, answer, clock::now());
        ends
    }

    /// Intent, a second look, the fence, the call, its end: in this order.
    async fn destroy(
        &self,
        name: &str,
        repair: &NodeRepair,
        clearance: Clearance,
    ) -> anyhow::Result<()> {
        let of_aws = match clearance.target() {
            Target::Instance(_) => self.aws.must_wait(),
            Target::Claim(_) => None,
        };
        if let Some(wait) = of_aws {
            debug!(
                repair = name,
                ?wait,
                "other calls come first, or AWS wants fewer"
            );
            return Ok(());
        }
        let mut status = repair.status.clone().unwrap_or_default();
        if status.evidence.is_none() && !repair.is_of_instance() {
            let node = &repair.spec.node_ref;
            let evidence = look::evidence(self.client, &node.name, &node.uid);
            status.evidence = Some(timeout(EVIDENCE, evidence).await.unwrap_or_default());
        }
        let action = clearance.action();
        status.begin_attempt(&clearance, clock::now());
        let Written::Done(stored) = act::record(self.client, name, repair, status).await? else {
            return Ok(());
        };

        let outcome = match self.second_look(name).await {
            Ok(clearance) if clearance.action() != action => {
                let message = "another action has become due".to_owned();
                return self
                    .end_attempt(name, &stored, AttemptResult::Withheld, None, message)
                    .await;
            }
            Ok(clearance) => match self.leadership.term() {
                Some(term) => {
                    let target = clearance.target();
                    info!(repair = name, instance = %clearance.instance(), group = clearance.group(), ?action, ?target, "destroying");
                    match clearance.into_target() {
                        Target::Claim(claim) => act::delete_claim(self.client, claim, term).await,
                        Target::Instance(target) => match (action, target.by()) {
                            (RepairAction::Reboot, _) => self.aws.reboot(target, term).await,
                            (_, ReplaceBy::Terminate) => self.aws.terminate(target, term).await,
                            (_, ReplaceBy::InstanceHealth) => {
                                self.aws.set_unhealthy(target, term).await
                            }
                        },
                    }
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
                let message = message.unwrap_or_else(|| "answered yes".to_owned());
                (AttemptResult::Accepted, request_id, message)
            }
            Outcome::Refused {
                request_id,
                message,
            } => (AttemptResult::Refused, request_id, message),
            Outcome::Denied {
                request_id,
                message,
            } => (AttemptResult::Denied, request_id, message),
            Outcome::Throttled {
                request_id,
                message,
            } => (AttemptResult::Throttled, request_id, message),
            Outcome::Busy {
                request_id,
                message,
            } => (AttemptResult::NotApplied, request_id, message),
            Outcome::Unknown { message } => {
                warn!(
                    repair = name,
                    error = message,
                    "it may or may not have been done: the instance will tell"
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
        cluster.instances.clone_from(&self.cluster.instances);
        cluster.members.clone_from(&self.cluster.members);
        // One that has joined since has a Node now.
        cluster.see_unjoined();
        let repair = cluster
            .repairs
            .get(name)
            .context("the NodeRepair is gone")?;
        let node = cluster.node_of(repair).context("the Node is gone")?.clone();
        cluster.pods.insert(
            node.name.clone(),
            act::pods_on(self.client, &node.name).await?,
        );
        cluster.daemon_sets.clone_from(&self.cluster.daemon_sets);
        cluster.attachments.clone_from(&self.cluster.attachments);
        cluster.limits.clone_from(&self.cluster.limits);
        cluster.leases.clone_from(&self.cluster.leases);
        survey::again(self.aws, self.cluster, &mut cluster, &node).await?;
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
