//! Real files of a test's own journald: rotation, the move from /run to /var, restarts, damage.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

use super::*;
use crate::reason::ConditionType;
use crate::rules::{LogRule, Origin};
use crate::signal::What;

mod files;
pub(crate) mod writer;

use self::writer::{When, Writer};

const MACHINE: &str = "00112233445566778899aabbccddeeff";
const DISK: &str = "/var/log/journal/00112233445566778899aabbccddeeff";
const MEMORY: &str = "/run/log/journal/00112233445566778899aabbccddeeff";

/// The "host" with its journald, and an agent.
struct Host {
    root: TempDir,
    journald: Option<Writer>,
    folder: &'static str,
    /// Of files, so that each has another one.
    files: u8,
    series: u8,
    source: JournalSource,
    early: Vec<Signal>,
}

impl Host {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/machine-id"), format!("{MACHINE}\n")).unwrap();
        let source = JournalSource::start(root.path()).unwrap();
        Self {
            root,
            journald: None,
            folder: DISK,
            files: 0,
            series: 100,
            source,
            early: Vec::new(),
        }
    }

    /// With a journal that is followed.
    fn watched() -> Self {
        let mut host = Self::new();
        host.start_journald();
        host.follow(&["kubelet.service"]);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        let folder = self.folder.trim_start_matches('/');
        self.root.path().join(folder).join(name)
    }

    fn start_journald(&mut self) {
        self.files += 1;
        let seqnum = self.journald.as_ref().map_or(0, |journald| journald.seqnum);
        let folder = self.path("");
        fs::create_dir_all(folder).unwrap();
        let flags = if self.files.is_multiple_of(2) {
            writer::PLAIN
        } else {
            writer::COMPACT
        };
        let (file, series) = ([self.files; 16], [self.series; 16]);
        let path = self.path("system.journal");
        self.journald = Some(Writer::create(&path, file, series, flags, seqnum).unwrap());
    }

    fn log_at(&mut self, at: Duration, unit: &str, message: &str) {
        let monotonic = u64::try_from(at.as_micros()).unwrap();
        let when = When {
            monotonic,
            realtime: 1_700_000_000_000_000 + monotonic,
            boot: place::id(&clock::boot_id().unwrap()).unwrap(),
        };
        let (unit, message) = (
            format!("_SYSTEMD_UNIT={unit}"),
            format!("MESSAGE={message}"),
        );
        let fields: &[&[u8]] = &[b"_PID=7", unit.as_bytes(), message.as_bytes()];
        self.journald
            .as_mut()
            .unwrap()
            .append(when, fields)
            .unwrap();
    }

    fn log(&mut self, message: &str) {
        self.log_at(monotonic(), "kubelet.service", message);
    }

    /// Returns the old one's name.
    fn rotate(&mut self) -> PathBuf {
        let archive = self.path(&format!("system@{:02}.journal", self.files));
        fs::rename(self.path("system.journal"), &archive).unwrap();
        let journald = self.journald.take().unwrap();
        let seqnum = journald.seqnum;
        journald.archive().unwrap();
        self.start_journald();
        self.journald.as_mut().unwrap().seqnum = seqnum;
        archive
    }

    fn follow(&mut self, units: &[&str]) {
        let rule = |unit: &&str| LogRule {
            name: format!("rule-{unit}"),
            origin: Origin::Journal {
                unit: (*unit).to_owned(),
            },
            pattern: "broken".to_owned(),
            reason: "ThingBroken",
            condition: ConditionType::ContainerRuntimeReady,
        };
        let rules = LogRules::new(units.iter().map(rule).collect()).unwrap();
        self.source.configure(&Arc::new(rules));
        self.drain();
        // The thread has looked.
        thread::sleep(Duration::from_millis(200));
    }

    fn drain(&mut self) {
        let Self { source, early, .. } = self;
        source.drain(&mut |signal| early.push(signal)).unwrap();
    }

    /// Everything until `count` signals have come.
    fn signals(&mut self, count: usize) -> Vec<Signal> {
        #[expect(clippy::disallowed_methods, reason = "a test's patience")]
        let deadline = Instant::now() + Duration::from_secs(8);
        while self.early.len() < count {
            #[expect(clippy::disallowed_methods, reason = "a test's patience")]
            let left = deadline.saturating_duration_since(Instant::now());
            let fd = self.source.fds()[0];
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            let timeout = Timespec::try_from(left).unwrap();
            let ready = poll(&mut fds, Some(&timeout)).unwrap();
            assert_ne!(ready, 0, "{:?}", self.early);
            self.drain();
        }
        std::mem::take(&mut self.early)
    }

    fn lines(&mut self, count: usize) -> Vec<String> {
        let line = |signal: Signal| match signal.what {
            What::LogRule { line, .. } => line,
            other => panic!("{other:?}"),
        };
        self.signals(count).into_iter().map(line).collect()
    }

    #[track_caller]
    fn nothing_comes(&mut self) {
        thread::sleep(Duration::from_millis(300));
        self.drain();
        assert_eq!(std::mem::take(&mut self.early), []);
    }

    /// kill -9, and the next agent, which finds what this one has saved.
    fn restart(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        self.nothing_comes();
        let saved = self.source.positions();
        self.source = JournalSource::start(self.root.path()).unwrap();
        meanwhile(self);
        self.source.resume(Duration::ZERO, &saved);
        self.follow(&["kubelet.service"]);
    }
}

