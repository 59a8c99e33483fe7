//! Where journald keeps its files on the host, and which of them are read.
//!
//! Only the system's: services write there, and users' journals (`user-1000.journal`) have whatever
//! anybody types. Those of other machines and of journal namespaces stand in folders of other names.

use std::fs::{self, File};
use std::io;
use std::io::Read as _;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use super::format::{Bytes, Id};
use super::log::Log;
use super::place;
use crate::source::within;

/// On disk, and where there is no disk for it, or not yet.
const BASES: [&str; 2] = ["/var/log/journal", "/run/log/journal"];
const MACHINE_ID: &str = "/etc/machine-id";
const CURRENT: &str = "system.journal";
/// journald keeps 100 by default; each is open for a moment.
const MOST_FILES: usize = 400;

/// What is there.
#[derive(Default)]
pub(super) struct Found {
    /// For inotify: also those in which a folder may appear.
    pub(super) folders: Vec<File>,
    pub(super) files: Vec<FoundFile>,
    /// One that journald is about to write to has no header yet.
    pub(super) unfinished: bool,
    /// Why there is no journal, or a file is not among them.
    pub(super) trouble: Option<String>,
}

pub(super) struct FoundFile {
    pub(super) path: String,
    /// journald writes to it.
    pub(super) current: bool,
    pub(super) log: Log<File>,
}

impl FoundFile {
    pub(super) fn id(&self) -> Id {
        self.log.header().file
    }
}

impl Bytes for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl Found {
    /// What journald writes to. Two, where it left the disk for memory or has not gone there yet; which
    /// one it is they do not say.
    pub(super) fn current(&self) -> impl Iterator<Item = &FoundFile> {
        self.files.iter().filter(|file| file.current)
    }
}

pub(super) fn find(root: &File) -> Found {
    let mut found = Found::default();
    let machine = match machine_id(root) {
        Ok(machine) => machine,
        Err(trouble) => {
            found.trouble = Some(trouble);
            return found;
        }
    };
    let folders = BASES.map(|base| format!("{base}/{machine}"));
    // In /var/log something happens all the time; when a folder appears there, journald leaves /run.
    let paths = ["/run/log"].into_iter().chain(BASES);
    let paths = paths.chain(folders.iter().map(String::as_str));
    for path in paths {
        match within::resolve(root, path, OFlags::DIRECTORY) {
            Ok(folder) => found.folders.extend(folder),
            Err(error) => found.trouble = Some(format!("open {path}: {error}")),
        }
    }
    for folder in &folders {
        if let Err(error) = files_of(root, folder, &mut found) {
            found.trouble = Some(format!("read {folder}: {error}"));
        }
    }
    if found.current().next().is_none() && found.trouble.is_none() {
        let [disk, memory] = folders;
        found.trouble = Some(format!(
            "no {CURRENT} in {disk} or {memory}: systemd-journald does not run there, or keeps \
             nothing (Storage= in journald.conf)"
        ));
    }
    found
}

fn machine_id(root: &File) -> Result<String, String> {
    let say = |error: io::Error| format!("read {MACHINE_ID}: {error}");
    let file = within::open_file(root, MACHINE_ID).map_err(say)?;
    let Some(file) = file else {
        return Err(format!(
            "the host has no {MACHINE_ID}, so no systemd-journald"
        ));
    };
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).map_err(say)?;
    let text = text.trim();
    if place::id(text).is_none() {
        return Err(format!(
            "{MACHINE_ID} has no machine id: systemd-machine-id-setup makes one"
        ));
    }
    Ok(text.to_owned())
}

fn files_of(root: &File, folder: &str, found: &mut Found) -> io::Result<()> {
    let Some(open) = within::resolve(root, folder, OFlags::DIRECTORY)? else {
        return Ok(());
    };
    let mut names = vec![CURRENT.to_owned()];
    for entry in fs::read_dir(within::own_path(&open))? {
        let name = entry?.file_name();
        names.extend(
            name.to_str()
                .filter(|name| is_archive(name))
                .map(str::to_owned),
        );
        if names.len() > MOST_FILES {
            found.trouble = Some(format!("{folder} has more than {MOST_FILES} files"));
            break;
        }
    }
    for name in names {
        let path = format!("{folder}/{name}");
        let opened = match within::open_file(root, &path) {
            Ok(Some(file)) => Log::new(file).map_err(|error| error.to_string()),
            // Rotated away, or not there.
            Ok(None) => continue,
            Err(error) => Err(error.to_string()),
        };
        match opened {
            Ok(log) => found.files.push(FoundFile {
                current: name == CURRENT,
                path,
                log,
            }),
            Err(error) => {
                found.unfinished |= name == CURRENT;
                found.trouble = Some(format!("{path}: {error}"));
            }
        }
    }
    Ok(())
}

/// `system@....journal` was rotated; with a `~` because it was damaged, or not closed before a boot.
fn is_archive(name: &str) -> bool {
    name.starts_with("system@") && (name.ends_with(".journal") || name.ends_with(".journal~"))
}
