//! Writes conditions and Events to the API server: late rather than lost, and only what is ours.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use self::event::{Budgets, NodeIdentity, Pending};
use self::retry::Retry;
use self::schedule::{Bucket, Due, Intervals};
use crate::clock;
use crate::core::{Condition, Existing, Output};
use crate::finding::{Now, Transition};
use crate::state::State;
use crate::state::file::StateFile;

mod event;
mod retry;
pub(crate) mod schedule;
pub(crate) mod wire;

/// kube has no read timeout of its own; what takes longer is tried again on a new connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Events that wait for the API server; beyond, the oldest go.
const MOST_EVENTS: usize = 512;

pub(crate) struct Options {
    pub node: String,
    pub pod_logs: PathBuf,
    pub intervals: Intervals,
    pub status_burst: u32,
}

pub(crate) struct Exporter {
    nodes: Api<Node>,
    events: Api<Event>,
    options: Options,
    /// Of the Node object; every answer about it may bring a new one.
    uid: String,
    wanted: Option<Wanted>,
    written: Option<(Vec<Condition>, Duration)>,
    status_budget: Bucket,
    /// When the budget has room again.
    status_not_before: Duration,
    event_budgets: Budgets,
    queue: VecDeque<Pending>,
    queued_events: u64,
    // Apart, so that neither holds up the other.
    condition_retry: Retry,
    event_retry: Retry,
    /// Not saved yet.
    state: Option<Box<State>>,
    state_file: StateFile,
    jitter: f64,
}

struct Wanted {
    conditions: Vec<Condition>,
    fault: Option<Duration>,
    found: Now,
}

/// The API server did not take it.
struct Refusal {
    /// HTTP status; 0 when there was no answer.
    code: u16,
    error: anyhow::Error,
}

impl Exporter {
    pub(crate) fn new(client: Client, options: Options, state_file: StateFile) -> Self {
        Self {
            nodes: Api::all(client.clone()),
            events: Api::namespaced(client, event::NAMESPACE),
            status_budget: Bucket::new(options.status_burst, Duration::from_secs(30)),
            status_not_before: Duration::ZERO,
            event_budgets: Budgets::new(),
            options,
            uid: String::new(),
            wanted: None,
            written: None,
            queue: VecDeque::new(),
            queued_events: 0,
            condition_retry: Retry::default(),
            event_retry: Retry::default(),
            state: None,
            state_file,
            jitter: random(),
        }
    }

    /// Reads our own conditions, tells them to `known`, then writes until the sender is gone, and
    /// at last once more what is left.
    pub(crate) async fn run(
        mut self,
        mut outputs: UnboundedReceiver<Output>,
        known: impl FnOnce(Vec<Existing>),
    ) {
        let Some(existing) = self.existing(&mut outputs).await else {
            return;
        };
        known(existing);
        loop {
            let open = self.wait(&mut outputs, self.next_write()).await;
            self.write_conditions().await;
            self.write_events().await;
            self.save_state();
            if !open {
                return;
            }
        }
    }

    /// Our own conditions as they stand on the Node. Tries until the API server has answered, or
    /// nobody needs to know any more.
    async fn existing(&mut self, outputs: &mut UnboundedReceiver<Output>) -> Option<Vec<Existing>> {
        loop {
            match self.request(self.nodes.get(&self.options.node)).await {
                Ok(node) => {
                    self.condition_retry.succeeded();
                    self.uid = node.metadata.uid.clone().unwrap_or_default();
                    return Some(wire::own_conditions(&node));
                }
                Err(refusal) => {
                    let delay = self.condition_retry.failed(clock::boot(), random());
                    self.complain("get Node", &refusal.error, delay);
                }
            }
            let again = self.condition_retry.not_before();
            while clock::boot() < again {
                if !self.wait(outputs, Some(again)).await {
                    return None;
                }
                self.save_state();
            }
        }
    }

    /// After everything that it knows of was told, or could not be told.
    fn save_state(&mut self) {
        if let Some(state) = self.state.take() {
            self.state_file.save(&state);
        }
    }

