//! The thread that follows log files by name: through rotation by rename, truncation, and creation
//! after the agent's start.

use std::collections::BTreeMap;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tracing::{info, warn};

use super::place::Place;
use super::tail::{self, Read, Tail};
use super::{Orders, Seen};
use crate::clock;
use crate::rules::{LogRules, Origin};
use crate::signal::{Signal, SourceName, What};
use crate::source::bell::{ring, silence};
use crate::source::within;

pub(super) struct Follower {
    root: File,
    rules: Arc<LogRules>,
    orders: Receiver<Orders>,
    nudge: Arc<OwnedFd>,
    queue: SyncSender<Seen>,
    wake: Arc<OwnedFd>,
    files: BTreeMap<String, Followed>,
    /// Absent where the host has no watch left: then everything is looked at every `RETRY`.
    inotify: Option<OwnedFd>,
}

#[derive(Default)]
struct Followed {
    /// What the name leads to.
    current: Option<Tail>,
    /// What it led to before: a daemon writes to it until it is told to open its log again.
    previous: Option<Tail>,
    looked: bool,
    /// How far the agent before this one read.
    left: Option<Place>,
    /// How far this one has, since the reader was last told.
    told: Option<Place>,
    /// Why it cannot be read; said when it changes.
    trouble: Option<String>,
}

/// Nothing tells when a whole directory appears, or what a dangling link leads to.
const RETRY: Duration = Duration::from_secs(2);
/// The same for a file that nobody asked for, and most hosts do not have.
const RARELY: Duration = Duration::from_secs(30);

/// The reader has gone.
struct Ended;

