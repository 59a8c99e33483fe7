//! `nodemend-detector watch` on a terminal: what is drawn, and that the terminal is given back.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness runs the detector and measures deadlines"
)]

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nodemend_tests::daemon;
use nodemend_tests::faults::PodCgroup;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::Test;
use crate::support::Needs::{Hook, Root};

pub(crate) const TESTS: &[Test] = &[
    (
        "on_a_terminal_watch_draws_a_finding_as_it_opens_and_anew_when_resized",
        Hook("oom"),
        draws,
    ),
    (
        "sigint_and_sigterm_end_watch_and_give_the_terminal_back",
        Root,
        gives_back,
    ),
    ("a_dumb_terminal_gets_plain_lines", Root, dumb),
    ("no_color_is_honoured", Root, no_color),
];

const POD: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";
/// Much longer than anything takes, also on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Longer than the detector takes to tell of repeats.
const QUIET: Duration = Duration::from_millis(2500);
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A detector on a terminal of its own.
struct Screen {
    master: File,
    terminal: File,
    child: Child,
    /// What was drawn since the last wait.
    drawn: String,
}

impl Screen {
    fn start(env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).context("open a pseudo-terminal")?;
        grantpt(&master)
            .and_then(|()| unlockpt(&master))
            .context("unlock a pseudo-terminal")?;
        let path = ptsname(&master, Vec::new()).context("name a pseudo-terminal")?;
        let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        let master = File::from(master);
        // Room for all that has happened on this host before.
        resize(&master, 100, 400)?;
        let share = || terminal.try_clone().context("share a terminal");
        let child = Command::new(daemon::binary("nodemend-detector")?)
            .arg("watch")
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .envs(env.iter().copied())
            .stdin(share()?)
            .stdout(share()?)
            .stderr(share()?)
            .spawn()
            .context("start the detector")?;
        Ok(Self {
            master,
            terminal,
            child,
            drawn: String::new(),
        })
    }

    /// Waits until nothing has been drawn for a while: on a quiet host nothing moves.
    fn quiet(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while self.read(QUIET)? {
            ensure!(
                Instant::now() < deadline,
                "it is drawn again and again: {:?}",
                self.drawn
            );
        }
        Ok(())
    }

    /// Whether anything was drawn within this time.
    fn read(&mut self, patience: Duration) -> anyhow::Result<bool> {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        let patience = Timespec::try_from(patience).context("compute the time to wait")?;
        if poll(&mut fds, Some(&patience)).context("wait for a terminal")? == 0 {
            return Ok(false);
        }
        let mut buffer = [0; 8192];
        let length = self.master.read(&mut buffer).context("read a terminal")?;
        self.drawn += &String::from_utf8_lossy(&buffer[..length]);
        Ok(true)
    }

    /// What was drawn until `text` had been; the next wait looks at what comes after that.
    fn wait_for(&mut self, text: &str) -> anyhow::Result<String> {
        self.wait_for_all(&[text])
    }

    /// The same for several, in any order.
    fn wait_for_all(&mut self, texts: &[&str]) -> anyhow::Result<String> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let ends = texts
                .iter()
                .map(|text| Some(self.drawn.find(text)? + text.len()));
            if let Some(ends) = ends.collect::<Option<Vec<_>>>() {
                let end = ends.into_iter().max().unwrap_or(0);
                let rest = self.drawn.split_off(end);
                return Ok(std::mem::replace(&mut self.drawn, rest));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.read(left)? {
                bail!("{texts:?} were not drawn; so far: {:?}", self.drawn);
            }
        }
    }

    fn send(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).context("signal the detector")
    }

    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().context("wait for the detector")? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the detector is still running")
    }

    fn echoes(&self) -> anyhow::Result<bool> {
        let modes = tcgetattr(&self.terminal).context("read the modes of a terminal")?;
        Ok(modes.local_modes.contains(LocalModes::ECHO))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

fn resize(master: &File, columns: u16, rows: u16) -> anyhow::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).context("resize a terminal")
}

fn draws() -> anyhow::Result<()> {
    let mut screen = Screen::start(&[])?;
    screen.wait_for(ENTER)?;
    screen.wait_for("watching since")?;
    let cgroup = PodCgroup::systemd(POD)?;
    cgroup.oom_kill("memory hog")?;
    screen.wait_for_all(&["OOMKilling", "memory hog", POD])?;
    screen.quiet()?;
    screen.drawn.clear();
    resize(&screen.master, 40, 400)?;
    // The detector has no controlling terminal here that would send it.
    screen.send(Signal::WINCH)?;
    screen.wait_for("watching since 20")?;
    screen.wait_for("...\x1b[0m").map(drop)
}

fn gives_back() -> anyhow::Result<()> {
    for signal in [Signal::INT, Signal::TERM] {
        let mut screen = Screen::start(&[])?;
        ensure!(screen.echoes()?, "a new terminal echoes");
        screen.wait_for("watching since")?;
        ensure!(!screen.echoes()?, "what is typed is written into the view");
        screen.send(signal)?;
        screen.wait_for(LEAVE)?;
        let status = screen.end()?;
        ensure!(status.success(), "{status}");
        ensure!(screen.echoes()?, "{signal:?} left the terminal silent");
    }
    Ok(())
}

fn dumb() -> anyhow::Result<()> {
    let mut screen = Screen::start(&[("TERM", "dumb"), ("RUST_LOG", "off")])?;
    let lines = screen.wait_for("watching\r\n")?;
    ensure!(!lines.contains('\x1b'), "{lines:?}");
    ensure!(screen.echoes()?, "the terminal was taken");
    Ok(())
}

fn no_color() -> anyhow::Result<()> {
    let mut screen = Screen::start(&[("NO_COLOR", "1")])?;
    screen.wait_for("watching since")?;
    let view = screen.wait_for("OPEN FINDINGS")?;
    // Colours and other styles end with `m`; what moves the cursor and clears does not.
    let styled = view.split("\x1b[").skip(1).any(|code| {
        code.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';')
            .starts_with('m')
    });
    ensure!(!styled, "{view:?}");
    Ok(())
}
