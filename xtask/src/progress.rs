//! Long steps of other programs, as one line that moves: compilers tell more than anyone reads.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How often a line is written where it cannot move.
const INTERVAL: Duration = Duration::from_secs(30);

/// What a line of standard error is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// One of the many things that are done.
    Unit(&'a str),
    /// Of no interest.
    Chatter,
    /// Shown as it is.
    Message,
}

/// Runs a program to its end; says how far it is while it does anything, and nothing when there is
/// nothing to do. Returns the lines of its standard output.
pub(crate) fn run(
    command: &mut Command,
    what: &str,
    classify: impl Fn(&str) -> Line<'_>,
) -> anyhow::Result<(ExitStatus, Vec<String>)> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    let stdout = child.stdout.take().context("read standard output")?;
    let output = thread::spawn(move || {
        BufReader::new(stdout)
            .lines()
            .collect::<Result<Vec<_>, _>>()
    });
    let stderr = child.stderr.take().context("read standard error")?;
    let mut shown = Shown::new(what);
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line.context("read standard error")?;
        let line = String::from_utf8_lossy(&line);
        match classify(&line) {
            Line::Unit(unit) => shown.count(unit),
            Line::Chatter => {}
            Line::Message => shown.message(&line),
        }
    }
    let status = child.wait().context("wait for a program")?;
    shown.end();
    match output.join() {
        Ok(lines) => Ok((status, lines.context("read standard output")?)),
        Err(_panic) => bail!("the thread that reads standard output panicked"),
    }
}

/// Of cargo: a status is right-aligned in twelve columns.
pub(crate) fn cargo(line: &str) -> Line<'_> {
    match line.split_at_checked(12) {
        Some((word, rest)) if rest.starts_with(' ') && is_status(word) => {
            if word.trim_start() == "Compiling" {
                Line::Unit(rest.trim_start())
            } else {
                Line::Chatter
            }
        }
        Some(_) | None => Line::Message,
    }
}

fn is_status(word: &str) -> bool {
    let word = word.trim_start();
    word.starts_with(char::is_uppercase) && word.chars().all(char::is_alphabetic)
}

/// Of `go build -v`: the path of each package.
pub(crate) fn go(line: &str) -> Line<'_> {
    if line.starts_with("go: downloading ") || line.starts_with("go: finding ") {
        Line::Chatter
    } else if line.contains([' ', '\t']) || line.is_empty() {
        Line::Message
    } else {
        Line::Unit(line)
    }
}

struct Shown<'a> {
    what: &'a str,
    moves: bool,
    started: Instant,
    written: Instant,
    count: u32,
}

impl<'a> Shown<'a> {
    fn new(what: &'a str) -> Self {
        let now = Instant::now();
        Self {
            what,
            moves: std::io::stderr().is_terminal(),
            started: now,
            written: now,
            count: 0,
        }
    }

    fn count(&mut self, unit: &str) {
        self.count += 1;
        let seconds = self.started.elapsed().as_secs();
        if self.moves {
            let unit: String = unit.chars().take(40).collect();
            self.write(&format!(
                "\r\x1b[K{}: {} done, {seconds} s: {unit}",
                self.what, self.count
            ));
        } else if self.count == 1 {
            self.write(&format!("{}\n", self.what));
        } else if self.written.elapsed() >= INTERVAL {
            self.write(&format!(
                "{}: {} done, {seconds} s\n",
                self.what, self.count
            ));
        }
    }

    fn message(&mut self, line: &str) {
        let clear = if self.moves { "\r\x1b[K" } else { "" };
        self.write(&format!("{clear}{line}\n"));
    }

    fn end(&mut self) {
        if self.count > 0 {
            let clear = if self.moves { "\r\x1b[K" } else { "" };
            let seconds = self.started.elapsed().as_secs();
            self.write(&format!(
                "{clear}{}: {} done, {seconds} s\n",
                self.what, self.count
            ));
        }
    }

    fn write(&mut self, text: &str) {
        self.written = Instant::now();
        let mut out = std::io::stderr().lock();
        // Nobody may be looking.
        let _written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_cargo_compiles_and_shows_what_it_complains_about() {
        assert_eq!(
            cargo("   Compiling anyhow v1.0.104"),
            Line::Unit("anyhow v1.0.104")
        );
        assert_eq!(
            cargo("    Finished `ci` profile [optimized] target(s) in 3s"),
            Line::Chatter
        );
        assert_eq!(cargo("error[E0382]: borrow of moved value"), Line::Message);
        assert_eq!(cargo("   |"), Line::Message);
        assert_eq!(cargo("             ^^^^ value"), Line::Message);
    }

    #[test]
    fn counts_the_packages_of_go_and_shows_what_it_complains_about() {
        assert_eq!(
            go("k8s.io/client-go/rest"),
            Line::Unit("k8s.io/client-go/rest")
        );
        assert_eq!(go("go: downloading k8s.io/api v0.36.3"), Line::Chatter);
        assert_eq!(go("./main.go:3:1: syntax error"), Line::Message);
    }

    #[test]
    fn a_program_is_run_to_its_end() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo out; echo unit >&2; exit 3"]);
        let (status, output) = run(&mut command, "test", |_| Line::Chatter).unwrap();
        assert_eq!((status.code(), output), (Some(3), vec!["out".to_owned()]));
    }
}
