//! PURE. What a signal says, in words, and about whom.

use std::collections::BTreeMap;
use std::time::Duration;

use super::accelerated::XidSeen;
use super::blocked;
use super::configuration::ConfigState;
use super::nvswitch;
use super::settings::Settings;
use crate::finding::{Sighting, Subject};
use crate::judgement::{self, Action, xid_line};
use crate::reason::{Reason, Severity};
use crate::signal::{
    BlockErrorClass, BlockOperation, BlockedTask, Counted, Disk, GpuState, LogFault, Nvml,
    OomLimit, Signal, SourceName, Task, What, Workload,
};

/// The XID of a GPU that does not answer its driver any more.
pub(super) const FALLEN_OFF: u32 = 79;

/// Unexpected boots within a day that are a loop.
const LOOP: usize = 3;

/// What to do with a signal.
pub(super) enum Assessed {
    /// A fault by itself.
    Sighting(Sighting),
    /// A task that sleeps: what it waits for says how bad that is.
    Blocked(BlockedTask),
    /// The log says that this device's file system is read-only: evidence first.
    SuspectReadOnly {
        device: String,
    },
    /// A GPU's error, once for each source that saw it.
    Xid {
        sighting: Sighting,
        seen: XidSeen,
    },
    /// The same without a number, mostly told a second time.
    FallenOff {
        sighting: Sighting,
    },
    /// An NVSwitch's error; `more` tells of the one before.
    Sxid {
        sighting: Sighting,
        more: bool,
    },
    Gpu {
        gpu: String,
        state: GpuState,
    },
    Nvml(Nvml),
    Configuration(ConfigState),
    /// A fault that is so for as long as its counter says it.
    State {
        sighting: Sighting,
        so: bool,
    },
    /// Hundredths of their time that CPUs have lost.
    Stolen(BTreeMap<u32, u8>),
    /// How often each service was started again, at a time.
    Restarts(Duration, BTreeMap<String, u64>),
    /// Somebody made the kernel print it.
    Forged,
}

