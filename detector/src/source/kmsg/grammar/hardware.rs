//! PURE. What processors and firmware say about failing hardware: machine checks, NMIs, GHES and BERT.

use super::super::record::Record;
use super::words::hex;
use super::{at_level, number};
use crate::reason::Reason;
use crate::signal::LogFault;
use crate::source::hardware;

pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    machine_check(record)
        .or_else(|| amd_machine_check(record))
        .or_else(|| events_logged(record))
        .or_else(|| firmware(record))
        .or_else(|| nmi(record))
}

/// `mce: [Hardware Error]: CPU 3: Machine Check Exception: 5 Bank 5: be00000000800400`, KERN_EMERG: the
/// first line of each (arch/x86/kernel/cpu/mce/core.c, `__print_mce`).
fn machine_check(record: &Record<'_>) -> Option<LogFault> {
    let rest = at_level(record, 0)?.strip_prefix("mce: [Hardware Error]: CPU ")?;
    let (cpu, rest) = rest.split_once(": Machine Check")?;
    let rest = rest.strip_prefix(" Exception").unwrap_or(rest);
    let (state, rest) = rest.strip_prefix(": ")?.split_once(" Bank ")?;
    let (bank, status) = rest.split_once(": ")?;
    hex(state)?;
    Some(hardware::machine_check(
        number(cpu)?,
        number(bank)?,
        hex(status)?,
    ))
}

/// `[Hardware Error]: CPU:2 (17:31:0) MC18_STATUS[Over|CE|...]: 0xdc2040000000011b`, KERN_EMERG
/// (drivers/edac/mce_amd.c, which then has the line above suppressed).
fn amd_machine_check(record: &Record<'_>) -> Option<LogFault> {
    let rest = at_level(record, 0)?.strip_prefix("[Hardware Error]: CPU:")?;
    let (cpu, rest) = rest.split_once(" (")?;
    let (model, rest) = rest.split_once(") MC")?;
    let (bank, rest) = rest.split_once("_STATUS[")?;
    let (flags, status) = rest.split_once("]: 0x")?;
    for part in model.split(':') {
        hex(part)?;
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"|-".contains(&b);
    if !flags.bytes().all(fits) {
        return None;
    }
    Some(hardware::machine_check(
        number(cpu)?,
        number(bank)?,
        hex(status)?,
    ))
}

/// KERN_INFO, without saying which (arch/x86/kernel/cpu/mce/core.c, `mce_notify_irq`).
fn events_logged(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 6)?;
    (line == "mce: [Hardware Error]: Machine check events logged").then(|| {
        LogFault::new(
            Reason::MachineCheckCorrected,
            "host".to_owned(),
            "machine check events were logged: see rasdaemon, mcelog or EDAC".to_owned(),
        )
    })
}

/// `{1}[Hardware Error]: event severity: corrected`: KERN_WARNING for corrected ones, KERN_ERR, or
/// KERN_EMERG before a panic (drivers/acpi/apei/ghes.c, drivers/firmware/efi/cper.c). Without a number
/// and at KERN_INFO it is about the boot before (drivers/acpi/apei/bert.c).
fn firmware(record: &Record<'_>) -> Option<LogFault> {
    const SEVERITY: &str = "[Hardware Error]: event severity: ";
    let (severity, when) = match record.text.strip_prefix('{') {
        Some(rest) => {
            let line = [0, 3, 4]
                .into_iter()
                .any(|level| at_level(record, level).is_some());
            let (serial, rest) = rest.split_once('}')?;
            number(serial)?;
            (line.then(|| rest.strip_prefix(SEVERITY)).flatten()?, "")
        }
        None => (
            at_level(record, 6)?.strip_prefix(SEVERITY)?,
            " of the boot before",
        ),
    };
    let reason = match severity {
        "corrected" => Reason::FirmwareCorrectedError,
        "recoverable" | "fatal" => Reason::FirmwareHardwareError,
        _ => return None,
    };
    let message = format!("the firmware reported a hardware error{when}: {severity}");
    Some(LogFault::new(reason, "firmware".to_owned(), message))
}

