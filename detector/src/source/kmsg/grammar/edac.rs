//! PURE. Memory modules, caches and buses that err.

use super::super::record::Record;
use super::words::only;
use super::{at_level, number};
use crate::reason::Reason;
use crate::signal::LogFault;
use crate::source::hardware::memory_module;
use crate::text;

pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    let rest = record.text.strip_prefix("EDAC ")?;
    module(record, rest).or_else(|| device(record, rest))
}

/// `EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#1_Chan#0_DIMM#0 (channel:0 slot:0 page:0x1
/// offset:0x2 grain:32 syndrome:0x0)`, KERN_WARNING (drivers/edac/edac_mc.c). UE: uncorrected.
fn module(record: &Record<'_>, rest: &str) -> Option<LogFault> {
    at_level(record, 4)?;
    let rest = rest.strip_prefix("MC")?;
    let (controller, rest) = rest.split_once(": ")?;
    let (count, rest) = rest.split_once(' ')?;
    let (controller, count) = (number(controller)?, number(count)?);
    let (reason, kind, rest) = if let Some(rest) = rest.strip_prefix("CE ") {
        (Reason::EdacCorrectedError, "corrected", rest)
    } else {
        let rest = rest.strip_prefix("UE ")?;
        (Reason::EdacUncorrectedError, "uncorrected", rest)
    };
    // The driver's own word about it can be absent.
    let label = match rest.strip_prefix("on ") {
        Some(label) => label,
        None => rest.split_once(" on ")?.1,
    };
    let (label, detail) = label.split_once(" (")?;
    let whole = ["page:0x", " offset:0x", " grain:"]
        .iter()
        .all(|part| detail.contains(part))
        && detail.ends_with(')');
    if !whole || label.is_empty() {
        return None;
    }
    let label = text::part(label, 100);
    Some(memory_module(reason, kind, count, controller, &label))
}

/// `EDAC DEVICE0: CE: cpu-l2 instance: l20 block: L2 count: 1 'L2 correctable error'`, KERN_WARNING;
/// UE: KERN_EMERG; without the count before 5.5 (drivers/edac/edac_device.c). Caches, buses and
/// other memories that are no modules.
fn device(record: &Record<'_>, rest: &str) -> Option<LogFault> {
    let (device, rest) = rest.strip_prefix("DEVICE")?.split_once(": ")?;
    let device = number(device)?;
    let (reason, kind, level, rest) = if let Some(rest) = rest.strip_prefix("CE: ") {
        (Reason::EdacCorrectedError, "corrected", 4, rest)
    } else {
        let rest = rest.strip_prefix("UE: ")?;
        (Reason::EdacUncorrectedError, "uncorrected", 0, rest)
    };
    at_level(record, level)?;
    let (controller, rest) = rest.split_once(" instance: ")?;
    let (instance, rest) = rest.split_once(" block: ")?;
    let (block, text) = rest.split_once(" '")?;
    let block = match block.split_once(" count: ") {
        Some((block, count)) => number(count).map(|_| block)?,
        None => block,
    };
    let text = text.strip_suffix('\'')?;
    let words = [controller, instance, block];
    if text.is_empty() || !words.iter().all(|word| is_label(word)) {
        return None;
    }
    let place = format!("{controller} {instance} {block}");
    let message = format!(
        "{kind} error of {place} (EDAC device {device}): {}",
        text::part(text, 100)
    );
    Some(LogFault::new(
        reason,
        format!("device {device} {place}"),
        message,
    ))
}

/// A driver's name for a part: `cpu-l2`, `N/A`, `xgene-pmd 0`.
fn is_label(text: &str) -> bool {
    text.len() <= 40
        && only(text, |b| {
            b.is_ascii_alphanumeric() || b" _-/.:#".contains(&b)
        })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{logged, logged_at};
    use super::*;

    #[test]
    fn edac_names_controller_and_module() {
        for (text, reason, entity) in [
            (
                "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#1_Chan#0_DIMM#0 (channel:0 slot:0 page:0x1 offset:0x2 grain:32 syndrome:0x0 -  err_code:0x0)",
                Reason::EdacCorrectedError,
                "MC0 CPU_SrcID#0_MC#1_Chan#0_DIMM#0",
            ),
            (
                "EDAC MC3: 2 UE on DIMM_A1 or DIMM_A2 (csrow:1 page:0x0 offset:0x0 grain:8)",
                Reason::EdacUncorrectedError,
                "MC3 DIMM_A1 or DIMM_A2",
            ),
            (
                "EDAC MC0: 1 UE ie31200 UE on mc#0csrow#2channel#0 (csrow:2 channel:0 page:0x0 offset:0x0 grain:8)",
                Reason::EdacUncorrectedError,
                "MC0 mc#0csrow#2channel#0",
            ),
        ] {
            let fault = logged(4, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (reason, entity),
                "{text}"
            );
        }
    }

    #[test]
    fn a_cache_that_errs_is_named_by_its_driver() {
        for (level, text, reason, entity) in [
            (
                4,
                "EDAC DEVICE0: CE: xgene-pmd instance: pmd0 block: pmd00 count: 1 'L2 correctable error'",
                Reason::EdacCorrectedError,
                "device 0 xgene-pmd pmd0 pmd00",
            ),
            (
                0,
                "EDAC DEVICE2: UE: l3 instance: l30 block: N/A 'L3 uncorrectable error'",
                Reason::EdacUncorrectedError,
                "device 2 l3 l30 N/A",
            ),
        ] {
            let fault = logged(level, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (reason, entity),
                "{text}"
            );
        }
        for (level, text) in [
            (
                4,
                "EDAC DEVICE2: UE: l3 instance: l30 block: N/A 'L3 uncorrectable error'",
            ),
            (4, "EDAC DEVICE0: CE: a instance: b block: c count: x 'd'"),
            (4, "EDAC DEVICE0: CE: a instance: b block: c count: 1 'd"),
            (4, "EDAC DEVICE0: CE: a instance: b block: c count: 1 'd' e"),
            (4, "EDAC DEVICE0: CE: a; instance: b block: c count: 1 'd'"),
            (
                6,
                "EDAC DEVICE0: Giving out device to module x controller y: DEV z (POLLED)",
            ),
        ] {
            assert_eq!(logged_at(level, text), None, "{text}");
        }
    }

    #[test]
    fn what_only_resembles_an_error_of_a_module_does_not_count() {
        for (level, text) in [
            (
                6,
                "EDAC MC0: Giving out device to module amd64_edac controller F19h_M10h: DEV 0000:00:18.3 (INTERRUPT)",
            ),
            (6, "EDAC amd64: MC: 0: 16384MB 1: 16384MB"),
            (6, "EDAC MC: Ver: 3.0.0"),
            (4, "EDAC MC0: 1 CE on A (page:0x0)"),
            (
                4,
                "EDAC MC0: x CE memory read error on A (page:0x0 offset:0x0 grain:8)",
            ),
            (
                4,
                "EDAC MC0: 1 XE memory read error on A (page:0x0 offset:0x0 grain:8)",
            ),
            (4, "EDAC MC0: 1 CE memory read error on A"),
            (
                6,
                "EDAC MC0: 1 CE memory read error on A (page:0x0 offset:0x0 grain:8)",
            ),
        ] {
            assert_eq!(logged_at(level, text), None, "{text}");
        }
    }
}
