//! A ConfigMap's folder, swapped as the kubelet does it, and the real reader behind it.

use std::fs;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::symlink;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use clap::Parser;
use rustix::event::{EventfdFlags, eventfd};
use tempfile::TempDir;

use super::*;
use crate::args::{Cli, Command};
use crate::core::{Core, Output};
use crate::finding::{Change, Transition};
use crate::probe::Prober;
use crate::reader::{self, Mailbox, Memory};
use crate::reason::ConditionType;
use crate::signal::{BlockErrorClass, BlockOperation, Disk, Signal, SourceName};
use crate::source::Source;
use crate::source::file::FileSource;
use crate::source::journal::tests::writer::{PLAIN, Writer};
use crate::state::file::Left;

fn args(config: &Path) -> SourceArgs {
    let config = config.to_str().unwrap();
    let cli = Cli::parse_from(["nodemend-detector", "watch", "--config", config]);
    match cli.command {
        Command::Watch { sources, .. } => sources,
        other => panic!("{other:?}"),
    }
}

/// A folder of one ConfigMap: `detector.yaml -> ..data/detector.yaml`, `..data -> ..N`.
struct ConfigMap {
    folder: TempDir,
    version: u32,
}

impl ConfigMap {
    fn new(text: &str) -> Self {
        let folder = TempDir::new().unwrap();
        symlink("..data/detector.yaml", folder.path().join("detector.yaml")).unwrap();
        let mut map = Self { folder, version: 0 };
        map.swap(text);
        map
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("detector.yaml")
    }

    /// As the kubelet's atomic writer does it.
    fn swap(&mut self, text: &str) {
        let at = |name: &str| self.folder.path().join(name);
        let (old, new) = (self.version, self.version + 1);
        let name = format!("..{new}");
        fs::create_dir(at(&name)).unwrap();
        fs::write(at(&name).join("detector.yaml"), text).unwrap();
        symlink(&name, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        if old > 0 {
            fs::remove_dir_all(at(&format!("..{old}"))).unwrap();
        }
        self.version = new;
    }
}

/// Reports an I/O error of each disk, at start.
struct BrokenDisks {
    never: OwnedFd,
    told: bool,
}

const DISKS: [&str; 2] = ["loop0", "sda"];

impl BrokenDisks {
    fn new() -> Self {
        let never = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        Self { never, told: false }
    }
}

impl Source for BrokenDisks {
    fn name(&self) -> SourceName {
        SourceName::Bpf
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.never.as_fd()]
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.told, true) {
            return Ok(());
        }
        for name in DISKS {
            let disk = Disk {
                major: 7,
                minor: 0,
                name: Some(name.to_owned()),
            };
            emit(Signal {
                at: crate::clock::boot(),
                historic: false,
                what: What::BlockError {
                    disk,
                    operation: BlockOperation::Read,
                    class: BlockErrorClass::Medium,
                    errno: 5,
                    sector: 0,
                    sectors: 8,
                    count: 1,
                    above: Vec::new(),
                },
            });
        }
        Ok(())
    }
}

#[test]
fn a_device_that_is_excluded_is_not_reported() {
    let map = ConfigMap::new("devices: {exclude: [loop*]}\n");
    let disks = BrokenDisks::new();
    let agent = Agent::start_on(&map.file(), vec![Box::new(disks)]);
    let reported = agent.expect(Change::Opened, "BlockDeviceIOError");
    assert_eq!(reported.finding.entity, "sda");
    assert_eq!(agent.transition(1), None);
}

const RULES: &str = "logRules:\n\
    - {name: a, source: file, path: /a.log, pattern: broken, reason: A, condition: StorageReady}\n\
    - {name: b, source: journal, unit: kubelet, pattern: broken, reason: B, \
    condition: ContainerRuntimeReady}\n";

#[test]
fn a_rule_on_a_journal_that_is_not_there_makes_its_condition_look_watched_by_no_reload() {
    let mut map = ConfigMap::new("{}\n");
    let agent = Agent::start(&map.file());
    map.swap(RULES);
    assert_eq!(agent.conditions_by("A"), []);
}

#[test]
fn a_rule_on_a_journal_that_is_there_watches_its_condition_from_the_reload_on() {
    let mut map = ConfigMap::new("{}\n");
    let agent = Agent::start(&map.file());
    let folder = "00112233445566778899aabbccddeeff";
    let etc = agent.root.path().join("etc");
    let journal = agent.root.path().join("var/log/journal").join(folder);
    fs::create_dir_all(&etc).unwrap();
    fs::create_dir_all(&journal).unwrap();
    fs::write(etc.join("machine-id"), folder).unwrap();
    Writer::create(&journal.join("system.journal"), [1; 16], [2; 16], PLAIN, 0).unwrap();
    map.swap(RULES);
    assert_eq!(
        agent.conditions_by("A"),
        [ConditionType::ContainerRuntimeReady]
    );
}

