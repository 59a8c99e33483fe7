//! What the kernel only counts: for real where this kernel can be made to, else by folders that look like
//! its /proc and /sys.

#![expect(clippy::disallowed_methods, reason = "the harness runs the detector")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::daemon;
use nodemend_tests::faults::{Ext4, FullConntrack, PodCgroup, SilentDisk, SilentFolder, Thrashing};
use serde_json::Value;

use crate::Test;
use crate::support::Needs::{Conntrack, FuseAlone, MemoryPressure, Root};
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "refused_forks_name_pod_and_container_each_time_they_happen",
        Root,
        refused_forks,
    ),
    (
        "a_disk_that_completes_nothing_is_found_and_clears_when_it_does",
        Root,
        stuck_disk,
    ),
    (
        "a_full_conntrack_table_is_one_finding_of_log_and_counter",
        Conntrack,
        full_conntrack,
    ),
    (
        "a_host_that_waits_for_memory_is_found_by_the_kernels_own_measure",
        MemoryPressure,
        memory_stall,
    ),
    (
        "what_the_files_of_a_host_count_is_found_without_tracepoints_and_log",
        Root,
        fixtures,
    ),
    (
        "what_the_files_of_a_host_counted_before_is_not_found_nor_is_garbage",
        Root,
        quiet_fixtures,
    ),
    (
        "a_critical_disk_that_is_full_is_told_until_it_has_room",
        Root,
        full_disk,
    ),
    (
        "a_check_that_hangs_is_told_and_the_others_go_on",
        FuseAlone,
        hanging_check,
    ),
    (
        "check_says_how_each_counter_is_read_and_which_a_host_does_not_have",
        Root,
        check,
    ),
];

const POD: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";
const EVERY_SECOND: &[&str] = &["--counter-interval", "1s"];
const ALL: usize = 37;
const TWO_READINGS: Duration = Duration::from_secs(3);

fn memory_stall() -> anyhow::Result<()> {
    let mut watch = Watch::start(&[])?;
    let _thrashing = Thrashing::start(POD)?;
    let finding = watch.line("MemoryStall", |line| {
        line["transition"] == "opened" && line["reason"] == "MemoryStall"
    })?;
    ensure!(
        finding["severity"] == "Warning" && finding["condition"] == "KernelReady",
        "{finding}"
    );
    Ok(())
}

fn refused_forks() -> anyhow::Result<()> {
    let cgroup = PodCgroup::with_few_pids(POD)?;
    let mut watch = Watch::start(EVERY_SECOND)?;
    // The log tells the first of them; the counter the others, of the same finding.
    cgroup.fork_beyond("forker")?;
    let finding = watch.only_finding("PidsLimitReached", "podUid", POD)?;
    ensure!(
        finding["subject"]["containerId"] == cgroup.container_id(),
        "{finding}"
    );
    std::thread::sleep(TWO_READINGS);
    let told = watch.findings().into_iter();
    let told: Vec<_> = told
        .filter(|line| line["reason"] == "PidsLimitReached")
        .collect();
    ensure!(told.len() == 1, "log and counter told of two: {told:#?}");
    // The log says nothing any more: a detector that starts now has only the counter.
    drop(watch);
    let mut watch = Watch::start(EVERY_SECOND)?;
    cgroup.fork_beyond("forker")?;
    let finding = watch.only_finding("PidsLimitReached", "podUid", POD)?;
    let message = finding["message"].as_str().unwrap_or_default();
    ensure!(
        finding["count"] == 3 && message.ends_with("3 forks were refused"),
        "{finding}"
    );
    Ok(())
}

fn stuck_disk() -> anyhow::Result<()> {
    let config = tempfile::NamedTempFile::new().context("make a file")?;
    fs::write(config.path(), "reasons: {BlockIOStuck: {clearAfter: 1s}}")
        .context("write a configuration")?;
    let path = config.path().to_str().context("read the path of a file")?;
    let mut disk = SilentDisk::start()?;
    let device = disk.device().to_owned();
    let mut watch = Watch::start(&[EVERY_SECOND, &["--config", path]].concat())?;
    let finding = watch.only_finding("BlockIOStuck", "device", device.clone())?;
    ensure!(
        finding["severity"] == "Warning" && finding["condition"] == "StorageReady",
        "{finding}"
    );
    disk.mend();
    watch
        .line("the end of it", |line| {
            line["transition"] == "cleared"
                && line["reason"] == "BlockIOStuck"
                && line["subject"]["device"] == device
        })
        .map(drop)
}

