//! Writes conditions and Events to the API server: late rather than lost, and only what is ours.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Config;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;
use tracing::info;

use self::conditions::Conditions;
use self::connection::Connection;
use self::events::Events;
use self::pods::Pods;
use self::schedule::Intervals;
use crate::clock;
use crate::core::{Existing, NodeSays, Output};
use crate::finding::Transition;
use crate::metrics::Metrics;
use crate::state::State;
use crate::state::file::StateFile;

mod conditions;
mod connection;
mod event;
mod events;
mod foreign;
mod pods;
mod queue;
mod retry;
mod says;
pub(crate) mod schedule;
mod told;
pub(crate) mod wire;

pub(crate) use self::foreign::{Coexistence, ours_alone};

/// Without a sign of life for longer than this, the exporter hangs.
const LONGEST_ROUND: Duration = Duration::from_secs(60);

pub(crate) struct Options {
    pub node: String,
    /// Of this boot of the host, so that an Event's name is unique over all of them.
    pub boot_id: String,
    pub pod_logs: PathBuf,
    pub intervals: Intervals,
    pub status_burst: u32,
    pub coexistence: Coexistence,
}

pub(crate) struct Exporter {
    connection: Connection,
    options: Options,
    metrics: Arc<Metrics>,
    /// Of the Node object; every answer about it may bring a new one.
    uid: String,
    conditions: Conditions,
    events: Events,
    /// What the Node says of kubelet, where that is new.
    node_says: Option<NodeSays>,
    /// Not saved yet.
    state: Option<Box<State>>,
    /// None: nobody goes on after this one.
    state_file: Option<StateFile>,
}

impl Exporter {
    pub(crate) fn new(
        config: Config,
        options: Options,
        metrics: Arc<Metrics>,
        state_file: Option<StateFile>,
        untold: Vec<Transition>,
    ) -> anyhow::Result<Self> {
        let mut exporter = Self {
            connection: Connection::new(config, &options.node, Arc::clone(&metrics))?,
            uid: String::new(),
            conditions: Conditions::new(options.status_burst),
            events: Events::new(Pods::new(options.pod_logs.clone())),
            options,
            metrics,
            node_says: None,
            state: None,
            state_file,
        };
        for transition in untold {
            exporter.tell(transition);
        }
        Ok(exporter)
    }

    /// Reads our own conditions, tells them to `known`, then writes until the sender is gone, and
    /// at last once more what is left. What each answer says of kubelet is told to `said`.
    pub(crate) async fn run(
        mut self,
        mut outputs: UnboundedReceiver<Output>,
        known: impl FnOnce(Vec<Existing>),
        said: impl Fn(NodeSays),
    ) {
        let Some(existing) = self.existing(&mut outputs).await else {
            return;
        };
        known(existing);
        loop {
            let open = self.wait(&mut outputs, self.next_write()).await;
            self.write_conditions().await;
            self.node_says.take().into_iter().for_each(&said);
            self.write_events(|| !outputs.is_empty()).await;
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
            match self.connection.get_node().await {
                Ok(node) => {
                    self.conditions.retry.succeeded();
                    self.uid = node.metadata.uid.clone().unwrap_or_default();
                    return Some(self.meet(&node));
                }
                Err(refusal) => {
                    let retry = &mut self.conditions.retry;
                    let delay = retry.failed(clock::boot(), refusal.asked, random());
                    self.connection.complain("get Node", &refusal.error, delay);
                }
            }
            let again = self.conditions.retry.not_before();
            while clock::boot() < again {
                if !self.wait(outputs, Some(again)).await {
                    return None;
                }
                self.save_state();
            }
        }
    }

    /// All that was taken so far has been written by now, or waits in what is saved with it: the next
    /// agent never believes that something was told that was not.
    fn save_state(&mut self) {
        if let (Some(mut state), Some(file)) = (self.state.take(), &mut self.state_file) {
            state.untold = self.events.untold();
            file.save(&state);
        }
    }

    /// Takes what there is, or sleeps until `until`; false when there will be no more.
    async fn wait(
        &mut self,
        outputs: &mut UnboundedReceiver<Output>,
        until: Option<Duration>,
    ) -> bool {
        self.metrics
            .exporter_back_by(until.map(|until| until + LONGEST_ROUND));
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
                self.metrics.conditions(&conditions);
                self.conditions.want(conditions, fault, found);
            }
            Output::Transition(transition) => {
                log_transition(&transition);
                self.metrics.transition(&transition);
                self.tell(transition);
            }
            Output::Open(findings) => self.metrics.open(findings),
            Output::State(state) => {
                self.metrics.gpus(&state.gpus);
                self.state = Some(state);
            }
            // Answered by the reader itself.
            Output::Probe { .. } | Output::LookAtTask { .. } | Output::LookAtCpu { .. } => {}
        }
    }

    fn next_write(&self) -> Option<Duration> {
        let conditions = self.conditions_due(clock::boot()).map(|(_, at)| at);
        let waiting = !self.events.queue.is_empty();
        let events = waiting.then(|| self.events.retry.not_before());
        conditions.into_iter().chain(events).min()
    }
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