/// An agent that follows a log file below a folder of its own.
struct Agent {
    root: TempDir,
    outputs: Receiver<Output>,
    mailbox: Mailbox,
}

impl Agent {
    fn start(config: &Path) -> Self {
        Self::start_on(config, Vec::new())
    }

    fn start_on(config: &Path, mut sources: Vec<Box<dyn Source + Send>>) -> Self {
        let root = TempDir::new().unwrap();
        fs::write(root.path().join("a.log"), "").unwrap();
        let args = args(config);
        let (file, mut config) = ConfigFile::open(&args).unwrap();
        let logs = Logs {
            kernel_log: false,
            files: true,
            journal: Ok(root.path().to_owned()),
        };
        drop(logs.feed(&mut config));
        let config = Arc::new(config);
        let files = FileSource::start(root.path().to_owned()).unwrap();
        sources.push(Box::new(files));
        let prober = Prober::new(args.host_proc.clone(), args.critical_mounts.clone());
        let (sender, outputs) = mpsc::channel();
        let core = Core::new(Vec::new());
        let output = move |output| drop(sender.send(output));
        let memory = Memory {
            boot_id: "b".to_owned(),
            left: Left::Nothing,
        };
        let (mailbox, _) =
            reader::start(sources, core, prober, Arc::clone(&config), memory, output).unwrap();
        mailbox.send(Message::Existing(Vec::new()));
        let changes = mailbox.clone();
        file.watch(&config, logs, move |message| changes.send(message))
            .unwrap();
        // The log's end has been found.
        thread::sleep(Duration::from_millis(300));
        Self {
            root,
            outputs,
            mailbox,
        }
    }