/// KERN_EMERG (arch/x86/kernel/nmi.c). Of the reason only its bits are known.
fn nmi(record: &Record<'_>) -> Option<LogFault> {
    const KINDS: [(&str, &str, &str); 3] = [
        (
            "PCI system error (SERR) for reason ",
            "SERR",
            "a PCI system error (SERR)",
        ),
        (
            "IOCK error (debug interrupt?) for reason ",
            "IOCK",
            "an error of the I/O channel (IOCK)",
        ),
        (
            "Uhhuh. NMI received for unknown reason ",
            "unknown",
            "a reason that the kernel does not know",
        ),
    ];
    let line = at_level(record, 0)?;
    let rest = line.strip_prefix("NMI: ").or_else(|| {
        // Without it the first two are no lines of the kernel.
        line.starts_with("Uhhuh. ").then_some(line)
    })?;
    let (rest, (_, kind, what)) = KINDS
        .iter()
        .find_map(|kind| Some((rest.strip_prefix(kind.0)?, kind)))?;
    let (reason, cpu) = rest.strip_suffix('.')?.split_once(" on CPU ")?;
    let (reason, cpu) = (hex(reason)?, number(cpu)?);
    let message =
        format!("CPU {cpu} received a non-maskable interrupt for {what}, reason {reason:#04x}");
    Some(LogFault::new(
        Reason::NmiReceived,
        (*kind).to_owned(),
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{logged, logged_at};
    use super::*;

    #[test]
    fn a_machine_check_is_corrected_or_not_by_its_status() {
        for (text, reason, entity) in [
            (
                "mce: [Hardware Error]: CPU 3: Machine Check Exception: 5 Bank 5: be00000000800400",
                Reason::MachineCheck,
                "cpu 3 bank 5",
            ),
            (
                "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 9: 8c000046000800c1",
                Reason::MachineCheckCorrected,
                "cpu 0 bank 9",
            ),
            (
                "[Hardware Error]: CPU:2 (17:31:0) MC18_STATUS[Over|CE|MiscV|AddrV|-|-|SyndV|CECC|-|-|-]: 0xdc2040000000011b",
                Reason::MachineCheckCorrected,
                "cpu 2 bank 18",
            ),
        ] {
            let fault = logged(0, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (reason, entity),
                "{text}"
            );
        }
        let fault = logged(6, "mce: [Hardware Error]: Machine check events logged");
        assert_eq!(fault.reason, Reason::MachineCheckCorrected);
    }

    #[test]
    fn what_firmware_says_counts_by_its_severity() {
        for (level, text, reason) in [
            (
                4,
                "{1}[Hardware Error]: event severity: corrected",
                Reason::FirmwareCorrectedError,
            ),
            (
                3,
                "{12}[Hardware Error]: event severity: recoverable",
                Reason::FirmwareHardwareError,
            ),
            (
                0,
                "{2}[Hardware Error]: event severity: fatal",
                Reason::FirmwareHardwareError,
            ),
            (
                6,
                "[Hardware Error]: event severity: fatal",
                Reason::FirmwareHardwareError,
            ),
        ] {
            assert_eq!(logged(level, text).reason, reason, "{text}");
        }
    }

    #[test]
    fn an_nmi_is_told_by_its_kind() {
        for (text, kind) in [
            (
                "NMI: PCI system error (SERR) for reason b1 on CPU 0.",
                "SERR",
            ),
            (
                "NMI: IOCK error (debug interrupt?) for reason 71 on CPU 12.",
                "IOCK",
            ),
            (
                "Uhhuh. NMI received for unknown reason 2d on CPU 3.",
                "unknown",
            ),
            (
                "NMI: Uhhuh. NMI received for unknown reason 2d on CPU 3.",
                "unknown",
            ),
        ] {
            let fault = logged(0, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::NmiReceived, kind),
                "{text}"
            );
        }
    }

    #[test]
    fn what_only_resembles_a_hardware_error_does_not_count() {
        for (level, text) in [
            (0, "PCI system error (SERR) for reason b1 on CPU 0."),
            (0, "NMI: PCI system error (SERR) for reason xy on CPU 0."),
            (0, "NMI: PCI system error (SERR) for reason b1 on CPU 0"),
            (0, "NMI: PCI system error (SERR) for reason b1 on CPU 0. x."),
            (6, "NMI: PCI system error (SERR) for reason b1 on CPU 0."),
            (0, "Dazed and confused, but trying to continue"),
            (0, "mce: [Hardware Error]: TSC 0 ADDR 1234 MISC 86"),
            (
                0,
                "mce: [Hardware Error]: PROCESSOR 0:306d4 TIME 1 SOCKET 0 APIC 0 microcode 1",
            ),
            (0, "mce: [Hardware Error]: event severity: fatal"),
            (
                0,
                "x mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 9: 8c000046000800c1",
            ),
            (
                0,
                "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 9: 8c000046000800c1 x",
            ),
            (
                6,
                "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 9: 8c000046000800c1",
            ),
            (0, "mce: [Hardware Error]: Machine check events logged"),
            (3, "{x}[Hardware Error]: event severity: fatal"),
            (3, "{1}[Hardware Error]: event severity: fatal, said x"),
            (6, "{1}[Hardware Error]: event severity: fatal"),
            (4, "{1}[Hardware Error]: event severity: info"),
            (
                6,
                "{1}[Hardware E[77]: segfault at 0 ip 0 sp 0 error 4 in [Hardware Error]: event severity: fatal",
            ),
        ] {
            let reason = logged_at(level, text).map(|fault| fault.reason);
            assert!(matches!(reason, None | Some(Reason::AppCrash)), "{text}");
        }
    }
}
