//! Leases of kubelets that are said to be silent: read only then, because a fleet renews them
//! hundreds of times a second.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::clock;
use crate::cluster::{Asked, Cluster, LeaseView};
use crate::explain::explain;

const NAMESPACE: &str = "kube-node-lease";
/// As often as a kubelet renews its own.
const BETWEEN_LOOKS: Duration = Duration::from_secs(10);
/// Of more silent kubelets all Leases are listed, by one request.
const MOST_ONE_BY_ONE: usize = 16;
const CONCURRENCY: usize = 8;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Kubernetes' default, and what a Lease may promise at most to be believed.
const LASTS: Duration = Duration::from_secs(40);
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Default)]
pub struct Kubelets {
    watched: Watched,
    looked: Option<Instant>,
    /// The answer of the last look.
    known: BTreeMap<String, Option<LeaseView>>,
}

impl Kubelets {
    /// Adds the Leases of the silent ones.
    pub async fn look(&mut self, client: &Client, cluster: &mut Cluster) {
        if cluster.unreachable_since.is_some() {
            // A kubelet may not have reached it either.
            *self = Self::default();
        }
        let silent = cluster.nodes.values().filter(|node| node.is_silent());
        let silent: Vec<_> = silent.map(|node| node.name.clone()).collect();
        if silent.is_empty() {
            *self = Self::default();
        }
        let due = |at: Instant| at.elapsed() >= BETWEEN_LOOKS;
        let new = silent.iter().any(|name| !self.known.contains_key(name));
        if !silent.is_empty() && (new || self.looked.is_none_or(due)) {
            self.looked = Some(Instant::now());
            let read = read(client, &silent).await;
            self.known = self.watched.observe(&read, clock::now());
        }
        cluster.leases = Asked::Yes(self.known.clone());
    }
}

/// For one look: as the kubelets themselves have written them, by their clocks.
pub async fn look_once(client: &Client, cluster: &mut Cluster) {
    let now = clock::now();
    let silent = cluster.nodes.values().filter(|node| node.is_silent());
    let silent: Vec<_> = silent.map(|node| node.name.clone()).collect();
    let written = |lease: Lease| {
        let spec = lease.spec.unwrap_or_default();
        let renewed = spec.renew_time.as_ref().map_or(now, |time| time.0.min(now));
        LeaseView {
            renewed,
            lasts: lasts(&spec),
        }
    };
    let read = read(client, &silent).await.into_iter();
    let views = read.map(|(name, lease)| (name, lease.map(written)));
    cluster.leases = Asked::Yes(views.collect());
}

/// `None`: there is none. What could not be read is left out.
async fn read(client: &Client, names: &[String]) -> BTreeMap<String, Option<Lease>> {
    let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    if names.len() > MOST_ONE_BY_ONE {
        let all = ListParams::default();
        let listed = timeout(REQUEST_TIMEOUT, api.list(&all)).await;
        let listed = answer(listed).context("list the Leases of kubelets");
        return match listed {
            Ok(list) => {
                let named = list.items.into_iter();
                let mut by_name: BTreeMap<_, _> = named
                    .filter_map(|lease| Some((lease.metadata.name.clone()?, lease)))
                    .collect();
                let names = names.iter();
                names
                    .map(|name| (name.clone(), by_name.remove(name)))
                    .collect()
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "silent nodes wait");
                BTreeMap::new()
            }
        };
    }
    let one = async |name: &String| {
        let read = timeout(REQUEST_TIMEOUT, api.get_opt(name)).await;
        match answer(read).context("read the Lease of its kubelet") {
            Ok(lease) => Some((name.clone(), lease)),
            Err(error) => {
                warn!(node = name, error = format!("{error:#}"), "it waits");
                None
            }
        }
    };
    let all = futures::stream::iter(names).map(one);
    all.buffer_unordered(CONCURRENCY)
        .filter_map(std::future::ready)
        .collect()
        .await
}

fn answer<T>(answer: Result<kube::Result<T>, tokio::time::error::Elapsed>) -> anyhow::Result<T> {
    answer
        .context("no answer from the API server")?
        .map_err(explain)
}

/// PURE. What Leases said when they last changed, and when that was seen.
#[derive(Default)]
struct Watched(BTreeMap<String, (LeaseSpec, Timestamp)>);

impl Watched {
    /// Only what was read now is known now; what is not asked for any more is forgotten.
    fn observe(
        &mut self,
        read: &BTreeMap<String, Option<Lease>>,
        now: Timestamp,
    ) -> BTreeMap<String, Option<LeaseView>> {
        self.0.retain(|name, _| read.contains_key(name));
        let view = |(name, lease): (&String, &Option<Lease>)| {
            let spec = lease.as_ref().map(|lease| {
                let spec = lease.spec.clone().unwrap_or_default();
                let known = self.0.get(name).filter(|(known, _)| *known == spec);
                let renewed = known.map_or(now, |(_, at)| *at);
                let lasts = lasts(&spec);
                self.0.insert(name.clone(), (spec, renewed));
                LeaseView { renewed, lasts }
            });
            (name.clone(), spec)
        };
        read.iter().map(view).collect()
    }
}

fn lasts(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds;
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(LASTS, Duration::from_secs).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::at;

    fn lease(renewed: i64) -> BTreeMap<String, Option<Lease>> {
        let spec =
            serde_json::json!({"spec": {"renewTime": at(renewed), "leaseDurationSeconds": 8}});
        let lease = serde_json::from_value(spec).unwrap();
        [("a".to_owned(), Some(lease)), ("b".to_owned(), None)].into()
    }

    #[test]
    fn a_lease_is_as_old_as_we_have_seen_it_not_change() {
        let mut watched = Watched::default();
        let mut renewed = |written: i64, now: i64| {
            let seen = watched.observe(&lease(written), at(now));
            assert_eq!(seen["b"], None);
            let lease = seen["a"].unwrap();
            assert_eq!(lease.lasts, Duration::from_secs(8));
            lease.renewed
        };
        // The kubelet's clock is an hour behind, or ahead: no matter.
        assert_eq!(renewed(-3600, 10), at(10));
        assert_eq!(renewed(-3600, 50), at(10));
        assert_eq!(renewed(-3590, 60), at(60));
        assert_eq!(renewed(3600, 70), at(70));
        assert_eq!(renewed(3600, 90), at(70));
    }

    #[test]
    fn one_that_could_not_be_read_is_watched_anew() {
        let mut watched = Watched::default();
        watched.observe(&lease(0), at(10));
        assert!(watched.observe(&BTreeMap::new(), at(20)).is_empty());
        assert_eq!(
            watched.observe(&lease(0), at(60))["a"].unwrap().renewed,
            at(60)
        );
    }
}
