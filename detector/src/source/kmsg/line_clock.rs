//! The clock of the kernel's lines. It is the CPUs' own (`local_clock()`), which nobody disciplines:
//! after weeks it is seconds off `CLOCK_BOOTTIME`, by which everything else is told. The tracing of
//! the kernel tells it when asked (Documentation/trace/ftrace.rst, `per_cpu/cpu0/stats`), some
//! milliseconds off.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::SignedDuration;
use tracing::info;

use crate::clock;
use crate::source::bpf::tracefs;

/// A flood of lines does not ask more often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Those of `trace_clock` that are the CPUs' own.
const OWN: [&str; 3] = ["[local]", "[global]", "[perf]"];

#[derive(Default)]
pub(super) struct LineClock {
    /// What a line's time lacks of the time since boot.
    lacks: SignedDuration,
    measured: Option<Duration>,
    /// What tracing told once is nearer than what is known without it.
    traced: bool,
    /// Why tracing does not tell it, which has been said.
    trouble: Option<String>,
}

impl LineClock {
    /// When a line was stored that says this time. It has been read, so that was before now.
    pub(super) fn since_boot(&mut self, line: Duration) -> Duration {
        let now = clock::boot();
        if self.measured.is_none_or(|at| now.abs_diff(at) >= INTERVAL) {
            self.measured = Some(now);
            let place = tracefs::mounted().context("tracefs is not mounted");
            let told = place.and_then(|place| tracing_clock(Path::new(place)));
            if let Ok(line) = told {
                self.lacks = lacks(clock::boot(), line);
                self.traced = true;
            } else if !self.traced {
                // It does not count what the machine was suspended.
                self.lacks = lacks(clock::suspended(), Duration::ZERO);
            }
            let trouble = told.err().map(|error| format!("{error:#}"));
            if let Some(why) = trouble.as_ref().filter(|_| trouble != self.trouble) {
                info!(%why, "the times of the kernel's lines may be off by seconds");
            }
            self.trouble = trouble;
        }
        shifted(line, self.lacks).min(now)
    }
}

fn tracing_clock(tracefs: &Path) -> anyhow::Result<Duration> {
    let read = |name| {
        let path = tracefs.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let clock = read("trace_clock")?;
    ensure!(
        OWN.iter().any(|own| clock.contains(own)),
        "somebody traces by another clock: {}",
        clock.trim()
    );
    now_ts(&read("per_cpu/cpu0/stats")?).context("per_cpu/cpu0/stats does not say the time")
}

/// Of the line `now ts: 64804.593685`.
fn now_ts(stats: &str) -> Option<Duration> {
    let text = stats
        .lines()
        .find_map(|line| line.strip_prefix("now ts:"))?;
    let (seconds, micros) = text.trim().split_once('.')?;
    let micros = micros.parse().ok().filter(|_| micros.len() == 6)?;
    Some(Duration::from_secs(seconds.parse().ok()?).saturating_add(Duration::from_micros(micros)))
}

fn lacks(boot: Duration, line: Duration) -> SignedDuration {
    let signed = |time| SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    signed(boot).saturating_sub(signed(line))
}

fn shifted(line: Duration, by: SignedDuration) -> Duration {
    if by.is_negative() {
        line.saturating_sub(by.unsigned_abs())
    } else {
        line.saturating_add(by.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_line_is_as_old_as_it_was_whichever_clock_is_ahead() {
        let month = 30 * 86400 * SECOND;
        for (boot, line) in [(month, month - 50 * SECOND), (month - 50 * SECOND, month)] {
            let lacks = lacks(boot, line);
            assert_eq!(shifted(line - SECOND, lacks), boot - SECOND);
        }
        assert_eq!(shifted(SECOND, lacks(SECOND, month)), Duration::ZERO);
    }

    #[test]
    fn tracing_tells_the_time_of_lines() {
        let stats =
            "entries: 0\noldest event ts:     0.000000\nnow ts: 64804.593685\nread events: 0\n";
        let told = Duration::from_micros(64_804_593_685);
        assert_eq!(now_ts(stats), Some(told));
        for unknown in [
            "",
            "now ts: 64804593685\n",
            "now ts: 1.5\n",
            "now ts: -1.000000\n",
        ] {
            assert_eq!(now_ts(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn another_clock_of_tracing_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir_all(folder.path().join("per_cpu/cpu0")).unwrap();
        write("per_cpu/cpu0/stats", "now ts: 1.000000\n");
        for (clocks, told) in [
            ("[local] global counter perf mono boot\n", Some(SECOND)),
            ("local global counter [perf] mono boot\n", Some(SECOND)),
            ("local global counter perf mono [boot]\n", None),
        ] {
            write("trace_clock", clocks);
            assert_eq!(tracing_clock(folder.path()).ok(), told, "{clocks}");
        }
    }
}
