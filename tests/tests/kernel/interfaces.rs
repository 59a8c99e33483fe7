//! Real interfaces of a network namespace that stands for the host's.

#![expect(clippy::disallowed_methods, reason = "the harness runs the detector")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nodemend_tests::faults::PacketFilter;
use tempfile::TempDir;

use crate::Test;
use crate::support::Needs::Root;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_loopback_that_is_down_is_fatal_until_it_is_up",
        Root,
        loopback,
    ),
    (
        "rules_and_routes_of_pods_that_are_missing_are_told_until_they_are_there",
        Root,
        pod_routes,
    ),
    (
        "rules_that_refuse_packets_are_told_in_the_old_and_the_new_form_and_node_local_ones_are_not",
        Root,
        refused_packets,
    ),
];

/// A process with network and mounts of its own, and a /proc in which it is process 1.
struct Host {
    folder: TempDir,
    init: Child,
}

impl Host {
    fn start() -> anyhow::Result<Self> {
        let script = "mount -t sysfs none /sys && mount -t tmpfs none /run && exec sleep 600";
        let init = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", script])
            .spawn()
            .context("run unshare (util-linux)")?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let host = Self { folder, init };
        let process = format!("/proc/{}", host.init.id());
        symlink(process, host.folder.path().join("1")).context("make a link")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        // Its own, once sysfs is mounted: the namespace has nothing but a loopback.
        while fs::read_dir(host.interfaces()).map_or(true, |found| found.count() != 1) {
            ensure!(
                Instant::now() < deadline,
                "no network namespace within 10 s"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(host)
    }

    fn interfaces(&self) -> PathBuf {
        self.folder.path().join("1/root/sys/class/net")
    }

    /// Of iproute2, in its network namespace.
    fn ip(&self, arguments: &str) -> anyhow::Result<()> {
        let status = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.init.id()))
            .arg("ip")
            .args(arguments.split(' '))
            .status()
            .context("run nsenter (util-linux)")?;
        ensure!(status.success(), "ip {arguments}: {status}");
        Ok(())
    }

    /// Each second, without the time for which a reason must be over.
    fn watch(&self, reasons: &[&str]) -> anyhow::Result<Watch> {
        let config = self.folder.path().join("config.yaml");
        let at_once = reasons
            .iter()
            .map(|reason| format!("{reason}: {{clearAfter: 1s}}"));
        let text = format!("reasons: {{{}}}", at_once.collect::<Vec<_>>().join(", "));
        fs::write(&config, text).context("write a configuration")?;
        let (proc, config) = (
            self.folder.path().display().to_string(),
            config.display().to_string(),
        );
        Watch::start(&[
            "--host-proc",
            &proc,
            "--counter-interval",
            "1s",
            "--config",
            &config,
        ])
    }

    fn set_up(&self) -> anyhow::Result<()> {
        fs::write(self.interfaces().join("lo/flags"), "0x9").context("set lo up")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.init.kill());
        drop(self.init.wait());
    }
}

fn loopback() -> anyhow::Result<()> {
    let host = Host::start()?;
    let proc = host.folder.path().display().to_string();
    let mut watch = Watch::start(&["--host-proc", &proc, "--counter-interval", "1s"])?;
    let down = watch.line("the loopback is down", |line| {
        line["transition"] == "opened" && line["reason"] == "InterfaceNotUp"
    })?;
    ensure!(down["severity"] == "Fatal", "{down}");
    ensure!(down["entity"] == "lo", "{down}");
    host.set_up()?;
    watch
        .line("the loopback is up", |line| {
            line["transition"] == "cleared" && line["reason"] == "InterfaceNotUp"
        })
        .map(drop)
}

fn told(watch: &mut Watch, transition: &str, reason: &str) -> anyhow::Result<serde_json::Value> {
    watch.line(&format!("{reason} {transition}"), |line| {
        line["transition"] == transition && line["reason"] == reason
    })
}

fn pod_routes() -> anyhow::Result<()> {
    let host = Host::start()?;
    host.set_up()?;
    let folder = host.folder.path().join("1/root/run/aws-node");
    fs::create_dir(&folder).context("make a folder")?;
    let record = r#"{"allocations":[{"containerID":"c","ipv4":"192.168.55.179",
        "metadata":{"k8sPodNamespace":"default","k8sPodName":"web"}}]}"#;
    fs::write(folder.join("ipam.json"), record).context("write a record of addresses")?;
    let (rules, routes, default) = ("MissingIPRules", "MissingIPRoutes", "MissingDefaultRoutes");
    let mut watch = host.watch(&[rules, routes, default])?;
    let found = told(&mut watch, "opened", rules)?;
    let message = found["message"].as_str().unwrap_or_default();
    ensure!(message.contains("192.168.55.179 (default/web)"), "{found}");
    host.ip("rule add prio 512 to 192.168.55.179 lookup main")?;
    host.ip("rule add prio 1536 from 192.168.55.179 lookup 3")?;
    told(&mut watch, "opened", routes)?;
    told(&mut watch, "opened", default)?;
    told(&mut watch, "cleared", rules)?;
    host.ip("route add 192.168.55.179/32 dev lo scope link")?;
    host.ip("route add default dev lo table 3")?;
    told(&mut watch, "cleared", routes)?;
    told(&mut watch, "cleared", default).map(drop)
}

fn refused_packets() -> anyhow::Result<()> {
    let reason = "UnexpectedRejectRule";
    let host = Host::start()?;
    host.set_up()?;
    let filter = PacketFilter::of(host.init.id());
    // As the VPC CNI and kube-proxy have them, from the beginning.
    filter.drop_by_nft(
        "filter",
        "FORWARD",
        Some("Block Node Local Pod access via IPv4"),
    )?;
    filter.drop_by_nft("kube-proxy", "reject-chain", None)?;
    filter.set_legacy_input(false, 4)?;
    let mut watch = host.watch(&[reason])?;
    filter.drop_by_nft("mine", "ATTACK", None)?;
    let found = told(&mut watch, "opened", reason)?;
    ensure!(found["entity"] == "mine/ATTACK", "{found}");
    filter.delete_nft_table("mine")?;
    told(&mut watch, "cleared", reason)?;
    filter.set_legacy_input(true, 4)?;
    watch.line("the old form", |line| {
        line["transition"] == "opened" && line["entity"] == "filter/INPUT"
    })?;
    filter.set_legacy_input(false, 5)?;
    watch.line("the end of the old form", |line| {
        line["transition"] == "cleared" && line["entity"] == "filter/INPUT"
    })?;
    let opened = watch
        .findings()
        .into_iter()
        .filter(|line| line["reason"] == reason);
    let entities: Vec<_> = opened.map(|line| line["entity"].clone()).collect();
    ensure!(
        entities
            .iter()
            .all(|entity| entity == "mine/ATTACK" || entity == "filter/INPUT"),
        "{entities:?}"
    );
    Ok(())
}
