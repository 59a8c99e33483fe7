//! A nodemend binary as a process: started with arguments and environment, its JSON log awaited,
//! stopped in every way that a node can stop it.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness runs other programs and reads its environment"
)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::process;

/// How much of a log is kept for error messages.
const KEPT_LINES: usize = 10_000;

#[derive(Default)]
struct Log {
    /// The last ones, as they were written.
    raw: Mutex<VecDeque<String>>,
    /// Parsed lines that no wait has returned yet.
    unread: Mutex<Vec<Value>>,
    grew: Notify,
}

pub struct Daemon {
    name: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    child: Child,
    /// The process that `killer` kills: the current one, also after a restart; 0 when reaped.
    pid: Arc<AtomicU32>,
    log: Arc<Log>,
    /// Whether everything that the current process wrote is in the log.
    complete: Arc<AtomicBool>,
    /// For what it leaves the next one.
    home: TempDir,
}

impl Daemon {
    /// It finds nothing of the host's own agent, or of another test's, and takes no port from it,
    /// unless `args` or `env` say otherwise.
    pub fn start(name: &str, args: &[&str], env: &[(String, String)]) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("nodemend-home-")
            .tempdir()
            .context("make a folder")?;
        let mut own: Vec<_> = [("STATE_DIR", "state"), ("BOOTS_DIR", "boots")]
            .into_iter()
            .map(|(name, folder)| (name, home.path().join(folder).display().to_string()))
            .chain([("HTTP_ADDRESS", String::new())])
            .map(|(name, value)| (format!("NODEMEND_{name}"), value))
            .collect();
        own.extend_from_slice(env);
        let log = Arc::new(Log::default());
        let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        let (child, complete) = spawn(name, &args, &own, &log)?;
        let pid = Arc::new(AtomicU32::new(child.id()));
        Ok(Self {
            name: name.to_owned(),
            args,
            env: own,
            child,
            pid,
            log,
            complete,
            home,
        })
    }

    /// What a detector has saved for the next one.
    pub fn saved_state(&self) -> anyhow::Result<Option<Value>> {
        let path = self.home.path().join("state/detector-state.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).context("parse the state")?,
            )),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first log line that `matches`, among those that no earlier wait returned; waits for it.
    pub async fn wait_for_log(
        &mut self,
        timeout: Duration,
        matches: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let search = async {
            loop {
                let grew = self.log.grew.notified();
                // Looked at before the lines are: those written before the end are not missed.
                let complete = self.complete.load(Ordering::SeqCst);
                let found = {
                    let mut unread = lock(&self.log.unread);
                    unread
                        .iter()
                        .position(&matches)
                        .map(|index| unread.remove(index))
                };
                if let Some(line) = found {
                    return Ok(line);
                }
                if complete {
                    bail!("it ended");
                }
                grew.await;
            }
        };
        match tokio::time::timeout(timeout, search).await {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(error)) => Err(error.context(format!(
                "wait for a log line of {}; {}",
                self.name,
                self.last_lines()
            ))),
            Err(_elapsed) => {
                bail!(
                    "no such log line of {} within {timeout:?}; its threads: {}; {}",
                    self.name,
                    process::threads(self.pid()),
                    self.last_lines()
                )
            }
        }
    }

    /// What `wait` comes to; an error as soon as the daemon has ended.
    pub async fn while_running<T>(
        &self,
        wait: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            result = wait => result.map_err(|error| anyhow!("{error:#}; {}: {}", self.name, self.last_lines())),
            _output = self.output() => bail!("{} ended; {}", self.name, self.last_lines()),
        }
    }

    /// Lets later waits see only lines from now on.
    pub fn forget_log(&self) {
        lock(&self.log.unread).clear();
    }

    /// Everything that it wrote; waits for its end.
    pub async fn output(&self) -> String {
        loop {
            let grew = self.log.grew.notified();
            if self.complete.load(Ordering::SeqCst) {
                return self.log_lines().join("\n");
            }
            grew.await;
        }
    }

    /// All lines so far, as they were written.
    pub fn log_lines(&self) -> Vec<String> {
        lock(&self.log.raw).iter().cloned().collect()
    }

    /// Kills it from another thread, at once: for an armed crash point.
    pub fn killer(&self) -> impl Fn() + Send + Sync + use<> {
        let pid = Arc::clone(&self.pid);
        move || {
            let pid = pid.load(Ordering::SeqCst);
            if pid != 0 {
                // It may be gone already, which is what was asked for.
                let _signalled = process::signal_group(pid, Signal::KILL);
            }
        }
    }

    /// SIGKILL, and reaped. Does nothing when it has ended.
    pub fn kill(&mut self) {
        if self.pid.swap(0, Ordering::SeqCst) != 0 {
            let _signalled = process::signal_group(self.child.id(), Signal::KILL);
            let _status = self.child.wait();
        }
    }

    /// SIGTERM, then waits for it to end by itself.
    pub fn terminate(&mut self, timeout: Duration) -> anyhow::Result<ExitStatus> {
        process::signal_group(self.child.id(), Signal::TERM)?;
        self.wait_exit(timeout)
    }

    /// Its end, when all that it wrote has been read as well.
    pub fn wait_exit(&mut self, timeout: Duration) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        let status = process::wait_exit(&mut self.child, timeout)
            .with_context(|| format!("wait for {} to end; {}", self.name, self.last_lines()))?;
        self.pid.store(0, Ordering::SeqCst);
        while !self.complete.load(Ordering::SeqCst) {
            ensure!(
                start.elapsed() < timeout,
                "{} ended, and something else holds its output open",
                self.name
            );
            thread::sleep(Duration::from_millis(1));
        }
        Ok(status)
    }

    /// SIGSTOP: it exists but does nothing, once this returns.
    pub fn pause(&self) -> anyhow::Result<()> {
        process::signal_group(self.child.id(), Signal::STOP)?;
        process::wait_stopped(self.child.id())
    }

    /// SIGCONT.
    pub fn resume(&self) -> anyhow::Result<()> {
        process::signal_group(self.child.id(), Signal::CONT)
    }

    /// A new process with the same arguments; what is left of the old one is killed.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.forget_log();
        (self.child, self.complete) = spawn(&self.name, &self.args, &self.env, &self.log)?;
        self.pid.store(self.child.id(), Ordering::SeqCst);
        Ok(())
    }

    fn last_lines(&self) -> String {
        format!(
            "last lines of its log:\n{}",
            process::last_lines(&self.log_lines().join("\n"))
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where the binaries are: told by `cargo xtask`, else next to the running program, which is
/// either one of them or in `deps/` below.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    if let Some(dir) = env::var_os("NODEMEND_BIN_DIR") {
        return Ok(PathBuf::from(dir).join(name));
    }
    let this = env::current_exe().context("find the running program")?;
    this.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "find {name} near {}: run `cargo xtask test`, or set NODEMEND_BIN_DIR",
                this.display()
            )
        })
}

