//! PURE. NFS: servers that do not answer, and locks that were lost with them.

use super::fault::on;
use super::{Record, What, at_level};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    not_responding(record).or_else(|| lock_lost(record))
}

/// `nfs: server 10.0.0.9 not responding, still trying`, KERN_NOTICE (net/sunrpc/clnt.c); `timed out`
/// at its end for soft mounts.
fn not_responding(record: &Record<'_>) -> Option<What> {
    let text = at_level(record, 5)?;
    let (server, state) = ["nfs: server ", "lockd: server "]
        .iter()
        .find_map(|begin| text.strip_prefix(begin))?
        .split_once(" not responding, ")?;
    let known = matches!(state, "still trying" | "timed out") && is_host(server);
    let message = format!("NFS server {server} does not respond: {state}");
    known.then(|| on(Reason::NfsNotResponding, server.to_owned(), &message))
}

/// `NFS: nfs4_reclaim_open_state: Lock reclaim failed!`, KERN_WARNING (fs/nfs/nfs4state.c). It names
/// no server.
fn lock_lost(record: &Record<'_>) -> Option<What> {
    let text = at_level(record, 4)?;
    let text = text.strip_prefix("NFS: ").unwrap_or(text);
    let text = text.strip_suffix('!').unwrap_or(text);
    let text = text.strip_prefix("__").unwrap_or(text);
    let lost = "nfs4_reclaim_open_state: Lock reclaim failed";
    let message = "a lock could not be had again from an NFS server that came back";
    (text == lost).then(|| on(Reason::NfsLockLost, "NFS".to_owned(), message))
}

/// Whoever mounts chooses it.
fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._:%[]".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn a_server_that_does_not_respond_is_named() {
        for (text, server) in [
            (
                "nfs: server 7.247.192.16 not responding, timed out",
                "7.247.192.16",
            ),
            (
                "nfs: server fs-1.example.com not responding, still trying",
                "fs-1.example.com",
            ),
            (
                "lockd: server fe80::1%eth0 not responding, still trying",
                "fe80::1%eth0",
            ),
        ] {
            let fault = reads(5, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::NfsNotResponding, server)
            );
        }
    }

    #[test]
    fn a_lost_lock_counts_with_and_without_the_modules_name() {
        for text in [
            "NFS: nfs4_reclaim_open_state: Lock reclaim failed!",
            "NFS: __nfs4_reclaim_open_state: Lock reclaim failed!",
            "nfs4_reclaim_open_state: Lock reclaim failed!",
            "nfs4_reclaim_open_state: Lock reclaim failed",
        ] {
            assert_eq!(reads(4, read, text).reason, Reason::NfsLockLost);
        }
        nothing(
            6,
            read,
            "NFS: nfs4_reclaim_open_state: Lock reclaim failed!",
        );
        nothing(
            4,
            read,
            "x NFS: nfs4_reclaim_open_state: Lock reclaim failed!",
        );
        forged_by_names(
            read,
            &["NFS: nfs4_reclaim_open_state: Lock reclaim failed!"],
        );
    }

    #[test]
    fn what_is_no_fault_or_not_whole_does_not_count() {
        for text in [
            "nfs: server 7.247.192.16 OK",
            "NFS: Registering the id_resolver key type",
            "nfs: server a b not responding, timed out",
            "nfs: server x not responding, still tryingIN=eth0 OUT=",
            "x nfs: server 7.247.192.16 not responding, timed out",
        ] {
            nothing(5, read, text);
        }
        nothing(
            6,
            read,
            "nfs: server 7.247.192.16 not responding, timed out",
        );
        forged_by_names(
            read,
            &["nfs: server 1.2", "nfs: server x not responding, timed out"],
        );
    }
}
