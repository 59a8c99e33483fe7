//! A full table of tracked connections: entries that nobody needs, made by hand, so that no packet of
//! the host is lost.

use std::fs;
use std::os::fd::OwnedFd;

use anyhow::{Context, bail, ensure};
use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, SocketType, socket};

use super::netlink::{attribute, message, nested};
use super::setting::Setting;

const MAX: &str = "net/netfilter/nf_conntrack_max";
/// Entries beyond those that the table has already.
const MORE: u32 = 20;

// include/uapi/linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const TIMEOUT: u16 = 7;
/// Seen in both directions, and not to be dropped early.
const ASSURED_AND_CONFIRMED: u32 = 0b1110;

/// Dropping it removes the entries and restores the limit.
pub struct FullConntrack {
    socket: OwnedFd,
    made: u32,
    _limit: Setting,
}

impl FullConntrack {
    /// Why there cannot be one here, if so.
    pub fn unavailable() -> Option<&'static str> {
        (!std::path::Path::new("/proc/net/stat/nf_conntrack").exists()).then_some(
            "this kernel tracks no connections, or counts none (CONFIG_NF_CONNTRACK_PROCFS)",
        )
    }

    /// Returns when the table is full and the kernel has refused an entry.
    pub fn fill() -> anyhow::Result<Self> {
        let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
            .context("read how many connections are tracked")?;
        let count: u32 = count
            .trim()
            .parse()
            .context("read how many connections are tracked")?;
        ensure!(
            count < 1000,
            "the host tracks {count} connections: their table is not made smaller"
        );
        let limit = Setting::sysctl(MAX, &(count + MORE).to_string())?
            .context("find the limit of tracked connections")?;
        let socket = socket(AddressFamily::NETLINK, SocketType::RAW, Some(NETFILTER))
            .context("open a netlink socket")?;
        let mut table = Self {
            socket,
            made: 0,
            _limit: limit,
        };
        for number in 0..2 * MORE {
            let errno = table.ask(NEW, number)?;
            match errno {
                0 => table.made = number + 1,
                libc::ENOMEM => return Ok(table),
                other => bail!("the kernel took no connection: errno {other}"),
            }
        }
        bail!("{} connections were taken and nobody minded", table.made)
    }

    /// The kernel's answer to one request: an errno, or 0.
    fn ask(&self, kind: u16, number: u32) -> anyhow::Result<i32> {
        // ACK, and for a new one CREATE and EXCL.
        let flags: u16 = if kind == NEW { 0x604 } else { 0x4 };
        let family = u8::try_from(libc::AF_INET).context("name a family")?;
        let port = u16::try_from(10_000 + number).context("name a port")?;
        // Addresses for documentation: nobody has them.
        let (here, there) = ([192, 0, 2, 1], [198, 51, 100, 1]);
        let mut attributes = tuple(TUPLE_ORIG, here, there, port);
        if kind == NEW {
            attributes.extend(tuple(TUPLE_REPLY, there, here, port));
            attributes.extend(attribute(STATUS, &ASSURED_AND_CONFIRMED.to_be_bytes()));
            attributes.extend(attribute(TIMEOUT, &60_u32.to_be_bytes()));
        }
        let message = message(kind, flags, [family, 0, 0, 0], &attributes);
        rustix::io::write(&self.socket, &message).context("ask the kernel for a connection")?;
        let mut answer = [0; 4096];
        let length = rustix::io::read(&self.socket, &mut answer).context("read its answer")?;
        // A header, then the negative errno.
        let errno = answer[..length]
            .get(16..20)
            .and_then(|bytes| bytes.try_into().ok())
            .context("read its answer")?;
        Ok(-i32::from_ne_bytes(errno))
    }
}

impl Drop for FullConntrack {
    fn drop(&mut self) {
        for number in 0..self.made {
            // It may have timed out.
            let _answer = self.ask(DELETE, number);
        }
    }
}

/// UDP from one port to the same.
fn tuple(kind: u16, from: [u8; 4], to: [u8; 4], port: u16) -> Vec<u8> {
    let addresses = [attribute(1, &from), attribute(2, &to)];
    let protocol = [
        attribute(1, &[17]),
        attribute(2, &port.to_be_bytes()),
        attribute(3, &port.to_be_bytes()),
    ];
    nested(kind, &[nested(1, &addresses), nested(2, &protocol)])
}
