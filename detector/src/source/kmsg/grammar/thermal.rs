//! PURE. What is too hot.

use super::super::record::Record;
use super::words::are_words;
use super::{at_level, number};
use crate::reason::Reason;
use crate::signal::LogFault;

pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    throttled(record).or_else(|| critical_temperature(record))
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
    Some(LogFault::new(Reason::CpuThrottled, entity, message))
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
    Some(LogFault::new(
        Reason::CriticalTemperature,
        format!("thermal zone {zone}"),
        message,
    ))
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
    fn what_only_resembles_a_hot_cpu_does_not_count() {
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
        ] {
            assert_eq!(logged_at(level, text), None, "{text}");
        }
    }
}
