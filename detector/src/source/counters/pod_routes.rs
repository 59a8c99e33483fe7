//! Whether packets find the pods of the VPC CNI: for each address that it has given, a rule and a
//! route, and a default route in each table that a rule names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::again::Again;
use super::asked::Asked;
use super::files::Files;
use super::netlink::NetworkOfHost;
use super::routes::{self, Routing, To};
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{HOST, What};
use crate::text;

/// The address manager's own record. `/var/run` is mostly a link to `/run`.
pub(super) const CHECKPOINTS: [&str; 2] = [
    "root/run/aws-node/ipam.json",
    "root/var/run/aws-node/ipam.json",
];

/// As the VPC CNI makes them: to a pod, and from a pod that has its address from a further interface.
const TO_POD: u32 = 512;
const FROM_POD: u32 = 1536;
/// That one message names.
const MOST_NAMED: usize = 5;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Checkpoint {
    #[serde(default)]
    pub(super) allocations: Vec<Allocation>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Allocation {
    /// Of its sandbox.
    #[serde(default, rename = "containerID")]
    pub(super) container_id: String,
    #[serde(default)]
    ipv4: String,
    #[serde(default)]
    ipv6: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default, rename = "k8sPodNamespace")]
    namespace: String,
    #[serde(default, rename = "k8sPodName")]
    name: String,
}

impl Checkpoint {
    /// None where there is none, or it is being written.
    pub(super) fn of(files: &Files) -> Option<Self> {
        let mut texts = CHECKPOINTS.iter().filter_map(|path| files.one(path));
        serde_json::from_str(texts.next()?).ok()
    }
}

impl Allocation {
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let texts = [&self.ipv4, &self.ipv6];
        texts.into_iter().filter_map(|text| text.parse().ok())
    }

    pub(super) fn pod(&self) -> String {
        let pod = format!("{}/{}", self.metadata.namespace, self.metadata.name);
        text::part(pod, 128)
    }
}

pub(super) struct PodRoutes {
    proc: PathBuf,
    kernel: Option<Asked<Result<Routing, String>>>,
    judge: Judge,
}

#[derive(Default)]
struct Judge {
    missing: Again<(Reason, String)>,
    told: BTreeSet<Reason>,
}

impl PodRoutes {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self {
            proc,
            kernel: None,
            judge: Judge::default(),
        }
    }
}

impl Counter for PodRoutes {
    fn name(&self) -> &'static str {
        "pod-routes"
    }

    fn wants(&self) -> &'static [&'static str] {
        &CHECKPOINTS
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.kernel.as_ref())
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let Some(checkpoint) = Checkpoint::of(files) else {
            return Vec::new();
        };
        let kernel = Asked::started(&mut self.kernel, "routes", || {
            let mut network = NetworkOfHost::new(&self.proc);
            move || {
                network.enter().map_err(|error| error.to_string())?;
                routes::read().map_err(|error| error.to_string())
            }
        });
        let routing = kernel.and_then(|kernel| kernel.take_well("routes and rules"));
        routing.map_or_else(Vec::new, |routing| self.judge.look(&checkpoint, &routing))
    }
}

