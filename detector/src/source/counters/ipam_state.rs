//! Whether the VPC CNI's record of addresses is what the container runtime's pods have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use prost::Message;

use super::again::Again;
use super::asked::Asked;
use super::files::Files;
use super::pod_routes::{CHECKPOINTS, Checkpoint};
use super::runtime_socket::RuntimeSockets;
use super::{Counter, told};
use crate::grpc::{self, Failure};
use crate::reason::Reason;
use crate::signal::{HOST, What};

const LIST: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
/// Looks between two questions.
const EVERY: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(5);
/// Sandboxes that one look asks about; their addresses do not change, so each is asked once.
const MOST_ASKED: usize = 64;
/// Of one node.
const MOST_SANDBOXES: usize = 4096;
/// That one message names.
const MOST_NAMED: usize = 5;

#[derive(Clone, PartialEq, Message)]
struct ListRequest {}

#[derive(Clone, PartialEq, Message)]
struct ListAnswer {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Sandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct Sandbox {
    #[prost(string, tag = "1")]
    id: String,
    /// 0 is ready.
    #[prost(int32, tag = "3")]
    state: i32,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct StatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, optional, tag = "5")]
    network: Option<Network>,
}

#[derive(Clone, PartialEq, Message)]
struct Network {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(message, repeated, tag = "2")]
    additional: Vec<Address>,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(string, tag = "1")]
    ip: String,
}

/// The addresses of each sandbox that is ready, as far as they have been asked for; none of those that have
/// the host's.
type Sandboxes = BTreeMap<String, BTreeSet<IpAddr>>;

pub(super) struct IpamState {
    sockets: RuntimeSockets,
    runtime: Option<Asked<Result<Sandboxes, String>>>,
    judge: Judge,
}

#[derive(Default)]
struct Judge {
    differ: Again<String>,
    told: bool,
}

impl IpamState {
    pub(super) fn new(proc: &Path) -> Self {
        Self {
            sockets: RuntimeSockets::of(proc),
            runtime: None,
            judge: Judge::default(),
        }
    }
}

impl Counter for IpamState {
    fn name(&self) -> &'static str {
        "ipam-state"
    }

    fn wants(&self) -> &'static [&'static str] {
        &CHECKPOINTS
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.runtime.as_ref())
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        if !files.any() {
            return Vec::new();
        }
        let runtime = Asked::started(&mut self.runtime, "cri", || {
            let socket = self.sockets.any();
            let mut known = Sandboxes::new();
            move || {
                ask(&socket, &mut known)?;
                Ok(known.clone())
            }
        });
        let sandboxes =
            runtime.and_then(|runtime| runtime.take_well_each(EVERY, "the runtime's pods"));
        let Some((sandboxes, checkpoint)) = sandboxes.zip(Checkpoint::of(files)) else {
            return Vec::new();
        };
        self.judge.look(&checkpoint, &sandboxes)
    }
}

fn ask(socket: &Path, known: &mut Sandboxes) -> Result<(), String> {
    let failed = |failure: Failure| failure.to_string();
    let list: ListAnswer = match grpc::unary(socket, LIST, &ListRequest {}, PATIENCE) {
        // Another runtime, which is not asked.
        Err(Failure::Absent) => ListAnswer::default(),
        other => other.map_err(failed)?,
    };
    let ready = list.items.into_iter().filter(|sandbox| sandbox.state == 0);
    let ready: BTreeSet<String> = ready
        .map(|sandbox| sandbox.id)
        .take(MOST_SANDBOXES)
        .collect();
    known.retain(|id, _| ready.contains(id));
    let new: Vec<String> = ready
        .into_iter()
        .filter(|id| !known.contains_key(id))
        .collect();
    for id in new.into_iter().take(MOST_ASKED) {
        let question = StatusRequest { id: id.clone() };
        let answer: StatusAnswer = match grpc::unary(socket, STATUS, &question, PATIENCE) {
            // It has ended since it was listed.
            Err(Failure::Refused { .. }) => continue,
            other => other.map_err(failed)?,
        };
        let network = answer
            .status
            .and_then(|status| status.network)
            .unwrap_or_default();
        let more = network.additional.into_iter().map(|address| address.ip);
        let texts = std::iter::once(network.ip).chain(more);
        known.insert(id, texts.filter_map(|text| text.parse().ok()).collect());
    }
    Ok(())
}

impl Judge {
    fn look(&mut self, checkpoint: &Checkpoint, sandboxes: &Sandboxes) -> Vec<What> {
        let fault = |message| told::fault(Reason::IpamdInconsistentState, HOST, message);
        let (still, _) = self.differ.step(differing(checkpoint, sandboxes));
        if still.is_empty() {
            let over = std::mem::take(&mut self.told);
            let over = over.then(|| told::over(fault("record and pods agree".to_owned())));
            return over.into_iter().collect();
        }
        self.told = true;
        let named: Vec<String> = still.values().take(MOST_NAMED).cloned().collect();
        let more = match still.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let message = format!(
            "ipamd's record and the runtime differ: {}{more}",
            named.join(", ")
        );
        vec![told::still(fault(message))]
    }
}

