//! The systemd journal and log files in a running detector: a host of the test's own, whose journal the
//! test writes.

#![expect(clippy::disallowed_methods, reason = "the harness measures deadlines")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nodemend_tests::daemon::Daemon;
use nodemend_tests::journal_file::{COMPACT, When, Writer};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tempfile::TempDir;

use crate::Test;
use crate::support::Needs::Root;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "an_entry_of_the_journal_is_told_within_a_second",
        Root,
        within_a_second,
    ),
    (
        "entries_of_the_journal_are_counted_once_through_kills_and_rotations",
        Root,
        exact_counts,
    ),
    (
        "a_host_without_a_journal_is_told_of_and_a_late_one_is_read",
        Root,
        late,
    ),
    (
        "what_kubelet_systemd_and_the_cni_write_is_told_without_a_rule",
        Root,
        without_a_rule,
    ),
];

const MACHINE: &str = "00112233445566778899aabbccddeeff";
const CONFIG: &str = "sources:\n  kernelLog: {enabled: false}\n  bpf: {enabled: false}\n  \
    nvml: {enabled: false}\nlogRules:\n- {name: pleg, source: journal, unit: kubelet, \
    pattern: 'PLEG is not healthy', reason: KubeletStuck, condition: ContainerRuntimeReady}\n";

/// With /proc and root file system of its own.
struct Host {
    folder: TempDir,
    journald: Option<Writer>,
    files: u8,
}

impl Host {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            let parent = path.parent().context("find a folder")?;
            fs::create_dir_all(parent).context("make a folder")?;
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        // Other mounts than the detector's own, so that it looks below /proc/1/root.
        let mount = "1 0 0:1 / / rw - tmpfs tmpfs rw\n";
        write("proc/1/mountinfo", mount)?;
        write("proc/1/root/etc/machine-id", MACHINE)?;
        write("detector.yaml", CONFIG)?;
        Ok(Self {
            folder,
            journald: None,
            files: 0,
        })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn args(&self) -> [String; 4] {
        let path = |path: &str| self.path(path).display().to_string();
        [
            "--host-proc".to_owned(),
            path("proc"),
            "--config".to_owned(),
            path("detector.yaml"),
        ]
    }

    fn journal(&self) -> PathBuf {
        let path = format!("proc/1/root/var/log/journal/{MACHINE}/system.journal");
        self.path(&path)
    }

    fn start_journald(&mut self) -> anyhow::Result<()> {
        let journal = self.journal();
        let parent = journal.parent().context("find a folder")?;
        fs::create_dir_all(parent).context("make a folder")?;
        let seqnum = self.journald.as_ref().map_or(0, |journald| journald.seqnum);
        self.files += 1;
        let new = Writer::create(&journal, [self.files; 16], [99; 16], COMPACT, seqnum);
        if let Some(old) = self.journald.replace(new.context("make a journal")?) {
            old.archive().context("archive a journal")?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> anyhow::Result<()> {
        let archive = format!("system@{:03}.journal", self.files);
        let archive = self.journal().with_file_name(archive);
        fs::rename(self.journal(), archive).context("rotate a journal")?;
        self.start_journald()
    }

    fn log(&mut self, message: &str) -> anyhow::Result<()> {
        self.log_of("kubelet.service", message)
    }

    fn log_of(&mut self, unit: &str, message: &str) -> anyhow::Result<()> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read")?;
        let boot = u128::from_str_radix(&boot.trim().replace('-', ""), 16).context("parse")?;
        let time = clock_gettime(ClockId::Monotonic);
        let monotonic =
            u64::try_from(time.tv_sec)? * 1_000_000 + u64::try_from(time.tv_nsec)? / 1000;
        let when = When {
            monotonic,
            realtime: 1_700_000_000_000_000 + monotonic,
            boot: boot.to_be_bytes(),
        };
        let (unit, message) = (
            format!("_SYSTEMD_UNIT={unit}"),
            format!("MESSAGE={message}"),
        );
        let fields: &[&[u8]] = &[b"_PID=77", unit.as_bytes(), message.as_bytes()];
        let journald = self.journald.as_mut().context("no journald")?;
        journald.append(when, fields).context("append to a journal")
    }
}

fn watch(host: &Host) -> anyhow::Result<Watch> {
    let args = host.args();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    Watch::start(&args)
}

fn opened(line: &Value) -> bool {
    line["transition"] == "opened" && line["reason"] == "KubeletStuck"
}

fn within_a_second() -> anyhow::Result<()> {
    let mut host = Host::new()?;
    host.start_journald()?;
    let mut watch = watch(&host)?;
    host.log("all is well")?;
    let written = Instant::now();
    host.log("skipping pod synchronization - [PLEG is not healthy]")?;
    let told = watch.line("the rule's finding", opened)?;
    let took = written.elapsed();
    ensure!(took < Duration::from_secs(1), "it took {took:?}");
    let message = told["message"].as_str().unwrap_or_default();
    let expected = "pleg matched in kubelet.service: skipping pod";
    ensure!(message.starts_with(expected), "{message}");
    ensure!(told["historic"] == false, "{told}");
    let late = told["foundNs"].as_u64().unwrap_or(0) - told["faultNs"].as_u64().unwrap_or(0);
    ensure!(late < 1_000_000_000, "{late} ns after its time");
    Ok(())
}

fn late() -> anyhow::Result<()> {
    let mut host = Host::new()?;
    let mut watch = watch(&host)?;
    let why = |line: &Value| {
        line["message"] == "journal not watched"
            && line["trouble"]
                .as_str()
                .is_some_and(|why| why.contains("Storage="))
    };
    watch.line("what to do", why)?;
    host.start_journald()?;
    host.log("PLEG is not healthy")?;
    watch.line("the rule's finding", opened)?;
    Ok(())
}

fn without_a_rule() -> anyhow::Result<()> {
    let mut host = Host::new()?;
    let log = host.path("proc/1/root/var/log/aws-routed-eni/ipamd.log");
    fs::create_dir_all(log.parent().context("find a folder")?).context("make a folder")?;
    fs::write(&log, "Unable to reach API Server\n".repeat(9)).context("write a log")?;
    let config = CONFIG.split("logRules").next().unwrap_or_default();
    fs::write(host.path("detector.yaml"), config).context("write a configuration")?;
    host.start_journald()?;
    let mut watch = watch(&host)?;
    // The last of the files that are looked for: ipamd's own is followed by then.
    watch.line("the files have been looked for", |line| {
        line["message"] == "not on this host" && line["path"] == "/var/log/cron.log"
    })?;
    host.log_of(
        "init.scope",
        "kubelet.service: Failed with result 'exit-code'.",
    )?;
    for count in 1..=4 {
        let line =
            format!("kubelet.service: Scheduled restart job, restart counter is at {count}.");
        host.log_of("init.scope", &line)?;
        // A service cannot speak for systemd.
        host.log_of("evil.service", &line.replace("kubelet", "sshd"))?;
        let line = line.replace("kubelet", "chronyd");
        host.log_of(
            "init.scope",
            if count < 4 { &line } else { "Started chronyd." },
        )?;
    }
    host.log("E0101 00:00:00.0 1 x.go:1] \"Error syncing pod\" err=\"OCI runtime create failed: x\" pod=\"a/b\"")?;
    let mut file = fs::File::options()
        .append(true)
        .open(&log)
        .context("open a log")?;
    // What was written before the agent's start does not count; two lines are not enough.
    writeln!(
        file,
        "Unable to reach API Server\nUnable to reach API Server"
    )
    .context("write")?;
    let of = |reason: &'static str| {
        move |line: &Value| line["transition"] == "opened" && line["reason"] == reason
    };
    let failed = watch.line("kubelet failed", of("KubeletFailed"))?;
    ensure!(failed["severity"] == "Warning", "{failed}");
    watch.line("kubelet restarts", of("KubeletRepeatedRestart"))?;
    let create = watch.line("the runtime failed", of("ContainerRuntimeFailed"))?;
    ensure!(create["entity"] == "pod a/b", "{create}");
    ensure!(
        !watch.findings().iter().any(of("IPAMDNotReady")),
        "two lines were enough"
    );
    writeln!(file, "Unable to reach API Server").context("write")?;
    watch.line("ipamd is not ready", of("IPAMDNotReady"))?;
    let others = ["SshdRepeatedRestart", "ChronydRepeatedRestart"];
    for other in others {
        ensure!(!watch.findings().iter().any(of(other)), "{other}");
    }
    Ok(())
}

