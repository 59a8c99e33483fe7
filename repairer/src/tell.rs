//! Tells what was decided: one line in the log, an Event on the node and on the record, and numbers.
//! Nothing waits for an Event, and nothing fails for the want of one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::change::Change;
use self::event::Budgets;
use crate::api::policy::{RepairPolicy, RepairPolicyStatus};
use crate::api::repair::{NodeRepair, NodeRepairStatus, Outcome};
use crate::clock;
use crate::explain::explain;
use crate::metrics::Metrics;

mod change;
mod event;

/// Events that wait for the API server; those of more are dropped.
const QUEUE: usize = 512;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

pub struct Teller {
    events: mpsc::Sender<Event>,
    budgets: Mutex<Budgets>,
    instance: String,
    pub metrics: Arc<Metrics>,
}

impl Teller {
    /// Its Events are written beside everything else.
    pub fn start(client: &Client, instance: String, metrics: Arc<Metrics>) -> Self {
        let (events, queue) = mpsc::channel(QUEUE);
        let api = Api::namespaced(client.clone(), event::NAMESPACE);
        tokio::spawn(write_all(api, queue, Arc::clone(&metrics)));
        Self {
            events,
            budgets: Mutex::default(),
            instance,
            metrics,
        }
    }

    /// A new status of a repair has been stored.
    pub fn repair(&self, seen: &NodeRepair, status: &NodeRepairStatus) {
        let before = seen.status.clone().unwrap_or_default();
        self.metrics.recorded(&before, status, clock::now());
        let Some(change) = change::of_repair(&before, status) else {
            return;
        };
        log(seen, status, &change);
        let record = event::reference(seen);
        let node = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(seen.spec.node_ref.name.clone()),
            uid: Some(seen.spec.node_ref.uid.clone()),
            ..ObjectReference::default()
        };
        self.tell(&change, node.clone(), Some(record.clone()));
        self.tell(&change, record, Some(node));
    }

    /// A new status of a policy has been stored.
    pub fn policy(&self, policy: &RepairPolicy, status: &RepairPolicyStatus) {
        let Some(change) = change::of_policy(policy, status) else {
            return;
        };
        let name = policy.name_any();
        info!(
            policy = name,
            change = change.reason,
            why = change.note,
            "decided"
        );
        self.tell(&change, event::reference(policy), None);
    }

    fn tell(&self, change: &Change, regarding: ObjectReference, related: Option<ObjectReference>) {
        let now = clock::now();
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if !budgets.take(change.reason, now) {
            self.metrics.event("withheld");
            return;
        }
        let event = event::event(change, regarding, related, &self.instance, now);
        if self.events.try_send(event).is_err() {
            self.metrics.event("dropped");
        }
    }
}

/// The audit line: one for each change of what is decided about a node.
fn log(seen: &NodeRepair, status: &NodeRepairStatus, change: &Change) {
    let repair = seen.name_any();
    let (node, policy) = (&seen.spec.node_ref.name, seen.policy());
    let hold = status.hold.as_ref();
    info!(
        repair,
        node,
        policy,
        change = change.reason,
        phase = ?status.phase,
        action = ?status.action,
        outcome = ?status.outcome,
        gate = hold.map(|hold| format!("{:?}", hold.gate)),
        behind = ?hold.map(|hold| &hold.behind),
        values = ?hold.map(|hold| &hold.values),
        overrides = ?seen.spec.override_gates,
        why = change.note,
        "decided"
    );
    if status.outcome == Some(Outcome::NeedsHuman) {
        warn!(repair, node, policy, "a person must look at the node");
    }
}

async fn write_all(api: Api<Event>, mut queue: mpsc::Receiver<Event>, metrics: Arc<Metrics>) {
    while let Some(event) = queue.recv().await {
        let written = write(&api, &event).await;
        metrics.event(if written.is_ok() {
            "written"
        } else {
            "dropped"
        });
        if let Err(error) = written {
            warn!(
                event = event.note,
                error = format!("{error:#}"),
                "an Event was dropped"
            );
        }
    }
}

async fn write(api: &Api<Event>, event: &Event) -> anyhow::Result<()> {
    let mut last = anyhow!("it was not tried");
    for _ in 0..TRIES {
        match timeout(REQUEST_TIMEOUT, write_once(api, event)).await {
            Ok(Ok(())) => return Ok(()),
            // Trying again would bring the same answer.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400 | 403 | 404 | 422) => {
                return Err(explain(kube::Error::Api(status)));
            }
            Ok(Err(error)) => last = explain(error),
            Err(elapsed) => last = anyhow::Error::new(elapsed).context("no answer"),
        }
        sleep(BETWEEN_TRIES).await;
    }
    Err(last).context("write an Event")
}

/// A repeat is counted on the Event that is there.
async fn write_once(api: &Api<Event>, event: &Event) -> kube::Result<()> {
    match api.create(&PostParams::default(), event).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        created => return created.map(drop),
    }
    let name = event.name_any();
    let there = api.get(&name).await?;
    let patch = Patch::Merge(event::repeated(&there, clock::now()));
    let patched = api.patch(&name, &PatchParams::default(), &patch).await;
    patched.map(drop)
}