/// By sandbox: what the record has, and what it has itself.
fn differing(checkpoint: &Checkpoint, sandboxes: &Sandboxes) -> BTreeMap<String, String> {
    let mut differ = BTreeMap::new();
    for allocation in &checkpoint.allocations {
        let recorded: BTreeSet<IpAddr> = allocation.addresses().collect();
        let Some(own) = sandboxes.get(&allocation.container_id) else {
            continue;
        };
        // One that is only being set up has none yet.
        if recorded.is_empty() || own.is_empty() || !recorded.is_disjoint(own) {
            continue;
        }
        let list = |addresses: &BTreeSet<IpAddr>| {
            let shown: Vec<String> = addresses.iter().take(4).map(ToString::to_string).collect();
            shown.join(" and ")
        };
        let shown = format!(
            "{} has {}, not {}",
            allocation.pod(),
            list(own),
            list(&recorded)
        );
        differ.insert(allocation.container_id.clone(), shown);
    }
    differ
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::server::{Deed, Server};
    use crate::signal::Counted;

    fn checkpoint(address: &str) -> Checkpoint {
        let text = format!(
            r#"{{"allocations":[{{"containerID":"c1","ipv4":"{address}",
            "metadata":{{"k8sPodNamespace":"default","k8sPodName":"a-1"}}}},{{"containerID":"gone","ipv4":"10.0.0.7"}}]}}"#
        );
        Checkpoint::of(&Files::of(&[(CHECKPOINTS[0], &[], &text)])).unwrap()
    }

    fn sandboxes(addresses: &[&str]) -> Sandboxes {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        Sandboxes::from([("c1".to_owned(), addresses.collect())])
    }

    fn look(judge: &mut Judge, recorded: &str, own: &[&str]) -> Vec<(Counted, String)> {
        let found = judge
            .look(&checkpoint(recorded), &sandboxes(own))
            .into_iter();
        let found = found.map(|what| match what {
            What::Counted { fault, counted } => {
                assert_eq!(fault.reason, Reason::IpamdInconsistentState);
                (counted, fault.message)
            }
            other => panic!("{other:?}"),
        });
        found.collect()
    }

    #[test]
    fn an_address_that_differs_in_two_readings_is_told_until_it_does_not() {
        let mut judge = Judge::default();
        assert_eq!(look(&mut judge, "10.0.0.1", &["10.0.0.99"]), []);
        let found = look(&mut judge, "10.0.0.1", &["10.0.0.99"]);
        let message =
            "ipamd's record and the runtime differ: default/a-1 has 10.0.0.99, not 10.0.0.1";
        assert_eq!(found, [(Counted::Still, message.to_owned())]);
        let found = look(&mut judge, "10.0.0.1", &["10.0.0.1"]);
        assert_eq!(found[0].0, Counted::Over);
        assert_eq!(look(&mut judge, "10.0.0.1", &["10.0.0.1"]), []);
    }

    #[test]
    fn a_second_address_of_the_host_or_of_none_yet_and_a_pod_that_has_ended_differ_from_nothing() {
        let mut judge = Judge::default();
        for own in [&["fd00::1", "10.0.0.1"][..], &[]] {
            for _ in 0..3 {
                assert_eq!(look(&mut judge, "10.0.0.1", own), [], "{own:?}");
            }
        }
    }

    #[test]
    fn each_sandbox_is_asked_once_and_forgotten_with_its_end() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};
        let (rounds, asked) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (round, count) = (Arc::clone(&rounds), Arc::clone(&asked));
        let server = Server::start(move |method, question| match method {
            LIST => {
                let sandbox = |id: &str, state| Sandbox {
                    id: id.to_owned(),
                    state,
                };
                let items = match round.fetch_add(1, Ordering::Relaxed) {
                    0 | 1 => vec![sandbox("c1", 0), sandbox("gone", 0), sandbox("c2", 1)],
                    _ => Vec::new(),
                };
                Deed::Answer(ListAnswer { items }.encode_to_vec())
            }
            STATUS => {
                count.fetch_add(1, Ordering::Relaxed);
                let id = StatusRequest::decode(question).unwrap().id;
                if id == "gone" {
                    return Deed::Refuse(5, "not found");
                }
                assert_eq!(id, "c1");
                let ip = |text: &str| text.to_owned();
                let network = Network {
                    ip: ip("10.0.0.1"),
                    additional: vec![Address { ip: ip("fd00::1") }],
                };
                let status = Some(Status {
                    network: Some(network),
                });
                Deed::Answer(StatusAnswer { status }.encode_to_vec())
            }
            other => panic!("{other}"),
        });
        let mut known = Sandboxes::new();
        for _ in 0..2 {
            assert_eq!(ask(&server.socket, &mut known), Ok(()));
            assert_eq!(known, sandboxes(&["10.0.0.1", "fd00::1"]));
        }
        // The one that refuses is asked again.
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        assert_eq!(ask(&server.socket, &mut known), Ok(()));
        assert_eq!(known, Sandboxes::new());
    }
}
