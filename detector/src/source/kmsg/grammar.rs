//! PURE. Which lines of the kernel log count.
//!
//! The kernel prints names that processes chose, first thing on the line, so any pod can make it
//! print a chosen beginning. A line counts only if facility, level and the whole grammar fit.

use super::record::Record;
use crate::judgement::xid_line;
use crate::rules::{LogRules, Origin};
use crate::signal::{LogFault, SourceName, Task, What, device_name, gpu_name, interface_name};
use crate::text;

mod ata;
pub(crate) mod beginnings;
mod block;
mod btrfs;
mod card;
#[cfg(test)]
mod check;
mod clock;
mod crash;
mod edac;
mod ext4;
mod fault;
#[cfg(test)]
mod forged;
mod gpu;
mod hardware;
mod interface;
mod limits;
mod lockup;
mod memory;
mod network;
mod neuron;
mod nfs;
mod nvidia;
mod nvme;
mod oops;
mod pci;
mod pcie;
#[cfg(test)]
pub(crate) mod properties;
mod raid;
mod scsi;
mod tasks;
mod thermal;
mod warning;
mod words;
mod xfs;

pub(crate) fn read(record: &Record<'_>) -> Option<What> {
    if record.facility != 0 {
        return None;
    }
    ext4_read_only(record)
        .or_else(|| ext4_error(record))
        .or_else(|| soft_lockup(record))
        .or_else(|| xid(record))
        .or_else(|| nvidia::read(record))
        .or_else(|| neuron::read(record))
        .or_else(|| gpu::read(record))
        .or_else(|| block::read(record))
        .or_else(|| ext4::read(record))
        .or_else(|| xfs::read(record))
        .or_else(|| btrfs::read(record))
        .or_else(|| nvme::read(record))
        .or_else(|| scsi::read(record))
        .or_else(|| ata::read(record))
        .or_else(|| raid::read(record))
        .or_else(|| nfs::read(record))
        .or_else(|| interface::read(record))
        .or_else(|| card::read(record))
        .or_else(|| network::read(record))
        .or_else(|| limits::read(record))
        .or_else(|| pci::read(record))
        .or_else(|| tasks::read(record))
        .or_else(|| machine(record).map(What::Logged))
}

/// The kernel itself, the machine below it, and processes that crash.
fn machine(record: &Record<'_>) -> Option<LogFault> {
    if words::is_packet(record.text) {
        return None;
    }
    lockup::read(record)
        .or_else(|| warning::read(record))
        .or_else(|| oops::read(record))
        .or_else(|| hardware::read(record))
        .or_else(|| pcie::read(record))
        .or_else(|| edac::read(record))
        .or_else(|| memory::read(record))
        .or_else(|| thermal::read(record))
        .or_else(|| clock::read(record))
        .or_else(|| crash::read(record))
}

/// What the user's own rules say. Theirs too are about lines of the kernel itself only.
pub(super) fn by_rules(rules: &LogRules, record: &Record<'_>) -> Vec<What> {
    if record.facility != 0 {
        return Vec::new();
    }
    rules.read(&Origin::KernelLog, record.text.as_bytes())
}

/// `EXT4-fs (sda1): Remounting filesystem read-only`, KERN_CRIT (fs/ext4/super.c).
fn ext4_read_only(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 2)?.strip_prefix("EXT4-fs (")?;
    let device = device_name(rest.strip_suffix("): Remounting filesystem read-only")?)?;
    Some(What::RemountedReadOnly { device })
}

/// `EXT4-fs error (device sda1): function:123: comm x: text` or
/// `EXT4-fs error (device sda1) in function:123: text`, KERN_CRIT (fs/ext4/super.c).
fn ext4_error(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 2)?.strip_prefix("EXT4-fs error (device ")?;
    let (name, rest) = rest.split_once(')')?;
    let device = device_name(name)?;
    let detail = rest
        .strip_prefix(": ")
        .or_else(|| rest.strip_prefix(" in "))?;
    let (function, rest) = detail.split_once(':')?;
    let (line, _) = rest.split_once(": ")?;
    let well_formed = !function.is_empty()
        && function
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && number(line).is_some();
    well_formed.then(|| What::Ext4Error {
        device,
        detail: text::printable(detail.as_bytes(), 200),
    })
}

/// `watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [name:123]`, KERN_EMERG (kernel/watchdog.c).
fn soft_lockup(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 0)?.strip_prefix("watchdog: BUG: soft lockup - CPU#")?;
    let (cpu, rest) = rest.split_once(" stuck for ")?;
    let (seconds, task) = rest.split_once("s! [")?;
    let (comm, pid) = task.strip_suffix(']')?.rsplit_once(':')?;
    Some(What::SoftLockup {
        cpu: number(cpu)?,
        seconds: number(seconds)?,
        task: Task {
            pid: number(pid)?,
            comm: text::printable(comm.as_bytes(), 64),
            workload: None,
        },
    })
}

