//! What systemd says of its services: which have failed, and how often each was started again.
//!
//! Asked at the manager's own socket, as kubelet does it as root: no bus daemon has to run, and none says
//! who may ask.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::again::Again;
use super::asked::Asked;
use super::files::Files;
use super::{Counter, told};
use crate::clock;
use crate::dbus::{Argument, Body, Call, Connection, Failure};
use crate::host_log;
use crate::signal::What;
use crate::text;

/// There while systemd is the host's init.
const FOLDER: &str = "root/run/systemd/system/";
const SOCKET: &str = "1/root/run/systemd/private";
const PATIENCE: Duration = Duration::from_secs(10);
const MANAGER: &str = "/org/freedesktop/systemd1";
/// Services that are asked for more than their state.
const MOST: usize = 1024;
/// Of those that have failed.
const MOST_TOLD: usize = 16;

pub(super) struct Systemd {
    socket: PathBuf,
    manager: Option<Asked<Result<Option<Services>, String>>>,
    failed: Again<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Services {
    at: Duration,
    /// Those that systemd has started again since somebody started them.
    restarts: BTreeMap<String, u64>,
    /// By name, how they ended.
    failed: BTreeMap<String, String>,
}

impl Systemd {
    pub(super) fn new(proc: &Path) -> Self {
        Self {
            socket: proc.join(SOCKET),
            manager: None,
            failed: Again::default(),
        }
    }
}

impl Counter for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[FOLDER]
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.manager.as_ref())
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        if !files.any() {
            return Vec::new();
        }
        let manager = Asked::started(&mut self.manager, "systemd", || {
            let socket = self.socket.clone();
            move || ask(&socket, PATIENCE)
        });
        let services = manager.and_then(|asked| asked.take_well("systemd's services"));
        let Some(Services {
            at,
            restarts,
            failed,
        }) = services.flatten()
        else {
            return Vec::new();
        };
        let mut found = self.failed(failed);
        found.push(What::Restarts {
            at,
            units: restarts,
        });
        found
    }
}

impl Systemd {
    /// In two readings: one that has just ended may be started again.
    fn failed(&mut self, now: BTreeMap<String, String>) -> Vec<What> {
        let now = now.into_iter().take(MOST_TOLD).collect();
        let (still, over) = self.failed.step(now);
        let still = still
            .into_iter()
            .map(|(unit, result)| told::still(host_log::failed(&unit, &result)));
        let over = over
            .into_iter()
            .map(|unit| told::over(host_log::failed(&unit, "no longer")));
        still.chain(over).collect()
    }
}

/// None where no systemd listens.
fn ask(socket: &Path, patience: Duration) -> Result<Option<Services>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        match timeout(patience, services(socket)).await {
            Ok(Ok(services)) => Ok(Some(services)),
            Ok(Err(Failure::Absent)) => Ok(None),
            Ok(Err(failure)) => Err(failure.to_string()),
            Err(_late) => Err(format!("no answer within {patience:?}")),
        }
    })
}

async fn services(socket: &Path) -> Result<Services, Failure> {
    let mut systemd = Connection::open(socket).await?;
    let list = Call {
        path: MANAGER,
        interface: "org.freedesktop.systemd1.Manager",
        method: "ListUnitsByPatterns",
        arguments: vec![
            Argument::Texts(Vec::new()),
            Argument::Texts(vec!["*.service"]),
        ],
    };
    let listed = one(systemd.call(&[list]).await?)?;
    let units = units(listed).ok_or_else(|| unexpected("ListUnitsByPatterns"))?;
    let asked: Vec<&Unit> = units.iter().filter(|unit| unit.is_started()).collect();
    let calls: Vec<Call> = asked
        .iter()
        .map(|unit| property(&unit.path, "NRestarts"))
        .collect();
    let mut restarts = BTreeMap::new();
    for (unit, answer) in asked.iter().zip(systemd.call(&calls).await?) {
        // 0: it was forgotten meanwhile.
        let count = match answer {
            Err(Failure::Refused(why)) if is_gone(&why) => 0,
            answer => variant_number(answer?).ok_or_else(|| unexpected("NRestarts"))?,
        };
        if count > 0 {
            restarts.insert(unit.name.clone(), count.into());
        }
    }
    // All its restarts that are counted were before.
    let at = clock::boot();
    let failed: Vec<&Unit> = units.iter().filter(|unit| unit.sub == "failed").collect();
    let calls: Vec<Call> = failed
        .iter()
        .map(|unit| property(&unit.path, "Result"))
        .collect();
    let results = systemd.call(&calls).await?;
    let failed = failed.iter().zip(results).map(|(unit, answer)| {
        let result = answer.ok().and_then(variant_text);
        (unit.name.clone(), result.unwrap_or_default())
    });
    Ok(Services {
        at,
        restarts,
        failed: failed.collect(),
    })
}

struct Unit {
    name: String,
    sub: String,
    path: String,
}

