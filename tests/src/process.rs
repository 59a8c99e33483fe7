//! Child processes that cannot outlive the test program, however that ends.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness runs other programs and measures deadlines"
)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};

use crate::control_plane::program;

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts `command` in its own process group, to be killed by the kernel when this process ends.
///
/// The parent-death signal is sent when the *thread* that forked ends (prctl(2), `PR_SET_PDEATHSIG`),
/// so all children are forked by one thread that lives as long as the process. They still live in the
/// namespaces of the thread that asks.
pub(crate) fn spawn(mut command: Command) -> anyhow::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    die_with_parent(&mut command);
    stay_in_namespaces(&mut command)?;
    command.process_group(0);
    let name = command.get_program().to_string_lossy().into_owned();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in jobs {
                // The one who asked may be gone; then the child is reaped here.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    let _killed = child.kill();
                    let _status = child.wait();
                }
            }
        });
        sender
    });
    let (sender, answer) = mpsc::channel();
    spawner
        .send((command, sender))
        .ok()
        .context("reach the thread that starts processes")?;
    answer
        .recv()
        .context("reach the thread that starts processes")?
        .with_context(|| format!("start {name}"))
}

/// What each thread of a process waits for in the kernel: `reader S poll_schedule_timeout`.
pub(crate) fn threads(pid: u32) -> String {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return "it is gone".to_owned();
    };
    let of = |task: PathBuf| {
        let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
        let stat = read("stat");
        let state = stat.rsplit_once(") ").map_or("?", |(_, rest)| &rest[..1]);
        format!("{} {state} {}", read("comm").trim_end(), read("wchan"))
    };
    let threads: Vec<_> = tasks.flatten().map(|task| of(task.path())).collect();
    threads.join(", ")
}

#[expect(unsafe_code, reason = "prctl must run between fork and exec")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let before_exec = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the call above.
        if rustix::process::getppid().map(|pid| pid.as_raw_pid().unsigned_abs()) == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: the closure makes two system calls and allocates nothing on its way to exec.
    unsafe {
        command.pre_exec(before_exec);
    }
}

/// Where the calling thread has left those of the others.
#[expect(unsafe_code, reason = "setns must run between fork and exec")]
fn stay_in_namespaces(command: &mut Command) -> anyhow::Result<()> {
    let mut own = Vec::new();
    for name in ["mnt", "net"] {
        let namespace = |of: &str| PathBuf::from(format!("/proc/{of}/ns/{name}"));
        let link = |of| fs::read_link(namespace(of)).context("look at a namespace");
        if link("thread-self")? != link("self")? {
            own.push(File::open(namespace("thread-self")).context("open a namespace")?);
        }
    }
    let before_exec = move || {
        for namespace in &own {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None)?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls and allocates nothing on its way to exec.
    unsafe {
        command.pre_exec(before_exec);
    }
    Ok(())
}

/// Waits until no thread of a process runs any more: each takes the signal when it gets to it.
pub(crate) fn wait_stopped(pid: u32) -> anyhow::Result<()> {
    let folder = format!("/proc/{pid}/task");
    for _ in 0..500 {
        let threads = fs::read_dir(&folder).with_context(|| format!("list {folder}"))?;
        let stopped = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The name before the state may hold anything.
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.starts_with(" T"))
        };
        if threads.flatten().all(stopped) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(2));
    }
    bail!("process {pid} was sent SIGSTOP and goes on")
}

/// Sends a signal to the process group of a child that has not been reaped.
pub(crate) fn signal_group(child_id: u32, signal: Signal) -> anyhow::Result<()> {
    let group = i32::try_from(child_id)
        .ok()
        .and_then(Pid::from_raw)
        .context("read the id of a child process")?;
    rustix::process::kill_process_group(group, signal)
        .with_context(|| format!("signal process group {child_id}"))
}

/// Waits for a child's end, up to `timeout`.
pub(crate) fn wait_exit(child: &mut Child, timeout: Duration) -> anyhow::Result<ExitStatus> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().context("wait for a child process")? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            bail!("process {} is still running after {timeout:?}", child.id());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A server with its output in a file; killed and reaped on drop.
pub(crate) struct Server {
    name: &'static str,
    args: Vec<String>,
    child: Child,
    log: PathBuf,
}

impl Server {
    pub(crate) fn start(name: &'static str, args: &[String], logs: &Path) -> anyhow::Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let args = args.to_vec();
        let child = run(name, &args, &log)?;
        Ok(Self {
            name,
            args,
            child,
            log,
        })
    }

    /// Killed, and started with the same arguments.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        signal_group(self.child.id(), Signal::KILL)?;
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.name))?;
        self.child = run(self.name, &self.args, &self.log)?;
        Ok(())
    }

    /// An error with the end of its log when it has ended.
    pub(crate) fn check_running(&mut self) -> anyhow::Result<()> {
        match self
            .child
            .try_wait()
            .with_context(|| format!("look at {}", self.name))?
        {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); {}", self.name, self.last_lines()),
        }
    }

    pub(crate) fn last_lines(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        format!(
            "last lines of {}'s log:\n{}",
            self.name,
            last_lines(&String::from_utf8_lossy(&text))
        )
    }
}

fn run(name: &str, args: &[String], log: &Path) -> anyhow::Result<Child> {
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut command = Command::new(program(name)?);
    command
        .args(args)
        .current_dir(log.parent().context("find the folder of a log")?)
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("share a log file")?)
        .stderr(file);
    spawn(command)
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _signalled = signal_group(self.child.id(), Signal::KILL);
        let _status = self.child.wait();
    }
}

/// The last 20 lines, safe to print.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..]
        .iter()
        .map(|line| {
            line.chars()
                .take(500)
                .map(|c| if c.is_control() && c != '\t' { '?' } else { c })
                .collect()
        })
        .collect::<Vec<String>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        let mut child = thread::spawn(|| spawn(sleep).unwrap()).join().unwrap();
        thread::sleep(Duration::from_millis(100));
        assert!(
            child.try_wait().unwrap().is_none(),
            "the child died with its thread"
        );
        signal_group(child.id(), Signal::KILL).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn shows_the_end_of_a_log_without_terminal_escapes() {
        let log: String = (0..30).map(|n| format!("line {n}\x1b[2J\n")).collect();
        let shown = last_lines(&log);
        assert!(shown.starts_with("line 10?[2J"), "{shown}");
        assert!(shown.ends_with("line 29?[2J"), "{shown}");
    }
}