/// `NVRM: Xid (PCI:0000:05:00): 79, pid=1234, name=python, GPU has fallen off the bus.`, with
/// ` GPU-I:05` and ` GPU-CI:00` before the bracket where MIG is on (open-gpu-kernel-modules,
/// kernel_rc.c). KERN_ERR, or no level at all, which is 4 by default (os-interface.c, `out_string`).
fn xid(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 3)
        .or_else(|| at_level(record, 4))?
        .strip_prefix("NVRM: Xid (PCI:")?;
    let (place, rest) = rest.split_once("): ")?;
    let mut place = place.split(' ');
    let gpu = gpu_name(place.next()?)?;
    let mut partition = None;
    for prefix in ["GPU-I:", "GPU-CI:"] {
        let Some(instance) = place.next() else { break };
        let instance = number(instance.strip_prefix(prefix)?)?;
        partition.get_or_insert(instance);
    }
    if place.next().is_some() {
        return None;
    }
    let (xid, detail) = rest.split_once(", ")?;
    let xid = number(xid).filter(|xid| (1..1000).contains(xid))?;
    // The separator of a condition's parts, which the next agent reads: a process chose the name.
    let detail = text::part(detail, 160);
    (!detail.is_empty()).then_some(What::Xid {
        gpu,
        partition,
        xid,
        process: xid_line::process(&detail),
        detail: Some(detail),
        seen_by: SourceName::Kmsg,
        driver: None,
    })
}

