//! Takes the lease, keeps it, and says in time that it is lost.

use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{Claim, DURATION, RENEW_DEADLINE, RETRY, Seen, evaluate, observe};
use crate::clock;
use crate::explain::explain;

pub(crate) const NAME: &str = "nodemend-repairer";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Lease {
    api: Api<Object>,
    me: String,
    started: Instant,
    seen: Option<Seen>,
    /// Until when we are the leader for sure.
    until: watch::Sender<Option<Instant>>,
}

/// Asked before every destructive call.
#[derive(Clone)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

/// The proof that we were the leader a moment ago, and that nobody else can be yet.
#[derive(Debug)]
pub struct Term(());

#[cfg(test)]
impl Term {
    pub(crate) fn of_a_test() -> Self {
        Self(())
    }
}

impl Leadership {
    pub fn term(&self) -> Option<Term> {
        self.0
            .borrow()
            .is_some_and(|until| Instant::now() < until)
            .then_some(Term(()))
    }
}

impl Lease {
    pub fn new(client: Client, namespace: &str, me: String) -> (Self, Leadership) {
        let (until, receiver) = watch::channel(None);
        let api = Api::namespaced(client, namespace);
        (
            Self {
                api,
                me,
                started: Instant::now(),
                seen: None,
                until,
            },
            Leadership(receiver),
        )
    }

    /// Waits until it is ours.
    pub async fn acquire(&mut self) {
        let mut told = String::new();
        loop {
            match self.round().await {
                Ok(true) => {
                    info!(lease = NAME, identity = self.me, "leading");
                    return;
                }
                Ok(false) => {
                    let holder = self
                        .seen
                        .as_ref()
                        .map(|seen| seen.holder.clone())
                        .unwrap_or_default();
                    if holder != told {
                        info!(lease = NAME, holder, "another replica leads; waiting");
                        told = holder;
                    }
                }
                Err(error) => warn!(
                    lease = NAME,
                    error = format!("{error:#}"),
                    "the lease could not be taken"
                ),
            }
            sleep(RETRY).await;
        }
    }

    /// Keeps it; ends with the reason why it is lost.
    pub async fn keep(&mut self) -> anyhow::Error {
        loop {
            sleep(RETRY).await;
            let lost = match self.round().await {
                Ok(true) => continue,
                Ok(false) => anyhow::anyhow!("another replica has taken the lease"),
                Err(error) => error,
            };
            if self
                .until
                .borrow()
                .is_none_or(|until| Instant::now() >= until)
            {
                self.until.send_replace(None);
                return lost.context(format!(
                    "the lease {NAME} was not renewed for {} s",
                    RENEW_DEADLINE.as_secs()
                ));
            }
            warn!(
                lease = NAME,
                error = format!("{lost:#}"),
                "the lease was not renewed; trying again"
            );
        }
    }

    /// Lets another replica begin at once.
    pub async fn release(&mut self) -> anyhow::Result<()> {
        self.until.send_replace(None);
        let mut object = self
            .api
            .get(NAME)
            .await
            .map_err(explain)
            .context("read the lease")?;
        let spec = object.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.me) {
            bail!("the lease {NAME} is held by {:?}", spec.holder_identity);
        }
        spec.holder_identity = Some(String::new());
        self.api
            .replace(NAME, &PostParams::default(), &object)
            .await
            .map_err(explain)
            .context("release the lease")?;
        Ok(())
    }

    /// One look, and one write where the lease may be ours. True: it is ours.
    async fn round(&mut self) -> anyhow::Result<bool> {
        let asked = Instant::now();
        let round = async {
            let Some(object) = self
                .api
                .get_opt(NAME)
                .await
                .map_err(explain)
                .context("read the lease")?
            else {
                let object = self.object(None, 0);
                self.api
                    .create(&PostParams::default(), &object)
                    .await
                    .map_err(explain)
                    .context("create the lease")?;
                return Ok(true);
            };
            let spec = object.spec.clone().unwrap_or_default();
            let holder = spec.holder_identity.clone().unwrap_or_default();
            let version = object.metadata.resource_version.clone().unwrap_or_default();
            let promised = spec
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok());
            let duration = promised.map_or(DURATION, Duration::from_secs);
            let now = self.started.elapsed();
            self.seen = Some(observe(self.seen.take(), &holder, &version, duration, now));
            let transitions = spec.lease_transitions.unwrap_or(0);
            let transitions = match evaluate(self.seen.as_ref(), &self.me, now) {
                Claim::Wait => return Ok(false),
                Claim::Renew => transitions,
                Claim::Take => transitions.saturating_add(1),
            };
            let mut mine = self.object(Some(&object), transitions);
            // Guards against another replica's write since the look.
            mine.metadata.resource_version = object.metadata.resource_version;
            match self.api.replace(NAME, &PostParams::default(), &mine).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
                Err(error) => Err(explain(error)).context("write the lease"),
            }
        };
        let mine = timeout(REQUEST_TIMEOUT, round)
            .await
            .context("no answer from the API server about the lease")??;
        if mine {
            self.until.send_replace(Some(asked + RENEW_DEADLINE));
        }
        Ok(mine)
    }

    fn object(&self, before: Option<&Object>, transitions: i32) -> Object {
        let now: Timestamp = clock::now();
        let before = before.and_then(|object| object.spec.as_ref());
        let ours = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.me));
        let acquired = ours
            .and_then(|spec| spec.acquire_time.clone())
            .unwrap_or(MicroTime(now));
        Object {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(acquired),
                renew_time: Some(MicroTime(now)),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}
