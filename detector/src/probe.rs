//! Reads the evidence about a device, where it may hang without holding anyone up.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tracing::warn;

use crate::aside;
use crate::core::{Evidence, Sleep, TaskState};
use crate::mounts::{self, Situation};

mod cpu;

pub(crate) use self::cpu::{CpuState, look as look_at_cpu};

const DEADLINE: Duration = Duration::from_secs(5);

/// Where the host's mounts are seen, and which paths the node needs.
#[derive(Debug, Clone)]
pub(crate) struct Prober {
    host_proc: PathBuf,
    critical: Arc<[String]>,
    /// Devices whose probe has not come back: one outstanding probe each, for ever if need be.
    stuck: Arc<Mutex<HashSet<String>>>,
}

impl Prober {
    pub(crate) fn new(host_proc: PathBuf, critical: Vec<String>) -> Self {
        Self {
            host_proc,
            critical: critical.into(),
            stuck: Arc::default(),
        }
    }

    pub(crate) fn set_critical(&mut self, critical: Vec<String>) {
        self.critical = critical.into();
    }

    /// Answers through `answer`, within the deadline, from another thread.
    pub(crate) fn probe(
        &self,
        device: String,
        answer: impl FnOnce(String, Evidence) + Clone + Send + 'static,
    ) {
        let (prober, name, from_thread) = (self.clone(), device.clone(), answer.clone());
        let thread = spawn(move || {
            let evidence = prober.within_deadline(&name);
            from_thread(name, evidence);
        });
        if let Err(error) = thread {
            warn!(
                device,
                error = format!("{error:#}"),
                "nobody can look at the device"
            );
            answer(device, Evidence::Late);
        }
    }

    /// The same of a CPU.
    pub(crate) fn look_at_cpu(
        &self,
        cpu: u32,
        answer: impl FnOnce(CpuState) + Clone + Send + 'static,
    ) {
        let (proc, from_thread) = (self.host_proc.clone(), answer.clone());
        let thread = spawn(move || from_thread(cpu::look_aside(&proc, cpu)));
        if let Err(error) = thread {
            warn!(
                cpu,
                error = format!("{error:#}"),
                "nobody can look at the CPU"
            );
            answer(CpuState::Unknown);
        }
    }

    pub(crate) fn task_state(&self, pid: u32) -> TaskState {
        let folder = self.host_proc.join(pid.to_string());
        let path = folder.join("stat");
        let read = fs::read(&path).and_then(|stat| Ok((stat, fs::read(folder.join("status"))?)));
        match read {
            Ok((stat, status)) => task_state(&stat, &status).unwrap_or(TaskState::Unknown),
            // ESRCH: it ended between open and read.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                TaskState::Free
            }
            Err(error) => {
                warn!(path = %path.display(), %error, "nobody can look at the task");
                TaskState::Unknown
            }
        }
    }

    fn within_deadline(&self, device: &str) -> Evidence {
        if !self.stuck().insert(device.to_owned()) {
            return Evidence::Late;
        }
        let (sender, receiver) = mpsc::channel();
        let (prober, name) = (self.clone(), device.to_owned());
        let thread = spawn(move || {
            let evidence = prober.read(&name);
            prober.stuck().remove(&name);
            // Too late: nobody listens any more.
            drop(sender.send(evidence));
        });
        if let Err(error) = thread {
            self.stuck().remove(device);
            warn!(
                device,
                error = format!("{error:#}"),
                "nobody can look at the device"
            );
            return Evidence::Late;
        }
        match receiver.recv_timeout(DEADLINE) {
            Ok(Ok(evidence)) => evidence,
            Ok(Err(error)) => {
                warn!(
                    device,
                    error = format!("{error:#}"),
                    "evidence could not be read"
                );
                Evidence::Late
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                warn!(
                    device,
                    deadline_s = DEADLINE.as_secs(),
                    "no answer about the device"
                );
                Evidence::Late
            }
        }
    }

    fn stuck(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, device: &str) -> anyhow::Result<Evidence> {
        let Some(number) = device_number(device) else {
            return Ok(Evidence::NotMounted);
        };
        // The host's mounts: the agent's own namespace may show others.
        let path = self.host_proc.join("1/mountinfo");
        let mountinfo =
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let show =
            |point: PathBuf| crate::text::printable(point.as_os_str().as_encoded_bytes(), 256);
        match mounts::situation(&mountinfo, number, &self.critical) {
            Situation::NotMounted => Ok(Evidence::NotMounted),
            Situation::ReadOnly {
                mount_point,
                critical,
            } => Ok(Evidence::ReadOnly {
                mount_point: show(mount_point),
                critical,
            }),
            Situation::SaysWritable {
                mount_point,
                critical,
            } => {
                if refuses_writes_aside(&host_root(&self.host_proc, &mountinfo)?, &mount_point)? {
                    Ok(Evidence::ReadOnly {
                        mount_point: show(mount_point),
                        critical,
                    })
                } else {
                    Ok(Evidence::Writable)
                }
            }
        }
    }
}

