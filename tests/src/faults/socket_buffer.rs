//! Packets that the kernel drops because nobody empties a socket's receive buffer.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::thread::CpuSet;

use super::boot_clock;

/// What was done to one socket.
#[derive(Debug, Clone)]
pub struct Drops {
    /// Local port of the socket whose buffer was full.
    pub port: u16,
    /// When the first packet was sent.
    pub at: Duration,
}

/// Sends `packets` datagrams over loopback to a socket with the smallest buffer. All but the first
/// few are dropped (SOCKET_RCVBUFF), on one CPU, since the detector counts per CPU.
pub fn fill_socket_buffer(packets: u32) -> anyhow::Result<Drops> {
    // A thread of its own, because it is tied to a CPU.
    match thread::spawn(move || send(packets)).join() {
        Ok(result) => result,
        Err(_) => bail!("the thread that sends packets panicked"),
    }
}

fn send(packets: u32) -> anyhow::Result<Drops> {
    stay_on_this_cpu()?;
    let receiver =
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a UDP socket on loopback")?;
    // The kernel makes it as small as it allows.
    rustix::net::sockopt::set_socket_recv_buffer_size(&receiver, 1)
        .context("shrink a receive buffer")?;
    let address = receiver
        .local_addr()
        .context("read the address of a socket")?;
    let sender =
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a UDP socket on loopback")?;
    sender
        .connect(address)
        .context("connect a UDP socket on loopback")?;
    let at = boot_clock();
    for _ in 0..packets {
        sender
            .send(&[0; 512])
            .context("send a datagram over loopback")?;
    }
    Ok(Drops {
        port: address.port(),
        at,
    })
}

fn stay_on_this_cpu() -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &cpus).context("tie a thread to its CPU")
}
