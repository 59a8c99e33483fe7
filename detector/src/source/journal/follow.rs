//! The thread that follows the journal: through rotation, from /run to /var, and from before there is
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tracing::{info, warn};

use super::folder::{self, Found, FoundFile};
use super::format::Id;
use super::log::{self, Log, Now};
use super::place::{Mark, Place};
use super::{Orders, Seen};
use crate::clock;
use crate::reason::Reason;
use crate::rules::{LogRules, Origin};
use crate::signal::{Signal, SourceName, What};
use crate::source::bell::{ring, silence};
use crate::source::within;

/// What joins the thread to its source.
pub(super) struct Ends {
    pub(super) orders: Receiver<Orders>,
    pub(super) nudge: Arc<OwnedFd>,
    pub(super) queue: SyncSender<Seen>,
    pub(super) wake: Arc<OwnedFd>,
    /// Whether there is a journal to read, where one is asked for.
    pub(super) up: Arc<AtomicBool>,
}

pub(super) struct Follower {
    root: File,
    boot: Id,
    ends: Ends,
    rules: Arc<LogRules>,
    /// Those that rules look at; nothing is opened without one.
    units: BTreeSet<String>,
    files: Vec<Open>,
    /// Files that were read to their end and get no more.
    done: BTreeSet<Id>,
    place: Option<Place>,
    /// What the reader was told last.
    told: Option<Mark>,
    /// Lines from before the agent's start, or the first rule's, are history.
    since: Duration,
    /// By rules, whether they name a unit or not.
    asked: bool,
    /// What is there is not known yet.
    first: bool,
    /// Looks in a row that did not find what journald writes to.
    missed: u32,
    /// Absent where the host has no watch left: then everything is looked at every `RETRY`.
    inotify: Option<OwnedFd>,
    /// Why something cannot be read; said when it changes.
    trouble: Option<String>,
    /// It was said that not all can be read.
    unread: bool,
}

struct Open {
    path: String,
    current: bool,
    log: Log<File>,
}

/// Nothing tells when a whole directory appears.
const RETRY: Duration = Duration::from_secs(2);
/// Between the two halves of a rotation.
const ROTATION: Duration = Duration::from_millis(100);
/// A journal that is rotated that often while it is looked at is looked at again soon.
const MOST_LOOKS: usize = 5;
/// What is read of the time before anybody watched.
const HISTORY: u64 = 10_000;
/// Entries get younger while they are read.
const READING: Duration = Duration::from_secs(5);

/// The reader has gone.
struct Ended;

impl Follower {
    pub(super) fn new(root: File, boot: Id, ends: Ends) -> Self {
        Self {
            root,
            boot,
            ends,
            rules: Arc::default(),
            units: BTreeSet::new(),
            files: Vec::new(),
            done: BTreeSet::new(),
            place: None,
            told: None,
            since: clock::boot(),
            asked: false,
            first: true,
            missed: 0,
            inotify: None,
            trouble: None,
            unread: false,
        }
    }