/// Creates and removes the file: the only way to see ext4's emergency read-only before 6.18.
pub(crate) fn refuses_writes(file: &Path) -> anyhow::Result<bool> {
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(file);
    let written = match created {
        Ok(_) => fs::remove_file(file),
        // Left by an agent that was killed between the two: removing it is a write as well.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::remove_file(file),
        Err(error) => Err(error),
    };
    match written {
        Ok(()) => Ok(false),
        // EIO: its journal was aborted.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EROFS | libc::EIO)) => Ok(true),
        Err(error) => Err(error).with_context(|| format!("write {}", file.display())),
    }
}

/// The same in a process of its own: the file system may be frozen.
fn refuses_writes_aside(root: &Path, mount_point: &Path) -> anyhow::Result<bool> {
    let relative = mount_point.strip_prefix("/").unwrap_or(mount_point);
    let file = root
        .join(relative)
        .join(format!(".nodemend-probe-{}", std::process::id()));
    aside::answer(aside::start(&[&"try-write", &file]).context("start a process")?)
}

/// Where the host's root is, seen from here. `/proc/1/root` needs the right to trace process 1,
/// so it is used only where the agent has mounts of its own.
fn host_root(host_proc: &Path, host_mountinfo: &str) -> anyhow::Result<PathBuf> {
    let own = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    // A mount's number is unique on the host, across namespaces.
    let same_namespace = own.lines().next() == host_mountinfo.lines().next();
    Ok(if same_namespace {
        PathBuf::from("/")
    } else {
        host_proc.join("1/root")
    })
}

/// The same for whoever has not read the host's mounts.
pub(crate) fn find_host_root(host_proc: &Path) -> anyhow::Result<PathBuf> {
    let path = host_proc.join("1/mountinfo");
    let mountinfo =
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    host_root(host_proc, &mountinfo)
}

/// `thread::spawn` panics where the host has no thread left.
fn spawn(work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    thread::Builder::new()
        .name("probe".to_owned())
        .spawn(work)
        .context("start a thread")?;
    Ok(())
}

/// `8:17` from sysfs; absent once the device is gone.
fn device_number(device: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string(format!("/sys/class/block/{device}/dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Fields 3 and 22 of proc_pid_stat(5). The name before them may hold anything, parentheses too.
fn task_state(stat: &[u8], status: &[u8]) -> Option<TaskState> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some(if state == "D" {
        TaskState::Blocked(Sleep {
            started,
            switches: switches(status)?,
        })
    } else {
        TaskState::Free
    })
}

/// The last two lines of /proc/<pid>/status: `voluntary_ctxt_switches` and `nonvoluntary_ctxt_switches`.
fn switches(status: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(status);
    let mut counts = text.lines().filter_map(|line| {
        let (name, count) = line.split_once(':')?;
        // A task's own name stands on a line of its own, newlines escaped.
        let counts = matches!(
            name,
            "voluntary_ctxt_switches" | "nonvoluntary_ctxt_switches"
        );
        counts.then(|| count.trim().parse::<u64>().ok())?
    });
    counts.next()?.checked_add(counts.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_calls_itself_blocked_is_not() {
        let stat = |state: &str| {
            format!("7 (x) D 1) {state} 1 1 1 0 -1 64 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0 0\n")
        };
        let status = "Name:\tvoluntary_ctxt_switches: 1\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        let of = |state| task_state(stat(state).as_bytes(), status.as_bytes());
        let sleep = Sleep {
            started: 4711,
            switches: 15,
        };
        assert_eq!(of("D"), Some(TaskState::Blocked(sleep)));
        assert_eq!(of("S"), Some(TaskState::Free));
        assert_eq!(task_state(b"7 (x", status.as_bytes()), None);
        assert_eq!(task_state(b"7 (x) D 1", status.as_bytes()), None);
        assert_eq!(task_state(stat("D").as_bytes(), b"Name:\tx\n"), None);
    }

    #[test]
    fn a_task_that_has_ended_is_free() {
        let prober = Prober::new(PathBuf::from("/proc"), Vec::new());
        assert_eq!(prober.task_state(u32::MAX), TaskState::Free);
        assert_eq!(prober.task_state(std::process::id()), TaskState::Free);
    }
}