    fn log(&self, line: &str) {
        let path = self.root.path().join("a.log");
        let mut file = File::options().append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    /// Those that are published when the rule for this reason is in force.
    fn conditions_by(&self, reason: &str) -> Vec<ConditionType> {
        let mut published = Vec::new();
        for _ in 0..40 {
            self.log("broken");
            match self.outputs.recv_timeout(Duration::from_millis(250)) {
                Ok(Output::Conditions { conditions, .. }) => {
                    published = conditions.iter().map(|condition| condition.kind).collect();
                }
                Ok(Output::Transition(transition))
                    if transition.finding.reason.name() == reason =>
                {
                    return published;
                }
                _ => {}
            }
        }
        panic!("no {reason} within 10 s");
    }

    /// The next one within `seconds`.
    fn transition(&self, seconds: u64) -> Option<Transition> {
        loop {
            match self.outputs.recv_timeout(Duration::from_secs(seconds)) {
                Ok(Output::Transition(transition)) => return Some(transition),
                Ok(
                    Output::Conditions { .. }
                    | Output::Probe { .. }
                    | Output::LookAtTask { .. }
                    | Output::LookAtCpu { .. }
                    | Output::Open(_)
                    | Output::State(_),
                ) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// By the next conditions that are told.
    fn runtime_is_healthy(&self) -> bool {
        loop {
            let output = self.outputs.recv_timeout(Duration::from_secs(5)).unwrap();
            if let Output::Conditions { conditions, .. } = output
                && let [condition] = conditions.as_slice()
            {
                assert_eq!(condition.kind, ConditionType::ContainerRuntimeReady);
                return condition.healthy;
            }
        }
    }

    #[track_caller]
    fn expect(&self, change: Change, reason: &str) -> Transition {
        let transition = self.transition(5).expect("nothing was reported");
        let told = (
            transition.change,
            transition.finding.reason.name().into_owned(),
        );
        assert_eq!(told, (change, reason.to_owned()));
        transition
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.mailbox.send(Message::Stop);
    }
}

fn rule(name: &str, word: &str, reason: &str) -> String {
    format!(
        "logRules:\n- {{name: {name}, source: file, path: /a.log, pattern: {word}, reason: {reason}, condition: KernelReady}}\n"
    )
}

#[test]
fn a_changed_config_map_is_in_force_within_seconds() {
    let mut map = ConfigMap::new(&rule("one", "first", "FirstBroken"));
    let agent = Agent::start(&map.file());
    agent.log("first");
    agent.expect(Change::Opened, "FirstBroken");
    map.swap(&rule("two", "second", "SecondBroken"));
    // Nobody looks after it any more.
    agent.expect(Change::Cleared, "FirstBroken");
    thread::sleep(Duration::from_millis(300));
    agent.log("first and second");
    agent.expect(Change::Opened, "SecondBroken");
}

#[test]
fn a_bad_file_keeps_the_old_one_in_force_and_is_reported_until_it_is_good() {
    let good = rule("one", "first", "ThirdBroken");
    let mut map = ConfigMap::new(&good);
    let agent = Agent::start(&map.file());
    map.swap("reasons:\n  OOMKillling: {enabled: false}\n");
    let invalid = agent.expect(Change::Opened, "ConfigInvalid");
    let message = invalid.finding.message;
    let named = "2:3: reasons.OOMKillling: unknown reason; did you mean OOMKilling?";
    assert!(message.contains(named), "{message}");
    agent.log("first");
    agent.expect(Change::Opened, "ThirdBroken");
    map.swap(&good);
    agent.expect(Change::Cleared, "ConfigInvalid");
}

#[test]
fn a_bad_file_is_bad_as_a_whole() {
    let mut map = ConfigMap::new("");
    let agent = Agent::start(&map.file());
    let mut text = rule("one", "first", "FourthBroken");
    text += "ownFatalReason: true\n";
    map.swap(&text);
    agent.expect(Change::Opened, "ConfigInvalid");
    agent.log("first");
    assert_eq!(agent.transition(1), None);
}

#[test]
fn a_rule_makes_the_container_runtime_watched_and_a_new_severity_turns_its_condition() {
    let rule = |severity: &str| {
        format!(
            "logRules:\n- {{name: r, source: file, path: /a.log, pattern: panic, reason: RuntimePanic, condition: ContainerRuntimeReady, severity: {severity}}}\n"
        )
    };
    let mut map = ConfigMap::new(&rule("Fatal"));
    let agent = Agent::start(&map.file());
    assert!(agent.runtime_is_healthy());
    agent.log("panic: broken");
    assert!(!agent.runtime_is_healthy());
    map.swap(&rule("Warning"));
    assert!(agent.runtime_is_healthy());
}

#[test]
fn what_waits_for_a_restart_is_said_while_the_rest_is_in_force() {
    let mut map = ConfigMap::new("");
    let agent = Agent::start(&map.file());
    let mut text = rule("one", "first", "FifthBroken");
    text += "sources: {kernelLog: {enabled: false}}\n";
    map.swap(&text);
    let pending = agent.expect(Change::Opened, "ConfigPending");
    assert!(pending.finding.message.contains("sources.kernelLog"));
    thread::sleep(Duration::from_millis(300));
    agent.log("first");
    agent.expect(Change::Opened, "FifthBroken");
    map.swap("");
    agent.expect(Change::Cleared, "FifthBroken");
    agent.expect(Change::Cleared, "ConfigPending");
}

#[test]
fn a_file_that_disappears_keeps_what_it_said_in_force() {
    let map = ConfigMap::new(&rule("one", "first", "SixthBroken"));
    let agent = Agent::start(&map.file());
    fs::remove_file(map.folder.path().join("..data")).unwrap();
    agent.expect(Change::Opened, "ConfigInvalid");
    agent.log("first");
    agent.expect(Change::Opened, "SixthBroken");
}

#[test]
fn an_editor_that_writes_in_place_is_followed_too() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("detector.yaml");
    fs::write(&path, "").unwrap();
    let agent = Agent::start(&path);
    fs::write(&path, "nonsense: 1\n").unwrap();
    agent.expect(Change::Opened, "ConfigInvalid");
    fs::write(&path, "").unwrap();
    agent.expect(Change::Cleared, "ConfigInvalid");
}

#[test]
fn at_start_a_file_that_was_named_must_be_there_and_be_valid() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("detector.yaml");
    let open = || match ConfigFile::open(&args(&path)) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    assert!(
        open().ends_with("detector.yaml: there is no such file"),
        "{}",
        open()
    );
    fs::write(&path, "a: 1\nb: 2\n").unwrap();
    let said = open();
    assert!(said.contains("detector.yaml:1:1: a: unknown key"), "{said}");
    assert!(said.contains("detector.yaml:2:1: b: unknown key"), "{said}");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(open().contains("not a regular file"), "{}", open());
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "").unwrap();
    assert_eq!(open(), "accepted");
}

#[test]
fn the_file_goes_before_the_flags() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("detector.yaml");
    let mounts = || ConfigFile::open(&args(&path)).unwrap().1.critical_mounts;
    fs::write(&path, "").unwrap();
    assert_eq!(mounts(), Some(args(&path).critical_mounts));
    fs::write(&path, "criticalMounts: [/data]").unwrap();
    assert_eq!(mounts(), Some(vec!["/data".to_owned()]));
}
