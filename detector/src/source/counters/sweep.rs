//! One reading of all checks, on a thread that may be given up: a check that hangs delays no other one,
//! and is told.

use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tracing::{debug, warn};

use super::files::{Files, Roots};
use super::{Counter, told};
use crate::clock;
use crate::reason::Reason;
use crate::signal::{Counted, Signal, What};

struct Check {
    counter: Box<dyn Counter>,
    /// Its files were there when it was asked last.
    there: bool,
}

/// What a worker has still to do, does, and has done.
#[derive(Default)]
struct Progress {
    waiting: VecDeque<Check>,
    current: Option<(&'static str, Duration)>,
    done: Vec<Check>,
    found: Vec<Signal>,
}

type Shared = Arc<Mutex<Progress>>;

struct Worker {
    orders: Sender<Shared>,
    ended: Receiver<()>,
}

/// A check that has not come back, with the thread that waits for it.
struct Hung {
    name: &'static str,
    since: Duration,
    progress: Shared,
}

pub(super) struct Sweeper {
    roots: Arc<Roots>,
    /// For one check.
    patience: Duration,
    checks: Vec<Check>,
    /// None after a check that hung, until the next one is needed.
    worker: Option<Worker>,
    hung: Vec<Hung>,
    /// Checks of which the own thread was told to hang.
    waiting: BTreeSet<&'static str>,
    round: u32,
}

/// A check's own thread may take as many times the patience with the check.
const OWN_THREAD: u32 = 3;

impl Sweeper {
    pub(super) fn start(
        roots: Roots,
        patience: Duration,
        counters: Vec<Box<dyn Counter>>,
    ) -> anyhow::Result<Self> {
        let roots = Arc::new(roots);
        let check = |counter| Check {
            counter,
            there: false,
        };
        Ok(Self {
            worker: Some(Worker::start(Arc::clone(&roots))?),
            roots,
            patience,
            checks: counters.into_iter().map(check).collect(),
            hung: Vec::new(),
            waiting: BTreeSet::new(),
            round: 0,
        })
    }

    /// Those that came back from the last reading.
    pub(super) fn checks(&self) -> impl Iterator<Item = (&dyn Counter, bool)> {
        let checks = self.checks.iter();
        checks.map(|check| (check.counter.as_ref(), check.there))
    }

    pub(super) fn counters(&mut self) -> impl Iterator<Item = &mut Box<dyn Counter>> {
        self.checks.iter_mut().map(|check| &mut check.counter)
    }

    pub(super) fn hung(&self) -> impl Iterator<Item = &'static str> {
        self.hung.iter().map(|hung| hung.name)
    }

    /// Of those that are due in this round.
    pub(super) fn sweep(&mut self) -> Vec<Signal> {
        let mut found = self.look_after_hung();
        let round = self.round;
        self.round = round.wrapping_add(1);
        let (due, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.checks)
            .into_iter()
            .partition(|check| round.is_multiple_of(check.counter.every().max(1)));
        self.checks = others;
        let mut waiting = VecDeque::from(due);
        while !waiting.is_empty() {
            let progress = Arc::new(Mutex::new(Progress {
                waiting,
                ..Progress::default()
            }));
            if self.worker.is_none() {
                let worker = Worker::start(Arc::clone(&self.roots));
                self.worker = worker
                    .inspect_err(|error| warn!(error = format!("{error:#}"), "no reading"))
                    .ok();
            }
            let orders = self.worker.as_ref().map(|worker| &worker.orders);
            if orders.is_none_or(|orders| orders.send(Arc::clone(&progress)).is_err()) {
                // In the next round again.
                self.worker = None;
                self.checks.extend(lock(&progress).waiting.drain(..));
                break;
            }
            waiting = self.wait_for(&progress, &mut found);
        }
        found.extend(self.look_after_own_threads());
        found
    }

    fn look_after_own_threads(&mut self) -> Vec<Signal> {
        let (now, patience) = (clock::boot(), self.patience * OWN_THREAD);
        let mut found = Vec::new();
        for check in &self.checks {
            let name = check.counter.name();
            let since = check.counter.waits_since();
            let late = since.filter(|since| now.saturating_sub(*since) >= patience);
            if let Some(since) = late {
                self.waiting.insert(name);
                found.push(hangs(name, since, Counted::Still));
            } else if self.waiting.remove(name) {
                found.push(hangs(name, now, Counted::Over));
            }
        }
        found
    }

