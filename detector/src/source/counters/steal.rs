//! PURE. CPU time that the hypervisor gave to others while this machine wanted to run.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::files::Files;
use super::text::{is_share, numbers};
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;

const STAT: &str = "proc/stat";

const HIGH: u32 = 30;
/// What a CPU must have lost for its lockup to be the hypervisor's.
const WORTH_TELLING: u32 = 10;
const MOST_READINGS: usize = 16;

pub(super) struct Steal {
    /// Over which it must be high.
    span: Duration,
    /// Oldest first; all lie within the span, but for the first.
    readings: VecDeque<(Duration, Reading)>,
}

/// Ticks since boot of all CPUs (`None`) and of each.
type Reading = BTreeMap<Option<u32>, Ticks>;

#[derive(Debug, Clone, Copy, Default)]
struct Ticks {
    stolen: u64,
    all: u64,
}

impl Steal {
    pub(super) fn new(span: Duration) -> Self {
        Self {
            span,
            readings: VecDeque::new(),
        }
    }
}

impl Counter for Steal {
    fn name(&self) -> &'static str {
        "cpu-steal"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[STAT]
    }

    fn look(&mut self, files: &Files, at: Duration) -> Vec<What> {
        let now = read(files.one(STAT).unwrap_or_default());
        let mut found = Vec::new();
        let readings = &mut self.readings;
        if let Some((_, last)) = readings.back() {
            let cpus = now.iter().filter_map(|(cpu, ticks)| {
                let ticks = since(last.get(cpu)?, ticks)?;
                let share = is_share(ticks.stolen, ticks.all, WORTH_TELLING);
                share.then(|| Some(((*cpu)?, percent(ticks)))).flatten()
            });
            let cpus: BTreeMap<u32, u8> = cpus.collect();
            if !cpus.is_empty() {
                found.push(What::Stolen { cpus });
            }
        }
        // The newest of those that are old enough.
        while readings
            .get(1)
            .is_some_and(|(then, _)| *then + self.span <= at)
            || readings.len() >= MOST_READINGS
        {
            readings.pop_front();
        }
        let oldest = readings.front().filter(|(then, _)| *then + self.span <= at);
        let whole = oldest.and_then(|(_, before)| since(before.get(&None)?, now.get(&None)?));
        if let Some(ticks) = whole.filter(|ticks| is_share(ticks.stolen, ticks.all, HIGH)) {
            let message = format!(
                "the hypervisor gave {} % of this machine's CPU time to others",
                percent(ticks)
            );
            found.push(told::still(told::fault(Reason::CpuStolen, "host", message)));
        }
        readings.push_back((at, now));
        found
    }
}

/// Nothing where they went backwards, which some hypervisors let them.
fn since(before: &Ticks, now: &Ticks) -> Option<Ticks> {
    Some(Ticks {
        stolen: now.stolen.checked_sub(before.stolen)?,
        all: now.all.checked_sub(before.all)?,
    })
}

fn percent(ticks: Ticks) -> u8 {
    let share = u128::from(ticks.stolen) * 100 / u128::from(ticks.all.max(1));
    u8::try_from(share.min(100)).unwrap_or(100)
}

/// `cpu0 user nice system idle iowait irq softirq steal guest guest_nice`; the last two are in the
/// first two as well.
fn read(stat: &str) -> Reading {
    let lines = stat.lines().map_while(|line| line.strip_prefix("cpu"));
    let cpus = lines.filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        let cpu = match name {
            "" => None,
            number => Some(number.parse().ok()?),
        };
        let times = numbers(rest);
        let stolen = *times.get(7)?;
        let all = times
            .iter()
            .take(8)
            .fold(0u64, |sum, time| sum.saturating_add(*time));
        Some((cpu, Ticks { stolen, all }))
    });
    cpus.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `stolen` of `all` ticks on CPU 1, none of as many on CPU 0.
    fn files(all: u64, stolen: u64) -> Files {
        let line = |name: &str, all: u64, stolen: u64| {
            format!("{name} {} 0 0 0 0 0 0 {stolen} 7 7\n", all - stolen)
        };
        let text = line("cpu ", 2 * all, stolen)
            + &line("cpu0", all, 0)
            + &line("cpu1", all, stolen)
            + "intr 1 2 3\ncpu9 lies\n";
        Files::of(&[(STAT, &[], &text)])
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn stolen(found: &[What]) -> Option<BTreeMap<u32, u8>> {
        found.iter().find_map(|what| match what {
            What::Stolen { cpus } => Some(cpus.clone()),
            _ => None,
        })
    }

    fn high(found: &[What]) -> bool {
        found.iter().any(
            |what| matches!(what, What::Counted { fault, .. } if fault.reason == Reason::CpuStolen),
        )
    }

    #[test]
    fn steal_is_told_of_each_cpu_at_once_and_of_the_host_when_it_lasts() {
        let mut counter = Steal::new(at(60));
        assert!(counter.look(&files(1000, 100), at(0)).is_empty());
        let found = counter.look(&files(4000, 2000), at(30));
        assert_eq!(stolen(&found), Some([(1, 63)].into()));
        assert!(!high(&found));
        let found = counter.look(&files(7000, 4000), at(60));
        assert!(high(&found));
        // 24 of the last 60 seconds on one of two CPUs.
        let found = counter.look(&files(10_000, 4400), at(90));
        assert_eq!(stolen(&found), Some([(1, 13)].into()));
        assert!(!high(&found));
    }

    #[test]
    fn little_steal_is_nobodys_business() {
        let mut counter = Steal::new(at(60));
        for step in 0..5 {
            let found = counter.look(&files(1000 + step * 3000, step * 200), at(step * 30));
            assert!(found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn what_goes_backwards_or_cannot_be_read_says_nothing() {
        let mut counter = Steal::new(at(1));
        for (second, text) in [
            "cpu  9 9 9 9 9 9 9 900\n",
            "cpu  9 9 9 9 9 9 9 100\n",
            "",
            "cpu",
            "cpu  1 2 3\n",
            "cpux 1 2 3 4 5 6 7 8\n",
            "cpu  99999999999999999999 1 1 1 1 1 1 1\n",
            "cpu  9 9 9 9 9 9 9 100\n",
        ]
        .into_iter()
        .enumerate()
        {
            let files = Files::of(&[(STAT, &[], text)]);
            let found = counter.look(&files, at(second as u64));
            assert!(found.is_empty(), "{text}: {found:?}");
        }
        assert!(counter.readings.len() <= MOST_READINGS);
    }
}
