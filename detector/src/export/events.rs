//! Writes the Events, in the order in which they came.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use tracing::{error, info, warn};

use super::event::{self, Budgets, News, Notice, Pending, Reporter};
use super::pods::Pods;
use super::queue::Queue;
use super::retry::Retry;
use super::told::{About, Name, Told};
use super::{Exporter, nanoseconds, random};
use crate::clock;
use crate::finding::{Change, Transition};
use crate::state::SavedTransition;

/// A fleet that has waited for the same server is let in over this time.
const CATCH_UP: Duration = Duration::from_secs(5);

pub(super) struct Events {
    budgets: Budgets,
    pub(super) queue: Queue,
    told: Told,
    // Apart from that of the conditions, so that neither holds up the other.
    pub(super) retry: Retry,
    pods: Pods,
}

/// What became of one Event.
enum Outcome {
    There,
    /// It cannot be, now or later.
    Dropped,
    /// The server is away; it stays first in the queue.
    Waits,
}

impl Events {
    /// What the next agent has to tell if this one is killed now.
    pub(super) fn untold(&self) -> Vec<SavedTransition> {
        let transitions = self.queue.iter().filter_map(|pending| match &pending.news {
            News::Transition(transition) => Some(transition.into()),
            // The next agent finds it out for itself.
            News::Notice(_) => None,
        });
        transitions.collect()
    }

    pub(super) fn new(pods: Pods) -> Self {
        Self {
            budgets: Budgets::new(),
            queue: Queue::default(),
            told: Told::default(),
            retry: Retry::default(),
            pods,
        }
    }
}

impl Exporter {
    pub(super) fn tell(&mut self, transition: Transition) {
        if !event::is_told(&transition) {
            return;
        }
        let (reason, historic) = (transition.finding.reason, transition.finding.historic);
        match self.events.budgets.take(reason, historic, clock::boot()) {
            Some(withheld) => self.queue(Pending::of(News::Transition(transition), withheld)),
            None => self.metrics.event_withheld(reason),
        }
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.queue(Pending::of(News::Notice(notice), 0));
    }

    fn queue(&mut self, pending: Pending) {
        if let Some(dropped) = self.events.queue.push(pending) {
            self.metrics.event_dropped("queue_full");
            warn!(
                reason = %dropped.reason(),
                "an Event was dropped: the API server has been away too long"
            );
        }
        self.metrics.events_waiting(self.events.queue.len());
    }

    /// Until all are written or the server is away; or `more` has come, which may be a condition
    /// that must not wait for the Events before it.
    pub(super) async fn write_events(&mut self, more: impl Fn() -> bool) {
        while self.events.retry.not_before() <= clock::boot() {
            let Some(pending) = self.events.queue.front_mut() else {
                return;
            };
            if pending.pod.is_none()
                && let News::Transition(transition) = &pending.news
                && let Some(workload) = &transition.finding.subject.workload
            {
                pending.pod = Some(self.events.pods.find(workload).await);
            }
            let by = Reporter {
                node: &self.options.node,
                uid: &self.uid,
                boot_id: &self.options.boot_id,
            };
            let (about, event) = if pending.node_told {
                (About::Pod, event::on_pod(pending, by))
            } else {
                (About::Node, Some(event::on_node(pending, by)))
            };
            let outcome = match event {
                Some(event) => self.write_event(about, event).await,
                None => Outcome::There,
            };
            match outcome {
                Outcome::Waits => return,
                Outcome::There | Outcome::Dropped => self.next_event(),
            }
            self.metrics.events_waiting(self.events.queue.len());
            if more() {
                return;
            }
        }
    }

    /// The first one in the queue is done with the Node, or with everything.
    fn next_event(&mut self) {
        let now = clock::boot();
        if self.events.retry.was_long() {
            let spread = CATCH_UP.mul_f64(random());
            self.conditions.retry.not_later_than(now + spread);
        }
        self.events.retry.succeeded();
        if let Some(pending) = self.events.queue.front_mut() {
            let on_pod = pending
                .pod
                .as_ref()
                .is_some_and(|pod| pod.reference.is_some());
            if !pending.node_told && on_pod {
                pending.node_told = true;
                return;
            }
        }
        self.events.queue.pop();
    }