impl Unit {
    /// What is not started, or runs no more, is started again by nobody.
    fn is_started(&self) -> bool {
        !["dead", "exited"].contains(&self.sub.as_str())
    }
}

/// `a(ssssssouso)`: name, description, load, active, sub, following, path, job, its type, its path.
fn units(mut body: Body) -> Option<Vec<Unit>> {
    if body.signature != "a(ssssssouso)" {
        return None;
    }
    let length = usize::try_from(body.number()?).ok()?;
    body.align(8)?;
    let end = body.place().checked_add(length)?;
    let mut units = Vec::new();
    while body.place() < end && units.len() < MOST {
        body.align(8)?;
        // As of the journal's line of it.
        let name = text::part(body.text()?, 256);
        let [_description, _load, _active, sub, _following, path] = [
            body.text()?,
            body.text()?,
            body.text()?,
            body.text()?,
            body.text()?,
            body.text()?,
        ];
        body.number()?;
        body.text()?;
        body.text()?;
        units.push(Unit { name, sub, path });
    }
    Some(units)
}

fn property<'a>(path: &'a str, name: &'a str) -> Call<'a> {
    const SERVICE: &str = "org.freedesktop.systemd1.Service";
    Call {
        path,
        interface: "org.freedesktop.DBus.Properties",
        method: "Get",
        arguments: vec![Argument::Text(SERVICE), Argument::Text(name)],
    }
}

fn one(answers: Vec<Result<Body, Failure>>) -> Result<Body, Failure> {
    let answer = answers.into_iter().next();
    answer.ok_or_else(|| unexpected("nothing"))?
}

fn variant(mut body: Body, kind: &str) -> Option<Body> {
    let is = body.signature == "v" && body.signature()? == kind;
    is.then_some(body)
}

fn variant_number(body: Body) -> Option<u32> {
    variant(body, "u")?.number()
}

fn variant_text(body: Body) -> Option<String> {
    let text = variant(body, "s")?.text()?;
    Some(text::part(text, 64))
}

fn is_gone(error: &str) -> bool {
    const GONE: [&str; 2] = [
        "org.freedesktop.DBus.Error.UnknownObject",
        "org.freedesktop.systemd1.NoSuchUnit",
    ];
    GONE.contains(&error)
}