fn full_conntrack() -> anyhow::Result<()> {
    let found = |line: &Value| line["reason"] == "ConntrackExceededKernel";
    for kernel_log in [true, false] {
        let host = Fixture::new()?;
        let config = format!("sources: {{kernelLog: {{enabled: {kernel_log}}}}}");
        host.write("config.yaml", config.as_bytes())?;
        let config = host.path("config.yaml");
        let mut watch = Watch::start(&[EVERY_SECOND, &["--config", &config]].concat())?;
        let _full = FullConntrack::fill()?;
        let first = watch.line("a full table", |line| {
            line["transition"] == "opened" && line["historic"] == false && found(line)
        })?;
        std::thread::sleep(TWO_READINGS);
        let told: Vec<_> = watch.findings().into_iter().filter(found).collect();
        ensure!(told.len() == 1, "log and counter told of two: {told:#?}");
        let message = first["message"].as_str().unwrap_or_default();
        ensure!(
            kernel_log || message.contains("is nearly full"),
            "not by the counter: {first}"
        );
    }
    Ok(())
}

/// Path, what it says at first, what it says later, and what is then found: reason and part of the
/// message.
type Counted = (
    &'static str,
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
);

const COUNTERS: &[Counted] = &[
    (
        "proc/1/net/stat/nf_conntrack",
        "entries  drop early_drop\n00000010 00000007 00000000\n",
        "entries  drop early_drop\n00000064 00000017 00000001\n",
        Some(("ConntrackExceededKernel", "16 packets were dropped")),
    ),
    (
        "proc/sys/net/netfilter/nf_conntrack_max",
        "100\n",
        "100\n",
        None,
    ),
    (
        "proc/1/net/stat/arp_cache",
        "entries  table_fulls\n00000010 00000000\n",
        "entries  table_fulls\n00000010 00000005\n",
        Some(("NeighbourTableFull", "arp_cache is full: 5 ")),
    ),
    (
        "proc/1/net/softnet_stat",
        "00000fe4 00000001 00000000\n",
        "00000fe4 00000400 00000000\n",
        Some(("PacketsDropped", "1023 packets")),
    ),
    (
        "proc/1/net/sockstat",
        "TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 0\n",
        "TCP: inuse 1 orphan 96 tw 0 alloc 1 mem 990\n",
        Some(("TCPMemoryExhausted", "990 pages of memory, of 1000")),
    ),
    (
        "proc/sys/net/ipv4/tcp_mem",
        "100 500 1000\n",
        "100 500 1000\n",
        None,
    ),
    (
        "proc/sys/net/ipv4/tcp_max_orphans",
        "100\n",
        "100\n",
        Some(("OrphanSocketsExceeded", "96 TCP sockets")),
    ),
    (
        "proc/loadavg",
        "0.10 0.20 0.30 1/234 5678\n",
        "9.00 9.00 9.00 1/32500 5678\n",
        Some(("PidsLimitReached", "32500 threads, of 32768")),
    ),
    (
        "proc/stat",
        "cpu  9 0 9 9 0 0 0 0 0 0\ncpu0 9 0 9 9 0 0 0 0 0 0\n",
        "cpu  99 0 9 9 0 0 0 0 0 0\ncpu0 99 0 9 9 0 0 0 0 0 0\n",
        None,
    ),
    ("proc/sys/kernel/pid_max", "32768\n", "32768\n", None),
    ("proc/sys/kernel/threads-max", "99999\n", "99999\n", None),
    (
        "proc/sys/fs/file-nr",
        "1056\t0\t10000\n",
        "9900\t0\t10000\n",
        Some(("FileMaxReached", "9900 files")),
    ),
    (
        "proc/meminfo",
        "MemTotal: 1 kB\nHardwareCorrupted:     0 kB\n",
        "MemTotal: 1 kB\nHardwareCorrupted:     4 kB\n",
        Some(("MemoryPagePoisoned", "4 kB more")),
    ),
    (
        "proc/pressure/cpu",
        "some avg10=1.00 avg60=1.00 avg300=1.00 total=1\n",
        "some avg10=99.00 avg60=99.00 avg300=99.01 total=9\n",
        Some(("CPUStarvation", "99.01 %")),
    ),
    (
        "sys/devices/system/cpu/cpu3/thermal_throttle/core_throttle_count",
        "5\n",
        "7\n",
        Some(("CPUThrottled", "CPU 3 was too hot")),
    ),
    (
        "sys/devices/system/edac/mc/mc0/dimm1/dimm_ce_count",
        "5\n",
        "7\n",
        Some(("EDACCorrectedError", "2 corrected memory errors on DIMM_B2")),
    ),
    (
        "sys/devices/system/edac/mc/mc0/dimm1/dimm_label",
        "DIMM_B2\n",
        "DIMM_B2\n",
        None,
    ),
    (
        "sys/devices/system/edac/mc/mc0/ue_count",
        "0\n",
        "1\n",
        Some(("EDACUncorrectedError", "1 uncorrected memory errors")),
    ),
    (
        "sys/bus/pci/devices/0000:00:1c.0/aer_dev_fatal",
        "Undefined 0\nTOTAL_ERR_FATAL 0\n",
        "Undefined 1\nTOTAL_ERR_FATAL 1\n",
        Some(("PCIeFatalError", "0000:00:1c.0")),
    ),
    (
        "sys/block/sdx/device/iotmo_cnt",
        "0x0\n",
        "0x2\n",
        Some(("SCSIError", "2 were not answered")),
    ),
    (
        "proc/1/root/sys/fs/cgroup/kubepods/pod0f7a1c9e-3b7d-4c5e-9f00-1234567890ab/pids.events",
        "max 3\n",
        "max 5\n",
        Some(("PidsLimitReached", "2 forks were refused")),
    ),
];

