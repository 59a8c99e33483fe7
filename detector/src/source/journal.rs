//! The systemd journal, for rules of the configuration that look at units: its files are read as they
//! are, by a thread of their own, since a read from a dying disk takes for ever.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tracing::{error, warn};

use super::bell::{event, ring, silence};
use super::{Source, within};
use crate::clock;
use crate::rules::LogRules;
use crate::signal::{Signal, SourceName};

mod entry;
mod folder;
mod follow;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod index;
mod log;
mod payload;
mod place;

use self::follow::{Ends, Follower};
use self::place::Mark;

pub(crate) struct JournalSource {
    seen: Receiver<Seen>,
    wake: Arc<OwnedFd>,
    orders: Sender<Orders>,
    nudge: Arc<OwnedFd>,
    up: Arc<AtomicBool>,
    /// Handed to the thread with the next drain: by then it is known what the agent before left.
    new_rules: Option<Arc<LogRules>>,
    /// What the agent before this one left, and since when agents have been watching.
    left: Option<(Duration, Mark)>,
    /// How far the signals reach that have been handed over.
    mark: Option<Mark>,
    ended: bool,
}

/// What the thread is told.
struct Orders {
    rules: Arc<LogRules>,
    left: Option<(Duration, Mark)>,
}

/// What the thread tells: a signal, and where to go on once it is handed over.
struct Seen {
    signal: Option<Signal>,
    mark: Option<Mark>,
}

/// Signals that wait for the reader; beyond that the entries wait in their files.
const QUEUE: usize = 1024;
/// Handed over before the other sources have their turn.
const BATCH: usize = 64;
/// What is not found within this time stands on a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(2);

impl JournalSource {
    /// `root`: where the host's root is, seen from here. The thread is never waited for.
    pub(crate) fn start(root: &Path) -> anyhow::Result<Self> {
        let id = clock::boot_id()?;
        let boot = place::id(&id).with_context(|| format!("the boot id {id:?} is none"))?;
        let (queue, seen) = mpsc::sync_channel(QUEUE);
        let (orders, for_thread) = mpsc::channel();
        let (wake, nudge) = (Arc::new(event()?), Arc::new(event()?));
        let up = Arc::new(AtomicBool::new(true));
        let ends = Ends {
            orders: for_thread,
            nudge: Arc::clone(&nudge),
            queue,
            wake: Arc::clone(&wake),
            up: Arc::clone(&up),
        };
        let follower = Follower::new(within::root(root)?, boot, ends);
        // Dropped with the thread, whatever ends it: the reader then looks.
        let last = LastWord(Arc::clone(&wake));
        let work = move || {
            let _last = last;
            follower.run();
        };
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(work)
            .context("start the thread for the journal")?;
        Ok(Self {
            seen,
            wake,
            orders,
            nudge,
            up,
            new_rules: None,
            left: None,
            mark: None,
            ended: false,
        })
    }
}

/// The file that journald writes to, or why there is none.
pub(crate) fn find(root: PathBuf) -> Result<String, String> {
    let (sender, found) = mpsc::channel();
    let work = move || {
        let found = within::root(&root)
            .map_err(|error| format!("{error:#}"))
            .and_then(|root| {
                let found = folder::find(&root);
                let current = found.current().next();
                let current = current.map(|current| current.path.clone());
                current.ok_or(found.trouble.unwrap_or_default())
            });
        // Who asked may have given up.
        drop(sender.send(found));
    };
    thread::Builder::new()
        .name("find-journal".to_owned())
        .spawn(work)
        .map_err(|error| format!("start a thread: {error}"))?;
    found.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let seconds = PATIENCE.as_secs();
        Err(format!(
            "its files were not found within {seconds} s: does the disk hang?"
        ))
    })
}

struct LastWord(Arc<OwnedFd>);

impl Drop for LastWord {
    fn drop(&mut self) {
        ring(&self.0);
    }
}

impl Source for JournalSource {
    fn name(&self) -> SourceName {
        SourceName::Journal
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.wake.as_fd()]
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) && !self.ended
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        // Before the queue is looked at: what is added after that rings again.
        silence(&self.wake)?;
        if let Some(rules) = self.new_rules.take() {
            if rules.units().is_empty() {
                self.mark = None;
            }
            let left = self.left.take();
            if self.orders.send(Orders { rules, left }).is_err() {
                warn!("the thread for the journal has ended; the journal is not watched");
            }
            ring(&self.nudge);
        }
        for _ in 0..BATCH {
            match self.seen.try_recv() {
                Ok(Seen { signal, mark }) => {
                    self.mark = mark.or(self.mark);
                    if let Some(signal) = signal {
                        emit(signal);
                    }
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    // Nothing else is to suffer for it.
                    if !std::mem::replace(&mut self.ended, true) {
                        error!("the thread for the journal has ended; restart the agent");
                    }
                    return Ok(());
                }
            }
        }
        ring(&self.wake);
        Ok(())
    }

    fn configure(&mut self, rules: &Arc<LogRules>) {
        self.new_rules = Some(Arc::clone(rules));
        ring(&self.wake);
    }

    fn positions(&self) -> BTreeMap<String, u64> {
        self.mark.as_ref().map(Mark::save).unwrap_or_default()
    }

    fn resume(&mut self, since: Duration, positions: &BTreeMap<String, u64>) {
        self.mark = Mark::saved(positions);
        self.left = self.mark.map(|mark| (since, mark));
    }
}

#[cfg(test)]
pub(crate) mod tests;
