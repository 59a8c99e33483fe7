//! Files of the host, seen from the agent's own mount namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

/// The host's root, for the functions below.
pub(super) fn root(path: &Path) -> anyhow::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(path, flags, Mode::empty())
        .with_context(|| format!("open the host's root {}", path.display()))?;
    Ok(root.into())
}

/// Symbolic links too lead to places inside of `root` only: it can be another mount namespace's.
/// None: nothing is there.
pub(super) fn resolve(root: &File, path: &str, more: OFlags) -> io::Result<Option<File>> {
    let relative = match path.trim_start_matches('/') {
        "" => ".",
        relative => relative,
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC | more;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, relative, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd.into())),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// For reading. Only a regular file: opening a FIFO or a device can block or do something.
pub(super) fn open_file(root: &File, path: &str) -> io::Result<Option<File>> {
    let Some(place) = resolve(root, path, OFlags::empty())? else {
        return Ok(None);
    };
    let kind = FileType::from_raw_mode(fstat(&place)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::other(format!("not a regular file: {kind:?}")));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(Some(open(own_path(&place), flags, Mode::empty())?.into()))
}

/// A name for calls that want one.
pub(super) fn own_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
