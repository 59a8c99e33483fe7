//! What the story shows: chapters, steps with their time, and where it is now.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Characters of a text of others that are shown.
const LONGEST: usize = 200;

/// Of a line that is to be cleared: it must not wrap.
const PENDING_WIDTH: usize = 74;

/// Where lines go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Colours, and a line for the step that is going on.
    Terminal,
    Plain,
    /// Kept, to be shown when something goes wrong.
    Kept,
}

pub struct Screen {
    mode: Mode,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The step that is going on, as it stands on the terminal's last line.
    pending: Option<String>,
    kept: Vec<String>,
}

impl Screen {
    /// Standard output; in colour only on a terminal.
    pub fn standard_output() -> Self {
        Self::new(if io::stdout().is_terminal() {
            Mode::Terminal
        } else {
            Mode::Plain
        })
    }

    /// Shows nothing.
    pub fn kept() -> Self {
        Self::new(Mode::Kept)
    }

    fn new(mode: Mode) -> Self {
        Self {
            mode,
            state: Mutex::default(),
        }
    }

    /// Everything that a kept screen would have shown.
    pub fn lines(&self) -> Vec<String> {
        self.state().kept.clone()
    }

    pub(super) fn chapter(&self, title: &str) {
        self.line("");
        self.line(&self.paint("1", title));
    }

    /// Does something that takes a while, and says how long it took.
    pub(super) async fn step<T>(
        &self,
        what: &str,
        doing: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        let shown: String = what.chars().take(PENDING_WIDTH).collect();
        self.pend(Some(format!("  … {shown}")));
        let result = doing.await;
        self.pend(None);
        if result.is_ok() {
            self.done(&format!("{what} ({})", seconds(started.elapsed())));
        }
        result
    }

    pub(super) fn done(&self, what: &str) {
        self.line(&format!("  {} {what}", self.paint("32", "✓")));
    }

    pub(super) fn note(&self, what: &str) {
        self.line(&format!("    {what}"));
    }

    pub(super) fn line(&self, line: &str) {
        let mut state = self.state();
        match self.mode {
            Mode::Kept => state.kept.push(line.to_owned()),
            Mode::Plain => write(&format!("{line}\n")),
            Mode::Terminal => {
                let pending = state.pending.as_deref().unwrap_or_default();
                write(&format!("\r\x1b[K{line}\n{pending}"));
            }
        }
    }

    fn pend(&self, what: Option<String>) {
        if self.mode == Mode::Terminal {
            write(&format!("\r\x1b[K{}", what.as_deref().unwrap_or_default()));
            self.state().pending = what;
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.mode == Mode::Terminal {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody may be reading; the story is told to its end all the same.
    let _written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

pub(super) fn short(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        seconds(duration)
    }
}

/// What came from a cluster or a daemon, on one line of a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}
