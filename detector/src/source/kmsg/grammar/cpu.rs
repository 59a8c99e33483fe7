//! PURE. CPUs that are too hot, and clocks that cannot be trusted.

use super::super::record::Record;
use super::words::{are_words, fault, is_word};
use super::{at_level, number};
use crate::reason::Reason;
use crate::signal::LogFault;

pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    throttled(record)
        .or_else(|| critical_temperature(record))
        .or_else(|| clocksource(record))
        .or_else(|| tsc(record))
}

/// `CPU4: Core temperature is above threshold, cpu clock is throttled (total events = 219)`,
/// KERN_WARNING, with `mce: ` before it up to 5.11; before 5.5 KERN_CRIT and without the verbs
/// (drivers/thermal/intel/therm_throt.c).
fn throttled(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 4).or_else(|| at_level(record, 2))?;
    let rest = line.strip_prefix("mce: ").unwrap_or(line);
    let (cpu, rest) = rest.strip_prefix("CPU")?.split_once(": ")?;
    let (part, rest) = rest.split_once(" temperature ")?;
    let events = rest
        .strip_prefix("is above threshold, cpu clock is throttled (total events = ")
        .or_else(|| rest.strip_prefix("above threshold, cpu clock throttled (total events = "))?;
    let events: u64 = number(events.strip_suffix(')')?)?.into();
    let cpu = number(cpu)?;
    let (entity, whose) = match part {
        "Core" => (format!("cpu {cpu}"), format!("CPU {cpu} is")),
        // Each CPU of it says so.
        "Package" => (
            "package".to_owned(),
            format!("all CPUs beside CPU {cpu} are"),
        ),
        _ => return None,
    };
    let message = format!("{whose} too hot and runs at a lower clock ({events} times since boot)");
    Some(fault(Reason::CpuThrottled, entity, message))
}

/// `thermal thermal_zone0: acpitz: critical temperature reached`, then `, shutting down` or nothing;
/// without the type and with ` (105 C)` before 5.12; KERN_EMERG (drivers/thermal/thermal_core.c).
fn critical_temperature(record: &Record<'_>) -> Option<LogFault> {
    let rest = at_level(record, 0)?.strip_prefix("thermal thermal_zone")?;
    let (zone, rest) = rest.split_once(": ")?;
    let zone = number(zone)?;
    let (name, rest) = match rest.split_once(": ") {
        Some((name, rest)) => (name, rest),
        None => ("", rest),
    };
    let rest = rest.strip_prefix("critical temperature reached")?;
    let rest = rest.strip_suffix(", shutting down").unwrap_or(rest);
    if !rest.is_empty() {
        number(rest.strip_prefix(" (")?.strip_suffix(" C)")?)?;
    }
    if !name.is_empty() && !are_words(name) {
        return None;
    }
    let message = format!("thermal zone {zone} {name} has reached its critical temperature");
    let message = message.replace("  ", " ");
    Some(fault(
        Reason::CriticalTemperature,
        format!("thermal zone {zone}"),
        message,
    ))
}

/// `clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable because the skew
/// is too large:`, or `... wd-tsc-wd excessive read-back delay of ..., attempt 3, marking tsc unstable`;
/// since the watchdog's rewrite `clocksource: Marking clocksource tsc unstable due to frequency skew`;
/// KERN_WARNING (kernel/time/clocksource.c).
fn clocksource(record: &Record<'_>) -> Option<LogFault> {
    let rest = at_level(record, 4)?.strip_prefix("clocksource: ")?;
    if let Some(rest) = rest.strip_prefix("Marking clocksource ") {
        let (name, why) = rest.split_once(" unstable due to ")?;
        return (is_word(name) && are_words(why)).then(|| unstable(name, why));
    }
    let rest = rest.strip_prefix("timekeeping watchdog")?;
    let (cpu, rest) = rest.split_once(": ")?;
    if !cpu.is_empty() {
        number(cpu.strip_prefix(" on CPU")?)?;
    }
    let (name, why) = if let Some(rest) = rest.strip_prefix("Marking clocksource '") {
        let name = rest.strip_suffix("' as unstable because the skew is too large:")?;
        (name, "it runs at another speed than the watchdog's clock")
    } else {
        let (name, rest) = rest.strip_prefix("wd-")?.split_once("-wd ")?;
        let rest = rest.strip_prefix("excessive ").unwrap_or(rest);
        let (_, end) = rest
            .strip_prefix("read-back delay of ")?
            .split_once(", attempt ")?;
        let (attempt, end) = end.split_once(", marking ")?;
        number(attempt)?;
        if end != "unstable" && end.strip_suffix(" unstable") != Some(name) {
            return None;
        }
        (name, "reading it takes too long")
    };
    is_word(name).then(|| unstable(name, why))
}

