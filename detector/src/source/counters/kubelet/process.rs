//! kubelet's process: which one it is, and whether all of its threads can go on.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::signal::Workload;
use crate::text;

const NAME: &str = "kubelet";
/// A Go program has a thread for each call that blocks.
const MOST_THREADS: usize = 4096;
const MOST_FRAMES: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Process {
    Absent,
    /// By a signal or a debugger.
    Stopped,
    /// A thread has been in one uninterruptible sleep since the look before.
    Blocked(Thread),
    Runs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) tid: u32,
    pub(super) comm: String,
    /// Functions of the kernel, the innermost first.
    pub(super) waits_in: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no process of the host is called kubelet"),
            Self::Stopped => f.write_str("its process is stopped, by a signal or a debugger"),
            Self::Runs => f.write_str("its process runs"),
            Self::Blocked(Thread {
                tid,
                comm,
                waits_in,
            }) => write!(
                f,
                "its thread {comm}[{tid}] is in uninterruptible sleep in {waits_in}"
            ),
        }
    }
}

pub(super) struct Finder {
    proc: PathBuf,
    pid: Option<u32>,
    /// At the look before: thread, and how often it had been switched out.
    asleep: Option<(u32, String)>,
}

impl Finder {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self {
            proc,
            pid: None,
            asleep: None,
        }
    }

    pub(super) fn look(&mut self) -> Process {
        let known = self.pid.filter(|pid| is_kubelet(&self.proc, *pid));
        self.pid = known.or_else(|| find(&self.proc));
        let before = self.asleep.take();
        let Some(pid) = self.pid else {
            return Process::Absent;
        };
        let threads = threads(&self.proc, pid);
        let asleep = threads.iter().filter(|(_, _, state)| *state == 'D');
        for (tid, comm, _) in asleep {
            let folder = self.proc.join(format!("{pid}/task/{tid}"));
            let Some(switches) = switches(&folder) else {
                continue;
            };
            let now = (*tid, switches);
            let same = before.as_ref() == Some(&now);
            if same || self.asleep.is_none() {
                self.asleep = Some(now);
            }
            if same {
                return Process::Blocked(Thread {
                    tid: *tid,
                    comm: comm.clone(),
                    waits_in: waits_in(&folder),
                });
            }
        }
        if threads
            .iter()
            .any(|(_, _, state)| matches!(state, 'T' | 't'))
        {
            return Process::Stopped;
        }
        Process::Runs
    }
}

/// Any process can call itself so; only one outside of pods is believed.
fn is_kubelet(proc: &Path, pid: u32) -> bool {
    let folder = proc.join(pid.to_string());
    let named =
        fs::read(folder.join("comm")).is_ok_and(|comm| comm.trim_ascii_end() == NAME.as_bytes());
    named
        && fs::read_to_string(folder.join("cgroup")).is_ok_and(|lines| {
            let mut paths = lines.lines().filter_map(|line| line.splitn(3, ':').nth(2));
            !paths.any(|path| {
                Workload::from_cgroup_path(path).is_some_and(|workload| workload.pod_uid.is_some())
            })
        })
}

fn find(proc: &Path) -> Option<u32> {
    let mut pids = numbers(proc);
    pids.find(|pid| is_kubelet(proc, *pid))
}

fn numbers(folder: &Path) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Number, name and state of each.
fn threads(proc: &Path, pid: u32) -> Vec<(u32, String, char)> {
    let folder = proc.join(format!("{pid}/task"));
    let threads = numbers(&folder).take(MOST_THREADS).filter_map(|tid| {
        let stat = fs::read(folder.join(format!("{tid}/stat"))).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let (_, rest) = stat.split_once(" (")?;
        let (comm, rest) = rest.rsplit_once(") ")?;
        let comm = text::part(comm, 64);
        Some((tid, comm, rest.chars().next()?))
    });
    threads.collect()
}

/// `voluntary_ctxt_switches` and the other line like it.
fn switches(folder: &Path) -> Option<String> {
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
    Some(lines.collect())
}

/// `[<0>] io_schedule+0x42/0x70`
fn waits_in(folder: &Path) -> String {
    let stack = fs::read_to_string(folder.join("stack")).unwrap_or_default();
    let frames = stack.lines().filter_map(|line| {
        let (_, frame) = line.split_once("] ")?;
        frame.split('+').next()
    });
    let frames: Vec<&str> = frames.take(MOST_FRAMES).collect();
    match frames.as_slice() {
        [] => "the kernel".to_owned(),
        frames => text::part(frames.join(" < "), 256),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn process(&self, pid: u32, comm: &str, cgroup: &str) {
            self.write(&format!("{pid}/comm"), &format!("{comm}\n"));
            self.write(&format!("{pid}/cgroup"), &format!("0::{cgroup}\n"));
        }

        fn thread(&self, pid: u32, tid: u32, state: char, switches: u32) {
            let folder = format!("{pid}/task/{tid}");
            self.write(
                &format!("{folder}/stat"),
                &format!("{tid} (ku) b) {state} 1 2"),
            );
            let status =
                format!("voluntary_ctxt_switches:\t{switches}\nnonvoluntary_ctxt_switches:\t1\n");
            self.write(&format!("{folder}/status"), &status);
            self.write(
                &format!("{folder}/stack"),
                "[<0>] io_schedule+0x42/0x70\n[<0>] ext4_sync_file+0x1/0x2\n",
            );
        }

        fn finder(&self) -> Finder {
            Finder::new(self.0.path().to_owned())
        }
    }

    const SYSTEM: &str = "/system.slice/kubelet.service";
    const POD: &str = "/kubepods.slice/kubepods-pod0f7a1c9e_3b7d_4c5e_9f00_1234567890ab.slice/x";

    #[test]
    fn only_a_process_outside_of_pods_is_kubelet() {
        let host = Host::new();
        assert_eq!(host.finder().look(), Process::Absent);
        host.process(5, "kubelet", POD);
        host.process(6, "kubelet-x", SYSTEM);
        let mut finder = host.finder();
        assert_eq!(finder.look(), Process::Absent);
        host.process(7, "kubelet", SYSTEM);
        host.thread(7, 7, 'S', 1);
        assert_eq!(finder.look(), Process::Runs);
        fs::remove_dir_all(host.0.path().join("7")).unwrap();
        assert_eq!(finder.look(), Process::Absent);
    }

    #[test]
    fn a_thread_is_blocked_when_two_looks_find_it_in_one_sleep() {
        let host = Host::new();
        host.process(7, "kubelet", SYSTEM);
        host.thread(7, 7, 'S', 1);
        host.thread(7, 8, 'D', 10);
        let mut finder = host.finder();
        assert_eq!(finder.look(), Process::Runs, "one look is no hang");
        host.thread(7, 8, 'D', 11);
        assert_eq!(finder.look(), Process::Runs, "it has run meanwhile");
        let blocked = Process::Blocked(Thread {
            tid: 8,
            comm: "ku) b".to_owned(),
            waits_in: "io_schedule < ext4_sync_file".to_owned(),
        });
        assert_eq!(finder.look(), blocked);
        assert_eq!(finder.look(), blocked);
        host.thread(7, 8, 'S', 12);
        assert_eq!(finder.look(), Process::Runs);
    }

    #[test]
    fn a_stopped_process_is_told_from_one_that_runs() {
        let host = Host::new();
        host.process(7, "kubelet", SYSTEM);
        host.thread(7, 7, 'T', 1);
        assert_eq!(host.finder().look(), Process::Stopped);
    }
}