/// Starts the process and the threads that read what it writes; the flag is set when both are at the end.
fn spawn(
    name: &str,
    args: &[String],
    env: &[(String, String)],
    log: &Arc<Log>,
) -> anyhow::Result<(Child, Arc<AtomicBool>)> {
    let mut command = Command::new(binary(name)?);
    command
        .args(args)
        .envs(env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = process::spawn(command)?;
    // A pipe each: a line that takes more than one write would be cut by the other's.
    let output = child.stdout.take().context("read standard output")?;
    let errors = child.stderr.take().context("read standard error")?;
    let complete = Arc::new(AtomicBool::new(false));
    let (log, completed) = (Arc::clone(log), Arc::clone(&complete));
    thread::spawn(move || {
        thread::scope(|scope| {
            scope.spawn(|| read(errors, &log));
            read(output, &log);
        });
        completed.store(true, Ordering::SeqCst);
        log.grew.notify_waiters();
    });
    Ok((child, complete))
}

fn read(output: impl Read, log: &Log) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output
        .read_until(b'\n', &mut line)
        .is_ok_and(|read| read > 0)
    {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if let Ok(value) = serde_json::from_str(&text) {
            lock(&log.unread).push(value);
        }
        let mut raw = lock(&log.raw);
        if raw.len() == KEPT_LINES {
            raw.pop_front();
        }
        raw.push_back(text);
        drop(raw);
        log.grew.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any program that prints JSON will do.
    fn shell(script: &str) -> Daemon {
        // An absolute name replaces the folder it is joined to.
        let args = ["-c", script];
        Daemon::start("/bin/sh", &args, &[]).unwrap()
    }

    #[tokio::test]
    async fn returns_a_log_line_once() {
        let mut daemon = shell(r#"echo '{"n":1}'; echo 'no json'; echo '{"n":2}' >&2; sleep 60"#);
        let second = daemon
            .wait_for_log(Duration::from_secs(5), |line| line["n"] == 2)
            .await
            .unwrap();
        let first = daemon
            .wait_for_log(Duration::from_secs(5), |line| line["n"].is_number())
            .await
            .unwrap();
        assert_eq!(
            (first["n"].as_u64(), second["n"].as_u64()),
            (Some(1), Some(2))
        );
    }

    #[tokio::test]
    async fn a_daemon_that_ended_is_told_with_its_last_words() {
        let mut daemon = shell("echo cannot open the thing; exit 3");
        let error = daemon
            .wait_for_log(Duration::from_secs(5), |_| true)
            .await
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("cannot open the thing"),
            "{error:#}"
        );
    }

    #[tokio::test]
    async fn the_killer_reaches_the_process_of_a_restart() {
        let mut daemon = shell("sleep 60");
        let kill = daemon.killer();
        daemon.restart().unwrap();
        kill();
        let status = daemon.wait_exit(Duration::from_secs(5)).unwrap();
        assert!(!status.success());
    }
}
