//! PURE. Tasks that the kernel called hung: whether they still are is read again, not waited out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Output;
use super::findings::{Findings, Key};
use crate::finding::Now;
use crate::reason::Reason;

/// How often a task is looked at again.
const INTERVAL: Duration = Duration::from_secs(10);

/// What a task does now, by its `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// In uninterruptible sleep; `started` tells it from a later task of the same number.
    Blocked { started: u64 },
    /// It runs, sleeps or has ended.
    Free,
    /// Nothing is known, so nothing changes.
    Unknown,
}

#[derive(Default)]
pub(super) struct BlockedTasks(BTreeMap<u32, Task>);

struct Task {
    started: Option<u64>,
    asked: bool,
    next: Duration,
}

impl BlockedTasks {
    /// Those of open findings, of which there is a limit.
    pub(super) fn add(&mut self, pid: u32, findings: &Findings, now: Now, out: &mut Vec<Output>) {
        if findings.get(&key(pid)).is_none() {
            return;
        }
        let task = self.0.entry(pid).or_insert(Task {
            started: None,
            asked: false,
            next: now.boot,
        });
        if !task.asked {
            task.asked = true;
            out.push(Output::LookAtTask { pid });
        }
    }

    pub(super) fn seen(
        &mut self,
        pid: u32,
        state: TaskState,
        findings: &mut Findings,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let Some(task) = self.0.get_mut(&pid) else {
            return;
        };
        task.asked = false;
        task.next = now.boot + INTERVAL;
        match state {
            TaskState::Blocked { started } if *task.started.get_or_insert(started) == started => {
                findings.unwell(&key(pid), now, out);
            }
            TaskState::Blocked { .. } | TaskState::Free => findings.well(&key(pid), now, out),
            TaskState::Unknown => {}
        }
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        let waiting = self.0.values().filter(|task| !task.asked);
        waiting.map(|task| task.next).min()
    }

    /// After the findings: a task whose finding has cleared is not looked at any more.
    pub(super) fn wake(&mut self, findings: &Findings, now: Now, out: &mut Vec<Output>) {
        self.0.retain(|pid, _| findings.get(&key(*pid)).is_some());
        for (&pid, task) in &mut self.0 {
            if !task.asked && task.next <= now.boot {
                task.asked = true;
                out.push(Output::LookAtTask { pid });
            }
        }
    }
}

fn key(pid: u32) -> Key {
    (Reason::AppBlocked, entity(pid))
}

pub(super) fn entity(pid: u32) -> String {
    format!("pid {pid}")
}

/// The task that a finding is about.
pub(super) fn pid(reason: Reason, entity: &str) -> Option<u32> {
    if reason != Reason::AppBlocked {
        return None;
    }
    entity.strip_prefix("pid ")?.parse().ok()
}