    /// Returns what is left to do after a check that hangs.
    fn wait_for(&mut self, progress: &Shared, found: &mut Vec<Signal>) -> VecDeque<Check> {
        loop {
            let Some(worker) = &self.worker else {
                return VecDeque::new();
            };
            let ended = worker.ended.recv_timeout(self.patience);
            let mut now = lock(progress);
            let is_late = |since| clock::boot().saturating_sub(since) >= self.patience;
            let late = match ended {
                Ok(()) => None,
                Err(RecvTimeoutError::Timeout) => {
                    let late = now.current.filter(|(_, since)| is_late(*since));
                    if late.is_none() {
                        continue;
                    }
                    late
                }
                // Its thread has panicked.
                Err(RecvTimeoutError::Disconnected) => now.current,
            };
            self.checks.append(&mut now.done);
            found.append(&mut now.found);
            let Some((name, since)) = late else {
                return VecDeque::new();
            };
            let left = std::mem::take(&mut now.waiting);
            drop(now);
            warn!(check = name, "hangs; the others go on without it");
            let hung = Hung {
                name,
                since,
                progress: Arc::clone(progress),
            };
            found.push(hung.signal(Counted::Still));
            self.hung.push(hung);
            self.worker = None;
            return left;
        }
    }

    fn look_after_hung(&mut self) -> Vec<Signal> {
        let mut found = Vec::new();
        let (back, hang): (Vec<_>, Vec<_>) = std::mem::take(&mut self.hung)
            .into_iter()
            .partition(|hung| lock(&hung.progress).current.is_none());
        for hung in back {
            let mut progress = lock(&hung.progress);
            self.checks.append(&mut progress.done);
            found.append(&mut progress.found);
            found.push(hung.signal(Counted::Over));
        }
        found.extend(hang.iter().map(|hung| hung.signal(Counted::Still)));
        self.hung = hang;
        found
    }
}

impl Hung {
    fn signal(&self, counted: Counted) -> Signal {
        hangs(self.name, self.since, counted)
    }
}

fn hangs(name: &str, since: Duration, counted: Counted) -> Signal {
    let at = clock::boot();
    let message = match counted {
        Counted::Over => format!("check {name} works again"),
        Counted::Still | Counted::Times(_) => {
            let seconds = at.saturating_sub(since).as_secs();
            format!("check {name} has not come back for {seconds} s")
        }
    };
    let fault = told::fault(Reason::CheckHung, name, message);
    Signal {
        at,
        historic: false,
        what: What::Counted { fault, counted },
    }
}

impl Worker {
    fn start(roots: Arc<Roots>) -> anyhow::Result<Self> {
        let (orders, asked) = mpsc::channel::<Shared>();
        let (tell, ended) = mpsc::channel();
        let work = move || {
            while let Ok(progress) = asked.recv() {
                while next(&roots, &progress) {}
                if tell.send(()).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("checks".to_owned())
            .spawn(work)
            .context("start the thread that reads counters")?;
        Ok(Self { orders, ended })
    }
}

/// Files are held only for the check that wants them. False when nothing is left.
fn next(roots: &Roots, progress: &Shared) -> bool {
    let mut now = lock(progress);
    let Some(mut check) = now.waiting.pop_front() else {
        return false;
    };
    now.current = Some((check.counter.name(), clock::boot()));
    drop(now);
    let before = clock::own_cpu();
    let files = Files::read(roots, check.counter.wants());
    check.there = files.any();
    let at = clock::boot();
    let found = check.counter.look(&files, at);
    drop(files);
    let cpu = clock::own_cpu().saturating_sub(before);
    let cpu_us = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
    debug!(check = check.counter.name(), cpu_us, "looked");
    let found = found.into_iter();
    let found = found.map(|what| Signal {
        at,
        historic: false,
        what,
    });
    let mut now = lock(progress);
    now.found.extend(found);
    now.current = None;
    now.done.push(check);
    true
}

/// A thread that panicked with it has left it whole: it is changed in one step.
fn lock(progress: &Shared) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Fake {
        name: &'static str,
        every: u32,
        looks: Arc<AtomicU32>,
        /// Waits for a word before it answers.
        hangs: Option<Receiver<()>>,
    }

    impl Counter for Fake {
        fn name(&self) -> &'static str {
            self.name
        }

        fn wants(&self) -> &'static [&'static str] {
            &["proc/x"]
        }

        fn every(&self) -> u32 {
            self.every
        }