fn unexpected(what: &str) -> Failure {
    Failure::Broken(format!("an answer to {what} that cannot be read"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::dbus::server::{self, Deed, Server};
    use crate::reason::Reason;
    use crate::signal::Counted;

    const LONG: Duration = Duration::from_secs(20);

    /// Name, state, and how often it was started again.
    type Service = (&'static str, &'static str, u32);

    fn systemd(services: &[Service]) -> (Server, Arc<Mutex<Vec<Service>>>) {
        let services = Arc::new(Mutex::new(services.to_vec()));
        let known = Arc::clone(&services);
        let server = Server::start(move |mut asked| {
            let services = known.lock().unwrap();
            if asked.method == "ListUnitsByPatterns" {
                assert_eq!(asked.path, MANAGER);
                let units = services.iter().map(|(name, sub, _)| (*name, *sub));
                let units: Vec<_> = units.collect();
                return Deed::Answer("a(ssssssouso)", server::units(&units));
            }
            assert_eq!(asked.method, "Get");
            let path = asked.path.strip_prefix("/unit/").unwrap();
            let name = path.replace("_2e", ".");
            let (_, _, restarts) = services.iter().find(|unit| unit.0 == name).unwrap();
            let [_interface, property] = [(); 2].map(|()| asked.body.text().unwrap());
            match (property.as_str(), *restarts) {
                ("NRestarts", u32::MAX) => Deed::Refuse("org.freedesktop.DBus.Error.UnknownObject"),
                ("NRestarts", 666) => Deed::Refuse("org.freedesktop.DBus.Error.UnknownProperty"),
                ("NRestarts", 777) => Deed::Answer("v", server::variant_text("many")),
                ("NRestarts", number) => Deed::Answer("v", server::variant_number(number)),
                _ => Deed::Answer("v", server::variant_text("exit-code")),
            }
        });
        (server, services)
    }

    fn answer(services: &[Service]) -> Result<Services, String> {
        let (server, _) = systemd(services);
        Ok(ask(&server.socket, LONG)?.unwrap())
    }

    #[test]
    fn systemd_is_asked_for_restarts_of_what_runs_and_how_what_failed_ended() {
        let services = answer(&[
            ("kubelet.service", "running", 7),
            ("containerd.service", "auto-restart", 3),
            ("chronyd.service", "running", 0),
            ("gone.service", "running", u32::MAX),
            ("once.service", "dead", 9),
            ("done.service", "exited", 9),
            ("sick.service", "failed", 4),
        ])
        .unwrap();
        let restarts = [
            ("containerd.service", 3),
            ("kubelet.service", 7),
            ("sick.service", 4),
        ];
        let restarts = restarts.map(|(name, number)| (name.to_owned(), number));
        assert_eq!(services.restarts, restarts.into());
        let failed = [("sick.service".to_owned(), "exit-code".to_owned())];
        assert_eq!(services.failed, failed.into());
    }

    /// A reading that lacks a service would make it look as if that had begun anew.
    #[test]
    fn a_systemd_without_the_number_or_with_a_strange_answer_is_an_error() {
        for strange in [666, 777] {
            let error = answer(&[("a.service", "running", strange)]).unwrap_err();
            assert!(
                error.contains("UnknownProperty") || error.contains("NRestarts"),
                "{error}"
            );
        }
        let other = Server::start(|_| Deed::Answer("s", server::texts(&["none"])));
        let error = ask(&other.socket, LONG).unwrap_err();
        assert!(error.contains("ListUnitsByPatterns"), "{error}");
        // Cut off in the middle of a unit.
        let mut cut = server::units(&[("a.service", "running"), ("b.service", "running")]);
        cut.truncate(cut.len() - 20);
        let cut = Server::start(move |_| Deed::Answer("a(ssssssouso)", cut.clone()));
        assert!(ask(&cut.socket, LONG).is_err());
    }

    #[test]
    fn who_accepts_and_never_answers_is_given_up_in_time_and_nobody_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("private");
        let short = Duration::from_millis(200);
        assert_eq!(ask(&socket, short), Ok(None));
        let silent = UnixListener::bind(&socket).unwrap();
        let error = ask(&socket, short).unwrap_err();
        assert!(error.starts_with("no answer within"), "{error}");
        drop(silent);
        assert_eq!(ask(&socket, short), Ok(None));
        let silent = Server::start(|_| Deed::Silence);
        assert!(ask(&silent.socket, short).is_err());
    }

    fn failed(systemd: &mut Systemd, units: &[&str]) -> Vec<(Reason, String, Counted)> {
        let units = units.iter().map(|unit| (*unit).to_owned());
        let units = units.map(|unit| (unit, "exit-code".to_owned())).collect();
        let told = systemd.failed(units).into_iter().map(|what| match what {
            What::Counted { fault, counted } => (fault.reason, fault.entity, counted),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    #[test]
    fn a_service_that_has_failed_is_told_from_the_second_reading_until_it_has_not() {
        let mut systemd = Systemd::new(Path::new("/nonexistent"));
        let sick = |counted| {
            let unit = "sick.service".to_owned();
            (Reason::ServiceFailedToStart, unit, counted)
        };
        let kubelet = |counted| (Reason::KubeletFailed, "kubelet.service".to_owned(), counted);
        assert_eq!(failed(&mut systemd, &["sick.service"]), []);
        assert_eq!(
            failed(&mut systemd, &["kubelet.service", "sick.service"]),
            [sick(Counted::Still)]
        );
        assert_eq!(
            failed(&mut systemd, &["snap.kubelet-eks.daemon.service"]),
            [sick(Counted::Over)]
        );
        assert_eq!(
            failed(&mut systemd, &["snap.kubelet-eks.daemon.service"]),
            [kubelet(Counted::Still)]
        );
        assert_eq!(failed(&mut systemd, &[]), [kubelet(Counted::Over)]);
        let many: Vec<_> = (0..100).map(|unit| format!("u{unit}.service")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        failed(&mut systemd, &many);
        assert_eq!(failed(&mut systemd, &many).len(), MOST_TOLD);
    }

    /// Asks until there is an answer.
    fn look(systemd: &mut Systemd) -> Vec<What> {
        let files = Files::of(&[(FOLDER, &[], "")]);
        for _ in 0..2000 {
            let found = systemd.look(&files, Duration::ZERO);
            if !found.is_empty() {
                return found;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("no answer");
    }

    #[test]
    fn a_systemd_that_was_away_is_read_again_when_it_is_back() {
        let (server, services) = systemd(&[("kubelet.service", "running", 1)]);
        let folder = tempfile::tempdir().unwrap();
        let mut check = Systemd::new(folder.path());
        check.socket.clone_from(&server.socket);
        let number = |found: Vec<What>| match found.as_slice() {
            [What::Restarts { units, .. }] => units["kubelet.service"],
            other => panic!("{other:?}"),
        };
        assert_eq!(number(look(&mut check)), 1);
        let away = server.socket.with_file_name("away");
        std::fs::rename(&server.socket, &away).unwrap();
        let files = Files::of(&[(FOLDER, &[], "")]);
        for _ in 0..20 {
            check.look(&files, Duration::ZERO);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(check.look(&files, Duration::ZERO), []);
        services.lock().unwrap()[0].2 = 5;
        std::fs::rename(&away, &server.socket).unwrap();
        assert_eq!(number(look(&mut check)), 5);
        assert_eq!(check.look(&Files::default(), Duration::ZERO), []);
    }
}
