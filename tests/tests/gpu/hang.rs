//! A library that does not come back holds up nothing but itself.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Completion;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::faults::{PodCgroup, boot_clock};

use crate::Test;
use crate::agent::Agent;
use nodemend_tests::gpu_node::{GpuNode, HEALTHY};

pub(crate) const TESTS: &[Test] = &[
    (
        "an_oom_kill_is_found_on_time_while_all_calls_to_nvml_hang",
        oom,
    ),
    (
        "the_agent_ends_within_five_seconds_of_sigterm_while_all_calls_to_nvml_hang",
        ends_while_calls_hang,
    ),
    (
        "a_library_that_does_not_finish_loading_is_found_and_does_not_hold_up_the_start",
        loading,
    ),
    (
        "the_agent_ends_within_five_seconds_of_sigterm_while_loading_hangs",
        ends_while_loading_hangs,
    ),
];

/// On a busy machine; without help it would be for ever.
const ON_TIME: Duration = Duration::from_secs(1);
/// Of each call to NVML.
const DEADLINE: Duration = Duration::from_secs(5);

fn oom() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    node.play("hang\n")?;
    let hung = agent.opened("NvidiaNVMLHung")?;
    ensure!(hung["severity"] == "Warning", "{hung}");

    let cgroup = PodCgroup::systemd("0f7a1c9e-3b7d-4c5e-9f00-1234567890ab")?;
    let killed = cgroup.oom_kill("memory hog")?;
    let finding = agent.line("the OOM kill", |line| {
        line["reason"] == "OOMKilling" && line["subject"]["pid"] == killed.pid
    })?;
    let time = |name: &str| finding[name].as_u64().map(Duration::from_nanos);
    let late = time("foundNs")
        .zip(time("faultNs"))
        .map(|(found, fault)| found.saturating_sub(fault));
    ensure!(late.is_some_and(|late| late < ON_TIME), "{finding}");

    node.play(HEALTHY)?;
    agent.cleared("NvidiaNVMLHung")?;
    Ok(Completion::Completed)
}

fn loading() -> anyhow::Result<Completion> {
    let node = GpuNode::new("hang-load\n")?;
    // It is ready although the library never will be.
    let mut agent = Agent::watch(&node)?;
    let ready = boot_clock();
    let hung = agent.opened("NvidiaNVMLHung")?;
    let message = hung["message"].as_str().unwrap_or_default();
    ensure!(message.contains("dlopen"), "{hung}");
    let late = boot_clock().saturating_sub(ready);
    ensure!(late < DEADLINE + ON_TIME, "found after {late:?}");
    node.play(HEALTHY)?;
    agent.cleared("NvidiaNVMLHung")?;
    agent.condition("True")?;
    Ok(Completion::Completed)
}

fn ends_while_calls_hang() -> anyhow::Result<Completion> {
    ends("hang\n")
}

fn ends_while_loading_hangs() -> anyhow::Result<Completion> {
    ends("hang-load\n")
}

fn ends(scenario: &str) -> anyhow::Result<Completion> {
    let node = GpuNode::new(scenario)?;
    // Bound and not listening: connections to the API server are refused.
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .context("find a port")?
        .port();
    let kubeconfig = node.path("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c,
          clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}],
          users: [{{name: c, user: {{}}}}], contexts: [{{name: c, context: {{cluster: c, user: c}}}}]}}"
    );
    fs::write(&kubeconfig, text).context("write a kubeconfig")?;
    let kubeconfig = kubeconfig.to_str().context("read a path")?;
    let of_node = node.args();
    let args: Vec<_> = ["run", "--node-name", "n", "--log-format", "json"]
        .into_iter()
        .chain(["--kubeconfig", kubeconfig])
        .chain(of_node.iter().map(String::as_str))
        .collect();
    let mut daemon = Daemon::start("nodemend-detector", &args, &node.env())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start tokio")?;
    runtime.block_on(daemon.wait_for_log(Duration::from_secs(30), |line| {
        line["reason"] == "NvidiaNVMLHung" && line["change"] == "opened"
    }))?;
    let status = daemon.terminate(Duration::from_secs(5))?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(Completion::Completed)
}
