//! Tasks that do not run any more, found by looking at all of them from time to time, on a thread of
//! its own: khungtaskd is slower, passes over killable sleepers, and can be turned off.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tracing::{debug, warn};

use self::continuity::{Continuity, Id};
use self::symbols::Symbols;
use super::Source;
use super::bell::{event, ring, silence};
use super::bpf::tasks::{Sleeper, Tasks};
use crate::clock;
use crate::core::UNNAMED;
use crate::reason::Reason;
use crate::signal::{BlockedTask, Counted, LogFault, Signal, SourceName, What};

mod continuity;
mod symbols;

#[cfg(any(test, fuzzing))]
pub(crate) use symbols::fuzz;

pub(crate) struct BlockedSource {
    signals: Receiver<Signal>,
    wake: Arc<OwnedFd>,
    /// The thread ends when nobody can ask it to any more.
    _alive: Sender<()>,
}

impl BlockedSource {
    pub(crate) fn start(tasks: Tasks, interval: Duration) -> anyhow::Result<Self> {
        let (queue, signals) = mpsc::channel();
        let (alive, ended) = mpsc::channel();
        let wake = Arc::new(event()?);
        let mut watch = Watch {
            tasks,
            continuity: Continuity::new(interval),
            symbols: Symbols::default(),
            left_out: 0,
            broken: false,
        };
        let waker = Arc::clone(&wake);
        thread::Builder::new()
            .name("tasks".to_owned())
            .spawn(move || {
                loop {
                    let blocked = watch.look();
                    if !blocked.is_empty() {
                        // When the reader is gone nobody wants to know.
                        for signal in blocked {
                            drop(queue.send(signal));
                        }
                        ring(&waker);
                    }
                    match ended.recv_timeout(interval) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })
            .context("start the thread that looks for blocked tasks")?;
        Ok(Self {
            signals,
            wake,
            _alive: alive,
        })
    }
}

impl Source for BlockedSource {
    fn name(&self) -> SourceName {
        SourceName::Bpf
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.wake.as_fd()]
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        silence(&self.wake)?;
        self.signals.try_iter().for_each(emit);
        Ok(())
    }
}

struct Watch {
    tasks: Tasks,
    continuity: Continuity,
    symbols: Symbols,
    left_out: usize,
    /// The last scan failed, which has been said.
    broken: bool,
}

impl Watch {
    /// Those that have slept through since the last look, at each look again.
    fn look(&mut self) -> Vec<Signal> {
        let now = clock::boot();
        let continuity = &mut self.continuity;
        continuity.begin(now);
        let mut blocked = Vec::new();
        let scanned = self.tasks.scan(|sleeper| {
            let id = Id {
                pid: sleeper.task.pid,
                started: sleeper.started,
            };
            if let Some(duration) = continuity.see(id, sleeper.switches) {
                blocked.push((sleeper, duration));
            }
        });
        let left_out = continuity.end();
        let took = clock::boot().saturating_sub(now);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        debug!(took_us, blocked = blocked.len(), "looked at all tasks");
        let too_many = too_many(left_out, self.left_out).map(|what| Signal {
            at: now,
            historic: false,
            what,
        });
        self.left_out = left_out;
        // Half a scan tells the truth about the tasks in it.
        if let Err(error) = &scanned
            && !self.broken
        {
            let error = format!("{error:#}");
            warn!(error, "blocked tasks cannot be looked for");
        }
        self.broken = scanned.is_err();
        let mut signals = self.name(blocked, now);
        signals.extend(too_many);
        signals
    }

    fn name(&mut self, blocked: Vec<(Sleeper, Duration)>, now: Duration) -> Vec<Signal> {
        if blocked.is_empty() {
            self.symbols.forget();
            return Vec::new();
        }
        let addresses = blocked
            .iter()
            .flat_map(|(sleeper, _)| sleeper.stack.iter().flatten().copied());
        let found = self.symbols.find(addresses);
        let symbols = &self.symbols;
        let signal = |(sleeper, duration): (Sleeper, Duration)| Signal {
            at: now,
            historic: false,
            what: What::BlockedTask(BlockedTask {
                stack: match (sleeper.stack, &found) {
                    (Err(why), _) => Err(why),
                    (Ok(_), Err(why)) => Err(why.clone()),
                    (Ok(stack), Ok(())) => frames(symbols, &stack),
                },
                task: sleeper.task,
                process: sleeper.process,
                blocked: duration,
            }),
        };
        blocked.into_iter().map(signal).collect()
    }
}

/// Told when it becomes worse.
fn too_many(left_out: usize, before: usize) -> Option<What> {
    let more = u64::try_from(left_out.checked_sub(before)?).ok()?;
    let message = format!(
        "{left_out} more tasks are in uninterruptible sleep than can be watched: nobody knows whether they are blocked"
    );
    let fault = LogFault::new(Reason::SignalsLost, "blocked tasks".to_owned(), message);
    (more > 0).then_some(What::Counted {
        fault,
        counted: Counted::Times(more),
    })
}

fn frames(symbols: &Symbols, stack: &[u64]) -> Result<Vec<String>, String> {
    let frames: Vec<_> = stack
        .iter()
        .map(|&address| symbols.name(address).unwrap_or(UNNAMED).to_owned())
        .collect();
    if frames.iter().all(|frame| frame == UNNAMED) {
        return Err("its functions have no names".to_owned());
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sleepers_than_can_be_watched_are_told_as_they_become_more() {
        assert_eq!(too_many(0, 0), None);
        assert_eq!(too_many(7, 7), None);
        assert_eq!(too_many(3, 7), None);
        let Some(What::Counted { fault, counted }) = too_many(9, 7) else {
            panic!("nothing is told")
        };
        assert_eq!(counted, Counted::Times(2));
        assert!(fault.message.starts_with("9 more tasks"));
    }
}
