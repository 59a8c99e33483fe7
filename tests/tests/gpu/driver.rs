//! The driver and its library: absent, broken, gone and back.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness runs the detector and reads its environment"
)]

use std::process::Command;
use std::{env, fs};

use anyhow::{Context, ensure};
use libtest_mimic::Completion;
use nodemend_tests::daemon;
use serde_json::Value;

use crate::Test;
use crate::agent::{Agent, CONDITION};
use nodemend_tests::gpu_node::{GPU, GpuNode, HEALTHY};

pub(crate) const TESTS: &[Test] = &[
    (
        "without_the_driver_the_library_is_not_loaded_and_the_condition_is_absent",
        not_loaded,
    ),
    ("without_gpus_there_is_no_condition_and_no_thread", no_gpu),
    (
        "a_library_that_finds_no_driver_is_named_and_survived",
        no_driver,
    ),
    (
        "nvidias_own_library_finds_no_driver_and_is_named_and_survived",
        real_library,
    ),
    (
        "a_library_that_is_missing_is_named_and_survived",
        no_library,
    ),
    (
        "a_library_without_a_needed_function_is_named_with_it_and_survived",
        no_symbol,
    ),
    (
        "a_driver_that_disappears_takes_the_condition_with_it_until_it_is_back",
        disappears,
    ),
    (
        "a_gpu_that_disappears_from_the_bus_makes_the_condition_false",
        unplugged,
    ),
    (
        "a_gpu_that_the_instance_type_has_and_the_bus_does_not_is_missed",
        missing,
    ),
    ("check_says_how_many_gpus_answer", check),
];

fn mapped(agent: &Agent) -> anyhow::Result<bool> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", agent.daemon.pid()))
        .context("read the mappings of the detector")?;
    Ok(maps.contains("libnvml_scripted"))
}

fn not_loaded() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    node.unload_driver()?;
    let mut agent = Agent::watch(&node)?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    ensure!(!mapped(&agent)?, "the library is loaded");
    ensure!(agent.said().is_empty(), "{:#?}", agent.said());
    node.load_driver()?;
    agent.condition("True")?;
    ensure!(mapped(&agent)?, "the library is not loaded");
    Ok(Completion::Completed)
}

fn no_gpu() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    node.remove_gpus()?;
    let agent = Agent::watch(&node)?;
    ensure!(agent.said().is_empty(), "{:#?}", agent.said());
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.daemon.pid()))
        .context("read the threads of the detector")?;
    let names: Vec<_> = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .collect();
    ensure!(names.iter().all(|name| name.trim() != "nvml"), "{names:?}");
    Ok(Completion::Completed)
}

fn no_driver() -> anyhow::Result<Completion> {
    let node = GpuNode::new("no-driver\n")?;
    broken(&node, "driver is not loaded")
}

/// As root it makes a device node, which has nothing behind it.
fn real_library() -> anyhow::Result<Completion> {
    const MADE: &str = "/dev/nvidiactl";
    let Some(library) = env::var_os("NODEMEND_NVML") else {
        let why = env::var("NODEMEND_NVML_MISSING");
        let why = why.unwrap_or_else(|_unset| "NODEMEND_NVML is not set".to_owned());
        return Ok(Completion::ignored_with(why));
    };
    if fs::exists("/sys/module/nvidia")? {
        return Ok(Completion::ignored_with("this host has the driver"));
    }
    let was_there = fs::exists(MADE)?;
    let node = GpuNode::new(HEALTHY)?.with_library(library.into());
    let survived = broken(&node, "driver is not loaded");
    if !was_there && fs::exists(MADE)? {
        fs::remove_file(MADE).context("remove what the library made")?;
    }
    survived
}

fn no_library() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?.without_library();
    broken(&node, "libnvidia-ml.so.1")
}

fn no_symbol() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?.without_symbol("nvmlEventSetWait_v2")?;
    broken(&node, "nvmlEventSetWait_v2")
}

/// The finding names it, and the agent goes on.
fn broken(node: &GpuNode, named: &str) -> anyhow::Result<Completion> {
    let mut agent = Agent::watch(node)?;
    let finding = agent.opened("NvidiaNVMLError")?;
    let message = finding["message"].as_str().unwrap_or_default();
    ensure!(
        finding["severity"] == "Warning" && message.contains(named),
        "{finding}"
    );
    std::thread::sleep(std::time::Duration::from_secs(2));
    let told =
        |line: &&Value| line["reason"] == "NvidiaNVMLError" && line["transition"].is_string();
    let said = agent.said();
    ensure!(said.iter().filter(told).count() == 1, "{said:#?}");
    ensure!(
        fs::exists(format!("/proc/{}/task", agent.daemon.pid()))?,
        "it ended"
    );
    Ok(Completion::Completed)
}

fn disappears() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    node.unload_driver()?;
    node.play("no-driver\n")?;
    agent.opened("NvidiaNVMLError")?;
    agent.condition("absent")?;
    node.play(HEALTHY)?;
    node.load_driver()?;
    agent.cleared("NvidiaNVMLError")?;
    agent.condition("True")?;
    Ok(Completion::Completed)
}

fn unplugged() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    fs::remove_file(node.path(&format!("sys/bus/pci/drivers/nvidia/{GPU}.0")))
        .context("unbind a GPU")?;
    fs::remove_dir_all(node.path(&format!("sys/bus/pci/devices/{GPU}.0")))
        .context("remove a GPU")?;
    let finding = agent.opened("NvidiaDeviceCountMismatch")?;
    ensure!(finding["subject"]["device"] == GPU, "{finding}");
    agent.condition("False")?;
    Ok(Completion::Completed)
}

fn missing() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let folder = node.path("sys/class/dmi/id");
    fs::create_dir_all(&folder).context("make a folder")?;
    fs::write(folder.join("product_name"), "g5.12xlarge\n").context("name the product")?;
    let mut agent = Agent::watch(&node)?;
    let finding = agent.opened("NvidiaDeviceCountMismatch")?;
    let message = finding["message"].as_str().unwrap_or_default();
    // With the one that a guest has.
    ensure!(message.contains("3 GPUs, of 4"), "{finding}");
    agent.condition("False")?;
    Ok(Completion::Completed)
}

/// What `nodemend-detector check` says on this node.
pub(crate) fn checked(node: &GpuNode) -> anyhow::Result<Vec<Value>> {
    let output = Command::new(daemon::binary("nodemend-detector")?)
        .args(["check", "-o", "json"])
        .args(node.args())
        .envs(node.env())
        .output()
        .context("run the detector")?;
    serde_json::from_slice(&output.stdout).context("read its output")
}

fn check() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let rows = checked(&node)?;
    let using = |what: &str| {
        let row = rows.iter().find(|row| row["what"] == what);
        row.map(|row| row["using"].clone())
    };
    let nvml = using("source NVML");
    let nvml = nvml.as_ref().and_then(Value::as_str).unwrap_or_default();
    ensure!(nvml.starts_with("2 GPUs"), "{rows:#?}");
    let condition = using(&format!("condition {CONDITION}"));
    ensure!(condition == Some("published".into()), "{rows:#?}");
    Ok(Completion::Completed)
}