    /// Until the reader has gone.
    pub(super) fn run(mut self) {
        let mut more = false;
        loop {
            let mut look = match self.wait(more) {
                Ok(changed) => changed,
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "the journal is looked at every {} s only",
                        RETRY.as_secs()
                    );
                    self.inotify = None;
                    true
                }
            };
            while let Ok(orders) = self.ends.orders.try_recv() {
                self.take(orders);
                look = true;
            }
            if look && self.look().is_err() {
                return;
            }
            match self.read() {
                Ok(rest) => more = rest,
                Err(Ended) => return,
            }
        }
    }

    /// True when something other than an append may have happened.
    fn wait(&self, more: bool) -> anyhow::Result<bool> {
        let timeout = match (more, self.missed) {
            (true, _) => Some(Duration::ZERO),
            _ if self.units.is_empty() => None,
            (_, 1) => Some(ROTATION),
            (_, 0) if self.inotify.is_some() => None,
            _ => Some(RETRY),
        };
        let timeout = timeout
            .map(Timespec::try_from)
            .transpose()
            .context("compute the time to sleep")?;
        let mut fds = vec![PollFd::from_borrowed_fd(
            self.ends.nudge.as_fd(),
            PollFlags::IN,
        )];
        let inotify = self.inotify.iter();
        fds.extend(inotify.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
        let ready = match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error).context("wait for the journal"),
        };
        silence(&self.ends.nudge)?;
        let changed = self.inotify.as_ref().is_some_and(changed);
        Ok(changed || (ready == 0 && !more))
    }

    fn take(&mut self, Orders { rules, left }: Orders) {
        if self.asked && self.units.is_empty() {
            self.since = clock::boot();
        }
        self.asked = true;
        self.units = rules.units().into_iter().map(str::to_owned).collect();
        self.rules = rules;
        if let Some((since, mark)) = left {
            self.since = since;
            self.place = Some(Place::left(mark));
        }
        // With its watches on what nobody asks for any more.
        self.inotify = None;
        if self.units.is_empty() {
            self.files.clear();
            self.done.clear();
            (self.place, self.told, self.trouble) = (None, None, None);
            (self.first, self.missed) = (true, 0);
            self.report(true);
            return;
        }
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        match inotify::init(flags) {
            Ok(inotify) => self.inotify = Some(inotify),
            Err(error) => warn!(%error, "no inotify; the journal is looked at every 2 s"),
        }
    }

    fn report(&self, up: bool) {
        self.ends.up.store(up, Ordering::Relaxed);
        ring(&self.ends.wake);
    }

    /// Opens what is new.
    fn look(&mut self) -> Result<(), Ended> {
        if self.units.is_empty() {
            return Ok(());
        }
        let found = self.find();
        let current = ids(&found);
        let there: BTreeSet<Id> = found.files.iter().map(FoundFile::id).collect();
        if self.first && !current.is_empty() {
            self.first = false;
            self.count_deleted(&found)?;
        }
        self.missed = if current.is_empty() || found.unfinished {
            self.missed.saturating_add(1)
        } else {
            0
        };
        if self.missed != 1 || self.first {
            self.tell(!current.is_empty(), &found);
        }
        for open in &mut self.files {
            // It may have been empty.
            open.log.refresh();
            open.current = current.contains(&open.log.header().file);
        }
        self.done.retain(|id| there.contains(id));
        for FoundFile { path, current, log } in found.files {
            let id = log.header().file;
            let known = |open: &Open| open.log.header().file == id;
            if !self.done.contains(&id) && !self.files.iter().any(known) {
                self.files.push(Open { path, current, log });
            }
        }
        self.order();
        if self.place.is_none() {
            self.go_back();
        }
        Ok(())
    }

    /// The watches first: what happens after them is told. Until nothing new was found to be watched.
    fn find(&self) -> Found {
        let Some(inotify) = &self.inotify else {
            return folder::find(&self.root);
        };
        let watch = |found: &Found| {
            let names = WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::DELETE
                | WatchFlags::ONLYDIR;
            let folders = found.folders.iter().map(|folder| (folder, names));
            // What journald maps it also tells: `ftruncate` to the same length, four times a second.
            let current = found.current();
            let current = current.map(|file| (file.log.bytes(), WatchFlags::MODIFY));
            for (file, flags) in folders.chain(current) {
                if let Err(error) = inotify::add_watch(inotify, within::own_path(file), flags) {
                    warn!(%error, "changes of the journal are not told");
                }
            }
        };
        let mut found = folder::find(&self.root);
        for _ in 0..MOST_LOOKS {
            watch(&found);
            let before = (found.folders.len(), ids(&found));
            found = folder::find(&self.root);
            if before == (found.folders.len(), ids(&found)) {
                break;
            }
        }
        found
    }

    fn tell(&mut self, up: bool, found: &Found) {
        if self.trouble != found.trouble || self.ends.up.load(Ordering::Relaxed) != up {
            match (&found.trouble, found.current().next()) {
                (Some(trouble), None) => warn!(trouble, "journal not watched"),
                (Some(trouble), Some(_)) => warn!(trouble, "a part of the journal is not read"),
                (None, Some(current)) => info!(path = current.path, "journal watched"),
                (None, None) => {}
            }
            self.trouble.clone_from(&found.trouble);
        }
        self.report(up);
    }

    /// What was vacuumed while no agent was there.
    fn count_deleted(&self, found: &Found) -> Result<(), Ended> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        let headers = found.files.iter().map(|file| file.log.header());
        let firsts = headers.map(|header| (header.series, header.first_seqnum));
        let count = place.mark.lost(firsts);
        if count > 0 {
            warn!(
                count,
                "entries of the journal were deleted before they were read"
            );
            self.lose(count)?;
        }
        Ok(())
    }

    /// Oldest first: what is read of a newer one hides what was not of an older. Wall clocks are set;
    /// within a series numbers go forward.
    fn order(&mut self) {
        // An empty file has no first entry yet: it begins after all others.
        let begin = |first: u64| first.wrapping_sub(1);
        let mut begins: BTreeMap<Id, u64> = BTreeMap::new();
        for open in &self.files {
            let header = open.log.header();
            let first = begins.entry(header.series).or_insert(u64::MAX);
            *first = begin(header.first_realtime).min(*first);
        }
        self.files.sort_by_key(|open| {
            let header = open.log.header();
            (
                begins.get(&header.series).copied(),
                header.series,
                open.current,
                begin(header.first_seqnum),
            )
        });
    }

    /// To where reading begins when nothing has been read.
    fn go_back(&mut self) {
        let mut left = HISTORY;
        for open in self.files.iter_mut().rev() {
            left -= open.log.go_back(self.boot, left).min(left);
        }
    }

    /// What was appended; true when there is more.
    fn read(&mut self) -> Result<bool, Ended> {
        let now = self.now();
        let (mut seen, mut more) = (Vec::new(), false);
        let mut unread = None;
        let Self {
            files,
            place,
            units,
            done,
            ..
        } = self;
        files.retain_mut(|open| {
            // What the files after it have is newer.
            if more {
                return true;
            }
            let wanted = |unit: &str| units.contains(unit);
            let mut say = |why: &dyn Display| {
                unread.get_or_insert_with(|| format!("{}: {why}", open.path));
            };
            let read = open.log.read(now, place, wanted, &mut |found| {
                match &found {
                    log::Seen::Line { line, .. } => line.lost.iter().for_each(|lost| say(lost)),
                    log::Seen::Lost { why, .. } => say(why),
                }
                seen.push(found);
            });
            match read {
                Ok(rest) => more = rest,
                Err(why) => say(&why),
            }
            let ended = !more && !open.current;
            if ended {
                done.insert(open.log.header().file);
            }
            !ended
        });
        if let Some(why) = unread
            && !std::mem::replace(&mut self.unread, true)
        {
            let counted = Reason::SignalsLost.name();
            warn!(
                why,
                "not all of the journal can be read; {counted} has the number"
            );
        }
        for found in seen {
            self.hand_on(found)?;
        }
        self.tell_place()?;
        Ok(more)
    }

    fn now(&self) -> Now {
        let monotonic = clock::boot().saturating_sub(clock::suspended()) + READING;
        Now {
            boot: self.boot,
            monotonic: u64::try_from(monotonic.as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn hand_on(&mut self, found: log::Seen) -> Result<(), Ended> {
        let (line, monotonic, mark) = match found {
            log::Seen::Line {
                line,
                monotonic,
                mark,
            } => (line, monotonic, mark),
            log::Seen::Lost { count, .. } => return self.lose(count),
        };
        let at = Duration::from_micros(monotonic).saturating_add(clock::suspended());
        let mut signals: Vec<Signal> = Vec::new();
        for unit in line.units {
            let what = self.rules.read(&Origin::Journal { unit }, &line.message);
            signals.extend(what.into_iter().map(|what| Signal {
                at,
                historic: at < self.since,
                what,
            }));
        }
        // The entry is done with the last that it means.
        let last = signals.pop();
        for signal in signals {
            self.send(signal, None)?;
        }
        if let Some(last) = last {
            self.told = Some(mark);
            self.send(last, Some(mark))?;
        }
        if line.lost.is_some() {
            self.lose(1)?;
        }
        Ok(())
    }

    fn lose(&self, count: u64) -> Result<(), Ended> {
        let lost = Signal {
            at: clock::boot(),
            historic: false,
            what: What::Lost {
                source: SourceName::Journal,
                count,
            },
        };
        self.send(lost, None)
    }

    /// Waits where the reader is behind: the entries are safe in their files.
    fn send(&self, signal: Signal, mark: Option<Mark>) -> Result<(), Ended> {
        let signal = Some(signal);
        // A queue that is full must not sleep on a reader that sleeps.
        ring(&self.ends.wake);
        let sent = self.ends.queue.send(Seen { signal, mark });
        sent.map_err(|_| Ended)?;
        ring(&self.ends.wake);
        Ok(())
    }

    /// Nobody is woken for entries that mean nothing. Where there is no room the mark before stands: to
    /// read such entries again does no harm.
    fn tell_place(&mut self) -> Result<(), Ended> {
        let mark = self.place.as_ref().map(|place| place.mark);
        if mark == self.told {
            return Ok(());
        }
        let signal = None;
        match self.ends.queue.try_send(Seen { signal, mark }) {
            Ok(()) => self.told = mark,
            Err(TrySendError::Full(_)) => ring(&self.ends.wake),
            Err(TrySendError::Disconnected(_)) => return Err(Ended),
        }
        Ok(())
    }
}

fn ids(found: &Found) -> BTreeSet<Id> {
    found.current().map(FoundFile::id).collect()
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
