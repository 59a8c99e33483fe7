//! Rules of a packet filter in another network namespace, as the kernel takes them: neither `nft` nor
//! `iptables` is needed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, bail};
use rustix::net::netlink::NETFILTER;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netlink::{attribute, message, nested};

/// The namespace of a process.
pub struct PacketFilter {
    pid: u32,
}

impl PacketFilter {
    pub fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// A table of nftables with one chain, whose one rule drops everything.
    pub fn drop_by_nft(
        &self,
        table: &str,
        chain: &str,
        comment: Option<&str>,
    ) -> anyhow::Result<()> {
        let messages = [
            nft(NEWTABLE, &attribute(1, &text(table))),
            nft(
                NEWCHAIN,
                &[attribute(1, &text(table)), attribute(3, &text(chain))].concat(),
            ),
            nft(NEWRULE, &rule(table, chain, DROP, comment)),
        ];
        self.send(messages.concat())
            .with_context(|| format!("make the nftables chain {table}/{chain}"))
    }

    /// Rules that let everything pass, in a chain that no packet comes to.
    pub fn accept_by_nft(&self, table: &str, chain: &str, rules: u32) -> anyhow::Result<()> {
        let made = [
            nft(NEWTABLE, &attribute(1, &text(table))),
            nft(
                NEWCHAIN,
                &[attribute(1, &text(table)), attribute(3, &text(chain))].concat(),
            ),
        ];
        let rules = (0..rules).map(|_| nft(NEWRULE, &rule(table, chain, ACCEPT, None)));
        let messages: Vec<_> = made.into_iter().chain(rules).collect();
        // As many as the answers of which a socket holds.
        for messages in messages.chunks(100) {
            self.send(messages.concat())
                .with_context(|| format!("make rules of nftables in {table}/{chain}"))?;
        }
        Ok(())
    }

    pub fn delete_nft_table(&self, table: &str) -> anyhow::Result<()> {
        self.send(nft(DELTABLE, &attribute(1, &text(table))))
            .with_context(|| format!("delete the nftables table {table}"))
    }

    fn send(&self, messages: Vec<u8>) -> anyhow::Result<()> {
        let batch = [
            message(BATCH_BEGIN, 0, [0, 0, 0, SUBSYSTEM], &[]),
            messages,
            message(BATCH_END, 0, [0, 0, 0, SUBSYSTEM], &[]),
        ]
        .concat();
        self.inside(move || {
            let cloexec = SocketFlags::CLOEXEC;
            let socket = socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                cloexec,
                Some(NETFILTER),
            )?;
            send(&socket, &batch, SendFlags::empty())?;
            // Answers come before `send` returns: an acknowledgement for each, or what is wrong.
            let mut buffer = [0; 8192];
            loop {
                match recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                    Ok((length, _)) => check(&buffer[..length])?,
                    Err(rustix::io::Errno::AGAIN) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
        })
    }

    /// The old `filter` table of IPv4 with one rule in INPUT, which drops everything, or without one.
    pub fn set_legacy_input(&self, drops: bool, entries_before: u32) -> anyhow::Result<()> {
        self.inside(move || {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(
                AddressFamily::INET,
                SocketType::RAW,
                flags,
                Some(ipproto::RAW),
            )?;
            // The kernel writes what the entries before have counted.
            let mut counters = vec![0_u64; 2 * entries_before as usize];
            let table = legacy_table(drops, entries_before, counters.as_mut_ptr() as u64);
            let length = libc::socklen_t::try_from(table.len()).map_err(io::Error::other)?;
            #[expect(unsafe_code, reason = "setsockopt is a C function")]
            // SAFETY: `table` is as long as `length` says, and it points to room for as many counters
            // as it says.
            let answer = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_IP,
                    64,
                    table.as_ptr().cast(),
                    length,
                )
            };
            if answer < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        })
        .context("replace the filter table")
    }

    fn inside(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> anyhow::Result<()> {
        let namespace =
            File::open(format!("/proc/{}/ns/net", self.pid)).context("open a network namespace")?;
        let thread = std::thread::spawn(move || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network)?;
            work()
        });
        match thread.join() {
            Ok(result) => result.context("in another network namespace"),
            Err(_) => bail!("a thread panicked"),
        }
    }
}

