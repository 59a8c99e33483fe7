//! Lines of a saved log, whatever form it was saved in: JSON lines, `journalctl -o export`, or the
//! kernel log as text.

use std::io::{self, BufRead as _, BufReader, Read};
use std::time::Duration;

use super::{console, export, json};
use crate::rules::Origin;

/// What is longer is cut: no log that is read live has such lines.
const LINE_LIMIT: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SavedLine {
    pub(super) origin: Origin,
    /// The unit of which systemd tells in a line of its own.
    pub(super) also: Option<Origin>,
    /// Of the kernel log; 0 is the kernel itself.
    pub(super) facility: u32,
    /// Absent where the form does not tell.
    pub(super) level: Option<u32>,
    pub(super) at: Option<Duration>,
    pub(super) text: String,
    /// Of the input, from 1.
    pub(super) number: u64,
}

pub(super) struct Saved<R> {
    input: BufReader<R>,
    number: u64,
    /// The fields of an entry of `journalctl -o export`, once the input is known to be that.
    entry: Option<export::Entry>,
}

impl<R: Read> Saved<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input: BufReader::new(input),
            number: 0,
            entry: None,
        }
    }

    /// Without its end; false at the end of the input.
    fn line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        let mut any = false;
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            any = true;
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let room = LINE_LIMIT.saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        self.number += u64::from(any);
        Ok(any)
    }

    /// The value of a field that has line ends in it: its length, itself, and a line end.
    fn binary(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 8];
        self.input.read_exact(&mut length)?;
        let mut value = Vec::new();
        let length = u64::from_le_bytes(length);
        let mut field = self.input.by_ref().take(length);
        field
            .by_ref()
            .take(LINE_LIMIT as u64)
            .read_to_end(&mut value)?;
        let rest = io::copy(&mut field, &mut io::sink())?;
        if value.len() as u64 + rest < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut end = [0];
        self.input.read_exact(&mut end)?;
        let lines = value.iter().filter(|&&byte| byte == b'\n').count();
        self.number += lines as u64 + 1;
        Ok(value)
    }

    fn read(&mut self) -> io::Result<Option<SavedLine>> {
        let mut line = Vec::new();
        loop {
            if !self.line(&mut line)? {
                let last = self.entry.take().unwrap_or_default();
                return Ok(last.finish());
            }
            if self.entry.is_none() && export::begins(&line) {
                self.entry = Some(export::Entry::default());
            }
            let number = self.number;
            if self.entry.is_some() {
                if line.is_empty() {
                    let entry = self.entry.replace(export::Entry::default());
                    if let Some(saved) = entry.unwrap_or_default().finish() {
                        return Ok(Some(saved));
                    }
                    continue;
                }
                let (name, value) = match line.iter().position(|&byte| byte == b'=') {
                    Some(at) => (line[..at].to_vec(), line[at + 1..].to_vec()),
                    None => (line.clone(), self.binary()?),
                };
                if let Some(entry) = &mut self.entry {
                    entry.field(&name, &value, number);
                }
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            let saved = if text.trim_start().starts_with('{') {
                json::read(&text, number)
            } else {
                console::read(&text, number)
            };
            if saved.is_some() {
                return Ok(saved);
            }
        }
    }
}

impl<R: Read> Iterator for Saved<R> {
    type Item = io::Result<SavedLine>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
