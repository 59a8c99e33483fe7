//! PURE. NFS: `nfs: server 10.0.0.9 not responding, still trying`, KERN_NOTICE (net/sunrpc/clnt.c);
//! `timed out` at its end for soft mounts.

use super::fault::on;
use super::{Record, What, at_level};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    let text = at_level(record, 5)?;
    let (server, state) = ["nfs: server ", "lockd: server "]
        .iter()
        .find_map(|begin| text.strip_prefix(begin))?
        .split_once(" not responding, ")?;
    let known = matches!(state, "still trying" | "timed out") && is_host(server);
    let message = format!("NFS server {server} does not respond: {state}");
    known.then(|| on(Reason::NfsNotResponding, server.to_owned(), &message))
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
