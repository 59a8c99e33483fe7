//! XIDs in the kernel log: with evidence, and joined with what NVML says.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Completion;
use nodemend_tests::faults::{PodCgroup, boot_clock};
use rustix::fs::{CWD, Mode, mkfifoat};

use crate::Test;
use crate::agent::Agent;
use nodemend_tests::gpu_node::{GPU, GpuNode, HEALTHY, OTHER_GPU, PASSED_THROUGH, SWITCH};

pub(crate) const TESTS: &[Test] = &[
    ("an_xid_that_kernel_log_and_nvml_see_is_one_finding", both),
    ("an_xid_in_the_kernel_log_alone_is_a_finding", alone),
    ("an_xid_of_a_mig_instance_names_it", partition),
    ("a_forged_xid_line_is_nothing", forged),
    ("an_xid_names_the_pod_whose_process_it_names", pod),
    (
        "xids_of_the_kernel_log_are_found_on_time_while_all_calls_to_nvml_hang",
        while_it_hangs,
    ),
    ("an_sxid_makes_the_condition_false", sxid),
    ("a_gpu_that_falls_off_without_a_number_is_found", fallen),
    (
        "the_log_says_that_a_gpu_needs_recovery_and_has_recovered",
        recovery,
    ),
    (
        "an_xid_line_that_a_process_wrote_to_the_log_is_nothing",
        written,
    ),
];

/// In the place of /dev/kmsg, where only the kernel can write with the kernel's facility. One
/// record at a time: a pipe keeps no boundaries.
struct Log {
    pipe: File,
    sequence: u64,
}

impl Log {
    fn new(path: &Path) -> anyhow::Result<Self> {
        mkfifoat(CWD, path, Mode::from_raw_mode(0o600)).context("make a pipe")?;
        let mut options = OpenOptions::new();
        let pipe = options.read(true).write(true).open(path);
        Ok(Self {
            pipe: pipe.context("open a pipe")?,
            sequence: 0,
        })
    }

    fn write(&mut self, priority: u32, text: &str) -> anyhow::Result<()> {
        self.sequence += 1;
        let record = format!(
            "{priority},{},{},-;{text}\n",
            self.sequence,
            boot_clock().as_micros()
        );
        self.pipe
            .write_all(record.as_bytes())
            .context("write a record")?;
        // So that it is read before the next.
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    }
}

fn xid(gpu: &str, number: u32) -> String {
    format!("NVRM: Xid (PCI:{gpu}): {number}, pid='<unknown>', name=<unknown>, as the driver says.")
}

fn start(node: &GpuNode) -> anyhow::Result<(Log, Agent)> {
    let path = node.path("kmsg");
    let log = Log::new(&path)?;
    let mut agent = Agent::watch_log(node, path.to_str().context("read a path")?)?;
    agent.healthy()?;
    Ok((log, agent))
}

fn both() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let (mut log, mut agent) = start(&node)?;
    log.write(4, &xid(GPU, 48))?;
    let finding = agent.opened("NvidiaXID48Error")?;
    ensure!(
        finding["message"]
            .as_str()
            .is_some_and(|message| message.contains("as the driver says")),
        "{finding}"
    );
    // Told in this order: with the second, the first has been read.
    node.play(&format!(
        "{HEALTHY}xid 0000:05:00.0 48\nxid 0000:06:00.0 31\n"
    ))?;
    agent.opened("NvidiaXID31Warning")?;
    let opened = agent
        .said()
        .iter()
        .filter(|line| line["transition"].is_string() && line["reason"] == "NvidiaXID48Error")
        .count();
    ensure!(opened == 1, "{:#?}", agent.said());
    Ok(Completion::Completed)
}

fn alone() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let (mut log, mut agent) = start(&node)?;
    log.write(3, &xid(OTHER_GPU, 119))?;
    let finding = agent.opened("NvidiaXID119Error")?;
    ensure!(finding["subject"]["device"] == OTHER_GPU, "{finding}");
    agent.condition("False")?;
    Ok(Completion::Completed)
}

fn partition() -> anyhow::Result<Completion> {
    let node = GpuNode::new("gpu 0000:05:00.0 mig=2\ngpu 0000:06:00.0\n")?;
    let (mut log, mut agent) = start(&node)?;
    log.write(3, &xid(&format!("{GPU} GPU-I:06"), 95))?;
    let finding = agent.opened("NvidiaXID95Error")?;
    let message = finding["message"].as_str().unwrap_or_default();
    ensure!(
        finding["subject"]["device"] == GPU
            && message.contains(&format!(", MIG instance 6, MIG-{GPU}.0-6")),
        "{finding}"
    );
    Ok(Completion::Completed)
}

fn forged() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let (mut log, mut agent) = start(&node)?;
    // No such device; one of another driver; another level; a facility of user space; a process name.
    log.write(3, &xid("0000:99:00", 79))?;
    log.write(3, &xid(PASSED_THROUGH, 79))?;
    log.write(6, &xid(GPU, 79))?;
    log.write(11, &xid(GPU, 79))?;
    log.write(
        4,
        "NVRM: Xid (PCI:[18398]: segfault at 0 ip 0000 sp 0000 error 4",
    )?;
    only_the_next(&mut log, &mut agent)
}

