//! A full neighbour table: addresses on a link of its own, where nobody answers.

#![expect(clippy::disallowed_methods, reason = "the harness runs other programs")]

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::thread::UnshareFlags;

use super::setting::Setting;

const LIMIT: &str = "net/ipv4/neigh/default/gc_thresh3";
/// Entries beyond those that the host has.
const MORE: u64 = 8;

/// Asks for more neighbours than the table then has room for. Takes half a second, in which the
/// host itself may get no new one.
pub fn overflow_neighbours() -> anyhow::Result<()> {
    // Only here: other network namespaces share the table and do not have the setting.
    let limit = (entries()? + MORE).to_string();
    let _limit = Setting::sysctl(LIMIT, &limit)?.context("find the limit of neighbours")?;
    thread::scope(|scope| scope.spawn(overflow).join())
        .map_err(|_panic| anyhow::anyhow!("the thread that asks for neighbours panicked"))?
}

/// The network namespace ends with the thread, and its neighbours with it.
fn overflow() -> anyhow::Result<()> {
    #[expect(
        unsafe_code,
        reason = "unshare is, as a thread may not share all with others"
    )]
    // SAFETY: only the network namespace is left.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .context("make a network namespace")?;
    for arguments in [
        "link add silent0 type veth peer name silent1",
        "link set silent0 up",
        "link set silent1 up",
        "address add 192.0.2.1/24 dev silent0",
    ] {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        let status = status.context("run ip")?;
        ensure!(status.success(), "ip {arguments}: {status}");
    }
    let socket = UdpSocket::bind("192.0.2.1:0").context("bind a UDP socket")?;
    for host in 2..2 + MORE + 4 {
        // Refused where there is no room: that is the fault.
        let _sent = socket.send_to(b"?", format!("192.0.2.{host}:9"));
    }
    thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Of all network namespaces.
fn entries() -> anyhow::Result<u64> {
    let path = "/proc/net/stat/arp_cache";
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let first = text.lines().nth(1).unwrap_or_default();
    let entries = first.split_ascii_whitespace().next().unwrap_or_default();
    u64::from_str_radix(entries, 16).with_context(|| format!("read {path}: {first}"))
}