impl Follower {
    pub(super) fn new(
        root: PathBuf,
        orders: Receiver<Orders>,
        nudge: Arc<OwnedFd>,
        queue: SyncSender<Seen>,
        wake: Arc<OwnedFd>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            root: within::root(&root)?,
            rules: Arc::default(),
            orders,
            nudge,
            queue,
            wake,
            files: BTreeMap::new(),
            inotify: None,
        })
    }

    /// Until the reader has gone.
    pub(super) fn run(mut self) {
        let mut more = false;
        loop {
            let names_changed = match self.wait(more) {
                Ok(changed) => changed,
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "log files are looked at every {} s only",
                        RETRY.as_secs()
                    );
                    self.inotify = None;
                    true
                }
            };
            let mut ordered = false;
            while let Ok(orders) = self.orders.try_recv() {
                self.take(orders);
                ordered = true;
            }
            if names_changed || ordered {
                self.look();
            }
            match self.read() {
                Ok(rest) => more = rest,
                Err(Ended) => return,
            }
        }
    }

    /// True when something other than an append may have happened.
    fn wait(&self, more: bool) -> anyhow::Result<bool> {
        let absent = |path: &str| {
            let followed = self.files.get(path);
            followed.is_some_and(|followed| followed.current.is_none())
        };
        let blind = self.inotify.is_none() && !self.files.is_empty();
        let timeout = if more {
            Some(Duration::ZERO)
        } else if blind || self.rules.asked_files().any(absent) {
            Some(RETRY)
        } else {
            self.files.keys().any(|path| absent(path)).then_some(RARELY)
        };
        let timeout = timeout
            .map(Timespec::try_from)
            .transpose()
            .context("compute the time to sleep")?;
        let mut fds = vec![PollFd::from_borrowed_fd(self.nudge.as_fd(), PollFlags::IN)];
        let inotify = self.inotify.iter();
        fds.extend(inotify.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
        let ready = match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error).context("wait for log files"),
        };
        silence(&self.nudge)?;
        let changed = self.inotify.as_ref().is_some_and(changed);
        Ok(changed || (ready == 0 && !more))
    }

    fn take(&mut self, Orders { rules, mut left }: Orders) {
        let mut before = std::mem::take(&mut self.files);
        self.files = rules
            .files()
            .into_iter()
            .map(|path| {
                let mut followed = before.remove(path).unwrap_or_default();
                followed.left = left.remove(path).or(followed.left);
                (path.to_owned(), followed)
            })
            .collect();
        self.rules = rules;
        // With its watches on what nobody asks for any more.
        self.inotify = None;
        if self.files.is_empty() {
            return;
        }
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        match inotify::init(flags) {
            Ok(inotify) => self.inotify = Some(inotify),
            Err(error) => warn!(%error, "no inotify; log files are looked at every 2 s"),
        }
    }

    /// Follows each name to what it leads to now.
    fn look(&mut self) {
        let Self {
            root,
            files,
            inotify,
            rules,
            ..
        } = self;
        let asked = |path: &str| rules.asked_files().any(|asked| asked == path);
        for (path, followed) in files {
            // The watch first: what happens after it is told.
            if let Some(inotify) = inotify
                && let Err(error) = watch_directory(inotify, root, path)
            {
                warn!(path, %error, "changes of the directory are not told");
            }
            let trouble = match followed.look(root, path) {
                Ok(true) => None,
                Ok(false) => Some("there is no such file yet".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            if followed.trouble != trouble {
                match &trouble {
                    Some(trouble) if !asked(path) => info!(path, trouble, "not on this host"),
                    Some(trouble) => warn!(path, trouble, "log file not watched"),
                    None => info!(path, "log file watched"),
                }
                followed.trouble = trouble;
            }
            let tails = followed.current.iter().chain(&followed.previous);
            for tail in tails {
                let Some(inotify) = inotify else { break };
                let flags = WatchFlags::MODIFY
                    | WatchFlags::ATTRIB
                    | WatchFlags::MOVE_SELF
                    | WatchFlags::DELETE_SELF;
                if let Err(error) = inotify::add_watch(&*inotify, tail.own_path(), flags) {
                    warn!(path, %error, "appended lines are not told");
                }
            }
        }
    }

    /// What was appended; true when there is more.
    fn read(&mut self) -> Result<bool, Ended> {
        let mut more = false;
        let (mut seen, mut cut) = (Vec::new(), 0);
        for (path, followed) in &mut self.files {
            let origin = Origin::File { path: path.clone() };
            let Followed {
                current,
                previous,
                told,
                ..
            } = followed;
            let last = current.as_ref().map(|tail| tail.identity);
            for slot in [previous, current] {
                let Some(tail) = slot else { continue };
                let identity = tail.identity;
                // Of what the name led to before, nothing is kept.
                let place = |offset| {
                    (last == Some(identity)).then(|| Place {
                        path: path.clone(),
                        identity,
                        offset,
                    })
                };
                let mut line = |line: &[u8], next: u64| {
                    let mut what = self.rules.read(&origin, line);
                    // The line is done with the last that it means.
                    let last = what.pop();
                    seen.extend(what.into_iter().map(|what| (what, None)));
                    seen.extend(last.map(|what| (what, place(next))));
                };
                match tail.read(&mut line) {
                    Ok(Read::More) => more = true,
                    Ok(Read::End) => {}
                    Ok(Read::Gone) => *slot = None,
                    Err(error) => {
                        warn!(path, %error, "log file not read");
                        *slot = None;
                        continue;
                    }
                }
                let Some(tail) = slot else { continue };
                cut += tail.take_cut();
                if let Some(place) = place(tail.place()) {
                    *told = Some(place);
                }
            }
        }
        if cut > 0 {
            let source = SourceName::File;
            seen.push((What::Lost { source, count: cut }, None));
        }
        for (what, place) in seen {
            let signal = Some(Signal {
                at: clock::boot(),
                historic: false,
                what,
            });
            self.hand_over(Seen { signal, place })?;
        }
        for followed in self.files.values_mut() {
            // Nobody is woken for lines that mean nothing. Where there is no room the place before
            // stands: to read such lines again does no harm.
            let signal = None;
            if let Some(place) = followed.told.take()
                && let Err(TrySendError::Disconnected(_)) = self.queue.try_send(Seen {
                    signal,
                    place: Some(place),
                })
            {
                return Err(Ended);
            }
        }
        Ok(more)
    }

    /// Waits where the reader is behind: the lines are safe in their files.
    fn hand_over(&self, seen: Seen) -> Result<(), Ended> {
        // A queue that is full must not sleep on a reader that sleeps.
        ring(&self.wake);
        self.queue.send(seen).map_err(|_| Ended)?;
        ring(&self.wake);
        Ok(())
    }
}

impl Followed {
    /// True when the name leads to a file.
    fn look(&mut self, root: &File, path: &str) -> std::io::Result<bool> {
        let first = !std::mem::replace(&mut self.looked, true);
        let Some(mut found) = Tail::open(root, path)? else {
            return Ok(false);
        };
        let identity = found.identity;
        let same = |tail: &Tail| tail.identity == identity;
        if self.current.as_ref().is_some_and(same) {
            return Ok(true);
        }
        match self.left.take() {
            // A file that has become shorter is read from its beginning, by the next read.
            Some(left) if left.identity == identity => found.go_on_at(left.offset),
            // Created while no agent was there.
            Some(_) => {}
            None if first => found.skip_to_end()?,
            None => {}
        }
        // Renamed to and fro: not read a second time.
        let back = self.previous.take_if(|tail| same(tail));
        let before = self.current.replace(back.unwrap_or(found));
        if before.is_some() {
            self.previous = before;
        }
        Ok(true)
    }
}

fn watch_directory(inotify: &OwnedFd, root: &File, path: &str) -> std::io::Result<()> {
    let Some(directory) = tail::directory(root, path)? else {
        return Ok(());
    };
    let flags = WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::ONLYDIR;
    inotify::add_watch(inotify, within::own_path(&directory), flags)?;
    Ok(())
}

/// Takes all events; true when one of them is more than an append.
fn changed(inotify: &OwnedFd) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(inotify, &mut buffer);
    let mut changed = false;
    while let Ok(event) = events.next() {
        changed |= event.events() != ReadFlags::MODIFY;
    }
    changed
}