/// What the counters stand in for is off, and so is whatever else of this host would be found.
const CONFIG: &str = "sources: {kernelLog: {enabled: false}, bpf: {hooks: {edac: {enabled: false}, \
    pcie-error: {enabled: false}, scsi-error: {enabled: false}, scsi-timeout: {enabled: false}, \
    net-drop: {enabled: false}, poisoned-page: {enabled: false}}}}";

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        fs::write(folder.path().join("config.yaml"), CONFIG).context("write a configuration")?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn watch(&self) -> anyhow::Result<Watch> {
        let (proc, sys, config) = (
            self.path("proc"),
            self.path("sys"),
            self.path("config.yaml"),
        );
        let args = [
            "--host-proc",
            &proc,
            "--host-sys",
            &sys,
            "--config",
            &config,
        ];
        Watch::start(&[EVERY_SECOND, &args].concat())
    }

    /// Whole at once, as the kernel does.
    fn write(&self, path: &str, text: &[u8]) -> anyhow::Result<()> {
        let path = self.folder.path().join(path);
        let folder = path.parent().unwrap_or(Path::new("/"));
        let aside = self.folder.path().join("aside");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&aside, text))
            .and_then(|()| fs::rename(&aside, &path))
            .with_context(|| format!("write {}", path.display()))
    }
}

fn fixtures() -> anyhow::Result<()> {
    let host = Fixture::new()?;
    for (path, before, ..) in COUNTERS {
        host.write(path, before.as_bytes())?;
    }
    let mut watch = host.watch()?;
    for (path, _, after, _) in COUNTERS {
        host.write(path, after.as_bytes())?;
    }
    for (reason, words) in COUNTERS.iter().filter_map(|(.., found)| *found) {
        watch.line(&format!("{reason}: {words}"), |line| {
            line["transition"] == "opened"
                && line["reason"] == reason
                && line["message"]
                    .as_str()
                    .is_some_and(|message| message.contains(words))
        })?;
    }
    Ok(())
}

fn quiet_fixtures() -> anyhow::Result<()> {
    let host = Fixture::new()?;
    // All that is high is so from the beginning, but for what is a state.
    let counted = |path: &str| {
        !["loadavg", "sockstat", "file-nr", "pressure", "_max"]
            .iter()
            .any(|state| path.contains(state))
    };
    let counters = || COUNTERS.iter().filter(|(path, ..)| counted(path));
    for (path, _, after, _) in counters() {
        host.write(path, after.as_bytes())?;
    }
    let mut watch = host.watch()?;
    std::thread::sleep(TWO_READINGS);
    for (path, ..) in COUNTERS {
        host.write(
            path,
            &b"\xff\x00garbage 99999999999999999999999\n".repeat(4000),
        )?;
    }
    std::thread::sleep(TWO_READINGS);
    // What comes after it was read: so was the garbage.
    host.write("proc/sys/fs/file-nr", b"99 0 100\n")?;
    watch.line("open files", |line| line["reason"] == "FileMaxReached")?;
    let others: Vec<Value> = watch
        .findings()
        .into_iter()
        .filter(|line| {
            COUNTERS.iter().any(|(.., found)| {
                found.is_some_and(|(reason, _)| {
                    line["reason"] == reason && reason != "FileMaxReached"
                })
            })
        })
        .collect();
    ensure!(others.is_empty(), "{others:#?}");
    Ok(())
}

