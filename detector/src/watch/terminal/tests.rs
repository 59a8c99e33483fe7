//! A panic, seen from the other side of a terminal: this program runs itself on one.

#![expect(clippy::disallowed_methods, reason = "the test runs itself")]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::*;

/// Tells the program that it is the one on the terminal.
const ON_IT: &str = "NODEMEND_TEST_ON_TERMINAL";

/// Everything that `run` writes to a terminal, and whether that echoes afterwards; `test` is the name
/// of the test that asks.
fn on_a_terminal(test: &str, run: fn()) -> (String, bool) {
    if std::env::var_os(ON_IT).is_some() {
        run();
        std::process::exit(0);
    }
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
    let terminal = OpenOptions::new().read(true).write(true).open(path);
    let terminal = terminal.unwrap();
    let name = format!("watch::terminal::tests::{test}");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(ON_IT, "1")
        .stdin(terminal.try_clone().unwrap())
        .stdout(terminal.try_clone().unwrap())
        .stderr(terminal.try_clone().unwrap())
        .spawn()
        .unwrap();
    // The end of a terminal comes when nobody has it open any more.
    let reading = thread::spawn(move || {
        let (mut bytes, mut master) = (Vec::new(), File::from(master));
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..length]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    child.wait().unwrap();
    let modes = tcgetattr(&terminal).unwrap();
    drop(terminal);
    let written = reading.join().unwrap();
    (written, modes.local_modes.contains(LocalModes::ECHO))
}

#[test]
fn a_panic_on_another_thread_gives_the_terminal_back_before_it_is_told() {
    let test = "a_panic_on_another_thread_gives_the_terminal_back_before_it_is_told";
    let (written, echoes) = on_a_terminal(test, || {
        let mut terminal = Terminal::take().unwrap();
        let view = View::new(Vec::new(), BTreeMap::new());
        terminal.draw(&view).unwrap();
        let other = thread::spawn(|| panic!("something is wrong"));
        assert!(other.join().is_err());
        terminal.forget();
        println!("no picture: {}", terminal.draw(&view).unwrap_err());
    });
    let enter = written.find(ENTER).unwrap();
    let leave = written.find(LEAVE).unwrap();
    let told = written.find("something is wrong").unwrap();
    assert!(enter < leave && leave < told, "{written:?}");
    assert!(
        written.contains("no picture: a thread panicked"),
        "{written:?}"
    );
    assert!(!written[leave..].contains(HOME), "{written:?}");
    assert!(echoes);
}

#[test]
fn a_panic_of_the_view_gives_the_terminal_back_before_it_is_told() {
    let test = "a_panic_of_the_view_gives_the_terminal_back_before_it_is_told";
    let (written, echoes) = on_a_terminal(test, || {
        let _terminal = Terminal::take().unwrap();
        panic!("something is wrong");
    });
    let leave = written.find(LEAVE).unwrap();
    let told = written.find("something is wrong").unwrap();
    assert!(leave < told, "{written:?}");
    assert!(echoes);
}

#[test]
fn a_picture_is_drawn_once_until_it_changes_or_is_forgotten() {
    let test = "a_picture_is_drawn_once_until_it_changes_or_is_forgotten";
    let (written, _echoes) = on_a_terminal(test, || {
        let mut terminal = Terminal::take().unwrap();
        let mut view = View::new(Vec::new(), BTreeMap::new());
        let mut draw_twice = |view: &View| {
            terminal.forget();
            terminal.draw(view).unwrap();
            terminal.draw(view).unwrap();
        };
        draw_twice(&view);
        draw_twice(&view);
        view.log("changed".to_owned());
        terminal.draw(&view).unwrap();
    });
    assert_eq!(written.matches(HOME).count(), 3, "{written:?}");
}

#[test]
fn log_lines_go_into_the_view_while_that_has_the_terminal() {
    let test = "log_lines_go_into_the_view_while_that_has_the_terminal";
    let (written, _echoes) = on_a_terminal(test, || {
        let mut lines = Vec::new();
        let mut log = LogLine(|line| lines.push(line));
        writeln!(log, "before").unwrap();
        let terminal = Terminal::take().unwrap();
        log.write_all(b"meanwhile").unwrap();
        drop(terminal);
        writeln!(log, "after").unwrap();
        println!("{lines:?}");
    });
    let (before, rest) = written.split_once(ENTER).unwrap();
    let (during, after) = rest.split_once(LEAVE).unwrap();
    assert!(before.contains("before"), "{written:?}");
    assert_eq!(during, "");
    assert!(after.contains("after"), "{written:?}");
    assert!(after.contains("[\"meanwhile\"]"), "{written:?}");
}
