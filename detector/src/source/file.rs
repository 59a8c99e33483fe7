//! Log files that rules of the configuration look at, followed by a thread of their own: a read from
//! a dying disk takes for ever.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tracing::warn;

use super::Source;
use super::bell::{event, ring, silence};
use crate::rules::LogRules;
use crate::signal::{Signal, SourceName};

mod follow;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lines;
mod place;
mod tail;

use self::follow::Follower;
use self::place::Place;

pub(crate) struct FileSource {
    seen: Receiver<Seen>,
    wake: Arc<OwnedFd>,
    orders: Sender<Orders>,
    nudge: Arc<OwnedFd>,
    /// Handed to the thread with the next drain: by then it is known what the agent before left.
    new_rules: Option<Arc<LogRules>>,
    /// What the agent before this one left.
    left: BTreeMap<String, Place>,
    /// By path: how far the signals reach that have been handed over.
    places: BTreeMap<String, Place>,
}

/// What the thread is told.
struct Orders {
    rules: Arc<LogRules>,
    left: BTreeMap<String, Place>,
}

/// What the thread tells: a signal, and where to go on in its file once it is handed over.
struct Seen {
    signal: Option<Signal>,
    place: Option<Place>,
}

/// Signals that wait for the reader; beyond that the lines wait in their files.
const QUEUE: usize = 1024;
/// Handed over before the other sources have their turn.
const BATCH: usize = 64;

impl FileSource {
    /// `root`: where the host's root is, seen from here. The thread is never waited for.
    pub(crate) fn start(root: PathBuf) -> anyhow::Result<Self> {
        let (queue, seen) = mpsc::sync_channel(QUEUE);
        let (orders, for_thread) = mpsc::channel();
        let (wake, nudge) = (Arc::new(event()?), Arc::new(event()?));
        let follower = Follower::new(
            root,
            for_thread,
            Arc::clone(&nudge),
            queue,
            Arc::clone(&wake),
        )?;
        thread::Builder::new()
            .name("log-files".to_owned())
            .spawn(move || follower.run())
            .context("start the thread for log files")?;
        Ok(Self {
            seen,
            wake,
            orders,
            nudge,
            new_rules: None,
            left: BTreeMap::new(),
            places: BTreeMap::new(),
        })
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
        if let Some(rules) = self.new_rules.take() {
            self.places
                .retain(|path, _| rules.files().contains(path.as_str()));
            let left = std::mem::take(&mut self.left);
            if self.orders.send(Orders { rules, left }).is_err() {
                warn!("the thread for log files has ended; no log file is watched");
            }
            ring(&self.nudge);
        }
        let mut count = 0;
        for Seen { signal, place } in self.seen.try_iter().take(BATCH) {
            if let Some(place) = place {
                self.places.insert(place.path.clone(), place);
            }
            if let Some(signal) = signal {
                emit(signal);
            }
            count += 1;
        }
        if count == BATCH {
            ring(&self.wake);
        }
        Ok(())
    }

    fn configure(&mut self, rules: &Arc<LogRules>) {
        self.new_rules = Some(Arc::clone(rules));
        ring(&self.wake);
    }

    fn positions(&self) -> BTreeMap<String, u64> {
        let places = self.places.values();
        places.map(|place| (place.name(), place.offset)).collect()
    }

    fn resume(&mut self, _since: Duration, positions: &BTreeMap<String, u64>) {
        self.left = Place::of_all(positions);
        self.places.clone_from(&self.left);
    }
}

#[cfg(test)]
mod tests;
