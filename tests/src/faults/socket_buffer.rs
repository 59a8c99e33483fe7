//! Packets that the kernel drops because nobody empties a socket's receive buffer.

#![expect(clippy::disallowed_methods, reason = "the harness runs other programs")]

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::thread::{CpuSet, UnshareFlags};

use super::victim::Victim;
use super::{PodCgroup, boot_clock};

/// What was done to one socket.
#[derive(Debug, Clone)]
pub struct Drops {
    /// Local port of the socket whose buffer was full.
    pub port: u16,
    /// When the first packet was sent.
    pub at: Duration,
}

/// Sends `packets` datagrams over loopback to a socket with the smallest buffer. All but the first
/// few are dropped (SOCKET_RCVBUFF), on one CPU.
pub fn fill_socket_buffer(packets: u32) -> anyhow::Result<Drops> {
    on_one_cpu(|| {
        let pair = Pair::new()?;
        let at = boot_clock();
        for _ in 0..packets {
            pair.send()?;
        }
        Ok(Drops {
            port: pair.port,
            at,
        })
    })
}

/// The same in the network namespaces of several pods, one packet to each in turn. The ports are in
/// the order of the pods.
pub fn fill_socket_buffers(pods: &[&PodCgroup], packets: u32) -> anyhow::Result<Vec<u16>> {
    let namespaces: Vec<_> = pods
        .iter()
        .map(|pod| in_thread(|| Namespace::of(pod)))
        .collect::<anyhow::Result<_>>()?;
    on_one_cpu(|| {
        for _ in 0..packets {
            for namespace in &namespaces {
                namespace.pair.send()?;
            }
        }
        Ok(())
    })?;
    Ok(namespaces
        .iter()
        .map(|namespace| namespace.pair.port)
        .collect())
}

/// Sockets in a network namespace of a pod, in which one process lives.
struct Namespace {
    pair: Pair,
    _process: Victim,
}

impl Namespace {
    /// Of the calling thread from now on.
    fn of(pod: &PodCgroup) -> anyhow::Result<Self> {
        #[expect(
            unsafe_code,
            reason = "unshare is, as a thread may not share all with others"
        )]
        // SAFETY: only the network namespace is left.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .context("make a network namespace")?;
        let status = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()
            .context("run ip")?;
        ensure!(status.success(), "ip link set lo up: {status}");
        // It waits for a start that does not come.
        let process = Victim::start("crash", "pause", None)?;
        pod.take(&process)?;
        Ok(Self {
            pair: Pair::new()?,
            _process: process,
        })
    }
}

struct Pair {
    sender: UdpSocket,
    port: u16,
    _receiver: UdpSocket,
}

impl Pair {
    fn new() -> anyhow::Result<Self> {
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
        Ok(Self {
            sender,
            port: address.port(),
            _receiver: receiver,
        })
    }

    fn send(&self) -> anyhow::Result<()> {
        let sent = self.sender.send(&[0; 512]);
        sent.map(drop).context("send a datagram over loopback")
    }
}

fn on_one_cpu<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    in_thread(|| {
        let mut cpus = CpuSet::new();
        cpus.set(rustix::thread::sched_getcpu());
        rustix::thread::sched_setaffinity(None, &cpus).context("tie a thread to its CPU")?;
        work()
    })
}

/// Of its own, because what it is tied to is its own.
fn in_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(_) => bail!("a thread that sends packets panicked"),
    })
}
