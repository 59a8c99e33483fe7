//! PURE. Tables and memory of the network stack that ran out.

use super::fault::{digits, on};
use super::{Record, What, at_level};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    conntrack(record)
        .or_else(|| neighbours(record))
        .or_else(|| syn_flood(record))
        .or_else(|| tcp(record))
}

/// `nf_conntrack: nf_conntrack: table full, dropping packet`, KERN_WARNING; ` in netns N` in 7.2,
/// not yet in 6.18; `ip_conntrack: ` and a dot at the end long ago (net/netfilter/nf_conntrack_core.c).
fn conntrack(record: &Record<'_>) -> Option<What> {
    let text = at_level(record, 4)?;
    let rest = match text.strip_prefix("nf_conntrack: ") {
        Some(rest) => rest.strip_prefix("nf_conntrack: ").unwrap_or(rest),
        None => text.strip_prefix("ip_conntrack: ")?,
    };
    let rest = rest.strip_prefix("table full")?;
    let (place, end) = rest.split_once(", dropping packet")?;
    let entity = match place.strip_prefix(" in netns ") {
        Some(netns) if digits(netns) => format!("netns {netns}"),
        None if place.is_empty() => "conntrack".to_owned(),
        _ => return None,
    };
    let message = format!("the connection tracking table is full{place}: packets are dropped");
    matches!(end, "" | ".").then(|| on(Reason::ConntrackExceededKernel, entity, &message))
}

/// `neighbour: arp_cache: neighbor table overflow!`, KERN_INFO; `Neighbour table overflow.` before
/// 3.15 (net/core/neighbour.c).
fn neighbours(record: &Record<'_>) -> Option<What> {
    let text = at_level(record, 6).or_else(|| at_level(record, 4))?;
    let table = match text {
        "Neighbour table overflow." | "ipv4: Neighbour table overflow." => "arp_cache",
        "ipv6: Neighbour table overflow." => "ndisc_cache",
        _ => {
            let name = text.strip_suffix(": neighbor table overflow!")?;
            let name = name.strip_prefix("neighbour: ").unwrap_or(name);
            matches!(name, "arp_cache" | "ndisc_cache" | "dn_neigh_cache").then_some(name)?
        }
    };
    let message = format!("the neighbour table {table} is full");
    Some(on(Reason::NeighbourTableFull, table.to_owned(), &message))
}

/// `TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:80. Sending cookies.`, KERN_INFO;
/// the port alone before 6.2, then with `  Check SNMP counters.` (net/ipv4/tcp_input.c).
fn syn_flood(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 6)?.strip_prefix("TCP: ")?;
    let (protocol, rest) = rest.split_once(": Possible SYN flooding on port ")?;
    let known = matches!(
        protocol.strip_prefix("request_sock_").unwrap_or(protocol),
        "TCP" | "TCPv6" | "subflow_v4" | "subflow_v6"
    );
    let (port, action) = rest.split_once(". ")?;
    let action = action
        .strip_suffix("  Check SNMP counters.")
        .or_else(|| action.strip_suffix('.'))?;
    let action = action.strip_suffix('.').unwrap_or(action);
    let action = matches!(action, "Sending cookies" | "Dropping request").then_some(action)?;
    let fits = known && is_port(port);
    let message =
        format!("more connections are asked for on port {port} than are accepted: {action}");
    fits.then(|| on(Reason::SynFlood, format!("port {port}"), &message))
}

/// `80`, `0.0.0.0:80`, `[::]:80`, or `::.80`.
fn is_port(text: &str) -> bool {
    let (address, port) = match text.rsplit_once([':', '.']) {
        Some(parts) => parts,
        None => ("", text),
    };
    text.len() <= 60
        && digits(port)
        && port.len() <= 5
        && address
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || b"[]:.".contains(&b))
}

