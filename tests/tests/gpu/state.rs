//! What NVML tells of a GPU besides its XIDs: found within a look, and over within another.

use anyhow::ensure;
use libtest_mimic::Completion;

use crate::Test;
use crate::agent::Agent;
use crate::driver;
use nodemend_tests::gpu_node::{GPU, GpuNode, HEALTHY};

pub(crate) const TESTS: &[Test] = &[
    ("each_state_of_a_gpu_that_is_a_fault_is_found", found),
    ("what_a_gpu_says_again_to_be_well_is_over", over),
    ("errors_that_only_counters_tell_are_found", counted),
    ("check_lists_what_no_gpu_tells", untold),
    (
        "sixteen_gpus_are_asked_five_calls_each_a_look_and_ten_more_each_six_looks",
        calls,
    ),
    (
        "a_corrupted_inforom_is_found_when_a_gpu_is_first_seen",
        inforom,
    ),
    (
        "a_finding_names_the_gpu_and_the_process_that_uses_it",
        named,
    ),
];

/// All that the scripted GPU can tell, and all of it well.
const WELL: &str = "pending=0 failed=0 replays=0 links=15 link-errors=0 clocks=1 fabric=0 mask=426 serial=163 inforom=0 persistence=1 errors=0 sram=0 remapped=0 spent=0 temperature=40 lanes=16 mig=0";

/// But for these words.
fn with(changes: &str) -> String {
    let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let changed: Vec<_> = changes.split(' ').map(name).collect();
    let words = WELL
        .split(' ')
        .filter(|word| !changed.contains(&name(word)));
    let words: Vec<_> = words.chain([changes]).collect();
    format!("gpu {GPU}.0 {}\ngpu 0000:06:00.0\n", words.join(" "))
}

fn start() -> anyhow::Result<(GpuNode, Agent)> {
    let node = GpuNode::new(&with("recovery=0"))?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    Ok((node, agent))
}

fn found() -> anyhow::Result<Completion> {
    let (node, mut agent) = start()?;
    for (change, reason, severity) in [
        ("pending=1", "NvidiaPageRetirement", "Warning"),
        ("clocks=64", "NvidiaThermalError", "Warning"),
        ("clocks=128", "NvidiaPowerError", "Warning"),
        ("failed=1", "NvidiaRowRemapFailure", "Fatal"),
        ("links=11", "NvidiaNVLinkError", "Fatal"),
        ("fabric=999", "FabricManagerNotRunning", "Fatal"),
        ("mask=1", "NvidiaFabricError", "Fatal"),
        ("recovery=2", "NvidiaGPURecoveryNeeded", "Fatal"),
        // Of the same sixth look.
        ("sram=1 lanes=8", "NvidiaSRAMThresholdExceeded", "Fatal"),
        ("sram=1 lanes=8", "NvidiaPCIeLinkDegraded", "Warning"),
    ] {
        node.play(&with(change))?;
        let finding = agent.opened(reason)?;
        ensure!(
            finding["severity"] == severity && finding["subject"]["device"] == GPU,
            "{change}: {finding}"
        );
    }
    Ok(Completion::Completed)
}

fn over() -> anyhow::Result<Completion> {
    let (node, mut agent) = start()?;
    for (change, reason) in [
        ("pending=1", "NvidiaPageRetirement"),
        ("failed=1", "NvidiaRowRemapFailure"),
        ("recovery=1", "NvidiaGPURecoveryNeeded"),
        ("links=7", "NvidiaNVLinkError"),
    ] {
        node.play(&with(change))?;
        agent.opened(reason)?;
        node.play(&with("recovery=0"))?;
        agent.cleared(reason)?;
    }
    agent.condition("True")?;
    Ok(Completion::Completed)
}

fn counted() -> anyhow::Result<Completion> {
    let (node, mut agent) = start()?;
    node.play(&with("replays=9"))?;
    agent.opened("NvidiaPCIeError")?;
    node.play(&with("link-errors=9"))?;
    agent.opened("NvidiaNVLinkWarning")?;
    Ok(Completion::Completed)
}

fn untold() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let rows = driver::checked(&node)?;
    let row = rows.iter().find(|row| row["what"] == "source NVML");
    let using = row
        .and_then(|row| row["using"].as_str())
        .unwrap_or_default();
    ensure!(
        using
            == "2 GPUs, which do not tell: row remapping or page retirement, NVLink state, NVLink errors, PCIe replays, clock event reasons, NVLink fabric, serial number, InfoROM, ECC errors by location, SRAM errors, remapped rows, spare rows, temperature, PCIe link, persistence",
        "{using}"
    );
    node.play(&with("recovery=0"))?;
    let rows = driver::checked(&node)?;
    let row = rows.iter().find(|row| row["what"] == "source NVML");
    ensure!(row.is_some_and(|row| row["using"] == "2 GPUs"), "{rows:#?}");
    Ok(Completion::Completed)
}

fn inforom() -> anyhow::Result<Completion> {
    let node = GpuNode::new(&with("inforom=1"))?;
    let mut agent = Agent::watch(&node)?;
    let finding = agent.opened("NvidiaInfoROMCorrupted")?;
    ensure!(
        finding["severity"] == "Warning" && finding["subject"]["device"] == GPU,
        "{finding}"
    );
    Ok(Completion::Completed)
}

/// There is no kubelet here that would say who holds it.
fn named() -> anyhow::Result<Completion> {
    let me = std::process::id();
    let node = GpuNode::new(&with(&format!("pid={me}")))?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    node.play(&format!("{}xid {GPU}.0 95\n", with(&format!("pid={me}"))))?;
    let finding = agent.opened("NvidiaXID95Error")?;
    let message = finding["message"].as_str().unwrap_or_default();
    let identity = format!(", index 5, GPU-{GPU}.0, serial 163, used by gpu-");
    ensure!(
        message.contains(&identity) && message.contains(&format!("(pid {me}")),
        "{message}"
    );
    Ok(Completion::Completed)
}

fn calls() -> anyhow::Result<Completion> {
    let node = GpuNode::with_gpus(16, WELL)?;
    let counted = node.path("calls");
    let mut env = node.env();
    env.push(("NVML_CALLS".to_owned(), counted.display().to_string()));
    let mut agent = Agent::watch_with(&node, &env)?;
    agent.healthy()?;
    let calls = || anyhow::Ok(std::fs::metadata(&counted)?.len());
    let before = calls()?;
    // A look each second, and the wait for events.
    std::thread::sleep(std::time::Duration::from_secs(10));
    let calls = calls()? - before;
    let (look, details) = (16 * 5, 16 * 10);
    ensure!(
        (look * 5 + details..=look * 11 + details * 2 + 11).contains(&calls),
        "{calls} calls in 10 looks"
    );
    Ok(Completion::Completed)
}
