//! PURE. Clocks that the kernel no longer trusts.

use super::super::record::Record;
use super::words::{are_words, is_word};
use super::{at_level, number};
use crate::reason::Reason;
use crate::signal::LogFault;

pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    clocksource(record).or_else(|| tsc(record))
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
    LogFault::new(
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
    fn what_only_resembles_a_bad_clock_does_not_count() {
        for (level, text) in [
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
