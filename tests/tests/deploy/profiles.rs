//! The detector's two profiles, as a container of our image with the chart's own security context: what
//! each sees on this host, and that it says what is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::chart::{find, render};
use crate::container::Container;

const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const HARDENED: &str = "--set detector.securityProfile=hardened \
    --set detector.seccompProfile.type=Localhost \
    --set detector.seccompProfile.localhostProfile=nodemend-detector.json";

/// A row of `check`: what is used, and what is missing.
type Rows = BTreeMap<String, (Option<String>, String)>;

pub(crate) async fn privileged() -> anyhow::Result<()> {
    let container = Container::new(&pod("").await?).await?;
    let rows = check(&container).await?;
    ensure!(using(&rows, "source kernel log")? == "/dev/kmsg");
    let host = on_this_host().await?;
    for (what, (seen, missing)) in &rows {
        // The scheduler asks in which cgroup it is.
        if what.starts_with("own ") {
            continue;
        }
        let outside = host.get(what).and_then(|(seen, _)| seen.as_ref());
        ensure!(seen.as_ref() == outside, "{what}: {missing}");
    }
    Ok(())
}

pub(crate) async fn hardened() -> anyhow::Result<()> {
    let container = Container::new(&pod(HARDENED).await?).await?;
    let rows = check(&container).await?;
    // Its losses, and no others.
    ensure!(using(&rows, "source kernel log")? == "syslog(2), once a second");
    ensure!(missing(&rows, "source kernel log")?.contains("/dev/kmsg"));
    let host = on_this_host().await?;
    for (what, (seen, missing)) in &rows {
        let outside = host.get(what).and_then(|(seen, _)| seen.as_ref());
        let lost = outside.is_some() && seen.is_none();
        ensure!(!lost, "{what}: {missing}");
    }
    Ok(())
}

/// Each thing that the hardened profile gives, taken away alone: it runs all the same, and `check`
/// names what is missing.
pub(crate) async fn each_refusal() -> anyhow::Result<()> {
    let container = Container::new(&pod(HARDENED).await?).await?;
    let cases = [
        ("BPF", "hook oom", "CAP_BPF"),
        ("PERFMON", "hook oom", "BPF_PROG_LOAD"),
        ("SYSLOG", "source kernel log", "CAP_SYSLOG"),
        ("SYS_PTRACE", "capability SYS_PTRACE", "root of process 1"),
        ("DAC_READ_SEARCH", "capability DAC_READ_SEARCH", "folders"),
        ("NET_ADMIN", "capability NET_ADMIN", "packet filters"),
        ("SYS_NICE", "own scheduling", "CAP_SYS_NICE"),
        ("IPC_LOCK", "own memory", "CAP_IPC_LOCK"),
        ("SYS_RESOURCE", "own OOM score", "CAP_SYS_RESOURCE"),
    ];
    for (capability, what, says) in cases {
        let name = Value::from(format!("CAP_{capability}"));
        let mut before = Value::Null;
        container.edit(|config| {
            let sets = &mut config["process"]["capabilities"];
            before = sets.clone();
            for set in ["bounding", "effective", "permitted"] {
                if let Some(set) = sets[set].as_array_mut() {
                    set.retain(|held| *held != name);
                }
            }
        })?;
        let rows = check(&container).await?;
        let row = missing(&rows, &format!("capability {capability}"))?;
        ensure!(
            row.contains(&format!("CAP_{capability} is missing")),
            "{row}"
        );
        let said = missing(&rows, what)?;
        ensure!(said.contains(says), "without {capability}, {what}: {said}");
        container.edit(|config| config["process"]["capabilities"] = before)?;
    }

    for (mount, what, says) in [
        ("/dev/kmsg", "source kernel log", "/dev/kmsg"),
        ("/sys/kernel/tracing", "hook block-io", "tracefs"),
    ] {
        let mut before = Value::Null;
        container.edit(|config| {
            before = config["mounts"].clone();
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.retain(|kept| kept["destination"] != mount);
            }
        })?;
        let rows = check(&container).await?;
        let said = missing(&rows, what)?;
        ensure!(said.contains(says), "without {mount}, {what}: {said}");
        container.edit(|config| config["mounts"] = before)?;
    }
    Ok(())
}

async fn pod(values: &str) -> anyhow::Result<Value> {
    let objects = render(values).await?;
    let daemon_set = find(&objects, "DaemonSet", "nodemend-detector")?;
    Ok(daemon_set["spec"]["template"]["spec"].clone())
}

async fn check(container: &Container) -> anyhow::Result<Rows> {
    container.with_args(&["check", "-o", "json"])?;
    let mut daemon = container.run()?;
    let output = tokio::time::timeout(PATIENCE, daemon.output()).await;
    let output = output.context("`check` does not end")?;
    let status = daemon.wait_exit(PATIENCE)?;
    ensure!(status.success(), "{status}: {output}");
    rows(&output)
}

async fn on_this_host() -> anyhow::Result<Rows> {
    let args = ["check", "-o", "json"];
    let daemon = nodemend_tests::daemon::Daemon::start("nodemend-detector", &args, &[])?;
    rows(&daemon.output().await)
}

fn rows(output: &str) -> anyhow::Result<Rows> {
    let line = output.lines().find(|line| line.starts_with('['));
    let line = line.with_context(|| format!("no rows in {output}"))?;
    let rows: Vec<Value> = serde_json::from_str(line).context("parse the rows")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    rows.iter()
        .map(|row| {
            let what = text(&row["what"]).context("a row has no name")?;
            Ok((
                what,
                (
                    text(&row["using"]),
                    text(&row["missing"]).unwrap_or_default(),
                ),
            ))
        })
        .collect()
}

fn using<'a>(rows: &'a Rows, what: &str) -> anyhow::Result<&'a str> {
    let (using, missing) = rows.get(what).with_context(|| format!("no row {what}"))?;
    using
        .as_deref()
        .with_context(|| format!("{what}: {missing}"))
}

fn missing<'a>(rows: &'a Rows, what: &str) -> anyhow::Result<&'a str> {
    let (_, missing) = rows.get(what).with_context(|| format!("no row {what}"))?;
    Ok(missing)
}
