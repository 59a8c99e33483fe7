//! One open log file: what was appended to it since the last look.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::lines::Lines;
use crate::source::within;

/// Which file it is, whatever its name.
pub(super) type Identity = (u64, u64);

pub(super) struct Tail {
    file: File,
    pub(super) identity: Identity,
    lines: Lines,
}

pub(super) enum Read {
    More,
    End,
    /// Read to the end, and no name leads to it any more.
    Gone,
}

/// Of one file, before the others have their turn.
const CHUNK: usize = 64 << 10;

impl Tail {
    /// As `path` leads to it inside of `root`; None: nothing is there.
    pub(super) fn open(root: &File, path: &str) -> io::Result<Option<Self>> {
        let Some(file) = within::open_file(root, path)? else {
            return Ok(None);
        };
        let metadata = file.metadata()?;
        Ok(Some(Self {
            identity: (metadata.dev(), metadata.ino()),
            file,
            lines: Lines::default(),
        }))
    }

    /// What is there already is history.
    pub(super) fn skip_to_end(&mut self) -> io::Result<()> {
        self.lines.start_at(self.file.metadata()?.len());
        Ok(())
    }

    /// The agent before this one has read up to here.
    pub(super) fn go_on_at(&mut self, offset: u64) {
        self.lines.start_at(offset);
    }

    /// Where the next agent goes on.
    pub(super) fn place(&self) -> u64 {
        self.lines.whole()
    }

    /// `line` gets each line, and where to go on after it.
    pub(super) fn read(&mut self, line: &mut dyn FnMut(&[u8], u64)) -> io::Result<Read> {
        let metadata = self.file.metadata()?;
        if metadata.len() < self.lines.offset() {
            // Cut off, as logrotate's copytruncate does.
            self.lines.start_at(0);
        }
        let mut buffer = vec![0; CHUNK];
        let length = self.file.read_at(&mut buffer, self.lines.offset())?;
        self.lines.push(&buffer[..length], line);
        Ok(match (length, metadata.nlink()) {
            (0, 0) => Read::Gone,
            (CHUNK, _) => Read::More,
            (0, _) => Read::End,
            (_, 0) => Read::More,
            _ => Read::End,
        })
    }

    pub(super) fn take_cut(&mut self) -> u64 {
        self.lines.take_cut()
    }

    /// A name for inotify.
    pub(super) fn own_path(&self) -> PathBuf {
        within::own_path(&self.file)
    }
}

/// The directory in which the name stands, for inotify.
pub(super) fn directory(root: &File, path: &str) -> io::Result<Option<File>> {
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    within::resolve(root, &parent.to_string_lossy(), OFlags::DIRECTORY)
}
