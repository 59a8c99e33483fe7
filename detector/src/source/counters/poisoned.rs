//! PURE. Memory that the kernel does not use any more, because the hardware cannot keep it.

use std::time::Duration;

use super::files::Files;
use super::rising::{Baseline, New, Rising};
use super::text::number;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;
use crate::source::bpf::Hook;

const MEMORY: &str = "proc/meminfo";

#[derive(Default)]
pub(super) struct Poisoned(Rising<()>);

impl Counter for Poisoned {
    fn name(&self) -> &'static str {
        "poisoned-memory"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[MEMORY]
    }

    fn spared_by(&self) -> &'static [Hook] {
        &[Hook::PoisonedPage]
    }

    fn spared_by_the_log(&self) -> bool {
        true
    }

    fn baselines(&mut self) -> Vec<&mut dyn Baseline> {
        vec![&mut self.0]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let Some(size) = files.one(MEMORY).and_then(corrupted) else {
            return Vec::new();
        };
        let risen = self.0.step([((), size)], New::Unknown, false);
        let found = risen.into_values().map(|rise| {
            let message = format!(
                "the hardware cannot keep {rise} kB more of the memory, {size} kB in all (HardwareCorrupted)"
            );
            told::times(told::fault(Reason::MemoryPagePoisoned, "host", message), 1)
        });
        found.collect()
    }
}

/// `HardwareCorrupted:     4 kB`
fn corrupted(memory: &str) -> Option<u64> {
    let mut lines = memory.lines();
    let value = lines.find_map(|line| line.strip_prefix("HardwareCorrupted:"))?;
    number(value.strip_suffix("kB")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    #[test]
    fn a_page_more_is_told_and_those_of_before_are_not() {
        let mut counter = Poisoned::default();
        let mut look = |text: &str| {
            let files = Files::of(&[(MEMORY, &[], text)]);
            summary(&counter.look(&files, Duration::ZERO))
        };
        assert_eq!(look("MemTotal: 1 kB\nHardwareCorrupted:     4 kB\n"), []);
        assert_eq!(look("MemTotal: 1 kB\nHardwareCorrupted:     4 kB\n"), []);
        let found = look("HardwareCorrupted:     12 kB\n");
        assert_eq!(found, [(Reason::MemoryPagePoisoned, "host".to_owned(), 1)]);
        for text in [
            "",
            "HardwareCorrupted: x kB",
            "HardwareCorrupted: 99",
            "HardwareCorrupted: 0 kB",
        ] {
            assert_eq!(look(text), [], "{text}");
        }
    }
}