fn monotonic() -> Duration {
    clock::boot() - clock::suspended()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("broken {n}")).collect()
}

#[test]
fn an_entry_is_told_within_a_second_with_its_own_time() {
    let mut host = Host::watched();
    host.log("fine");
    let before = clock::boot();
    host.log("broken \u{1b}[31m");
    let signal = host.signals(1).pop().unwrap();
    assert!(clock::boot() - before < Duration::from_secs(1));
    assert!(signal.at + Duration::from_millis(1) > before && !signal.historic);
    let told = What::LogRule {
        rule: "rule-kubelet.service".to_owned(),
        reason: "ThingBroken",
        condition: ConditionType::ContainerRuntimeReady,
        log: Some("kubelet.service".to_owned()),
        line: r"broken \u{1b}[31m".to_owned(),
    };
    assert_eq!(signal.what, told);
    host.log_at(monotonic(), "containerd.service", "broken elsewhere");
    host.nothing_comes();
}

#[test]
fn what_was_there_before_the_first_agent_is_history() {
    let mut host = Host::new();
    host.start_journald();
    host.log("broken 1");
    host.rotate();
    host.log("broken 2");
    thread::sleep(Duration::from_millis(2));
    host.source = JournalSource::start(host.root.path()).unwrap();
    host.follow(&["kubelet.service"]);
    host.log("broken 3");
    let signals = host.signals(3);
    let historic: Vec<_> = signals.iter().map(|signal| signal.historic).collect();
    assert_eq!(historic, [true, true, false]);
    host.restart(|host| host.log("broken 4"));
    assert!(!host.signals(1)[0].historic);
}

#[test]
fn of_history_the_newest_part_is_read() {
    let mut host = Host::new();
    host.start_journald();
    for n in 0..10_500 {
        host.log(&format!("broken {n}"));
        if n == 300 {
            host.rotate();
        }
    }
    host.follow(&["kubelet.service"]);
    assert_eq!(host.lines(10_000), numbers(500..10_500));
    host.nothing_comes();
}

#[test]
fn rotation_loses_nothing_and_tells_nothing_twice() {
    let mut host = Host::watched();
    for round in 0..20 {
        let expected: Vec<_> = (0..50).map(|n| format!("broken {round}.{n}")).collect();
        for line in &expected[..40] {
            host.log(line);
        }
        host.rotate();
        for line in &expected[40..] {
            host.log(line);
        }
        assert_eq!(host.lines(50), expected);
    }
    host.nothing_comes();
    assert_eq!(open_files(&host).len(), 1, "{:?}", open_files(&host));
}

#[test]
fn files_that_were_opened_empty_keep_their_place() {
    for _ in 0..5 {
        let mut host = Host::watched();
        for n in 0..30 {
            host.log(&format!("broken {n}"));
            host.rotate();
        }
        assert_eq!(host.lines(30), numbers(0..30));
        host.nothing_comes();
    }
}

#[test]
fn a_file_that_is_deleted_before_it_was_read_is_read_all_the_same() {
    let mut host = Host::watched();
    let archive = {
        for n in 0..3000 {
            host.log(&format!("broken {n}"));
        }
        host.rotate()
    };
    fs::remove_file(archive).unwrap();
    host.log("broken 3000");
    assert_eq!(host.lines(3001), numbers(0..3001));
    host.nothing_comes();
    assert_eq!(open_files(&host).len(), 1, "its space is freed");
}

fn open_files(host: &Host) -> Vec<PathBuf> {
    let link = |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.unwrap().path()).ok();
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(link);
    let mut open: Vec<_> = open
        .filter(|path| {
            path.starts_with(host.root.path()) && path.to_string_lossy().contains(".journal")
        })
        .collect();
    // The test's own writer.
    if let Some(own) = open
        .iter()
        .position(|path| path.ends_with("system.journal"))
    {
        open.remove(own);
    }
    open
}

