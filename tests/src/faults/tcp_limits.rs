//! Limits of TCP that are reached: connections of this process with itself, over loopback.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::setting::Setting;

/// The kernel adds them up ten times a second.
const ADDED_UP: Duration = Duration::from_millis(300);

/// Asks a socket that accepts nobody for more connections than it can remember; returns its port.
pub fn flood_with_syns() -> anyhow::Result<u16> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)
        .context("make a socket")?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .context("bind it to loopback")?;
    rustix::net::listen(&socket, 0).context("listen")?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().context("read its address")?;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK,
            None,
        )
        .context("make a socket")?;
        // It never hears that it was answered, and so never answers.
        make_deaf(&client)?;
        match rustix::net::connect(&client, &address) {
            Err(Errno::INPROGRESS) => clients.push(client),
            other => other.context("connect")?,
        }
    }
    Ok(address.port())
}

/// Sockets without a process, near or beyond their limit while it lives.
pub struct Orphans {
    _limit: Setting,
    /// What they send is not heard.
    _peers: Vec<TcpStream>,
}

impl Orphans {
    /// Beyond the limit, which the kernel logs; it then resets them.
    pub fn too_many() -> anyhow::Result<Self> {
        Self::make(4, 16)
    }

    /// As many as the limit allows, which nobody is told of.
    pub fn as_many_as_allowed() -> anyhow::Result<Self> {
        Self::make(40, 40)
    }

    /// `limit` more than there are.
    fn make(limit: u64, orphans: usize) -> anyhow::Result<Self> {
        let limit = in_use("orphan")? + limit;
        let limit = Setting::sysctl("net/ipv4/tcp_max_orphans", &limit.to_string())?
            .context("find the limit of orphans")?;
        let mut peers = Vec::new();
        let mut make = |orphans: usize| -> anyhow::Result<()> {
            for _ in 0..orphans {
                let (mut left, peer) = pair()?;
                make_deaf(&OwnedFd::from(peer.try_clone().context("copy a socket")?))?;
                left.write_all(b"nobody hears").context("send")?;
                peers.push(peer);
            }
            Ok(())
        };
        make(orphans / 2)?;
        thread::sleep(ADDED_UP);
        // Now the kernel knows of those before.
        make(orphans / 2)?;
        Ok(Self {
            _limit: limit,
            _peers: peers,
        })
    }
}

/// Data in sockets, near or beyond what TCP may use while it lives.
pub struct TcpMemory {
    _limit: Setting,
    _unread: Vec<(TcpStream, TcpStream)>,
}

impl TcpMemory {
    /// Beyond the limit for a moment, which the kernel logs.
    pub fn exhausted() -> anyhow::Result<Self> {
        let mut unread = unread()?;
        let limit = Setting::sysctl("net/ipv4/tcp_mem", "1 1 1")?.context("find TCP's limit")?;
        let (left, right) = unread.pop().context("keep a connection")?;
        // Closed with what it could not send: that is when the kernel looks.
        drop(left);
        drop(right);
        Ok(Self {
            _limit: limit,
            _unread: unread,
        })
    }

    /// Just below the limit.
    pub fn nearly_all() -> anyhow::Result<Self> {
        let unread = unread()?;
        thread::sleep(ADDED_UP);
        let used = in_use("mem")?;
        ensure!(used > 100, "{used} pages of data wait in sockets");
        let high = used * 102 / 100;
        let limit = Setting::sysctl("net/ipv4/tcp_mem", &format!("{high} {high} {high}"))?
            .context("find TCP's limit")?;
        Ok(Self {
            _limit: limit,
            _unread: unread,
        })
    }
}

/// Connections that are full of data which nobody reads.
fn unread() -> anyhow::Result<Vec<(TcpStream, TcpStream)>> {
    let mut pairs = Vec::new();
    for _ in 0..4 {
        let (mut left, right) = pair()?;
        left.set_nonblocking(true).context("set up a socket")?;
        let block = [0; 1 << 16];
        // Until it would wait.
        while left.write(&block).is_ok() {}
        pairs.push((left, right));
    }
    Ok(pairs)
}

/// `TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 0`, memory in pages.
fn in_use(what: &str) -> anyhow::Result<u64> {
    let path = "/proc/net/sockstat";
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find(|line| line.starts_with("TCP: "));
    let mut words = line
        .unwrap_or_default()
        .split(' ')
        .skip_while(|word| *word != what);
    let number = words
        .nth(1)
        .with_context(|| format!("find {what} in {path}"))?;
    number
        .parse()
        .with_context(|| format!("read {number} in {path}"))
}

fn pair() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
    let address = listener.local_addr().context("read an address")?;
    let peer = TcpStream::connect(address).context("connect over loopback")?;
    let (left, _) = listener.accept().context("accept")?;
    Ok((left, peer))
}

/// Whatever comes for the socket from now on is dropped.
fn make_deaf(socket: &OwnedFd) -> anyhow::Result<()> {
    // BPF_RET | BPF_K: keep 0 bytes (linux/filter.h).
    let mut drop_all = libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut drop_all,
    };
    let size = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).context("measure")?;
    #[expect(unsafe_code, reason = "rustix has no SO_ATTACH_FILTER")]
    // SAFETY: the program and its one instruction live until the call returns; the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    ensure!(
        result == 0,
        "attach a filter: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}