impl Judge {
    fn look(&mut self, checkpoint: &Checkpoint, routing: &Routing) -> Vec<What> {
        let (still, _) = self.missing.step(missing(checkpoint, routing));
        let mut by_reason: BTreeMap<Reason, Vec<String>> = BTreeMap::new();
        for ((reason, _), shown) in still {
            by_reason.entry(reason).or_default().push(shown);
        }
        let over = self
            .told
            .extract_if(.., |reason| !by_reason.contains_key(reason));
        let over: Vec<Reason> = over.collect();
        self.told.extend(by_reason.keys());
        let still = by_reason.into_iter().map(|(reason, shown)| {
            let what = match reason {
                Reason::MissingIpRules => "no routing rule for",
                Reason::MissingIpRoutes => "no route to",
                _ => "no default route in",
            };
            let named = shown.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>();
            let more = match shown.len().saturating_sub(MOST_NAMED) {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            let message = format!("{what} {}{more}", named.join(", "));
            told::still(told::fault(reason, HOST, message))
        });
        let still: Vec<What> = still.collect();
        let over = over
            .into_iter()
            .map(|reason| told::over(told::fault(reason, HOST, "all are there".to_owned())));
        still.into_iter().chain(over).collect()
    }
}

/// By reason and what it is about; with what is shown of it.
fn missing(checkpoint: &Checkpoint, routing: &Routing) -> BTreeMap<(Reason, String), String> {
    let to_pods: BTreeSet<IpAddr> = routing
        .rules
        .iter()
        .filter_map(|rule| match rule.priority {
            TO_POD => rule.to,
            FROM_POD => rule.from,
            _ => None,
        })
        .collect();
    let mut hosts = BTreeSet::new();
    let mut defaults = BTreeSet::new();
    for route in &routing.routes {
        match route.to {
            To::Host(address) if route.on_link => drop(hosts.insert(address)),
            To::Everything => drop(defaults.insert(route.table)),
            To::Host(_) | To::Network => {}
        }
    }
    let mut missing = BTreeMap::new();
    for allocation in &checkpoint.allocations {
        for address in allocation.addresses() {
            let reason = if !to_pods.contains(&address) {
                Reason::MissingIpRules
            } else if !hosts.contains(&address) {
                Reason::MissingIpRoutes
            } else {
                continue;
            };
            let shown = format!("{address} ({})", allocation.pod());
            missing.insert((reason, address.to_string()), shown);
        }
    }
    let from_pods = routing.rules.iter();
    for rule in from_pods.filter(|rule| rule.priority == FROM_POD && rule.from.is_some()) {
        if !defaults.contains(&rule.table) {
            let table = format!("table {}", rule.table);
            missing.insert((Reason::MissingDefaultRoutes, table.clone()), table);
        }
    }
    missing
}

#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(files: &Files) -> Vec<What> {
    let mut judge = Judge::default();
    let checkpoint = Checkpoint::of(files);
    checkpoint.map_or_else(Vec::new, |checkpoint| {
        // A fault is told when it was there twice.
        judge.look(&checkpoint, &Routing::default());
        judge.look(&checkpoint, &Routing::default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Counted;
    use crate::source::counters::routes::{Route, Rule};

    const POD: &str = "192.168.55.179";

    fn checkpoint() -> Checkpoint {
        let text = r#"{"version":"vpc-cni-ipam/1","allocations":[
            {"networkName":"aws-cni","containerID":"c1","ifName":"eth0","ipv4":"192.168.55.179",
             "metadata":{"k8sPodNamespace":"default","k8sPodName":"a-1"}},
            {"containerID":"c2"}]}"#;
        let files = Files::of(&[(CHECKPOINTS[0], &[], text)]);
        Checkpoint::of(&files).unwrap()
    }

    fn address() -> IpAddr {
        POD.parse().unwrap()
    }

    /// A pod of a further interface, with all that it needs.
    fn whole() -> Routing {
        let rule = |priority, from, to, table| Rule {
            priority,
            from,
            to,
            table,
        };
        let route = |table, to, on_link| Route { table, to, on_link };
        Routing {
            rules: vec![
                rule(0, None, None, 255),
                rule(TO_POD, None, Some(address()), 254),
                rule(FROM_POD, Some(address()), None, 3),
            ],
            routes: vec![
                route(254, To::Everything, false),
                route(254, To::Network, true),
                route(254, To::Host(address()), true),
                route(3, To::Everything, false),
            ],
        }
    }

    fn look(judge: &mut Judge, routing: &Routing) -> Vec<(Reason, Counted, String)> {
        let found = judge.look(&checkpoint(), routing).into_iter();
        let found = found.map(|what| match what {
            What::Counted { fault, counted } => (fault.reason, counted, fault.message),
            other => panic!("{other:?}"),
        });
        found.collect()
    }

    /// Told at the second reading, and over when all is whole again.
    fn breaks(broken: &Routing, reason: Reason, words: &str) {
        let mut judge = Judge::default();
        assert_eq!(look(&mut judge, &whole()), []);
        assert_eq!(look(&mut judge, broken), [], "a pod may be on its way");
        let found = look(&mut judge, broken);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1), (reason, Counted::Still));
        assert!(found[0].2.contains(words), "{found:?}");
        let found = look(&mut judge, &whole());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1), (reason, Counted::Over));
        assert_eq!(look(&mut judge, &whole()), []);
    }

    #[test]
    fn a_pod_without_a_rule_is_told() {
        let mut broken = whole();
        broken.rules.truncate(1);
        breaks(
            &broken,
            Reason::MissingIpRules,
            "192.168.55.179 (default/a-1)",
        );
    }

    #[test]
    fn a_pod_with_a_rule_and_without_a_route_is_told() {
        let mut broken = whole();
        broken.routes.remove(2);
        breaks(&broken, Reason::MissingIpRoutes, POD);
        // By a gateway it is not the pod's.
        let mut broken = whole();
        broken.routes[2].on_link = false;
        breaks(&broken, Reason::MissingIpRoutes, POD);
    }

    #[test]
    fn a_table_that_a_pod_is_sent_to_has_a_default_route() {
        let mut broken = whole();
        broken.routes.pop();
        breaks(&broken, Reason::MissingDefaultRoutes, "table 3");
    }

    #[test]
    fn a_pod_of_the_first_interface_needs_no_table_of_its_own() {
        let mut routing = whole();
        routing.rules.pop();
        routing.routes.pop();
        let mut judge = Judge::default();
        for _ in 0..3 {
            assert_eq!(look(&mut judge, &routing), []);
        }
    }

    #[test]
    fn a_record_that_is_cut_off_or_of_another_shape_says_nothing() {
        for text in ["", "{", r#"{"allocations":{}}"#, "\u{0}"] {
            let files = Files::of(&[(CHECKPOINTS[0], &[], text)]);
            assert!(Checkpoint::of(&files).is_none(), "{text}");
        }
        let files = Files::of(&[(CHECKPOINTS[0], &[], r#"{"allocations":[{"ipv4":"x"}]}"#)]);
        let checkpoint = Checkpoint::of(&files).unwrap();
        assert_eq!(missing(&checkpoint, &Routing::default()), BTreeMap::new());
    }
}