fn written() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let mut agent = Agent::watch(&node)?;
    agent.healthy()?;
    let mut log = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .context("open /dev/kmsg")?;
    log.write_all(format!("<3>{}", xid(GPU, 79)).as_bytes())
        .context("write to /dev/kmsg")?;
    node.play(&format!("{HEALTHY}xid 0000:06:00.0 31\n"))?;
    agent.opened("NvidiaXID31Warning")?;
    nothing_of_xid_79(&agent)
}

fn pod() -> anyhow::Result<Completion> {
    const POD: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";
    let node = GpuNode::new(HEALTHY)?;
    let (mut log, mut agent) = start(&node)?;
    let line = |xid: u32, pid: u32, name: &str| {
        format!("NVRM: Xid (PCI:{GPU}): {xid}, pid={pid}, name={name}, Ch 00000008")
    };
    PodCgroup::systemd(POD)?.with_process(|pid| {
        // Another process by now, as its name says.
        log.write(3, &line(69, pid, "infer"))?;
        let finding = agent.opened("NvidiaXID69Warning")?;
        ensure!(finding["subject"]["podUid"].is_null(), "{finding}");
        log.write(3, &line(31, pid, "nodemend-fault"))?;
        let finding = agent.opened("NvidiaXID31Warning")?;
        ensure!(
            finding["subject"]["podUid"] == POD && finding["subject"]["device"] == GPU,
            "{finding}"
        );
        Ok(Completion::Completed)
    })
}

/// Every other of a hundred.
const ON_TIME: Duration = Duration::from_millis(10);
/// The 99th of them, on a machine that does other things as well.
const LATE: Duration = Duration::from_millis(250);

fn while_it_hangs() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let (mut log, mut agent) = start(&node)?;
    node.play("hang\n")?;
    agent.opened("NvidiaNVMLHung")?;
    let mut late = Vec::new();
    for xid in 200..300 {
        log.write(3, &self::xid(GPU, xid))?;
        let finding = agent.opened(&format!("NvidiaXID{xid}Warning"))?;
        let time = |name: &str| finding[name].as_u64().map(Duration::from_nanos);
        let (fault, found) = time("faultNs")
            .zip(time("foundNs"))
            .context("read its times")?;
        late.push(found.saturating_sub(fault));
    }
    late.sort();
    println!("late by {:?} (p50), {:?} (p99)", late[50], late[98]);
    ensure!(late[50] < ON_TIME && late[98] < LATE, "{late:?}");
    Ok(Completion::Completed)
}

fn sxid() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let (mut log, mut agent) = start(&node)?;
    let of = |switch: &str, text: &str| {
        format!("nvidia-nvswitch0: SXid (PCI:{switch}.0): 20034, {text}")
    };
    // Not an NVSwitch.
    log.write(3, &of(GPU, "Fatal, Link 30 LTSSM Fault Up"))?;
    log.write(3, &of(SWITCH, "Fatal, Link 30 LTSSM Fault Up"))?;
    log.write(
        3,
        &of(
            SWITCH,
            "Severity 1 Engine instance 30 Sub-engine instance 00",
        ),
    )?;
    log.write(3, &of(SWITCH, "Data {0x10000000, 0x00000000}"))?;
    let finding = agent.opened("NvidiaSXID20034Error")?;
    ensure!(finding["subject"]["device"] == SWITCH, "{finding}");
    let condition = agent.condition("False")?;
    ensure!(
        condition["message"]
            .as_str()
            .is_some_and(|message| message.contains("advice: reboot the node")),
        "{condition}"
    );
    only_the_next(&mut log, &mut agent)
}

fn fallen() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let (mut log, mut agent) = start(&node)?;
    let of = |gpu: &str| format!("NVRM: GPU {gpu}.0: GPU has fallen off the bus.");
    log.write(4, &of("0000:99:00"))?;
    log.write(4, &of(PASSED_THROUGH))?;
    log.write(4, &of(OTHER_GPU))?;
    let finding = agent.opened("NvidiaXID79Error")?;
    ensure!(finding["subject"]["device"] == OTHER_GPU, "{finding}");
    Ok(Completion::Completed)
}

fn recovery() -> anyhow::Result<Completion> {
    let node = GpuNode::new(HEALTHY)?;
    let (mut log, mut agent) = start(&node)?;
    let of = |from: &str, to: &str| {
        format!("NVRM: Xid (PCI:{GPU}): 154, GPU recovery action changed from {from} to {to}")
    };
    log.write(4, &of("0x0 (None)", "0x1 (GPU Reset Required)"))?;
    agent.opened("NvidiaGPURecoveryNeeded")?;
    agent.condition("False")?;
    log.write(4, &of("0x1 (GPU Reset Required)", "0x0 (None)"))?;
    agent.cleared("NvidiaGPURecoveryNeeded")?;
    agent.condition("True")?;
    Ok(Completion::Completed)
}

/// A true line later in the log: once it is reported, the forged ones were read.
fn only_the_next(log: &mut Log, agent: &mut Agent) -> anyhow::Result<Completion> {
    log.write(3, &xid(GPU, 31))?;
    agent.opened("NvidiaXID31Warning")?;
    nothing_of_xid_79(agent)
}

fn nothing_of_xid_79(agent: &Agent) -> anyhow::Result<Completion> {
    let said = agent.said();
    ensure!(
        said.iter().all(|line| line["reason"] != "NvidiaXID79Error"),
        "{said:#?}"
    );
    Ok(Completion::Completed)
}