fn exact_counts() -> anyhow::Result<()> {
    let mut host = Host::new()?;
    host.start_journald()?;
    let kubeconfig = host.path("kubeconfig");
    write_kubeconfig(&kubeconfig)?;
    let kubeconfig = kubeconfig.display().to_string();
    let mut args = vec!["run", "--node-name", "none", "--kubeconfig", &kubeconfig];
    let own = host.args();
    args.extend(own.iter().map(String::as_str));
    let mut daemon = Daemon::start("nodemend-detector", &args, &[])?;
    // What is logged before the first agent's start is history.
    until("the first state is saved", || {
        Ok(daemon.saved_state()?.is_some())
    })?;
    let mut sent = 0;
    for round in 0..12 {
        for line in 0..40 {
            host.log(&format!(
                "PLEG is not healthy, for the {round}.{line}th time"
            ))?;
            sent += 1;
            if line % 15 == round {
                host.rotate()?;
            }
        }
        if round % 3 == 0 {
            wait_for_count(&daemon, sent)?;
        }
        thread::sleep(Duration::from_millis(100 * round));
        daemon.restart()?;
    }
    wait_for_count(&daemon, sent)?;
    // Nothing comes twice.
    thread::sleep(Duration::from_millis(1500));
    wait_for_count(&daemon, sent)
}

/// In what it saves for the next one, whether there is an API server or not.
fn wait_for_count(daemon: &Daemon, sent: u64) -> anyhow::Result<()> {
    until(&format!("{sent} entries are counted"), || {
        let state = daemon.saved_state()?.unwrap_or_default();
        let findings = state["findings"].as_array().cloned().unwrap_or_default();
        let count = findings
            .iter()
            .find(|finding| finding["reason"] == "KubeletStuck")
            .and_then(|finding| finding["count"].as_u64());
        ensure!(count <= Some(sent), "{count:?} of {sent} entries");
        Ok(count == Some(sent))
    })
}

fn until(what: &str, so: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !so()? {
        ensure!(Instant::now() < deadline, "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Of an API server that nobody answers for.
fn write_kubeconfig(path: &Path) -> anyhow::Result<()> {
    let text = r#"{"apiVersion":"v1","kind":"Config","current-context":"c",
        "clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:9"}}],
        "users":[{"name":"u","user":{}}],
        "contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}"#;
    fs::write(path, text).context("write a kubeconfig")
}