        fn look(&mut self, _files: &Files, _at: Duration) -> Vec<What> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            if let Some(hangs) = &self.hangs {
                hangs.recv().unwrap();
            }
            let fault = told::fault(Reason::NetworkSysctl, self.name, "m".to_owned());
            vec![told::still(fault)]
        }
    }

    fn told(found: Vec<Signal>) -> Vec<(Reason, String, Counted)> {
        let found = found.into_iter().map(|signal| match signal.what {
            What::Counted { fault, counted } => (fault.reason, fault.entity, counted),
            other => panic!("{other:?}"),
        });
        found.collect()
    }

    fn sweeper(fakes: Vec<Fake>) -> Sweeper {
        let boxed = |fake| Box::new(fake) as Box<dyn Counter>;
        let counters = fakes.into_iter().map(boxed).collect();
        let roots = Roots::find(Path::new("/nonexistent"), Path::new("/nonexistent"));
        Sweeper::start(roots, Duration::from_millis(200), counters).unwrap()
    }

    #[test]
    fn a_check_that_hangs_is_told_until_it_comes_back_and_delays_no_other() {
        let looks: [Arc<AtomicU32>; 3] = Default::default();
        let (release, hangs) = mpsc::channel();
        let fake = |index: usize, name, hangs| Fake {
            name,
            every: 1,
            looks: Arc::clone(&looks[index]),
            hangs,
        };
        let mut sweeper = sweeper(vec![
            fake(0, "before", None),
            fake(1, "hangs", Some(hangs)),
            fake(2, "after", None),
        ]);
        let well = |name: &str| (Reason::NetworkSysctl, name.to_owned(), Counted::Still);
        let hung = |counted| (Reason::CheckHung, "hangs".to_owned(), counted);
        for round in 1..=3 {
            let mut found = told(sweeper.sweep());
            found.sort_by_key(|(_, name, _)| name.clone());
            let expected = [well("after"), well("before"), hung(Counted::Still)];
            assert_eq!(found, expected);
            assert_eq!(sweeper.hung().collect::<Vec<_>>(), ["hangs"]);
            let counts = looks.each_ref().map(|looks| looks.load(Ordering::Relaxed));
            assert_eq!(
                counts,
                [round, 1, round],
                "the one that hangs is not asked again"
            );
        }
        release.send(()).unwrap();
        release.send(()).unwrap();
        let deadline = clock::boot() + Duration::from_secs(10);
        while lock(&sweeper.hung[0].progress).current.is_some() {
            assert!(clock::boot() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
        let found = told(sweeper.sweep());
        assert!(found.contains(&hung(Counted::Over)), "{found:?}");
        assert_eq!(looks[1].load(Ordering::Relaxed), 2, "it is asked again");
        assert_eq!(sweeper.hung().count(), 0);
    }

    /// Its thread has been asked and does not answer until it is told to.
    struct Waits(Arc<Mutex<Option<Duration>>>);

    impl Counter for Waits {
        fn name(&self) -> &'static str {
            "waits"
        }

        fn wants(&self) -> &'static [&'static str] {
            &["proc/x"]
        }

        fn look(&mut self, _files: &Files, _at: Duration) -> Vec<What> {
            Vec::new()
        }

        fn waits_since(&self) -> Option<Duration> {
            *self.0.lock().unwrap()
        }
    }

    #[test]
    fn a_check_whose_own_thread_never_answers_is_told_until_it_does() {
        let since = Arc::new(Mutex::new(None));
        let roots = Roots::find(Path::new("/nonexistent"), Path::new("/nonexistent"));
        let waits: Box<dyn Counter> = Box::new(Waits(Arc::clone(&since)));
        let patience = Duration::from_secs(1);
        let mut sweeper = Sweeper::start(roots, patience, vec![waits]).unwrap();
        let hung = |counted| vec![(Reason::CheckHung, "waits".to_owned(), counted)];
        assert_eq!(told(sweeper.sweep()), []);
        let now = clock::boot();
        *since.lock().unwrap() = Some(now);
        assert_eq!(told(sweeper.sweep()), [], "not for long enough");
        *since.lock().unwrap() = Some(now.saturating_sub(patience * OWN_THREAD));
        for _ in 0..2 {
            assert_eq!(told(sweeper.sweep()), hung(Counted::Still));
        }
        *since.lock().unwrap() = None;
        assert_eq!(told(sweeper.sweep()), hung(Counted::Over));
        assert_eq!(told(sweeper.sweep()), []);
    }

    #[test]
    fn a_check_looks_in_its_own_rounds() {
        let looks: [Arc<AtomicU32>; 2] = Default::default();
        let fake = |index: usize, every| Fake {
            name: "x",
            every,
            looks: Arc::clone(&looks[index]),
            hangs: None,
        };
        let mut sweeper = sweeper(vec![fake(0, 1), fake(1, 10)]);
        for _ in 0..21 {
            sweeper.sweep();
        }
        let counts = looks.each_ref().map(|looks| looks.load(Ordering::Relaxed));
        assert_eq!(counts, [21, 3]);
    }
}
