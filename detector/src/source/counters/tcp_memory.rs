//! PURE. TCP's memory and its sockets without a process, against their limits.

use std::time::Duration;

use super::files::Files;
use super::text::{is_share, number, numbers};
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;

const SOCKETS: &str = "proc/1/net/sockstat";
const MEMORY: &str = "proc/sys/net/ipv4/tcp_mem";
const ORPHANS: &str = "proc/sys/net/ipv4/tcp_max_orphans";

/// As the lines of the kernel log name it.
const TCP: &str = "TCP";
const NEARLY: u32 = 95;

pub(super) struct TcpMemory;

impl Counter for TcpMemory {
    fn name(&self) -> &'static str {
        "tcp-memory"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[SOCKETS, MEMORY, ORPHANS]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let sockets = files.one(SOCKETS).unwrap_or_default();
        let used = |name| field(sockets, name);
        // Low, pressure, high; in pages, as in sockstat.
        let high = files
            .one(MEMORY)
            .and_then(|text| numbers(text).get(2).copied());
        let orphans = files.one(ORPHANS).and_then(number);
        let nearly = |used: Option<u64>, limit: Option<u64>| {
            let (used, limit) = (used?, limit?);
            is_share(used, limit, NEARLY).then_some((used, limit))
        };
        let memory = nearly(used("mem"), high).map(|(used, limit)| {
            let message =
                format!("TCP uses {used} pages of memory, of {limit} that net.ipv4.tcp_mem allows");
            told::fault(Reason::TcpMemoryExhausted, TCP, message)
        });
        let orphans = nearly(used("orphan"), orphans).map(|(used, limit)| {
            let message = format!(
                "{used} TCP sockets have no process any more, of {limit} that net.ipv4.tcp_max_orphans allows"
            );
            told::fault(Reason::OrphanSocketsExceeded, TCP, message)
        });
        memory.into_iter().chain(orphans).map(told::still).collect()
    }
}

/// `TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 0`
fn field(sockets: &str, name: &str) -> Option<u64> {
    let line = sockets
        .lines()
        .find_map(|line| line.strip_prefix("TCP: "))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == name)?;
    number(words.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    fn look(orphan: u32, memory: u32) -> Vec<(Reason, String, u64)> {
        let sockets = format!(
            "sockets: used 25\nTCP: inuse 1 orphan {orphan} tw 0 alloc 1 mem {memory}\nUDP: inuse 0 mem 99999\n"
        );
        let files = Files::of(&[
            (SOCKETS, &[], &sockets),
            (MEMORY, &[], "100\t150\t200\n"),
            (ORPHANS, &[], "1000\n"),
        ]);
        summary(&TcpMemory.look(&files, Duration::ZERO))
    }

    #[test]
    fn each_limit_is_told_when_it_is_nearly_reached() {
        assert_eq!(look(949, 189), []);
        assert_eq!(
            look(0, 190),
            [(Reason::TcpMemoryExhausted, "TCP".to_owned(), 0)]
        );
        assert_eq!(
            look(950, 0),
            [(Reason::OrphanSocketsExceeded, "TCP".to_owned(), 0)]
        );
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for sockets in [
            "",
            "TCP: ",
            "TCP: mem",
            "TCP: mem x orphan -1",
            "TCPx: mem 999",
        ] {
            let files = Files::of(&[
                (SOCKETS, &[], sockets),
                (MEMORY, &[], "1 2"),
                (ORPHANS, &[], "0"),
            ]);
            assert!(
                TcpMemory.look(&files, Duration::ZERO).is_empty(),
                "{sockets}"
            );
        }
    }
}
