//! PURE. Tasks that do not run any more: how bad that is, and, read again instead of waited out,
//! whether it still is so.

use std::collections::BTreeMap;
use std::time::Duration;

use super::findings::{Findings, Key};
use super::waits::{self, Wait};
use super::{Output, assess};
use crate::finding::{Now, Sighting};
use crate::reason::{Reason, Severity};
use crate::signal::BlockedTask;
use crate::text;

/// How often a task is looked at again.
const INTERVAL: Duration = Duration::from_secs(10);

/// A process that the node needs and that has been blocked on a disk for so long will not go on.
const FATAL_AFTER: Duration = Duration::from_secs(120);

/// The innermost functions of a stack that are told.
const SHOWN_FRAMES: usize = 8;
const LONGEST_STACK: usize = 500;

/// Told durations: a message that changed with each scan would be written with each scan.
const STEPS: [(Duration, &str); 6] = [
    (Duration::from_secs(24 * 3600), "24 h"),
    (Duration::from_secs(3600), "1 h"),
    (Duration::from_secs(600), "10 min"),
    (FATAL_AFTER, "120 s"),
    (Duration::from_secs(30), "30 s"),
    (Duration::from_secs(1), "1 s"),
];

/// What a task does now, by its folder in `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// In uninterruptible sleep.
    Blocked(Sleep),
    /// It runs, sleeps or has ended.
    Free,
    /// Nothing is known, so nothing changes.
    Unknown,
}

/// What stays the same while a task sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sleep {
    /// Tells it from a later task of the same number.
    pub started: u64,
    /// How often it has been switched out: it may be in another sleep by now.
    pub switches: u64,
}

#[derive(Default)]
pub(super) struct BlockedTasks(BTreeMap<u32, Task>);

struct Task {
    /// As it was first seen since somebody last said that it is blocked.
    sleep: Option<Sleep>,
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
            sleep: None,
            asked: false,
            next: now.boot,
        });
        task.sleep = None;
        if !task.asked {
            task.asked = true;
            out.push(Output::LookAtTask { pid });
        }
    }

    /// A scan says that it has not run for a while.
    pub(super) fn found(
        &mut self,
        blocked: BlockedTask,
        at: Duration,
        findings: &mut Findings,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let wait = match &blocked.stack {
            Ok(frames) => waits::wait(frames),
            Err(_) => Wait::Unclear,
        };
        if wait == Wait::Own {
            return;
        }
        let pid = blocked.task.pid;
        let open = findings.get(&key(pid));
        let needed = findings.settings().needs(&blocked.task, &blocked.process);
        // An agent that has just started does not know how long it has been so.
        let was_fatal = open.is_some_and(|open| open.seen == Severity::Fatal);
        let long = blocked.blocked >= FATAL_AFTER || was_fatal;
        let severity = match wait {
            Wait::Local(_) if needed && long => Severity::Fatal,
            Wait::Local(_) | Wait::Remote(_) | Wait::Unclear | Wait::Own => {
                Reason::AppBlocked.row().severity
            }
        };
        let past = open.is_some_and(|open| open.finding.historic);
        let sighting = Sighting {
            reason: Reason::AppBlocked,
            entity: entity(pid),
            severity,
            message: message(&blocked, wait, needed),
            subject: assess::of_task(blocked.task),
            count: 1,
            at,
        };
        if past {
            findings.see(sighting, now, out);
        } else {
            findings.is_so(sighting, now, out);
        }
        self.add(pid, findings, now, out);
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
            TaskState::Blocked(sleep) if *task.sleep.get_or_insert(sleep) == sleep => {
                findings.unwell(&key(pid), now, out);
            }
            TaskState::Blocked(_) | TaskState::Free => findings.well(&key(pid), now, out),
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

/// Whoever only says that a task hangs knows no more of it than what is known already.
pub(super) fn as_known(mut sighting: Sighting, findings: &Findings) -> Sighting {
    let open = findings.get(&(sighting.reason, sighting.entity.clone()));
    if sighting.reason == Reason::AppBlocked
        && let Some(open) = open
        && !open.finding.historic
    {
        sighting.severity = sighting.severity.max(open.seen);
        sighting.message.clone_from(&open.finding.message);
    }
    sighting
}

fn message(blocked: &BlockedTask, wait: Wait, needed: bool) -> String {
    let BlockedTask { task, process, .. } = blocked;
    let who = assess::process(task);
    let of = match process.as_str() {
        "" => String::new(),
        name if name == task.comm => String::new(),
        name => format!(" of {name}"),
    };
    let role = role(needed);
    let step = STEPS.iter().find(|(least, _)| *least <= blocked.blocked);
    let long = step.map_or("a while", |(_, text)| text);
    let on = match wait {
        Wait::Remote(what) => format!(" on {what} (remote)"),
        Wait::Local(what) => format!(" on {what}"),
        Wait::Own | Wait::Unclear => String::new(),
    };
    let stack = match &blocked.stack {
        Ok(frames) => {
            let shown = frames[..frames.len().min(SHOWN_FRAMES)].join(" < ");
            text::bounded(&shown, LONGEST_STACK)
        }
        Err(why) => format!("unknown: {why}"),
    };
    format!("{who}{of}{role} has been blocked{on} for more than {long} (kernel stack: {stack})")
}

pub(super) fn role(needed: bool) -> &'static str {
    if needed {
        ", which the node needs,"
    } else {
        ""
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