pub(super) fn assess(signal: Signal, settings: &Settings) -> Assessed {
    let at = signal.at;
    let sighting = |reason: Reason, entity, message, subject, count| {
        Assessed::Sighting(Sighting {
            reason,
            entity,
            severity: reason.row().severity,
            message,
            subject,
            count,
            at,
        })
    };
    match signal.what {
        What::OomKill { victim, limit } => {
            let entity = victim
                .workload
                .as_ref()
                .map_or_else(|| format!("pid {}", victim.pid), Workload::holder);
            let message = format!(
                "{} was killed by the OOM killer{}",
                process(&victim),
                limit_label(limit)
            );
            sighting(Reason::OomKilling, entity, message, of_task(victim), 1)
        }
        What::HungTask { task } => {
            // What it waits for is not known, so it may be a dead mount.
            let role = blocked::role(settings.needs(&task, &task.comm));
            let message = format!(
                "{}{role} has been blocked for longer than kernel.hung_task_timeout_secs",
                process(&task)
            );
            let entity = blocked::entity(task.pid);
            sighting(Reason::AppBlocked, entity, message, of_task(task), 1)
        }
        What::BlockedTask(task) => Assessed::Blocked(task),
        What::SoftLockup { cpu, seconds, task } => {
            let message = format!("CPU {cpu} was stuck for {seconds} s in {}", process(&task));
            sighting(
                Reason::SoftLockup,
                format!("cpu {cpu}"),
                message,
                of_task(task),
                1,
            )
        }
        What::BlockError {
            disk,
            operation,
            class,
            errno,
            sector,
            sectors,
            count,
            above,
        } => {
            let device = disk_label(&disk);
            let above = match above.as_slice() {
                [] => String::new(),
                above => format!(", on which {} lies", above.join(", ")),
            };
            let message = format!(
                "{} of {sectors} sectors at sector {sector} failed on {device}{above}: {} (errno {errno})",
                operation_label(operation),
                class_label(class)
            );
            let subject = Subject {
                device: Some(device.clone()),
                ..Subject::default()
            };
            sighting(Reason::BlockIoError, device, message, subject, count)
        }
        What::BlockLine { disk, line, .. } => {
            let subject = of_device(&disk);
            sighting(Reason::BlockIoError, disk, line, subject, 1)
        }
        What::PacketDrops {
            reason,
            count,
            window,
            interface,
            local_port,
            netns,
            workload,
        } => {
            let socket = local_port
                .map(|port| format!(" for the socket on local port {port}"))
                .unwrap_or_default();
            let on = interface
                .as_deref()
                .map(|name| format!(" on {name}"))
                .unwrap_or_default();
            let message = format!(
                "{count} packets{socket} were dropped{on} within {} ms: {reason}",
                window.as_millis().max(1)
            );
            let entity = format!(
                "{reason} netns {} interface {} port {}",
                netns.unwrap_or(0),
                interface.as_deref().unwrap_or("unknown"),
                local_port.unwrap_or(0)
            );
            let subject = Subject {
                interface,
                local_port,
                workload,
                ..Subject::default()
            };
            sighting(Reason::PacketsDropped, entity, message, subject, count)
        }
        What::Ext4Error { device, detail } => {
            let message = format!("ext4 error on {device}: {detail}");
            let subject = Subject {
                device: Some(device.clone()),
                ..Subject::default()
            };
            sighting(Reason::FilesystemError, device, message, subject, 1)
        }
        What::RemountedReadOnly { device } => Assessed::SuspectReadOnly { device },
        // Any process can have a line printed; none can bind a device.
        What::Xid { driver, .. } if driver.as_deref() != Some("nvidia") => Assessed::Forged,
        What::Xid {
            gpu,
            partition,
            xid,
            detail,
            process,
            seen_by,
            driver: _,
        } => {
            let mut sighting = xid_sighting(&gpu, xid, detail.as_deref(), at, settings);
            let detail = detail.as_deref().unwrap_or_default();
            if let Some(task) = &process {
                sighting.subject = Subject {
                    device: Some(gpu.clone()),
                    ..of_task(task.clone())
                };
            }
            let seen = XidSeen {
                recovery: xid_line::recovery(xid, detail),
                process,
                gpu,
                partition,
                xid,
                seen_by,
            };
            Assessed::Xid { sighting, seen }
        }
        What::FallenOff { nvidia: false, .. } => Assessed::Forged,
        What::FallenOff { gpu, detail, .. } => {
            let sighting = xid_sighting(&gpu, FALLEN_OFF, Some(&detail), at, settings);
            Assessed::FallenOff { sighting }
        }
        What::Sxid { driver, .. } if driver.as_deref() != Some("nvidia-nvswitch") => {
            Assessed::Forged
        }
        What::Sxid {
            switch,
            sxid,
            detail,
            driver: _,
        } => nvswitch::assess(&switch, sxid, &detail, at),
        What::Gpu { gpu, state } => Assessed::Gpu { gpu, state },
        What::Nvml(nvml) => Assessed::Nvml(nvml),
        What::UnexpectedBoot { count, last_words } => {
            let words = last_words
                .map(|words| format!("; the kernel before said last: {words}"))
                .unwrap_or_default();
            let (reason, often) = if count >= LOOP {
                let often = format!(" for the {count}th time within 24 hours");
                (Reason::UnexpectedRebootLoop, often)
            } else {
                (Reason::UnexpectedReboot, String::new())
            };
            let message =
                format!("the host was booted{often} without having been shut down{words}");
            sighting(reason, "host".to_owned(), message, Subject::default(), 1)
        }
        What::Logged(fault) => Assessed::Sighting(of_fault(fault, 1, at)),
        What::Traced { fault, count } => Assessed::Sighting(of_fault(fault, count, at)),
        What::Counted { fault, counted } => match counted {
            Counted::Times(count) => Assessed::Sighting(of_fault(fault, count, at)),
            Counted::Still | Counted::Over => Assessed::State {
                sighting: of_fault(fault, 1, at),
                so: counted == Counted::Still,
            },
        },
        What::Stolen { cpus } => Assessed::Stolen(cpus),
        What::Restarts { at, units } => Assessed::Restarts(at, units),
        What::Crash {
            task,
            signal,
            count,
        } => {
            let entity = match &task.workload {
                Some(workload) if workload.pod_uid.is_some() => workload.holder(),
                _ => task.comm.clone(),
            };
            let message = format!("{} crashed: {}", process(&task), signal_name(signal));
            sighting(Reason::AppCrash, entity, message, of_task(task), count)
        }
        What::LogRule {
            rule,
            reason,
            condition,
            log,
            line,
        } => {
            let place = log.as_deref().unwrap_or("the kernel log");
            let message = format!("{rule} matched in {place}: {line}");
            let name = reason;
            let reason = Reason::Custom { name, condition };
            sighting(reason, rule, message, Subject::default(), 1)
        }
        What::Configuration {
            file,
            invalid,
            pending,
        } => Assessed::Configuration(ConfigState {
            file,
            invalid,
            pending,
        }),
        What::Lost { source, count } => {
            let name = log_name(source);
            let message = format!("{count} records of {name} were lost");
            sighting(
                Reason::SignalsLost,
                name.to_owned(),
                message,
                Subject::default(),
                count,
            )
        }
        What::Overrun { source } => {
            let name = log_name(source);
            let message = format!("records of {name} were lost; nobody knows how many");
            sighting(
                Reason::SignalsLost,
                name.to_owned(),
                message,
                Subject::default(),
                1,
            )
        }
    }
}

