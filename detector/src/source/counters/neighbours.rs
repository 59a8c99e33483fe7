//! PURE. Neighbours that found no place in their table.

use std::time::Duration;

use super::files::Files;
use super::rising::{Baseline, New, Rising};
use super::text::column;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;

const TABLES: [(&str, &str); 2] = [
    ("proc/1/net/stat/arp_cache", "arp_cache"),
    ("proc/1/net/stat/ndisc_cache", "ndisc_cache"),
];

#[derive(Default)]
pub(super) struct Neighbours([Rising<usize>; 2]);

impl Counter for Neighbours {
    fn name(&self) -> &'static str {
        "neighbours"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[TABLES[0].0, TABLES[1].0]
    }

    fn baselines(&mut self) -> Vec<&mut dyn Baseline> {
        self.0
            .iter_mut()
            .map(|table| table as &mut dyn Baseline)
            .collect()
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let tables = TABLES.iter().zip(&mut self.0);
        let found = tables.filter_map(|((path, name), before)| {
            let full = column(files.one(path)?, "table_fulls")?;
            let cells = full.into_iter().enumerate();
            let refused: u64 = before
                .step(cells, New::Unknown, files.all(path).cut)
                .values()
                .sum();
            let message =
                format!("the neighbour table {name} is full: {refused} neighbours had no place");
            let fault = told::fault(Reason::NeighbourTableFull, name, message);
            (refused > 0).then(|| told::times(fault, refused))
        });
        found.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    #[test]
    fn each_table_tells_of_its_own() {
        let table = |count: u32| {
            format!(
                "entries  allocs table_fulls\n00000002 00000002 {count:08x}\n00000002 00000000 00000001\n"
            )
        };
        let mut counter = Neighbours::default();
        let mut look = |arp: u32, ndisc: u32| {
            let texts = [table(arp), table(ndisc)];
            let files = Files::of(&[(TABLES[0].0, &[], &texts[0]), (TABLES[1].0, &[], &texts[1])]);
            summary(&counter.look(&files, Duration::ZERO))
        };
        assert_eq!(look(3, 0), []);
        assert_eq!(look(3, 0), []);
        assert_eq!(
            look(20, 0),
            [(Reason::NeighbourTableFull, "arp_cache".to_owned(), 17)]
        );
        assert_eq!(
            look(20, 1),
            [(Reason::NeighbourTableFull, "ndisc_cache".to_owned(), 1)]
        );
    }

    #[test]
    fn a_kernel_without_the_column_says_nothing() {
        let files = Files::of(&[(TABLES[0].0, &[], "entries allocs\n1 2\n")]);
        let mut counter = Neighbours::default();
        assert!(counter.look(&files, Duration::ZERO).is_empty());
        assert!(counter.look(&files, Duration::ZERO).is_empty());
    }
}