#[test]
fn entries_that_were_written_between_two_agents_are_read_once() {
    let mut host = Host::watched();
    host.log("broken 0");
    assert_eq!(host.lines(1), numbers(0..1));
    host.restart(|host| {
        // A folder has its files in any order.
        for n in 1..10 {
            host.log(&format!("broken {n}"));
            host.rotate();
        }
    });
    assert_eq!(host.lines(9), numbers(1..10));
    host.restart(|_| {});
    host.nothing_comes();
}

#[test]
fn a_new_file_without_entries_does_not_hide_the_rest_of_the_old_one() {
    for same_series in [true, false] {
        let mut host = Host::watched();
        host.log("broken 0");
        assert_eq!(host.lines(1), numbers(0..1));
        host.restart(|host| {
            for n in 1..3000 {
                host.log(&format!("broken {n}"));
            }
            if same_series {
                host.rotate();
            } else {
                host.folder = MEMORY;
                host.series += 1;
                host.start_journald();
            }
        });
        // The thread waits for room in its queue, in the middle of the old one.
        host.log("broken 3000");
        assert_eq!(host.lines(3000), numbers(1..3001));
        host.nothing_comes();
    }
}

#[test]
fn a_file_on_disk_that_is_left_alone_does_not_hide_the_one_in_memory() {
    let mut host = Host::new();
    fs::create_dir_all(host.root.path().join("run/log")).unwrap();
    host.start_journald();
    host.follow(&["kubelet.service"]);
    host.log("broken 0");
    assert_eq!(host.lines(1), numbers(0..1));
    host.folder = MEMORY;
    host.start_journald();
    host.log("broken 1");
    assert_eq!(host.lines(1), numbers(1..2));
    host.restart(|host| host.log("broken 2"));
    assert_eq!(host.lines(1), numbers(2..3));
    host.log("broken 3");
    assert_eq!(host.lines(1), numbers(3..4));
    host.nothing_comes();
}

#[test]
fn entries_of_one_microsecond_are_told_apart_across_rotation_and_restart() {
    let mut host = Host::watched();
    let at = monotonic();
    let same = |host: &mut Host| host.log_at(at, "kubelet.service", "broken");
    same(&mut host);
    same(&mut host);
    host.rotate();
    same(&mut host);
    assert_eq!(host.lines(3).len(), 3);
    host.restart(same);
    assert_eq!(host.lines(1).len(), 1);
    host.nothing_comes();
}

#[test]
fn what_is_saved_never_goes_beyond_what_was_handed_over() {
    let mut host = Host::watched();
    for n in 0..500 {
        host.log(&format!("broken {n}"));
    }
    let mut seen = host.lines(1);
    let saved = host.source.positions();
    host.source = JournalSource::start(host.root.path()).unwrap();
    host.source.resume(Duration::ZERO, &saved);
    host.follow(&["kubelet.service"]);
    seen.extend(host.lines(500 - seen.len()));
    assert_eq!(seen, numbers(0..500));
    host.nothing_comes();
}

#[test]
fn what_was_vacuumed_between_two_agents_is_counted() {
    let mut host = Host::watched();
    host.log("broken 0");
    host.lines(1);
    host.restart(|host| {
        let read = host.rotate();
        for n in 0..7 {
            host.log(&format!("broken {n}"));
        }
        let unread = host.rotate();
        host.log("broken 8");
        fs::remove_file(read).unwrap();
        fs::remove_file(unread).unwrap();
    });
    let signals = host.signals(2).into_iter().map(|signal| signal.what);
    let (lost, read): (Vec<_>, Vec<_>) =
        signals.partition(|what| matches!(what, What::Lost { .. }));
    let source = SourceName::Journal;
    assert_eq!(lost, [What::Lost { source, count: 7 }]);
    assert_eq!(read.len(), 1);
    host.nothing_comes();
}

#[test]
fn entries_that_move_from_memory_to_disk_are_told_once() {
    for same_series in [true, false] {
        let mut host = Host::new();
        host.folder = MEMORY;
        host.start_journald();
        host.follow(&["kubelet.service"]);
        let mut old = Vec::new();
        for n in 0..300 {
            old.push((monotonic(), format!("broken {n}")));
            // Some come at once.
            if n % 3 > 0 {
                old[n].0 = old[n - 1].0;
            }
            let (at, line) = &old[n];
            host.log_at(*at, "kubelet.service", line);
        }
        assert_eq!(host.lines(300), numbers(0..300));
        host.log("broken 300");
        let last = monotonic();
        // journalctl --flush
        let seqnum = host.journald.as_ref().unwrap().seqnum;
        let memory = host.path("");
        host.folder = DISK;
        host.series += u8::from(!same_series);
        host.start_journald();
        host.journald.as_mut().unwrap().seqnum = if same_series { seqnum } else { 0 };
        for (at, line) in &old {
            host.log_at(*at, "kubelet.service", line);
        }
        assert_eq!(host.lines(1), ["broken 300"]);
        fs::remove_dir_all(memory).unwrap();
        thread::sleep(Duration::from_millis(10));
        assert!(monotonic() > last);
        host.log("broken 301");
        assert_eq!(host.lines(1), ["broken 301"]);
        host.nothing_comes();
    }
}

