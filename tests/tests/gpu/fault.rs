//! What NVML says about a GPU, and that it is over.

use std::time::Duration;

use anyhow::ensure;
use libtest_mimic::Completion;
use nodemend_tests::faults::boot_clock;

use crate::Test;
use crate::agent::Agent;
use nodemend_tests::gpu_node::{GPU, GpuNode, HEALTHY, OTHER_GPU};

pub(crate) const TESTS: &[Test] = &[
    ("healthy_gpus_make_the_condition_true", healthy),
    (
        "xid_79_and_a_lost_gpu_make_the_condition_false_until_it_answers",
        lost,
    ),
    (
        "a_gpu_that_is_lost_is_told_within_five_seconds_however_seldom_it_is_looked_at",
        in_time,
    ),
    (
        "a_lost_gpu_does_not_silence_the_events_of_the_others",
        the_others,
    ),
    ("a_lost_gpu_does_not_keep_a_processor_busy", no_spin),
    ("an_xid_that_applications_cause_is_a_warning", warning),
    (
        "an_xid_ends_when_the_driver_asks_for_no_recovery_any_more",
        recovered,
    ),
    ("uncorrected_ecc_errors_make_the_condition_false", ecc),
];

fn healthy() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let mut agent = Agent::watch(&node)?;
    let condition = agent.condition("True")?;
    ensure!(condition["reason"] == "NvidiaGPUIsReady", "{condition}");
    Ok(Completion::Completed)
}

const LOST: &str = "gpu 0000:05:00.0 lost\ngpu 0000:06:00.0\nxid 0000:05:00.0 79\n";

fn lost() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    node.play(LOST)?;
    let xid = agent.opened("NvidiaXID79Error")?;
    ensure!(
        xid["severity"] == "Fatal" && xid["subject"]["device"] == GPU,
        "{xid}"
    );
    let condition = agent.condition("False")?;
    ensure!(condition["reason"] == "NvidiaXID79Error", "{condition}");
    agent.opened("NvidiaDeviceCountMismatch")?;
    node.play(HEALTHY)?;
    agent.cleared("NvidiaDeviceCountMismatch")?;
    agent.cleared("NvidiaXID79Error")?;
    agent.condition("True")?;
    Ok(Completion::Completed)
}

/// With its XID, and without: then the wait for events ends in an error.
fn in_time() -> anyhow::Result<Completion> {
    for (lost, reason) in [
        (LOST, "NvidiaXID79Error"),
        (
            "gpu 0000:05:00.0 lost\ngpu 0000:06:00.0\n",
            "NvidiaDeviceCountMismatch",
        ),
    ] {
        let node = GpuNode::new(HEALTHY)?.looked_at_every("60s");
        let mut agent = Agent::watch(&node)?;
        agent.healthy()?;
        let begun = boot_clock();
        node.play(lost)?;
        let condition = agent.condition("False")?;
        let late = boot_clock().saturating_sub(begun);
        println!("told after {late:?}");
        ensure!(condition["reason"] == reason, "{condition}");
        ensure!(late <= Duration::from_secs(5), "{reason} after {late:?}");
    }
    Ok(Completion::Completed)
}

fn the_others() -> anyhow::Result<Completion> {
    let node = GpuNode::new("gpu 0000:05:00.0 lost\ngpu 0000:06:00.0\n")?;
    let mut agent = Agent::watch(&node)?;
    agent.listens()?;
    agent.opened("NvidiaDeviceCountMismatch")?;
    node.play("gpu 0000:05:00.0 lost\ngpu 0000:06:00.0\nxid 0000:06:00.0 48\n")?;
    let xid = agent.opened("NvidiaXID48Error")?;
    ensure!(xid["subject"]["device"] == OTHER_GPU, "{xid}");
    Ok(Completion::Completed)
}

fn no_spin() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    node.play("gpu 0000:05:00.0 lost\ngpu 0000:06:00.0 lost\n")?;
    agent.opened("NvidiaDeviceCountMismatch")?;
    let busy = || -> anyhow::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.daemon.pid()))?;
        let fields: Vec<_> = stat.split(' ').collect();
        Ok(fields[13].parse::<u64>()? + fields[14].parse::<u64>()?)
    };
    let before = busy()?;
    std::thread::sleep(Duration::from_secs(2));
    let ticks = busy()? - before;
    ensure!(ticks < 20, "{ticks} ticks of 10 ms in 2 s");
    Ok(Completion::Completed)
}

fn warning() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    node.play(&format!("{HEALTHY}xid 0000:05:00.0 31\n"))?;
    let xid = agent.opened("NvidiaXID31Warning")?;
    ensure!(xid["severity"] == "Warning", "{xid}");
    ensure!(
        agent.said().iter().all(|line| line["status"] != "False"),
        "{:#?}",
        agent.said()
    );
    Ok(Completion::Completed)
}

fn recovered() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    node.play("gpu 0000:05:00.0 recovery=1\ngpu 0000:06:00.0\nxid 0000:05:00.0 95\n")?;
    agent.opened("NvidiaXID95Error")?;
    // Long enough for a look at the GPU while it needs a reset.
    std::thread::sleep(Duration::from_secs(3));
    ensure!(
        agent
            .said()
            .iter()
            .all(|line| line["transition"] != "cleared"),
        "{:#?}",
        agent.said()
    );
    node.play(&format!("{HEALTHY}xid 0000:05:00.0 95\n"))?;
    agent.cleared("NvidiaXID95Error")?;
    agent.condition("True")?;
    Ok(Completion::Completed)
}

fn ecc() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    node.play("gpu 0000:05:00.0\ngpu 0000:06:00.0 ecc=2\n")?;
    let finding = agent.opened("NvidiaDoubleBitError")?;
    ensure!(
        finding["count"] == 2 && finding["subject"]["device"] == OTHER_GPU,
        "{finding}"
    );
    agent.condition("False")?;
    node.play(HEALTHY)?;
    agent.condition("True")?;
    Ok(Completion::Completed)
}
