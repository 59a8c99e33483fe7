//! A task that waits for a FUSE file system whose server never answers, so that only SIGKILL ends the
//! wait.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::hung_task::wait_until_blocked;
use super::victim::Victim;

const DEVICE: &str = "/dev/fuse";

// include/uapi/linux/fuse.h
const FUSE_INIT: u32 = 26;
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
const INIT_OUT: usize = 64;
/// The kernel refuses to hand out requests into less.
const BUFFER: usize = 1 << 20;

/// Dropping it ends the wait and unmounts the file system.
pub struct FuseSleeper {
    // Dropped in this order: without a server every request fails.
    _server: File,
    victim: Victim,
    _mounted: Mounted,
}

impl FuseSleeper {
    /// Returns when the process is blocked.
    pub fn start(comm: &str) -> anyhow::Result<Self> {
        let SilentFolder {
            _server: server,
            mounted,
        } = SilentFolder::start()?;
        let file = mounted.path().join("file").display().to_string();
        let mut victim = Victim::start("write", comm, Some(&file))?;
        victim.go()?;
        wait_for_request(&server)?;
        // Until a signal comes the kernel waits interruptibly; after one, until the task is killed.
        let pid = i32::try_from(victim.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("read a pid")?, Signal::STOP).context("stop the process")?;
        wait_until_blocked(victim.pid())?;
        Ok(Self {
            _server: server,
            victim,
            _mounted: mounted,
        })
    }

    pub fn pid(&self) -> u32 {
        self.victim.pid()
    }

    /// Why there cannot be one here, if so.
    pub fn unavailable() -> Option<String> {
        let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
        opened
            .err()
            .map(|error| format!("this host has no FUSE: open {DEVICE}: {error}"))
    }
}

/// A folder in which each name is looked up for ever. Dropping it ends that.
pub struct SilentFolder {
    // Dropped in this order, as above.
    _server: File,
    mounted: Mounted,
}

impl SilentFolder {
    pub fn start() -> anyhow::Result<Self> {
        let mut server = OpenOptions::new()
            .read(true)
            .write(true)
            .open(DEVICE)
            .with_context(|| format!("open {DEVICE}"))?;
        let mounted = Mounted::new(&server)?;
        greet(&mut server)?;
        Ok(Self {
            _server: server,
            mounted,
        })
    }

    pub fn path(&self) -> &Path {
        self.mounted.path()
    }
}

struct Mounted(TempDir);

impl Mounted {
    fn new(server: &File) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("nodemend-fuse-")
            .tempdir()
            .context("make a mount point")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            server.as_raw_fd()
        );
        let options = std::ffi::CString::new(options).context("write mount options")?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("nodemend-test", folder.path(), "fuse", flags, &*options)
            .with_context(|| format!("mount a FUSE file system on {}", folder.path().display()))?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let path: PathBuf = self.path().to_owned();
        if let Err(error) = unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            eprintln!("could not unmount {}: {error}", path.display());
        }
    }
}

/// Answers the kernel's first request, the only one that is.
fn greet(server: &mut File) -> anyhow::Result<()> {
    let mut request = vec![0; BUFFER];
    let read = server
        .read(&mut request)
        .context("read a request of the kernel")?;
    ensure!(read >= IN_HEADER, "a request of {read} bytes");
    let word = |at: usize| -> [u8; 4] { std::array::from_fn(|byte| request[at + byte]) };
    let opcode = u32::from_ne_bytes(word(4));
    ensure!(opcode == FUSE_INIT, "the first request is {opcode}");
    let length = u32::try_from(OUT_HEADER + INIT_OUT).context("count the bytes of an answer")?;
    let mut answer = Vec::new();
    answer.extend(length.to_ne_bytes());
    answer.extend(0i32.to_ne_bytes());
    answer.extend(&request[8..16]);
    // Protocol 7.31; everything optional stays off.
    answer.extend(7u32.to_ne_bytes());
    answer.extend(31u32.to_ne_bytes());
    answer.resize(OUT_HEADER + INIT_OUT, 0);
    server.write_all(&answer).context("answer the kernel")
}

/// It stays there unread.
fn wait_for_request(server: &File) -> anyhow::Result<()> {
    let mut fds = [PollFd::new(server, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    let ready = poll(&mut fds, Some(&patience)).context("wait for a request of the kernel")?;
    ensure!(
        ready == 1,
        "the process asked nothing of the FUSE file system"
    );
    Ok(())
}