    async fn write_event(&mut self, about: About, event: Event) -> Outcome {
        if let Some(outcome) = self.count_into_series(about).await {
            return outcome;
        }
        match self.connection.create_event(&event).await {
            Ok(()) => {}
            // The answer to an earlier try was lost, or an agent before us told the same.
            Err(refusal) if refusal.code == 409 => {}
            // Trying again would bring the same answer, and hold up every later Event.
            Err(refusal) if matches!(refusal.code, 400 | 413 | 422) => {
                self.metrics.event_dropped("invalid");
                error!(
                    event = event.note,
                    error = format!("{:#}", refusal.error),
                    "the API server calls the Event invalid; it is dropped"
                );
                return Outcome::Dropped;
            }
            // Its namespace is being deleted or gone, or RBAC allows Events about Nodes only.
            Err(refusal) if about == About::Pod && matches!(refusal.code, 403 | 404) => {
                self.metrics.event_dropped("pod");
                warn!(
                    namespace = event.metadata.namespace,
                    error = format!("{:#}", refusal.error),
                    "the pod has no Event of its own; the Node's names it"
                );
                return Outcome::Dropped;
            }
            Err(refusal) => {
                let delay = self
                    .events
                    .retry
                    .failed(clock::boot(), refusal.asked, random());
                self.connection
                    .complain("create Event", &refusal.error, delay);
                return Outcome::Waits;
            }
        }
        self.was_told(about, event);
        Outcome::There
    }

    /// A repeat is counted on the Event that is there. None where there is none (any more): then the
    /// repeat gets an Event of its own.
    async fn count_into_series(&mut self, about: About) -> Option<Outcome> {
        let pending = self.events.queue.front_mut()?;
        let News::Transition(transition) = &pending.news else {
            return None;
        };
        if transition.change != Change::Repeated {
            return None;
        }
        let name = self.events.told.get(&transition.finding, about)?;
        let (patch, withheld) = (event::series(transition), pending.withheld);
        let finding = transition.finding.clone();
        let patched = self
            .connection
            .patch_event(&name.namespace, &name.name, patch)
            .await;
        match patched {
            Ok(()) => {
                if about == About::Node {
                    // The series has no room to say it.
                    let (reason, historic) = (finding.reason, finding.historic);
                    self.events.budgets.not_said(reason, historic, withheld);
                    self.log_event(Some(&name));
                }
                Some(Outcome::There)
            }
            // Mostly 404: Events live for an hour.
            Err(refusal) if matches!(refusal.code, 400 | 403 | 404 | 422) => {
                self.events.told.forget(&finding, about);
                None
            }
            Err(refusal) => {
                let retry = &mut self.events.retry;
                let delay = retry.failed(clock::boot(), refusal.asked, random());
                self.connection
                    .complain("patch Event", &refusal.error, delay);
                Some(Outcome::Waits)
            }
        }
    }

    fn was_told(&mut self, about: About, event: Event) {
        let name = Name {
            namespace: event.metadata.namespace.unwrap_or_default(),
            name: event.metadata.name.unwrap_or_default(),
        };
        if about == About::Node {
            self.log_event(None);
        }
        let Some(pending) = self.events.queue.front_mut() else {
            return;
        };
        if let News::Transition(transition) = &pending.news {
            match transition.change {
                Change::Opened | Change::Repeated => {
                    self.events.told.insert(&transition.finding, about, name);
                }
                Change::Cleared => self.events.told.forget(&transition.finding, about),
            }
        }
    }

    fn log_event(&mut self, series: Option<&Name>) {
        let Some(pending) = self.events.queue.front_mut() else {
            return;
        };
        let exported = clock::boot();
        match &pending.news {
            News::Transition(transition) => {
                let finding = &transition.finding;
                info!(
                    kind = "event",
                    reason = %finding.reason,
                    entity = finding.entity,
                    change = transition.change.name(),
                    series = series.map(|name| name.name.as_str()),
                    fault_ns = nanoseconds(transition.fault),
                    found_ns = nanoseconds(transition.found.boot),
                    exported_ns = nanoseconds(exported),
                    "exported"
                );
                let latency = exported.saturating_sub(transition.fault);
                self.metrics.exported("event", Some(latency));
            }
            News::Notice(notice) => {
                info!(kind = "event", reason = notice.reason, "exported");
                self.metrics.exported("event", None);
            }
        }
    }
}
