//! PURE. ATA: `ata1.00: ...` for a device, `ata1: ...` for its port (drivers/ata/libata-eh.c).
//!
//! `hard resetting link` (KERN_INFO) is not here: it follows an exception that counts already.

use super::fault::{digits, errno, hex, on_device};
use super::{Record, What, at_level};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    let (name, text) = record.text.strip_prefix("ata")?.split_once(": ")?;
    let (port, device) = match name.split_once('.') {
        Some((port, device)) => (port, Some(device)),
        None => (name, None),
    };
    if !digits(port) || name.len() > 8 || !device.is_none_or(digits) {
        return None;
    }
    let error = at_level(record, 3).is_some()
        && (exception(text).is_some() || failed_command(text) || is_dead(text));
    let warning = at_level(record, 4).is_some()
        && match device {
            Some(_) => matches!(text, "disabled" | "disable device"),
            None => text
                .strip_prefix("limiting SATA link speed to ")
                .is_some_and(speed),
        };
    // The port: what hangs on it has the fault, or the link to it.
    let message = format!("ATA port {port}: ata{name}: {text}");
    (error || warning).then(|| on_device(Reason::AtaError, format!("ata{port}"), &message))
}

/// `exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x6 frozen`, with ` t4` behind it when it is tried
/// again.
fn exception(text: &str) -> Option<()> {
    let mut rest = text.strip_prefix("exception Emask ")?;
    for next in [" SAct ", " SErr ", " action "] {
        let (number, after) = rest.split_once(next)?;
        hex(number).then_some(())?;
        rest = after;
    }
    let mut words = rest.split(' ');
    hex(words.next()?).then_some(())?;
    words
        .all(|word| word == "frozen" || word.strip_prefix('t').is_some_and(digits))
        .then_some(())
}

/// `failed command: READ FPDMA QUEUED`: a name of the kernel's table.
fn failed_command(text: &str) -> bool {
    text.strip_prefix("failed command: ").is_some_and(|name| {
        (1..=40).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b" /()-".contains(&b))
    })
}

fn is_dead(text: &str) -> bool {
    text == "reset failed, giving up"
        || ["COMRESET", "SRST", "softreset", "hardreset"]
            .iter()
            .any(|what| {
                text.strip_prefix(what)
                    .and_then(|rest| rest.strip_prefix(" failed (errno="))
                    .and_then(|rest| rest.strip_suffix(')'))
                    .is_some_and(errno)
            })
}

/// `3.0 Gbps`.
fn speed(text: &str) -> bool {
    text.strip_suffix(" Gbps")
        .and_then(|speed| speed.split_once('.'))
        .is_some_and(|(whole, tenths)| digits(whole) && digits(tenths))
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn errors_are_of_their_port() {
        for (level, text) in [
            (
                3,
                "ata1.00: exception Emask 0x0 SAct 0x40000000 SErr 0x0 action 0x6 frozen",
            ),
            (
                3,
                "ata1: exception Emask 0x10 SAct 0x0 SErr 0x4040000 action 0xe frozen t4",
            ),
            (3, "ata1.00: failed command: READ FPDMA QUEUED"),
            (3, "ata1.00: failed command: WRITE DMA EXT"),
            (3, "ata1: COMRESET failed (errno=-16)"),
            (3, "ata1: reset failed, giving up"),
            (4, "ata1.00: disabled"),
            (4, "ata1.00: disable device"),
            (4, "ata1: limiting SATA link speed to 1.5 Gbps"),
        ] {
            let fault = reads(level, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::AtaError, "ata1"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_fault_or_not_whole_does_not_count() {
        for text in [
            "ata16: SATA link down (SStatus 0 SControl 300)",
            "ata1: SATA link up 6.0 Gbps (SStatus 133 SControl 300)",
            "ata1.00: configured for UDMA/133",
            "ata1: hard resetting link",
            "ata1: EH complete",
        ] {
            for level in 0..8 {
                nothing(level, read, text);
            }
        }
        for text in [
            "x ata1.00: failed command: READ DMA",
            "ata1.00: failed command: read",
            "atax.00: failed command: READ DMA",
            "ata1.00: failed command: READ DMA IN=eth0",
        ] {
            nothing(3, read, text);
        }
        nothing(6, read, "ata1.00: failed command: READ DMA");
        forged_by_names(
            read,
            &[
                "ata1.00: failed",
                "ata1.00: failed command: READ DMA",
                "ata1: reset failed, giving up",
                "ata1.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x6 frozen",
            ],
        );
    }
}