const SUBSYSTEM: u8 = 10;
const NFT: u16 = 10 << 8;
const NEWTABLE: u16 = NFT;
const DELTABLE: u16 = NFT | 2;
const NEWCHAIN: u16 = NFT | 3;
const NEWRULE: u16 = NFT | 6;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK`
const CREATE: u16 = 0x400 | 0x800 | 0x4;

fn nft(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let flags = if kind == DELTABLE { 0x4 } else { CREATE };
    message(kind, flags, [2, 0, 0, 0], attributes)
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn rule(table: &str, chain: &str, verdict: u32, comment: Option<&str>) -> Vec<u8> {
    let zero = 0_u32.to_be_bytes();
    let verdict = nested(2, &[nested(2, &[attribute(1, &verdict.to_be_bytes())])]);
    let data = nested(2, &[attribute(1, &zero), verdict]);
    let immediate = nested(1, &[attribute(1, &text("immediate")), data]);
    let mut rule = [
        attribute(1, &text(table)),
        attribute(2, &text(chain)),
        nested(4, &[immediate]),
    ]
    .concat();
    if let Some(comment) = comment {
        let comment = text(comment);
        let length = u8::try_from(comment.len()).unwrap_or(u8::MAX);
        rule.extend(attribute(7, &[&[0, length], comment.as_slice()].concat()));
    }
    rule
}

/// Each answer is an error message whose number is 0 where nothing is wrong.
fn check(mut bytes: &[u8]) -> io::Result<()> {
    while let Some(header) = bytes.first_chunk::<20>() {
        let number = i32::from_ne_bytes([header[16], header[17], header[18], header[19]]);
        if number != 0 {
            return Err(io::Error::from_raw_os_error(-number));
        }
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// `struct ipt_replace`: INPUT, FORWARD and OUTPUT, each with its policy, and the end.
fn legacy_table(drops: bool, entries_before: u32, counters: u64) -> Vec<u8> {
    const ACCEPT: i32 = -2;
    const DROP: i32 = -1;
    let verdicts: &[i32] = if drops {
        &[DROP, ACCEPT, ACCEPT, ACCEPT]
    } else {
        &[ACCEPT, ACCEPT, ACCEPT]
    };
    let standard = 152_u32;
    let mut entries = Vec::new();
    for verdict in verdicts {
        entries.extend(legacy_entry("", &verdict.to_ne_bytes(), 40));
    }
    let mut name = [0; 30];
    name[..5].copy_from_slice(b"ERROR");
    entries.extend(legacy_entry("ERROR", &name, 64));
    let more = u32::from(drops) * standard;
    let count = u32::try_from(verdicts.len() + 1).unwrap_or(0);
    let size = u32::try_from(entries.len()).unwrap_or(0);
    let mut table = b"filter".to_vec();
    table.resize(32, 0);
    let hooks = [0, 0, more + standard, more + 2 * standard, 0];
    let policies = [0, more, more + standard, more + 2 * standard, 0];
    // INPUT, FORWARD and OUTPUT.
    for number in [0b1110, count, size]
        .into_iter()
        .chain(hooks)
        .chain(policies)
        .chain([entries_before])
    {
        table.extend(number.to_ne_bytes());
    }
    table.extend(counters.to_ne_bytes());
    table.extend(entries);
    table
}

/// `struct ipt_entry` that fits every packet, and its target.
fn legacy_entry(target: &str, data: &[u8], size: u16) -> Vec<u8> {
    let mut entry = vec![0; 88];
    entry.extend(112_u16.to_ne_bytes());
    entry.extend((112 + size).to_ne_bytes());
    entry.resize(112, 0);
    entry.extend(size.to_ne_bytes());
    entry.extend(target.as_bytes());
    entry.resize(112 + 32, 0);
    entry.extend(data);
    entry.resize(112 + usize::from(size), 0);
    entry
}
