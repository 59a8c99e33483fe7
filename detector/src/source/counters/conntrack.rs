//! PURE. The table of tracked connections: how full it is, and what it had no room for.

use std::time::Duration;

use super::files::Files;
use super::rising::{Baseline, New, Rising};
use super::text::{column, is_share, number};
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;

const STAT: &str = "proc/1/net/stat/nf_conntrack";
const COUNT: &str = "proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "proc/sys/net/netfilter/nf_conntrack_max";

const HIGH: u32 = 90;
/// A packet that is dropped while the table has room was dropped for another reason.
const MAY_HAVE_BEEN_FULL: u32 = 50;

pub(super) struct Conntrack {
    entity: String,
    /// By column and CPU.
    refused: Rising<(&'static str, usize)>,
    was_high: bool,
}

/// As recent kernels call the host's table in their log.
pub(super) fn entity(namespace: &str) -> String {
    let number = namespace
        .strip_prefix("net:[")
        .and_then(|rest| rest.strip_suffix(']'));
    match number {
        Some(number) => format!("netns {number}"),
        None => "conntrack".to_owned(),
    }
}

impl Conntrack {
    pub(super) fn new(entity: String) -> Self {
        Self {
            entity,
            refused: Rising::default(),
            was_high: false,
        }
    }
}

impl Counter for Conntrack {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[MAX, COUNT, STAT]
    }

    fn baselines(&mut self) -> Vec<&mut dyn Baseline> {
        vec![&mut self.refused]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let table = files.one(STAT).unwrap_or_default();
        // The table's own size is in each row; the other file is that of our namespace.
        let entries = column(table, "entries").and_then(|rows| rows.first().copied());
        let count = entries.or_else(|| files.one(COUNT).and_then(number));
        let max = files.one(MAX).and_then(number);
        let share = |percent| Some(is_share(count?, max?, percent));
        let refused = ["drop", "early_drop"].into_iter().flat_map(|name| {
            let cells = column(table, name).unwrap_or_default();
            let cells = cells.into_iter().enumerate();
            cells.map(move |(cpu, value)| ((name, cpu), value))
        });
        let refused = self
            .refused
            .step(refused, New::Unknown, files.all(STAT).cut);
        let of = |name| {
            let cells = refused.iter().filter(|((column, _), _)| *column == name);
            cells.fold(0u64, |sum, (_, rise)| sum.saturating_add(*rise))
        };
        let (dropped, evicted) = (of("drop"), of("early_drop"));
        let is_high = share(HIGH).unwrap_or(false);
        let stays_high = std::mem::replace(&mut self.was_high, is_high) && is_high;
        let size = match (count, max) {
            (Some(count), Some(max)) => format!(", which has {count} of at most {max} entries"),
            _ => String::new(),
        };
        let fault = |message| told::fault(Reason::ConntrackExceededKernel, &self.entity, message);
        if dropped + evicted > 0 && share(MAY_HAVE_BEEN_FULL).unwrap_or(true) {
            let message = format!(
                "the connection tracking table{size}, had no room: {dropped} packets were dropped and {evicted} connections forgotten"
            );
            return vec![told::times(fault(message), dropped.saturating_add(evicted))];
        }
        if stays_high {
            let message = format!("the connection tracking table{size}, is nearly full");
            return vec![told::still(fault(message))];
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    fn files(entries: u64, drops: [u64; 2], early: u64) -> Files {
        let stat = format!(
            "entries  clashres found new drop early_drop\n{entries:08x} 0 0 0 {:08x} {early:08x}\n{entries:08x} 0 0 0 {:08x} 00000000\n",
            drops[0], drops[1]
        );
        Files::of(&[(STAT, &[], &stat), (MAX, &[], "1000\n")])
    }

    fn conntrack() -> Conntrack {
        Conntrack::new("conntrack".to_owned())
    }

    #[test]
    fn the_table_is_named_as_the_log_names_it() {
        assert_eq!(entity("net:[4026531833]"), "netns 4026531833");
        assert_eq!(entity(""), "conntrack");
    }

    #[test]
    fn dropped_packets_are_told_with_their_number() {
        let mut counter = conntrack();
        assert!(
            counter
                .look(&files(990, [5, 7], 1), Duration::ZERO)
                .is_empty()
        );
        let found = counter.look(&files(1000, [15, 10], 3), Duration::ZERO);
        let expected = (Reason::ConntrackExceededKernel, "conntrack".to_owned(), 15);
        assert_eq!(summary(&found), [expected]);
        let What::Counted { fault, .. } = &found[0] else {
            panic!("{found:?}");
        };
        assert_eq!(
            fault.message,
            "the connection tracking table, which has 1000 of at most 1000 entries, had no room: 13 packets were dropped and 2 connections forgotten"
        );
    }

    #[test]
    fn a_table_with_room_has_dropped_for_another_reason() {
        let mut counter = conntrack();
        counter.look(&files(10, [0, 0], 0), Duration::ZERO);
        assert!(
            counter
                .look(&files(10, [1, 0], 0), Duration::ZERO)
                .is_empty()
        );
    }

    #[test]
    fn a_table_that_is_nearly_full_twice_is_told() {
        let mut counter = conntrack();
        for (entries, told) in [(900, 0), (899, 0), (900, 0), (950, 1), (1000, 1), (10, 0)] {
            let found = counter.look(&files(entries, [0, 0], 0), Duration::ZERO);
            assert_eq!(found.len(), told, "{entries}");
        }
    }

    #[test]
    fn without_statistics_the_sysctl_tells_how_full_it_is() {
        let mut counter = conntrack();
        let files = Files::of(&[(COUNT, &[], "95\n"), (MAX, &[], "100\n")]);
        counter.look(&files, Duration::ZERO);
        assert_eq!(counter.look(&files, Duration::ZERO).len(), 1);
        let garbage = Files::of(&[(COUNT, &[], "x"), (MAX, &[], ""), (STAT, &[], "drop\nzz")]);
        assert!(counter.look(&garbage, Duration::ZERO).is_empty());
        assert!(counter.look(&Files::of(&[]), Duration::ZERO).is_empty());
    }
}
