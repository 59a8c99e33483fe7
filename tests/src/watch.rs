//! `nodemend-detector watch -o json` as the tests see it: what it said so far, and what it says next.

use std::time::Duration;

use crate::daemon::Daemon;
use anyhow::Context;
use serde_json::Value;

/// A file system that is well again has to stay so for 15 s, by evidence that is read every 10 s.
const TIMEOUT: Duration = Duration::from_secs(40);
/// For all hooks, in a virtual machine whose instructions are interpreted, on a busy host.
const READY: Duration = Duration::from_secs(180);
/// In which a second report of one fault would come.
const AFTERWARDS: Duration = Duration::from_millis(300);

pub struct Watch {
    daemon: Daemon,
    runtime: tokio::runtime::Runtime,
}

impl Watch {
    /// Starts it with these arguments and waits until it watches.
    pub fn start(args: &[&str]) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start tokio")?;
        let args: Vec<_> = ["watch", "-o", "json"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        let log_level = [(
            "RUST_LOG".to_owned(),
            "nodemend_detector=debug,detector_ebpf=debug".to_owned(),
        )];
        let mut watch = Self {
            daemon: Daemon::start("nodemend-detector", &args, &log_level)?,
            runtime,
        };
        watch.line_within(READY, "ready", |line| line["ready"] == true)?;
        Ok(watch)
    }

    /// The same again in a new process.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.daemon.restart()?;
        self.line("ready", |line| line["ready"] == true).map(drop)
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub fn pause(&self) -> anyhow::Result<()> {
        self.daemon.pause()
    }

    pub fn resume(&self) -> anyhow::Result<()> {
        self.daemon.resume()
    }

    /// The next line that `matches`.
    pub fn line(&mut self, what: &str, matches: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        self.line_within(TIMEOUT, what, matches)
    }

    pub fn line_within(
        &mut self,
        timeout: Duration,
        what: &str,
        matches: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let wait = self.daemon.wait_for_log(timeout, matches);
        self.runtime
            .block_on(wait)
            .with_context(|| format!("wait for: {what}"))
    }

    /// The finding of this reason whose subject has `field` = `value`; an error unless it is
    /// reported exactly once, be it as another one of a finding from before: devices are used again.
    pub fn only_finding(
        &mut self,
        reason: &str,
        field: &str,
        value: impl Into<Value>,
    ) -> anyhow::Result<Value> {
        let value = value.into();
        let of_it = |line: &Value| {
            line["reason"] == reason && line["subject"][field] == value && line["historic"] == false
        };
        let found = self.line(&format!("{reason} with {field} {value}"), |line| {
            is_told(line) && of_it(line)
        })?;
        std::thread::sleep(AFTERWARDS);
        let all: Vec<_> = self.findings().into_iter().filter(of_it).collect();
        anyhow::ensure!(
            all.len() == 1,
            "one fault was reported {} times: {all:#?}",
            all.len()
        );
        Ok(found)
    }

    /// The first line that `matches` of all that were written so far.
    pub fn line_so_far(&self, matches: impl Fn(&Value) -> bool) -> Option<Value> {
        self.lines().into_iter().find(matches)
    }

    /// Everything that was opened or repeated so far, of what happened since it watches.
    pub fn findings(&self) -> Vec<Value> {
        self.lines().into_iter().filter(is_told).collect()
    }

    /// All that were written so far.
    pub fn lines(&self) -> Vec<Value> {
        self.daemon
            .log_lines()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

fn is_told(line: &Value) -> bool {
    ["opened", "repeated"].contains(&line["transition"].as_str().unwrap_or_default())
        && line["historic"] == false
}