    /// Takes what there is, or sleeps until `until`; false when there will be no more.
    async fn wait(
        &mut self,
        outputs: &mut UnboundedReceiver<Output>,
        until: Option<Duration>,
    ) -> bool {
        tokio::select! {
            output = outputs.recv() => match output {
                Some(output) => self.take(output),
                None => return false,
            },
            () = sleep_until(until) => {}
        }
        // Whatever else is there already goes into the same write.
        while let Ok(output) = outputs.try_recv() {
            self.take(output);
        }
        true
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Conditions {
                conditions,
                fault,
                found,
            } => {
                let last = self
                    .wanted
                    .as_ref()
                    .map(|wanted| wanted.conditions.as_slice());
                if !wire::changed(last, &conditions).is_empty() {
                    self.condition_retry.hurry();
                }
                self.wanted = Some(Wanted {
                    conditions,
                    fault,
                    found,
                });
            }
            Output::Transition(transition) => {
                log_transition(&transition);
                if !event::is_told(&transition) {
                    return;
                }
                if let Some(withheld) = self
                    .event_budgets
                    .take(transition.finding.reason, clock::boot())
                {
                    if self.queue.len() >= MOST_EVENTS {
                        self.queue.pop_front();
                        warn!(
                            limit = MOST_EVENTS,
                            "an Event was dropped: the API server has been away too long"
                        );
                    }
                    self.queued_events += 1;
                    self.queue.push_back(Pending {
                        transition,
                        withheld,
                        sequence: self.queued_events,
                    });
                }
            }
            Output::State(state) => self.state = Some(state),
            // Answered by the reader itself.
            Output::Probe { .. } => {}
        }
    }

    fn next_write(&self) -> Option<Duration> {
        let conditions = self.due(clock::boot()).map(|(_, at)| at);
        let events = (!self.queue.is_empty()).then(|| self.event_retry.not_before());
        conditions.into_iter().chain(events).min()
    }

    fn due(&self, now: Duration) -> Option<(Due, Duration)> {
        let written = self
            .written
            .as_ref()
            .map(|(conditions, at)| (conditions.as_slice(), *at));
        let stands = written.is_some_and(|(conditions, _)| !conditions.is_empty());
        let wanted = self
            .wanted
            .as_ref()
            .filter(|wanted| !wanted.conditions.is_empty() || stands)?;
        let intervals = &self.options.intervals;
        let (due, at) = schedule::due(&wanted.conditions, written, intervals, self.jitter, now);
        let at = match due {
            Due::Status => at.max(self.status_not_before),
            Due::Text | Due::Heartbeat => at,
        };
        Some((due, at.max(self.condition_retry.not_before())))
    }

    async fn write_conditions(&mut self) {
        let now = clock::now();
        let Some((due, _)) = self.due(now.boot).filter(|&(_, at)| at <= now.boot) else {
            return;
        };
        let Some(wanted) = &self.wanted else { return };
        // A status that flaps must not become a stream of writes. The first write is free.
        let budgeted = due == Due::Status && self.written.is_some();
        if budgeted && let Err(at) = self.status_budget.take(now.boot) {
            self.status_not_before = at;
            return;
        }
        let conditions = wanted.conditions.clone();
        let (fault, found) = (wanted.fault, wanted.found);
        let before = self.written.as_ref().map(|(last, _)| last.as_slice());
        let patch = Patch::Strategic(wire::patch(
            &conditions,
            before.unwrap_or_default(),
            now.wall,
        ));
        let parameters = PatchParams::default();
        match self
            .request(
                self.nodes
                    .patch_status(&self.options.node, &parameters, &patch),
            )
            .await
        {
            Ok(node) => {
                self.condition_retry.succeeded();
                // The Node may have been created again under its name.
                self.uid = node.metadata.uid.unwrap_or_default();
                self.jitter = random();
                let exported = clock::boot();
                for condition in wire::changed(
                    self.written.as_ref().map(|(last, _)| last.as_slice()),
                    &conditions,
                ) {
                    info!(
                        kind = "condition",
                        condition = condition.kind.name(),
                        status = wire::status(condition.healthy),
                        reason = %condition.reason,
                        fault_ns = fault.map(nanoseconds),
                        found_ns = nanoseconds(found.boot),
                        exported_ns = nanoseconds(exported),
                        "exported"
                    );
                }
                self.written = Some((conditions, exported));
            }
            Err(refusal) => {
                if budgeted {
                    self.status_budget.give_back();
                }
                let delay = self.condition_retry.failed(clock::boot(), random());
                self.complain("patch status of Node", &refusal.error, delay);
            }
        }
    }

    async fn write_events(&mut self) {
        while let Some(pending) = self.queue.front() {
            if self.event_retry.not_before() > clock::boot() {
                return;
            }
            let node = NodeIdentity {
                name: &self.options.node,
                uid: &self.uid,
            };
            let event = event::event(pending, &node, &self.options.pod_logs);
            let created = self
                .request(self.events.create(&PostParams::default(), &event))
                .await;
            match created {
                // 409: the answer to an earlier try was lost, the Event was not.
                Ok(_) | Err(Refusal { code: 409, .. }) => {
                    let finding = &pending.transition.finding;
                    info!(
                        kind = "event",
                        reason = %finding.reason,
                        entity = finding.entity,
                        change = pending.transition.change.name(),
                        fault_ns = nanoseconds(pending.transition.fault),
                        found_ns = nanoseconds(pending.transition.found.boot),
                        exported_ns = nanoseconds(clock::boot()),
                        "exported"
                    );
                }
                // Trying again would bring the same answer, and hold up every later Event.
                Err(Refusal {
                    code: 400 | 413 | 422,
                    error,
                }) => {
                    error!(
                        event = event.note,
                        error = format!("{error:#}"),
                        "the API server calls the Event invalid; it is dropped"
                    );
                }
                Err(refusal) => {
                    let delay = self.event_retry.failed(clock::boot(), random());
                    self.complain("create Event for Node", &refusal.error, delay);
                    return;
                }
            }
            self.event_retry.succeeded();
            self.queue.pop_front();
        }
    }

    async fn request<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Refusal> {
        match timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(explain(error, &self.options.node)),
            Err(_elapsed) => {
                let seconds = REQUEST_TIMEOUT.as_secs();
                Err(Refusal {
                    code: 0,
                    error: anyhow!("no answer from the API server within {seconds} s"),
                })
            }
        }
    }

    fn complain(&self, verb: &str, error: &anyhow::Error, delay: Duration) {
        warn!(
            verb,
            node = self.options.node,
            error = format!("{error:#}"),
            retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            "the API server did not take it"
        );
    }
}

/// Names the remedy of what a person must mend.
fn explain(error: kube::Error, node: &str) -> Refusal {
    let code = match &error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    };
    let error = anyhow::Error::new(error);
    let error = match code {
        401 => error.context("the API server does not know this token: is the service account still there?"),
        403 => error.context("RBAC forbids it: apply deploy/rbac/detector.yaml and use the service account nodemend-detector"),
        404 => error.context(format!("no Node `{node}`: --node-name (NODE_NAME) must be the name of this host's Node object")),
        _ => error,
    };
    Refusal { code, error }
}

fn log_transition(transition: &Transition) {
    let finding = &transition.finding;
    info!(
        change = transition.change.name(),
        reason = %finding.reason,
        severity = %finding.severity,
        entity = finding.entity,
        count = finding.count,
        detail = finding.message,
        fault_ns = nanoseconds(transition.fault),
        found_ns = nanoseconds(transition.found.boot),
        "finding"
    );
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

async fn sleep_until(at: Option<Duration>) {
    match at {
        Some(at) => sleep(at.saturating_sub(clock::boot())).await,
        None => std::future::pending().await,
    }
}

/// 0 to 1, from the standard library's random hash keys: jitter needs no better.
fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let bits = std::hash::RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
