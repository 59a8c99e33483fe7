//! The terminal: taken for the view, and given back however that ends.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::view::View;

/// What the terminal was like; present while the view has it. Also a panic on another thread gives
/// it back: its message would be lost with the alternate screen.
static TAKEN: Mutex<Option<Termios>> = Mutex::new(None);

/// Alternate screen, no cursor, no wrapping: a character that is wider than we think moves nothing.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Of a terminal that does not know its size, like a serial line.
const USUAL_SIZE: (usize, usize) = (80, 24);

pub(super) struct Terminal {
    colour: bool,
    suspended: bool,
    shown: Option<String>,
}

/// Whether standard output is a terminal that can be drawn on.
pub(super) fn can_draw() -> bool {
    let dumb = of_terminal("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !dumb
}

/// Whether the view has the terminal now.
pub(super) fn is_taken() -> bool {
    taken().is_some()
}

impl Terminal {
    pub(super) fn take() -> anyhow::Result<Self> {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            print(panic);
        }));
        let terminal = Self {
            colour: of_terminal("NO_COLOR").is_none(),
            suspended: false,
            shown: None,
        };
        terminal.enter()?;
        Ok(terminal)
    }

    pub(super) fn draw(&mut self, view: &View) -> anyhow::Result<()> {
        if self.suspended {
            return Ok(());
        }
        let (width, height) = size();
        let rows = view.render(width, height);
        let full = rows.len() >= height;
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let text = if self.colour {
                    row.coloured()
                } else {
                    row.plain()
                };
                // Before the text: at the end of a full line it would take its last character.
                format!("{CLEAR_LINE}{text}")
            })
            .collect();
        let mut picture = format!("{HOME}{}", rows.join("\r\n"));
        if !full {
            picture += "\r\n";
            picture += CLEAR_BELOW;
        }
        if self.shown.as_ref() == Some(&picture) {
            return Ok(());
        }
        // Held, so that a panic elsewhere is not drawn over.
        let taken = taken();
        if taken.is_none() {
            bail!("a thread panicked");
        }
        write(&picture).context("draw on the terminal")?;
        self.shown = Some(picture);
        Ok(())
    }

    /// What is on the screen cannot be relied on any more.
    pub(super) fn forget(&mut self) {
        self.shown = None;
    }

    pub(super) fn suspend(&mut self) {
        self.suspended = true;
        give_back();
    }

    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.suspended = false;
        self.forget();
        self.enter()
    }

    fn enter(&self) -> anyhow::Result<()> {
        let stdout = io::stdout();
        let mut taken = taken();
        let before = match taken.take() {
            Some(before) => before,
            None => tcgetattr(&stdout).context("read the modes of the terminal")?,
        };
        let mut modes = before.clone();
        // Keys would write into the view; those that send signals go on doing so.
        modes.local_modes.remove(LocalModes::ECHO);
        *taken = Some(before);
        tcsetattr(&stdout, OptionalActions::Now, &modes)
            .context("set the modes of the terminal")?;
        write(ENTER).context("draw on the terminal")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    let Some(before) = taken().take() else {
        return;
    };
    // A terminal that fails here is gone, and there is nobody to tell. What was typed was for nobody.
    let _written = write(LEAVE);
    let _set = tcsetattr(io::stdout(), OptionalActions::Flush, &before);
}

fn taken() -> MutexGuard<'static, Option<Termios>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Past the lock of standard output: a thread that panics may hold it.
fn write(text: &str) -> io::Result<()> {
    let stdout = io::stdout();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(stdout.as_fd(), rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        Ok(_) | Err(_) => USUAL_SIZE,
    }
}

/// What the environment says of the terminal; it is no configuration of ours.
fn of_terminal(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    Some(value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

/// Takes the log's lines while the view has the terminal; otherwise they go to standard error.
pub(super) struct LogLine<F: FnMut(String)>(pub F);

impl<F: FnMut(String)> Write for LogLine<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if is_taken() {
            (self.0)(String::from_utf8_lossy(bytes).into_owned());
            return Ok(bytes.len());
        }
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