/// `tsc: Marking TSC unstable due to clocksource watchdog`, KERN_INFO (arch/x86/kernel/tsc.c).
fn tsc(record: &Record<'_>) -> Option<LogFault> {
    let why = at_level(record, 6)?.strip_prefix("tsc: Marking TSC unstable due to ")?;
    are_words(why).then(|| unstable("tsc", why))
}

fn unstable(name: &str, why: &str) -> LogFault {
    fault(
        Reason::ClocksourceUnstable,
        name.to_owned(),
        format!("the kernel no longer trusts the clock {name}: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{logged, logged_at};
    use super::*;

    #[test]
    fn a_throttled_cpu_counts_in_all_wordings() {
        for (level, text, entity) in [
            (
                4,
                "CPU7: Core temperature is above threshold, cpu clock is throttled (total events = 219)",
                "cpu 7",
            ),
            (
                4,
                "mce: CPU7: Package temperature is above threshold, cpu clock is throttled (total events = 1)",
                "package",
            ),
            (
                2,
                "CPU7: Core temperature above threshold, cpu clock throttled (total events = 1)",
                "cpu 7",
            ),
        ] {
            let fault = logged(level, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::CpuThrottled, entity),
                "{text}"
            );
        }
    }

    #[test]
    fn a_critical_temperature_names_its_zone() {
        for text in [
            "thermal thermal_zone0: acpitz: critical temperature reached, shutting down",
            "thermal thermal_zone0: acpitz: critical temperature reached",
            "thermal thermal_zone0: critical temperature reached (105 C), shutting down",
        ] {
            let fault = logged(0, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::CriticalTemperature, "thermal zone 0"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_unstable_clock_is_one_entity_whoever_says_so() {
        for (level, text) in [
            (
                4,
                "clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable because the skew is too large:",
            ),
            (
                4,
                "clocksource: timekeeping watchdog: Marking clocksource 'tsc' as unstable because the skew is too large:",
            ),
            (
                4,
                "clocksource: timekeeping watchdog on CPU1: wd-tsc-wd read-back delay of 62500ns, attempt 4, marking unstable",
            ),
            (
                4,
                "clocksource: timekeeping watchdog on CPU1: wd-tsc-wd excessive read-back delay of 62500ns vs. limit of 125000ns, wd-wd read-back delay only 100ns, attempt 4, marking tsc unstable",
            ),
            (
                4,
                "clocksource: Marking clocksource tsc unstable due to frequency skew",
            ),
            (6, "tsc: Marking TSC unstable due to clocksource watchdog"),
        ] {
            let fault = logged(level, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::ClocksourceUnstable, "tsc"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_only_resembles_a_hot_cpu_or_a_bad_clock_does_not_count() {
        for (level, text) in [
            (
                6,
                "CPU7: Core temperature/speed normal (total events = 219)",
            ),
            (
                4,
                "CPUx: Core temperature is above threshold, cpu clock is throttled (total events = 219)",
            ),
            (
                4,
                "x CPU7: Core temperature is above threshold, cpu clock is throttled (total events = 219)",
            ),
            (
                4,
                "CPU7: Core temperature is above threshold, cpu clock is throttled (total events = x)",
            ),
            (
                6,
                "CPU7: Core temperature is above threshold, cpu clock is throttled (total events = 2)",
            ),
            (
                0,
                "thermal thermal_zone0: `x`: critical temperature reached",
            ),
            (
                0,
                "thermal thermal_zone0: x: critical temperature reached, or not",
            ),
            (
                3,
                "thermal thermal_zone0: acpitz: critical temperature reached",
            ),
            (
                6,
                "clocksource: timekeeping watchdog on CPU1: hpet wd-wd read-back delay of 62500ns",
            ),
            (
                4,
                "clocksource: timekeeping watchdog on CPU1: hpet retried 3 times before success",
            ),
            (
                4,
                "clocksource: Long readout interval, skipping watchdog check: cs_nsec: 1 wd_nsec: 1",
            ),
            (
                4,
                "clocksource: timekeeping watchdog on CPU0: Marking clocksource 'x' y' as unstable because the skew is too large:",
            ),
            (6, "tsc: Marking TSC unstable due to "),
            (6, "tsc: Marking TS[77]: segfault at 0"),
            (4, "tsc: Marking TSC unstable due to clocksource watchdog"),
        ] {
            assert_eq!(logged_at(level, text), None, "{text}");
        }
    }
}
