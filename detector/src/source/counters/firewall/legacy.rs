//! Rules of the old tables (iptables-legacy), as `getsockopt` gives them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::rule::{Does, Rule};
use super::xt::text;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; of IPv6 they are the same.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
const TABLE_NAME: usize = 32;
/// `struct ipt_getinfo`
const INFO: usize = 84;
/// Of `struct ipt_get_entries`, before the entries.
const BEFORE_ENTRIES: usize = 40;
/// 100,000 rules; a node of 5,000 services has 40,000.
const LARGEST: usize = 32 << 20;
/// A table that changes between the two questions is asked for anew.
const TRIES: u32 = 3;

const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Size of a match's and a target's head: size, name, revision.
const HEAD: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Below /proc: tables that exist. To ask for another one would make it.
    pub(super) fn list(self) -> &'static str {
        match self {
            Self::V4 => "1/net/ip_tables_names",
            Self::V6 => "1/net/ip6_tables_names",
        }
    }

    /// Bytes of an entry before its matches: `struct ipt_entry` and `ip6t_entry`; before the counters,
    /// where the target and the next entry begin.
    fn layout(self) -> (usize, usize) {
        match self {
            Self::V4 => (112, 88),
            Self::V6 => (168, 140),
        }
    }

    fn level(self) -> i32 {
        match self {
            Self::V4 => libc::SOL_IP,
            Self::V6 => libc::SOL_IPV6,
        }
    }

    fn socket(self) -> io::Result<OwnedFd> {
        let family = match self {
            Self::V4 => AddressFamily::INET,
            Self::V6 => AddressFamily::INET6,
        };
        let cloexec = SocketFlags::CLOEXEC;
        Ok(socket_with(
            family,
            SocketType::RAW,
            cloexec,
            Some(ipproto::RAW),
        )?)
    }
}

/// Where the rules are, and how many: nearly every change of the table changes it.
pub(super) type Shape = Vec<u8>;

pub(super) fn shape(family: Family, table: &str) -> io::Result<Shape> {
    let mut info = vec![0; INFO];
    info[..TABLE_NAME].copy_from_slice(&table_name(table)?);
    ask(&family.socket()?, family.level(), GET_INFO, &mut info)?;
    Ok(info)
}

pub(super) fn read(family: Family, table: &str) -> io::Result<Vec<Rule>> {
    let mut tries = 0;
    loop {
        tries += 1;
        let shape = shape(family, table)?;
        let size = number(&shape, INFO - 4).unwrap_or(0);
        if size > LARGEST {
            return Err(io::Error::other(format!("{table} has {size} bytes")));
        }
        let mut entries = vec![0; BEFORE_ENTRIES + size];
        entries[..TABLE_NAME].copy_from_slice(&table_name(table)?);
        entries[TABLE_NAME..TABLE_NAME + 4].copy_from_slice(&shape[INFO - 4..]);
        match ask(&family.socket()?, family.level(), GET_ENTRIES, &mut entries) {
            Ok(()) => return Ok(rules(family, table, &shape, &entries[BEFORE_ENTRIES..])),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

fn table_name(table: &str) -> io::Result<[u8; TABLE_NAME]> {
    let mut name = [0; TABLE_NAME];
    // One byte stays for the end.
    if table.len() >= TABLE_NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    name[..table.len()].copy_from_slice(table.as_bytes());
    Ok(name)
}

fn ask(socket: &OwnedFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "getsockopt is a C function")]
    // SAFETY: the kernel writes at most `length` bytes, which the buffer has.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Damaged entries end the list.
fn rules(family: Family, table: &str, shape: &[u8], entries: &[u8]) -> Vec<Rule> {
    let (body, offsets) = family.layout();
    // After the name: which hooks there are, where each begins, and where its policy stands.
    let hook = |index: usize, begin: usize| {
        let there = number(shape, TABLE_NAME).is_some_and(|hooks| hooks & (1 << index) != 0);
        number(shape, begin + index * 4).filter(|_| there)
    };
    let begins = |place| (0..HOOKS.len()).find(|&index| hook(index, 36) == Some(place));
    let is_policy = |place| (0..HOOKS.len()).any(|index| hook(index, 56) == Some(place));
    let mut rules = Vec::new();
    let mut chain = String::new();
    let mut place = 0;
    while let Some(entry) = entries.get(place..) {
        let (Some(target), Some(next)) = (short(entry, offsets), short(entry, offsets + 2)) else {
            break;
        };
        let Some(entry) = entry
            .get(..next)
            .filter(|_| body <= target && target < next)
        else {
            break;
        };
        if let Some(index) = begins(place) {
            chain = HOOKS[index].to_owned();
        }
        let Some((name, _, data)) = extension(&entry[target..]) else {
            break;
        };
        let policy = is_policy(place);
        place += next;
        if name == "ERROR" {
            // The head of a chain that somebody made, or the end of the table.
            chain = text(data);
            continue;
        }
        let mut rule = Rule {
            table: table.to_owned(),
            chain: chain.clone(),
            comments: Vec::new(),
            invalid_only: false,
            ports: None,
            does: Does::Other,
        };
        let mut matches = &entry[body..target];
        while let Some((name, revision, info)) = extension(matches) {
            rule.add_match(&name, revision, info);
            matches = &matches[HEAD + info.len()..];
        }
        let verdict = data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        rule.set_target(&name, verdict);
        if !policy {
            rules.push(rule);
        }
    }
    rules
}

/// Of a match or a target: its name, revision, and what it says.
fn extension(bytes: &[u8]) -> Option<(String, u8, &[u8])> {
    let size = short(bytes, 0)?;
    let name = text(bytes.get(2..31)?);
    Some((name, *bytes.get(31)?, bytes.get(HEAD..size)?))
}

fn short(bytes: &[u8], place: usize) -> Option<usize> {
    let bytes = bytes.get(place..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes).into())
}

fn number(bytes: &[u8], place: usize) -> Option<usize> {
    let bytes = bytes.get(place..)?.first_chunk()?;
    u32::from_ne_bytes(*bytes).try_into().ok()
}

#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) -> Vec<Rule> {
    let (shape, entries) = bytes.split_at(INFO.min(bytes.len()));
    let of = |family| rules(family, "filter", shape, entries);
    Family::ALL.into_iter().flat_map(of).collect()
}
