//! Log files that rules of the configuration look at, followed by a thread of their own: a read from
//! a dying disk takes for ever.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::Context;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use tracing::warn;

use super::Source;
use crate::rules::LogRules;
use crate::signal::{Signal, SourceName};

mod follow;
mod lines;
mod tail;

use self::follow::Follower;

pub(crate) struct FileSource {
    signals: Receiver<Signal>,
    wake: Arc<OwnedFd>,
    rules: Sender<Arc<LogRules>>,
    nudge: Arc<OwnedFd>,
}

/// Signals that wait for the reader; beyond that the lines wait in their files.
const QUEUE: usize = 1024;
/// Handed over before the other sources have their turn.
const BATCH: usize = 64;

impl FileSource {
    /// `root`: where the host's root is, seen from here. The thread is never waited for.
    pub(crate) fn start(root: PathBuf) -> anyhow::Result<Self> {
        let (queue, signals) = mpsc::sync_channel(QUEUE);
        let (rules, new_rules) = mpsc::channel();
        let (wake, nudge) = (Arc::new(event()?), Arc::new(event()?));
        let follower = Follower::new(
            root,
            new_rules,
            Arc::clone(&nudge),
            queue,
            Arc::clone(&wake),
        )?;
        thread::Builder::new()
            .name("log-files".to_owned())
            .spawn(move || follower.run())
            .context("start the thread for log files")?;
        Ok(Self {
            signals,
            wake,
            rules,
            nudge,
        })
    }
}

fn event() -> anyhow::Result<OwnedFd> {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).context("make an eventfd")
}

/// Makes the descriptor readable. EAGAIN: it is already.
fn ring(event: &OwnedFd) {
    if let Err(error) = rustix::io::write(event, &1u64.to_ne_bytes())
        && error != Errno::AGAIN
    {
        warn!(%error, "an eventfd could not be written");
    }
}

/// Takes what [`ring`] wrote.
fn silence(event: &OwnedFd) -> anyhow::Result<()> {
    let mut counter = [0; 8];
    match rustix::io::read(event, &mut counter) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error).context("read an eventfd"),
    }
}

impl Source for FileSource {
    fn name(&self) -> SourceName {
        SourceName::File
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.wake.as_fd()]
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        // Before the queue is looked at: what is added after that rings again.
        silence(&self.wake)?;
        let mut count = 0;
        for signal in self.signals.try_iter().take(BATCH) {
            emit(signal);
            count += 1;
        }
        if count == BATCH {
            ring(&self.wake);
        }
        Ok(())
    }

    fn configure(&mut self, rules: &Arc<LogRules>) {
        if self.rules.send(Arc::clone(rules)).is_err() {
            warn!("the thread for log files has ended; no log file is watched");
        }
        ring(&self.nudge);
    }
}

#[cfg(test)]
mod tests;