#[test]
fn a_journal_that_comes_late_is_read_from_its_beginning() {
    let mut host = Host::new();
    host.follow(&["kubelet.service"]);
    thread::sleep(Duration::from_millis(400));
    host.drain();
    assert!(!host.source.is_up());
    let why = find(host.root.path().to_owned()).unwrap_err();
    assert!(why.contains(DISK) && why.contains("Storage="), "{why}");
    host.folder = MEMORY;
    host.start_journald();
    host.log("broken 0");
    assert_eq!(host.lines(1), numbers(0..1));
    host.drain();
    assert!(host.source.is_up());
    assert_eq!(
        find(host.root.path().to_owned()).unwrap(),
        format!("{MEMORY}/system.journal")
    );
}

#[test]
fn a_host_without_a_machine_id_is_told_what_to_do() {
    let host = Host::new();
    fs::write(host.root.path().join("etc/machine-id"), "uninitialized\n").unwrap();
    let why = find(host.root.path().to_owned()).unwrap_err();
    assert!(why.contains("systemd-machine-id-setup"), "{why}");
    fs::remove_file(host.root.path().join("etc/machine-id")).unwrap();
    let why = find(host.root.path().to_owned()).unwrap_err();
    assert!(why.contains("no /etc/machine-id"), "{why}");
}

#[test]
fn a_flood_is_complete_and_in_order() {
    let mut host = Host::watched();
    for n in 0..20_000 {
        host.log(&format!("broken {n}"));
    }
    assert_eq!(host.lines(20_000), numbers(0..20_000));
}

#[test]
fn new_rules_keep_the_place_and_none_close_the_files() {
    let mut host = Host::watched();
    host.log("broken 0");
    assert_eq!(host.lines(1), numbers(0..1));
    host.follow(&["kubelet.service", "containerd.service"]);
    host.log_at(monotonic(), "containerd.service", "broken 1");
    assert_eq!(host.lines(1), ["broken 1"]);
    assert!(!host.source.positions().is_empty());
    host.follow(&[]);
    host.log("broken 2");
    host.nothing_comes();
    assert!(host.source.positions().is_empty());
    assert_eq!(open_files(&host), Vec::<PathBuf>::new());
}

#[test]
fn a_damaged_entry_is_counted_and_the_next_are_read() {
    let mut host = Host::watched();
    host.log("broken 0");
    assert_eq!(host.lines(1), numbers(0..1));
    let bytes = fs::read(host.path("system.journal")).unwrap();
    let end = u64::try_from(bytes.len()).unwrap();
    let journald = host.journald.take();
    // A file that is not read yet.
    let file = fs::File::options()
        .write(true)
        .open(host.path("system.journal"))
        .unwrap();
    host.journald = journald;
    host.source = JournalSource::start(host.root.path()).unwrap();
    host.log("broken 1");
    host.log("broken 2");
    // The type of the object that came first.
    file.write_all_at(&[9], end).unwrap();
    host.follow(&["kubelet.service"]);
    let signals = host.signals(3);
    let lost = |signal: &&Signal| matches!(signal.what, What::Lost { count: 1, .. });
    assert_eq!(signals.iter().filter(lost).count(), 1, "{signals:?}");
    host.nothing_comes();
}

#[test]
fn a_file_that_is_cut_off_under_the_reader_ends_nothing() {
    let mut host = Host::watched();
    host.log("broken 0");
    assert_eq!(host.lines(1), numbers(0..1));
    let path = host.path("system.journal");
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100)
        .unwrap();
    thread::sleep(Duration::from_millis(100));
    // As journald does with what is damaged.
    fs::rename(&path, host.path("system@0001.journal~")).unwrap();
    let seqnum = host.journald.as_ref().unwrap().seqnum;
    host.start_journald();
    host.journald.as_mut().unwrap().seqnum = seqnum;
    host.log("broken 1");
    assert_eq!(host.lines(1), ["broken 1"]);
    host.drain();
    assert!(host.source.is_up());
}
