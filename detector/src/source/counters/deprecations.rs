//! What containerd says of its configuration, and of what it is asked, that its next release will not have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use prost::Message;

use super::asked::Asked;
use super::files::Files;
use super::runtime_socket::RuntimeSockets;
use super::{Counter, told};
use crate::clock;
use crate::grpc::{self, Failure};
use crate::reason::Reason;
use crate::signal::{LogFault, What};
use crate::text;

const FOLDER: &str = "root/run/containerd/";
const METHOD: &str = "/containerd.services.introspection.v1.Introspection/Server";
/// Looks between two questions.
const EVERY: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(10);
/// It remembers all since its start; as EKS's agent has it, in seconds.
const RECENT: i64 = 3600;
const MOST: usize = 16;

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// Of `ServerResponse`, what is looked at.
#[derive(Clone, PartialEq, Message)]
struct Server {
    #[prost(message, repeated, tag = "4")]
    deprecations: Vec<Warning>,
}

#[derive(Clone, PartialEq, Message)]
struct Warning {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, optional, tag = "3")]
    last: Option<Time>,
}

/// `google.protobuf.Timestamp`
#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

pub(super) struct Deprecations {
    sockets: RuntimeSockets,
    containerd: Option<Asked<Result<Server, String>>>,
    judge: Judge,
}

#[derive(Default)]
struct Judge(BTreeSet<String>);

impl Deprecations {
    pub(super) fn new(proc: &Path) -> Self {
        Self {
            sockets: RuntimeSockets::of(proc),
            containerd: None,
            judge: Judge::default(),
        }
    }
}

impl Counter for Deprecations {
    fn name(&self) -> &'static str {
        "containerd-deprecations"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[FOLDER]
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.containerd.as_ref())
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        if !files.any() {
            return Vec::new();
        }
        let containerd = Asked::started(&mut self.containerd, "containerd", || {
            let socket = self.sockets.of_containerd();
            move || ask(&socket)
        });
        let server =
            containerd.and_then(|asked| asked.take_well_each(EVERY, "containerd's introspection"));
        let now = clock::now().wall.as_second();
        server.map_or_else(Vec::new, |server| self.judge.look(server, now))
    }
}

fn ask(socket: &Path) -> Result<Server, String> {
    match grpc::unary(socket, METHOD, &Nothing {}, PATIENCE) {
        // A host that has the folder, and no containerd.
        Err(Failure::Absent) => Ok(Server::default()),
        other => other.map_err(|failure| failure.to_string()),
    }
}

impl Judge {
    fn look(&mut self, server: Server, now: i64) -> Vec<What> {
        let recent = server.deprecations.into_iter().filter(|warning| {
            let last = warning.last.as_ref().map(|last| last.seconds);
            last.is_some_and(|last| now.saturating_sub(last) < RECENT)
        });
        let recent: BTreeMap<String, String> = recent
            .take(MOST)
            .map(|warning| {
                (
                    text::part(&warning.id, 128),
                    text::part(&warning.message, 256),
                )
            })
            .collect();
        let fault = |id: String, message| {
            LogFault::new(Reason::DeprecatedContainerdConfiguration, id, message)
        };
        let over = self.0.extract_if(.., |id| !recent.contains_key(id));
        let over = over.map(|id| {
            let message = format!("{id} has not been used for an hour");
            told::over(fault(id, message))
        });
        let mut found: Vec<What> = over.collect();
        for (id, message) in recent {
            self.0.insert(id.clone());
            let message = format!("{id}: {message}");
            found.push(told::still(fault(id, message)));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::server::{self, Deed};
    use crate::signal::Counted;

    const NOW: i64 = 1_700_000_000;
    const SCHEMA: &str = "io.containerd.deprecation/pull-schema-1-image";

    fn warning(id: &str, last: i64) -> Warning {
        Warning {
            id: id.to_owned(),
            message: "Schema 1 images are deprecated; pull none.".to_owned(),
            last: Some(Time { seconds: last }),
        }
    }

    fn look(judge: &mut Judge, deprecations: Vec<Warning>, now: i64) -> Vec<(String, Counted)> {
        let found = judge.look(Server { deprecations }, now).into_iter();
        let found = found.map(|what| match what {
            What::Counted { fault, counted } => {
                assert_eq!(fault.reason, Reason::DeprecatedContainerdConfiguration);
                assert!(!fault.message.contains(';'), "{}", fault.message);
                (fault.entity, counted)
            }
            other => panic!("{other:?}"),
        });
        found.collect()
    }

    #[test]
    fn what_was_used_within_the_hour_is_told_until_an_hour_after() {
        let mut judge = Judge::default();
        let used = || vec![warning(SCHEMA, NOW - 10)];
        let still = [(SCHEMA.to_owned(), Counted::Still)];
        assert_eq!(look(&mut judge, used(), NOW), still);
        assert_eq!(look(&mut judge, used(), NOW + 3589), still);
        let over = [(SCHEMA.to_owned(), Counted::Over)];
        assert_eq!(look(&mut judge, used(), NOW + 3590), over);
        assert_eq!(look(&mut judge, used(), NOW + 7200), []);
    }

    #[test]
    fn what_was_used_long_ago_or_never_is_not_told() {
        let mut judge = Judge::default();
        let never = Warning {
            last: None,
            ..warning("x", 0)
        };
        let old = vec![warning(SCHEMA, NOW - 7200), never];
        assert_eq!(look(&mut judge, old, NOW), []);
        assert_eq!(look(&mut judge, Vec::new(), NOW), []);
    }

    #[test]
    fn of_very_many_only_some_are_told() {
        let mut judge = Judge::default();
        let many = (0..1000).map(|id| warning(&id.to_string(), NOW)).collect();
        assert_eq!(look(&mut judge, many, NOW).len(), MOST);
    }

    #[test]
    fn containerd_is_asked_as_it_wants_to_be() {
        let server = server::Server::start(|method, question| {
            assert_eq!(method, METHOD);
            assert!(question.is_empty());
            let mut answer = Server {
                deprecations: vec![warning(SCHEMA, NOW)],
            }
            .encode_to_vec();
            // Its uuid, and the pid, which nobody looks at: fields 1 and 2.
            answer.extend([0x0a, 0x01, b'u', 0x10, 0x07]);
            Deed::Answer(answer)
        });
        let deprecations = vec![warning(SCHEMA, NOW)];
        assert_eq!(ask(&server.socket), Ok(Server { deprecations }));
        let nobody = server.socket.with_file_name("none");
        assert_eq!(ask(&nobody), Ok(Server::default()));
        let old = server::Server::start(|_, _| Deed::Refuse(12, "unknown service"));
        let error = ask(&old.socket).unwrap_err();
        assert!(error.contains("unknown service"), "{error}");
    }
}
