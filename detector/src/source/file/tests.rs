//! Real files: rotation, truncation, late creation, and what must not be read.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

use super::*;
use crate::reason::ConditionType;
use crate::rules::{LogRule, Origin};
use crate::signal::What;

/// The "host", with one followed file.
struct Host {
    root: TempDir,
    source: FileSource,
    /// What came while the rules were handed over.
    early: Vec<What>,
}

const LOG: &str = "/var/log/app.log";

impl Host {
    /// With what is in the log before the agent's start.
    fn new(before: Option<&str>) -> Self {
        let root = TempDir::new().unwrap();
        let source = FileSource::start(root.path().to_owned()).unwrap();
        let early = Vec::new();
        let mut host = Self {
            root,
            source,
            early,
        };
        if let Some(before) = before {
            fs::create_dir_all(host.path("/var/log")).unwrap();
            fs::write(host.path(LOG), before).unwrap();
        }
        host.follow(&[LOG]);
        host
    }

    fn follow(&mut self, paths: &[&str]) {
        let rule = |path: &&str| LogRule {
            name: format!("rule-{path}"),
            origin: Origin::File {
                path: (*path).to_owned(),
            },
            pattern: "broken".to_owned(),
            reason: "ThingBroken",
            condition: ConditionType::StorageReady,
        };
        let rules = LogRules::new(paths.iter().map(rule).collect()).unwrap();
        self.source.configure(&Arc::new(rules));
        let Self { source, early, .. } = self;
        source.drain(&mut |signal| early.push(signal.what)).unwrap();
        // What is there now is read from its end once the thread has looked.
        thread::sleep(Duration::from_millis(200));
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn append(&self, path: &str, text: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::options().append(true).create(true).open(path);
        file.unwrap().write_all(text).unwrap();
    }

    /// Everything until `count` signals have come, or nothing more comes for a while.
    fn signals(&mut self, count: usize) -> Vec<What> {
        #[expect(clippy::disallowed_methods, reason = "a test's patience")]
        let deadline = Instant::now() + Duration::from_secs(8);
        let mut seen = std::mem::take(&mut self.early);
        while seen.len() < count {
            #[expect(clippy::disallowed_methods, reason = "a test's patience")]
            let left = deadline.saturating_duration_since(Instant::now());
            let fd = self.source.fds()[0];
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            let timeout = Timespec::try_from(left).unwrap();
            assert_ne!(poll(&mut fds, Some(&timeout)).unwrap(), 0, "{seen:?}");
            self.source
                .drain(&mut |signal| seen.push(signal.what))
                .unwrap();
        }
        seen
    }

    fn lines(&mut self, count: usize) -> Vec<String> {
        let line = |what| match what {
            What::LogRule { line, .. } => line,
            other => panic!("{other:?}"),
        };
        self.signals(count).into_iter().map(line).collect()
    }

    fn nothing_comes(&mut self) {
        thread::sleep(Duration::from_millis(300));
        let mut seen = std::mem::take(&mut self.early);
        self.source
            .drain(&mut |signal| seen.push(signal.what))
            .unwrap();
        assert_eq!(seen, []);
    }
}

#[test]
fn lines_from_before_the_start_are_history() {
    let mut host = Host::new(Some("broken before\n"));
    host.append(LOG, b"fine\nbroken 1\n");
    assert_eq!(host.lines(1), ["broken 1"]);
    host.nothing_comes();
}

#[test]
fn a_file_that_is_created_later_is_read_from_its_beginning() {
    let mut host = Host::new(None);
    host.append(LOG, b"broken 1\n");
    assert_eq!(host.lines(1), ["broken 1"]);
    host.append(LOG, b"broken 2\n");
    assert_eq!(host.lines(1), ["broken 2"]);
}

#[test]
fn a_file_that_is_created_in_a_directory_that_is_there_is_seen_at_once() {
    let mut host = Host::new(Some(""));
    fs::remove_file(host.path(LOG)).unwrap();
    host.nothing_comes();
    host.append(LOG, b"broken anew\n");
    assert_eq!(host.lines(1), ["broken anew"]);
}

#[test]
fn rotation_by_rename_loses_nothing_on_either_side() {
    let mut host = Host::new(Some(""));
    host.append(LOG, b"broken 1\n");
    fs::rename(host.path(LOG), host.path("/var/log/app.log.1")).unwrap();
    host.append("/var/log/app.log.1", b"broken 2, before the daemon knows\n");
    host.append(LOG, b"broken 3\n");
    let mut lines = host.lines(3);
    lines.sort();
    assert_eq!(
        lines,
        ["broken 1", "broken 2, before the daemon knows", "broken 3"]
    );
    host.append("/var/log/app.log.1", b"broken 4, still to the old one\n");
    assert_eq!(host.lines(1), ["broken 4, still to the old one"]);
    host.nothing_comes();
}

#[test]
fn many_rotations_in_a_row_are_exact() {
    let mut host = Host::new(Some(""));
    for round in 0..20 {
        for line in 0..50 {
            host.append(LOG, format!("broken {round}.{line}\n").as_bytes());
        }
        assert_eq!(host.lines(50).len(), 50, "round {round}");
        fs::rename(host.path(LOG), host.path("/var/log/app.log.1")).unwrap();
        host.append(LOG, b"");
    }
    host.nothing_comes();
}

#[test]
fn a_truncated_file_is_read_from_its_beginning() {
    let mut host = Host::new(Some(""));
    host.append(LOG, b"broken 1\nbroken 2\nbegun, never ended");
    assert_eq!(host.lines(2).len(), 2);
    File::create(host.path(LOG)).unwrap();
    host.nothing_comes();
    host.append(LOG, b"broken 3\n");
    assert_eq!(host.lines(1), ["broken 3"]);
}

#[test]
fn a_long_line_is_looked_at_in_part_and_counted() {
    let mut host = Host::new(Some(""));
    let mut long = b"broken and long ".to_vec();
    long.resize(100_000, b'x');
    long.extend_from_slice(b" broken\n");
    host.append(LOG, &long);
    let signals = host.signals(2);
    assert!(matches!(&signals[0], What::LogRule { line, .. } if line.len() <= 256));
    let lost = What::Lost {
        source: SourceName::File,
        count: 1,
    };
    assert_eq!(signals[1], lost);
    host.nothing_comes();
}

#[test]
fn binary_is_escaped() {
    let mut host = Host::new(Some(""));
    host.append(LOG, b"\x00\xff\x1b[2Jbroken\n");
    assert_eq!(host.lines(1), [r"\u{0}\xff\u{1b}[2Jbroken"]);
}

#[test]
fn a_flood_is_complete() {
    let mut host = Host::new(Some(""));
    let text: String = (0..20_000).map(|n| format!("broken {n}\n")).collect();
    host.append(LOG, text.as_bytes());
    let lines = host.lines(20_000);
    assert_eq!(lines.len(), 20_000);
    assert_eq!(lines[19_999], "broken 19999");
}

#[test]
fn what_is_no_regular_file_is_not_opened_and_holds_up_nothing() {
    let mut host = Host::new(Some(""));
    let fifo = host.path("/var/log/fifo");
    mkfifoat(CWD, &fifo, Mode::from_raw_mode(0o600)).unwrap();
    fs::create_dir(host.path("/var/log/folder")).unwrap();
    let root = File::open(host.root.path()).unwrap();
    for path in ["/var/log/fifo", "/var/log/folder"] {
        let error = tail::Tail::open(&root, path).err().unwrap();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
    host.follow(&["/var/log/fifo", "/var/log/folder", LOG]);
    host.append(LOG, b"broken 1\n");
    assert_eq!(host.lines(1), ["broken 1"]);
}

#[test]
fn a_link_leads_to_the_hosts_file_not_to_the_agents() {
    let mut host = Host::new(Some(""));
    symlink("/var/log/app.log", host.path("/var/log/link.log")).unwrap();
    symlink(
        "/../../../../../../proc/kmsg",
        host.path("/var/log/out.log"),
    )
    .unwrap();
    host.follow(&["/var/log/link.log", "/var/log/out.log"]);
    host.append(LOG, b"broken through a link\n");
    assert_eq!(host.lines(1), ["broken through a link"]);
}

#[test]
fn a_link_that_is_turned_leads_to_the_new_file() {
    let mut host = Host::new(Some(""));
    host.append("/var/log/1", b"");
    host.append("/var/log/2", b"broken in 2\n");
    symlink("1", host.path("/var/log/link.log")).unwrap();
    host.follow(&["/var/log/link.log"]);
    host.append("/var/log/1", b"broken in 1\n");
    assert_eq!(host.lines(1), ["broken in 1"]);
    symlink("2", host.path("/var/log/link.new")).unwrap();
    fs::rename(
        host.path("/var/log/link.new"),
        host.path("/var/log/link.log"),
    )
    .unwrap();
    assert_eq!(host.lines(1), ["broken in 2"]);
}

#[test]
fn new_rules_keep_the_place_in_a_file() {
    let mut host = Host::new(Some(""));
    host.append(LOG, b"broken 1\n");
    assert_eq!(host.lines(1), ["broken 1"]);
    host.follow(&[LOG, "/var/log/other.log"]);
    host.append(LOG, b"broken 2\n");
    assert_eq!(host.lines(1), ["broken 2"]);
    host.follow(&[]);
    host.append(LOG, b"broken 3\n");
    host.nothing_comes();
}

#[test]
fn a_deleted_file_is_not_kept_from_being_freed() {
    let mut host = Host::new(Some(""));
    host.append(LOG, b"broken 1\n");
    assert_eq!(host.lines(1).len(), 1);
    fs::remove_file(host.path(LOG)).unwrap();
    host.nothing_comes();
    let held = |entry: std::io::Result<fs::DirEntry>| {
        let link = fs::read_link(entry.unwrap().path()).unwrap_or_default();
        link.starts_with(host.root.path()) && link != Path::new(host.root.path())
    };
    let held = fs::read_dir("/proc/self/fd").unwrap().any(held);
    assert!(!held);
}

impl Host {
    /// kill -9, and the next agent, which finds what this one has saved.
    fn restart(&mut self, meanwhile: impl FnOnce(&Self)) {
        thread::sleep(Duration::from_millis(200));
        self.nothing_comes();
        let saved = self.source.positions();
        self.source = FileSource::start(self.root.path().to_owned()).unwrap();
        meanwhile(self);
        self.source.resume(Duration::ZERO, &saved);
        self.follow(&[LOG]);
    }
}

#[test]
fn lines_that_were_written_between_two_agents_are_read_once() {
    let mut host = Host::new(Some("broken before\n"));
    host.append(LOG, b"broken 1\nfine\nbro");
    assert_eq!(host.lines(1), ["broken 1"]);
    host.restart(|host| host.append(LOG, b"ken 2\nbroken 3\n"));
    assert_eq!(host.lines(2), ["broken 2", "broken 3"]);
    host.restart(|_| {});
    host.nothing_comes();
}

#[test]
fn a_file_that_was_rotated_between_two_agents_is_read_from_its_beginning() {
    let mut host = Host::new(Some("a long line that was there before the first agent\n"));
    host.append(LOG, b"broken 1\n");
    assert_eq!(host.lines(1), ["broken 1"]);
    host.restart(|host| {
        fs::rename(host.path(LOG), host.path("/var/log/app.log.1")).unwrap();
        host.append(LOG, b"broken 2\n");
    });
    assert_eq!(host.lines(1), ["broken 2"]);
    host.restart(|host| {
        File::create(host.path(LOG)).unwrap();
        host.append(LOG, b"broken\n");
    });
    assert_eq!(host.lines(1), ["broken"]);
}

#[test]
fn what_is_saved_never_goes_beyond_what_was_handed_over() {
    let mut host = Host::new(Some(""));
    let text: String = (0..500).map(|n| format!("broken {n}\n")).collect();
    host.append(LOG, text.as_bytes());
    let mut seen = host.lines(1);
    let saved = host.source.positions();
    host.source = FileSource::start(host.root.path().to_owned()).unwrap();
    host.source.resume(Duration::ZERO, &saved);
    host.follow(&[LOG]);
    seen.extend(host.lines(500 - seen.len()));
    let expected: Vec<_> = (0..500).map(|n| format!("broken {n}")).collect();
    assert_eq!(seen, expected);
    host.nothing_comes();
}
