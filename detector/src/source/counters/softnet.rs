//! PURE. Packets that found a CPU's queue full, for kernels that tell no reasons of drops.

use std::time::Duration;

use super::files::Files;
use super::rising::{New, Rising};
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;
use crate::source::bpf::Hook;

const STAT: &str = "proc/1/net/softnet_stat";

/// On one CPU between two readings, as many as the hook asks for in a second.
const MANY: u64 = 100;

#[derive(Default)]
pub(super) struct Softnet(Rising<(u64, Column)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Dropped,
    /// Its time was up before its queue was empty: normal life, but it says why.
    Squeezed,
}

impl Counter for Softnet {
    fn name(&self) -> &'static str {
        "cpu-backlog"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[STAT]
    }

    fn spared_by(&self) -> &'static [Hook] {
        &[Hook::NetDrop]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let text = files.one(STAT).unwrap_or_default();
        let cells = text
            .lines()
            .zip(0..)
            .filter_map(|(line, row)| cpu(line, row));
        let cells = cells.flat_map(|(cpu, dropped, squeezed)| {
            [
                ((cpu, Column::Dropped), dropped),
                ((cpu, Column::Squeezed), squeezed),
            ]
        });
        let risen = self.0.step(cells, New::Unknown, files.all(STAT).cut);
        let dropped = risen
            .iter()
            .filter(|((_, column), rise)| *column == Column::Dropped && **rise >= MANY);
        let Some((&(cpu, _), &most)) = dropped.clone().max_by_key(|(_, rise)| **rise) else {
            return Vec::new();
        };
        let all = dropped.fold(0u64, |sum, (_, rise)| sum.saturating_add(*rise));
        let squeezed = risen.get(&(cpu, Column::Squeezed)).copied().unwrap_or(0);
        let message = format!(
            "{all} packets were dropped because the queue of their CPU was full: CPU_BACKLOG, {most} on CPU {cpu}, whose time for packets was up {squeezed} times"
        );
        let fault = told::fault(Reason::PacketsDropped, "CPU_BACKLOG", message);
        vec![told::times(fault, all)]
    }
}

/// Processed, dropped, squeezed and more, in hexadecimal digits; the thirteenth is the CPU's number,
/// since 5.10.
fn cpu(line: &str, row: u64) -> Option<(u64, u64, u64)> {
    let cells = line.split_ascii_whitespace();
    let cells: Vec<_> = cells
        .map_while(|word| u64::from_str_radix(word, 16).ok())
        .collect();
    let &[_, dropped, squeezed, ..] = cells.as_slice() else {
        return None;
    };
    Some((cells.get(12).copied().unwrap_or(row), dropped, squeezed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    fn line(dropped: u32, cpu: u32) -> String {
        format!("00006535 {dropped:08x} 00000002 0 0 0 0 0 0 0 0 00000000 {cpu:08x} 0 0\n")
    }

    #[test]
    fn many_drops_on_one_cpu_are_told_and_few_are_not() {
        let mut counter = Softnet::default();
        let mut look = |text: String| {
            let files = Files::of(&[(STAT, &[], &text)]);
            summary(&counter.look(&files, Duration::ZERO))
        };
        assert_eq!(look(line(7, 0) + &line(0, 2)), []);
        assert_eq!(look(line(106, 0) + &line(99, 2)), []);
        let found = look(line(206, 0) + &line(99, 2));
        assert_eq!(
            found,
            [(Reason::PacketsDropped, "CPU_BACKLOG".to_owned(), 100)]
        );
        // CPU 0 is off, and comes back with what it had.
        assert_eq!(look(line(99, 2)), []);
        assert_eq!(look(line(206, 0) + &line(99, 2)), []);
    }

    #[test]
    fn what_is_no_table_says_nothing() {
        let mut counter = Softnet::default();
        for text in ["", "x y z", "1 2", "ffffffffffffffffff 1 2"] {
            let files = Files::of(&[(STAT, &[], text)]);
            assert!(counter.look(&files, Duration::ZERO).is_empty(), "{text}");
        }
    }
}
