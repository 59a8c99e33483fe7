//! Processes whose memory limit is too small for the file that they read: the kernel takes away each
//! page before it is needed again.

use std::fs;
use std::io::Write;

use anyhow::Context;
use rustix::fs::Advice;
use tempfile::NamedTempFile;

use super::PodCgroup;
use super::victim::Victim;

/// Above the limit of the cgroup.
const FILE_BYTES: usize = 64 << 20;
const READERS: usize = 4;
/// Hundredths of the last ten seconds in which somebody waited for a CPU.
const BUSY: f64 = 20.0;

/// Dropping it ends them.
pub struct Thrashing {
    // Dropped in this order.
    _readers: Vec<Victim>,
    _file: NamedTempFile,
    _pod: PodCgroup,
}

impl Thrashing {
    /// Why it would not be seen here, if so.
    pub fn unavailable() -> Option<&'static str> {
        let pressure = |of: &str| fs::read_to_string(format!("/proc/pressure/{of}"));
        if pressure("memory").is_err() {
            return Some("this kernel does not measure pressure (CONFIG_PSI, psi=1)");
        }
        let busy = pressure("cpu").is_ok_and(|text| average(&text) > Some(BUSY));
        busy.then_some("the host is busy: others get on while these wait for memory")
    }

    pub fn start(pod_uid: &str) -> anyhow::Result<Self> {
        let pod = PodCgroup::systemd(pod_uid)?;
        // Not in a tmpfs: its pages cannot be read again from a disk.
        let mut file = NamedTempFile::new_in("/var/tmp").context("make a file in /var/tmp")?;
        file.write_all(&vec![1; FILE_BYTES])
            .and_then(|()| file.as_file().sync_all())
            .context("write a file in /var/tmp")?;
        // What stays in memory is of this process' cgroup.
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).context("forget a file")?;
        let path = file.path().display().to_string();
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let mut reader = Victim::start("thrash", "reader", Some(&path))?;
            pod.take(&reader)?;
            reader.go()?;
            readers.push(reader);
        }
        Ok(Self {
            _readers: readers,
            _file: file,
            _pod: pod,
        })
    }
}

/// `some avg10=1.23 avg60=...`
fn average(text: &str) -> Option<f64> {
    let rest = text.strip_prefix("some avg10=")?;
    rest.split(' ').next()?.parse().ok()
}