fn xid_sighting(
    gpu: &str,
    xid: u32,
    detail: Option<&str>,
    at: Duration,
    settings: &Settings,
) -> Sighting {
    let decoded = detail.and_then(|detail| judgement::nvlink5::decode(xid, detail));
    let reason = match decoded {
        Some(decoded) => settings.of_decoded_xid(xid, decoded.severity),
        None => settings.of_xid(xid),
    };
    let known = judgement::xid(xid);
    let meaning = known.map_or("not in the catalogue", |row| row.meaning);
    let action = match (decoded, known) {
        (Some(decoded), _) => decoded.action,
        (None, Some(row)) => row.action,
        (None, None) => Action::Inspect,
    };
    let detail = detail
        .map(|detail| format!(": {detail}"))
        .unwrap_or_default();
    let advice = action.advice();
    Sighting {
        reason,
        entity: gpu.to_owned(),
        severity: reason.row().severity,
        message: format!("GPU {gpu} reported XID {xid} ({meaning}, advice: {advice}){detail}"),
        subject: of_device(gpu),
        count: 1,
        at,
    }
}

fn log_name(source: SourceName) -> &'static str {
    match source {
        SourceName::Bpf => "the BPF programs",
        SourceName::Kmsg => "the kernel log",
        SourceName::Nvml => "NVML",
        SourceName::File => "log files",
        SourceName::Journal => "the journal",
        SourceName::Counters => "the counters",
    }
}

fn of_fault(fault: LogFault, count: u64, at: Duration) -> Sighting {
    let severity = fault.reason.row().severity;
    Sighting {
        severity: if fault.mild {
            severity.min(Severity::Warning)
        } else {
            severity
        },
        reason: fault.reason,
        entity: fault.entity,
        message: fault.message,
        subject: Subject {
            device: fault.device,
            interface: fault.interface,
            ..fault.task.map(of_task).unwrap_or_default()
        },
        count,
        at,
    }
}

/// Those that the kernel part tells of, as signal(7) names them.
fn signal_name(signal: u32) -> String {
    let name = match signal {
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        11 => "SIGSEGV",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

fn limit_label(limit: OomLimit) -> String {
    let what = match limit {
        OomLimit::Unknown => return String::new(),
        OomLimit::Node => "the node has run out of memory",
        OomLimit::AllPods => "all pods together have used up the memory that the node allows them",
        OomLimit::Pod => "its pod has used up its memory limit",
        OomLimit::Container => "its container has used up its memory limit",
        OomLimit::Cgroup(name) => {
            return format!(": the cgroup {name} has used up its memory limit");
        }
    };
    format!(": {what}")
}

pub(super) fn process(task: &Task) -> String {
    match task.comm.as_str() {
        "" => format!("process {}", task.pid),
        comm => format!("process {comm} (pid {})", task.pid),
    }
}

pub(super) fn of_task(task: Task) -> Subject {
    Subject {
        // 0: a line that tells only the cgroup, or the idle task.
        pid: (task.pid != 0).then_some(task.pid),
        comm: (!task.comm.is_empty()).then_some(task.comm),
        workload: task.workload,
        ..Subject::default()
    }
}

pub(super) fn of_device(device: &str) -> Subject {
    Subject {
        device: Some(device.to_owned()),
        ..Subject::default()
    }
}

fn disk_label(disk: &Disk) -> String {
    disk.name
        .clone()
        .unwrap_or_else(|| format!("device {}:{}", disk.major, disk.minor))
}

fn operation_label(operation: BlockOperation) -> &'static str {
    match operation {
        BlockOperation::Read => "read",
        BlockOperation::Write => "write",
        BlockOperation::Flush => "flush",
        BlockOperation::Discard => "discard",
        BlockOperation::Other => "request",
    }
}

fn class_label(class: BlockErrorClass) -> &'static str {
    match class {
        BlockErrorClass::Medium => "medium error",
        BlockErrorClass::Timeout => "timeout",
        BlockErrorClass::Transport => "transport error",
        BlockErrorClass::Space => "no space",
        BlockErrorClass::Integrity => "integrity error",
        BlockErrorClass::Other => "I/O error",
    }
}
