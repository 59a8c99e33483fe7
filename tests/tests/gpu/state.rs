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
    ("sixteen_gpus_are_asked_five_calls_each_a_look", calls),
];

/// All that the scripted GPU can tell, and all of it well.
const WELL: &str = "pending=0 failed=0 replays=0 links=15 link-errors=0 clocks=1 fabric=0 mask=426";

fn with(change: &str) -> String {
    let (name, _) = change.split_once('=').unwrap_or((change, ""));
    let others = WELL
        .split(' ')
        .filter(|word| !word.starts_with(&format!("{name}=")));
    let words: Vec<_> = others.chain([change]).collect();
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
            == "2 GPUs, which do not tell: row remapping or page retirement, NVLink state, NVLink errors, PCIe replays, clock event reasons, NVLink fabric",
        "{using}"
    );
    Ok(Completion::Completed)
}

fn calls() -> anyhow::Result<Completion> {
    let node = GpuNode::with_gpus(16)?;
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
    ensure!(
        (16 * 5 * 5..=16 * 5 * 11 + 11).contains(&calls),
        "{calls} calls in 10 looks"
    );
    Ok(Completion::Completed)
}