fn at_level<'a>(record: &Record<'a>, level: u32) -> Option<&'a str> {
    let fits = record.level.is_none_or(|of_record| of_record == level);
    fits.then_some(record.text)
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::super::record;
    use super::*;
    use crate::reason::{ConditionType, Reason};
    use crate::rules::LogRule;

    pub(super) fn line(raw: &str) -> Option<What> {
        read(&record::parse(raw.as_bytes()).unwrap())
    }

    pub(super) fn logged_at(level: u32, text: &str) -> Option<LogFault> {
        match line(&format!("{level},1,2,-;{text}"))? {
            What::Logged(fault) => Some(fault),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn logged(level: u32, text: &str) -> LogFault {
        logged_at(level, text).unwrap_or_else(|| panic!("not read: {text}"))
    }

    #[test]
    fn a_rule_of_the_user_counts_for_lines_of_the_kernel_itself_only() {
        let rule = LogRule {
            name: "raid".to_owned(),
            origin: Origin::KernelLog,
            pattern: r"^md/raid1:md\d+: Disk failure".to_owned(),
            reason: "RaidDegraded",
            condition: ConditionType::StorageReady,
        };
        let rules = LogRules::new(vec![rule]).unwrap();
        let of = |raw: &str| by_rules(&rules, &record::parse(raw.as_bytes()).unwrap()).len();
        let text = "md/raid1:md0: Disk failure on sda, disabling device.";
        assert_eq!(of(&format!("2,9,9,-;{text}\n SUBSYSTEM=block\n")), 1);
        // Written to /dev/kmsg: facility 1, whatever priority was asked for.
        assert_eq!(of(&format!("10,9,9,-;{text}\n")), 0);
        // Begun with a process' name.
        assert_eq!(of(&format!("6,9,9,-;x {text}\n")), 0);
    }

    #[test]
    fn a_read_only_remount_names_its_device() {
        assert_eq!(
            line("2,4711,99,-;EXT4-fs (nvme0n1p1): Remounting filesystem read-only\n"),
            Some(What::RemountedReadOnly {
                device: "nvme0n1p1".to_owned()
            })
        );
    }

    #[test]
    fn both_forms_of_an_ext4_error_count() {
        let Some(What::Ext4Error { device, detail }) =
            line("2,1,2,-;EXT4-fs error (device loop0): trigger_test_error:127: comm bash: 1")
        else {
            panic!("not read");
        };
        assert_eq!(
            (device.as_str(), detail.as_str()),
            ("loop0", "trigger_test_error:127: comm bash: 1")
        );
        assert!(
            line(
                "2,1,2,-;EXT4-fs error (device dm-0) in ext4_reserve_inode_write:5764: IO failure"
            )
            .is_some()
        );
    }

    #[test]
    fn a_soft_lockup_names_cpu_and_task() {
        let Some(What::SoftLockup { cpu, seconds, task }) =
            line("0,1,2,-;watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [a:b c:812]")
        else {
            panic!("not read");
        };
        assert_eq!(
            (cpu, seconds, task.pid, task.comm.as_str()),
            (3, 26, 812, "a:b c")
        );
    }

    fn xid_of(raw: &str) -> Option<(String, u32, String)> {
        match line(raw)? {
            What::Xid {
                gpu, xid, detail, ..
            } => Some((gpu, xid, detail.unwrap())),
            other => panic!("{other:?}"),
        }
    }

    fn partition_of(raw: &str) -> Option<u32> {
        match line(raw)? {
            What::Xid { partition, .. } => partition,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_xid_names_gpu_number_and_text() {
        let text = "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.";
        assert_eq!(
            xid_of(&format!("3,1,2,-;NVRM: Xid (PCI:0000:AF:00): 79, {text}")),
            Some(("0000:af:00".to_owned(), 79, text.to_owned()))
        );
    }

    #[test]
    fn an_xid_of_a_mig_instance_is_one_of_its_gpu_and_names_the_instance() {
        for (instance, partition) in [
            ("", None),
            (" GPU-I:05", Some(5)),
            (" GPU-I:05 GPU-CI:00", Some(5)),
        ] {
            let line = format!(
                "4,1,2,-;NVRM: Xid (PCI:0000:04:00{instance}): 94, pid=7, name=x, Contained"
            );
            let gpu = xid_of(&line).map(|(gpu, xid, _)| (gpu, xid));
            assert_eq!(gpu, Some(("0000:04:00".to_owned(), 94)));
            assert_eq!(partition_of(&line), partition);
        }
    }

    #[test]
    fn what_only_resembles_an_xid_does_not_count() {
        for text in [
            "x NVRM: Xid (PCI:0000:05:00): 79, lost",
            "NVRM: Xid (PCI:0000:05:00): 79",
            "NVRM: Xid (PCI:0000:05:00): 79, ",
            "NVRM: Xid (PCI:0000:05:00): -79, lost",
            "NVRM: Xid (PCI:0000:05:00): 1079, lost",
            "NVRM: Xid (PCI:../../05:00): 79, lost",
            "NVRM: Xid (PCI:0000:05:00.0): 79, lost",
            "NVRM: Xid (PCI:0000:05:00 GPU-CI:00): 79, lost",
            "NVRM: Xid (PCI:0000:05:00 GPU-I:05 GPU-CI:00 x): 79, lost",
            "NVRM: Xid (PCI:[18398]: segfault at 0 ip 0000 sp 0000 error 4 in x[400000+1000]",
        ] {
            assert_eq!(line(&format!("3,1,2,-;{text}")), None, "{text}");
        }
        assert_eq!(
            line("6,1,2,-;NVRM: Xid (PCI:0000:05:00): 79, lost"),
            None,
            "level"
        );
        assert_eq!(
            line("11,1,2,-;NVRM: Xid (PCI:0000:05:00): 79, lost"),
            None,
            "facility"
        );
    }

    #[test]
    fn a_process_name_cannot_begin_a_part_of_the_condition() {
        let (_, _, detail) =
            xid_of("3,1,2,-;NVRM: Xid (PCI:0000:05:00): 31, pid=1, name=a; b: c, MMU Fault")
                .unwrap();
        assert!(!detail.contains(';'), "{detail}");
    }

    #[test]
    fn the_right_text_at_a_wrong_level_or_facility_does_not_count() {
        assert_eq!(
            line("6,1,2,-;EXT4-fs (sda1): Remounting filesystem read-only"),
            None
        );
        assert_eq!(
            line("10,1,2,-;EXT4-fs (sda1): Remounting filesystem read-only"),
            None
        );
        assert_eq!(
            line("3,1,2,-;watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [x:1]"),
            None
        );
    }

    #[test]
    fn crashes_of_processes_with_a_forged_name_are_no_more_than_crashes() {
        for name in [
            "BUG: soft locku",
            "NVRM: Xid (PCI:",
            "Kernel panic - ",
            r"EXT4-fs error\x0a",
        ] {
            for level in 0..8 {
                let text = format!(
                    "{level},9,9,-;{name}[18398]: segfault at 0 ip 0000 sp 0000 error 4 in x[400000+1000]"
                );
                let reason = match line(&text) {
                    None => continue,
                    Some(What::Logged(fault)) => fault.reason,
                    Some(other) => panic!("{other:?}"),
                };
                assert_eq!((level, reason), (6, Reason::AppCrash), "{text}");
            }
        }
    }

    #[test]
    fn a_whole_line_with_something_before_or_after_it_does_not_count() {
        assert_eq!(
            line("2,1,2,-;x EXT4-fs (sda1): Remounting filesystem read-only"),
            None
        );
        assert_eq!(
            line("2,1,2,-;EXT4-fs (sda1): Remounting filesystem read-only!"),
            None
        );
        assert_eq!(
            line("2,1,2,-;EXT4-fs (../etc): Remounting filesystem read-only"),
            None
        );
        assert_eq!(
            line("0,1,2,-;watchdog: BUG: soft lockup - CPU#+3 stuck for 26s! [x:1]"),
            None
        );
    }
}