/// Both KERN_INFO (net/ipv4/tcp.c, `tcp_check_oom`).
fn tcp(record: &Record<'_>) -> Option<What> {
    let (reason, message) = match at_level(record, 6)? {
        "TCP: out of memory -- consider tuning tcp_mem" => (
            Reason::TcpMemoryExhausted,
            "TCP uses more memory than net.ipv4.tcp_mem allows",
        ),
        "TCP: too many orphaned sockets" => (
            Reason::OrphanSocketsExceeded,
            "more TCP sockets without a process than net.ipv4.tcp_max_orphans allows",
        ),
        _ => return None,
    };
    Some(on(reason, "TCP".to_owned(), message))
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn every_wording_of_a_full_conntrack_table_counts() {
        for (text, entity) in [
            (
                "nf_conntrack: nf_conntrack: table full, dropping packet",
                "conntrack",
            ),
            (
                "nf_conntrack: nf_conntrack: table full in netns 4026532000, dropping packet",
                "netns 4026532000",
            ),
            ("nf_conntrack: table full, dropping packet", "conntrack"),
            ("nf_conntrack: table full, dropping packet.", "conntrack"),
            ("ip_conntrack: table full, dropping packet.", "conntrack"),
        ] {
            let fault = reads(4, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::ConntrackExceededKernel, entity),
                "{text}"
            );
        }
    }

    #[test]
    fn a_full_neighbour_table_names_its_family() {
        for (text, table) in [
            (
                "neighbour: arp_cache: neighbor table overflow!",
                "arp_cache",
            ),
            (
                "neighbour: ndisc_cache: neighbor table overflow!",
                "ndisc_cache",
            ),
            ("arp_cache: neighbor table overflow!", "arp_cache"),
            ("Neighbour table overflow.", "arp_cache"),
        ] {
            let fault = reads(6, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::NeighbourTableFull, table)
            );
        }
    }

    #[test]
    fn a_syn_flood_names_its_port() {
        for (text, port) in [
            (
                "TCP: request_sock_TCP: Possible SYN flooding on port 80. Sending cookies.  Check SNMP counters.",
                "port 80",
            ),
            (
                "TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:6443. Sending cookies.",
                "port 0.0.0.0:6443",
            ),
            (
                "TCP: request_sock_TCPv6: Possible SYN flooding on port [::]:80. Dropping request.",
                "port [::]:80",
            ),
            (
                "TCP: request_sock_subflow_v4: Possible SYN flooding on port [::]:20002. Sending cookies.",
                "port [::]:20002",
            ),
            (
                "TCP: TCP: Possible SYN flooding on port 8080. Dropping request.  Check SNMP counters.",
                "port 8080",
            ),
        ] {
            let fault = reads(6, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::SynFlood, port)
            );
        }
    }

    #[test]
    fn tcp_names_the_limit_that_was_reached() {
        let memory = reads(6, read, "TCP: out of memory -- consider tuning tcp_mem");
        assert_eq!(memory.reason, Reason::TcpMemoryExhausted);
        let orphans = reads(6, read, "TCP: too many orphaned sockets");
        assert_eq!(orphans.reason, Reason::OrphanSocketsExceeded);
    }

    #[test]
    fn what_is_not_whole_does_not_count() {
        for text in [
            "nf_conntrack: nf_conntrack: table full in netns x, dropping packet",
            "nf_conntrack: nf_conntrack: table full, dropping packetIN=eth0 OUT=",
            "x nf_conntrack: table full, dropping packet",
            "x: neighbor table overflow!",
            "TCP: request_sock_TCP: Possible SYN flooding",
            "TCP: request_sock_TCP: Possible SYN flooding on port x. Sending cookies.",
            "TCP: out of memory -- consider tuning tcp_mem IN=eth0 OUT=",
        ] {
            for level in [4, 6] {
                nothing(level, read, text);
            }
        }
        nothing(6, read, "nf_conntrack: table full, dropping packet");
        nothing(4, read, "TCP: too many orphaned sockets");
        forged_by_names(
            read,
            &[
                "nf_conntrack: t",
                "nf_conntrack: table full, dropping packet",
                "neighbour: arp_cache: neighbor table overflow!",
                "TCP: request_sock_TCP: Possible SYN flooding on port 80. Sending cookies.",
                "TCP: too many orphaned sockets",
            ],
        );
    }
}