fn full_disk() -> anyhow::Result<()> {
    let host = Fixture::new()?;
    host.write(
        "config.yaml",
        b"reasons: {DiskNearlyFull: {clearAfter: 1s}}",
    )?;
    let proc = host.folder.path().join("proc/1");
    fs::create_dir_all(&proc)
        .and_then(|()| std::os::unix::fs::symlink("/", proc.join("root")))
        .and_then(|()| std::os::unix::fs::symlink("/proc/self/mounts", proc.join("mounts")))
        .context("make a /proc")?;
    let disk = Ext4::mounted()?;
    let path = disk.path().display().to_string();
    let (config, proc) = (host.path("config.yaml"), host.path("proc"));
    let args = [
        "--critical-mount",
        &path,
        "--config",
        &config,
        "--host-proc",
        &proc,
    ];
    let mut watch = Watch::start(&[EVERY_SECOND, &args].concat())?;
    let file = disk.path().join("file");
    let full = fs::write(&file, vec![1; 128 << 20]);
    ensure!(full.is_err(), "a small disk has room for 128 MiB");
    let of_disk = |line: &Value| line["reason"] == "DiskNearlyFull" && line["entity"] == path;
    let told = watch.line("a disk that is full", |line| {
        line["transition"] == "opened" && of_disk(line)
    })?;
    ensure!(told["severity"] == "Warning", "{told}");
    fs::remove_file(&file).context("delete a file")?;
    watch
        .line("the end of it", |line| {
            line["transition"] == "cleared" && of_disk(line)
        })
        .map(drop)
}

/// /proc/sys/fs of this host never answers.
fn hanging_check() -> anyhow::Result<()> {
    let host = Fixture::new()?;
    let silent = SilentFolder::start()?;
    host.write("proc/sys/net/ipv4/ip_forward", b"1\n")?;
    let place = host.folder.path().join("proc/sys/fs");
    std::os::unix::fs::symlink(silent.path(), place).context("make a link")?;
    let mut watch = host.watch()?;
    let hangs = |line: &Value| line["reason"] == "CheckHung" && line["entity"] == "open-files";
    let told = watch.line("the check that hangs", |line| {
        line["transition"] == "opened" && hangs(line)
    })?;
    ensure!(told["severity"] == "Warning", "{told}");
    host.write("proc/sys/net/ipv4/ip_forward", b"0\n")?;
    watch.line("what another check finds", |line| {
        line["transition"] == "opened" && line["reason"] == "NetworkSysctl"
    })?;
    // Without its server each look at it fails: the check comes back.
    drop(silent);
    watch
        .line("the end of it", |line| {
            line["transition"] == "cleared" && hangs(line)
        })
        .map(drop)
}

fn check() -> anyhow::Result<()> {
    let rows = |args: &[&str]| -> anyhow::Result<Vec<Value>> {
        let output = Command::new(daemon::binary("nodemend-detector")?)
            .args(["check", "-o", "json"])
            .args(args)
            .output()
            .context("run the detector")?;
        let rows: Vec<Value> =
            serde_json::from_slice(&output.stdout).context("parse the output of check")?;
        let of_counter = |row: &Value| {
            row["what"]
                .as_str()
                .is_some_and(|what| what.starts_with("counter "))
        };
        Ok(rows.into_iter().filter(of_counter).collect())
    };
    let here = rows(&[])?;
    ensure!(here.len() == ALL, "{here:#?}");
    let read = |row: &&Value| row["using"] == "read every 30 s";
    ensure!(here.iter().filter(read).count() >= 5, "{here:#?}");
    let folder = tempfile::tempdir().context("make a folder")?;
    let nothing = folder
        .path()
        .to_str()
        .context("read the path of a folder")?;
    let there = rows(&["--host-proc", nothing, "--host-sys", nothing])?;
    let told = |row: &&Value| {
        row["absent"] == true
            || row["using"]
                .as_str()
                .is_some_and(|using| using.starts_with("in reserve"))
    };
    ensure!(
        there.len() == ALL && there.iter().filter(told).count() == ALL,
        "{there:#?}"
    );
    Ok(())
}
