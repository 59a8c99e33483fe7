//! Bounded reads of the kernel's small files, named by patterns: `proc/`, `sys/`, `cgroup/`, `net/`,
//! `pods/` or `root/`, then names of which each may have one or more `*`, or be `#`, any number. What ends in `/`
//! is a folder: it is there, and empty.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::conntrack;

/// `/proc/stat` and `/proc/net/softnet_stat` of 1,000 CPUs; what is beyond is not read.
const LARGEST: usize = 256 << 10;
const USUAL: usize = 4 << 10;
/// Files of one pattern, and entries of one folder.
const MOST: usize = 4096;

/// Where the host's files are.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    proc: PathBuf,
    sys: PathBuf,
    cgroup: PathBuf,
    /// Of the host's network namespace.
    net: PathBuf,
    /// The logs of the node's pods.
    pods: PathBuf,
    root: PathBuf,
}

impl Roots {
    pub(super) fn find(proc: &Path, sys: &Path) -> Self {
        // A container may see only its own part of the hierarchy at its own mount.
        let sys_of_host = |path: &str| {
            let of_host = proc.join("1/root/sys").join(path);
            if of_host.is_dir() {
                of_host
            } else {
                sys.join(path)
            }
        };
        Self {
            proc: proc.to_owned(),
            sys: sys.to_owned(),
            cgroup: sys_of_host("fs/cgroup"),
            net: sys_of_host("class/net"),
            pods: proc.join("1/root/var/log/pods"),
            root: proc.join("1/root"),
        }
    }

    pub(super) fn net(&self) -> &Path {
        &self.net
    }

    pub(super) fn proc(&self) -> PathBuf {
        self.proc.clone()
    }

    pub(super) fn sys(&self) -> PathBuf {
        self.sys.clone()
    }

    pub(super) fn pods(&self) -> PathBuf {
        self.pods.clone()
    }

    pub(super) fn nvme(&self) -> PathBuf {
        self.sys.join("class/nvme")
    }

    pub(super) fn dev(&self) -> PathBuf {
        self.proc.join("1/root/dev")
    }

    pub(super) fn conntrack_entity(&self) -> String {
        let namespace = fs::read_link(self.proc.join("1/ns/net"));
        conntrack::entity(&namespace.unwrap_or_default().to_string_lossy())
    }

    fn of(&self, name: &str) -> Option<&Path> {
        match name {
            "proc" => Some(&self.proc),
            "sys" => Some(&self.sys),
            "cgroup" => Some(&self.cgroup),
            "net" => Some(&self.net),
            "pods" => Some(&self.pods),
            "root" => Some(&self.root),
            _ => None,
        }
    }
}

/// For people: what a pattern looks for.
pub(super) fn shown(pattern: &str) -> String {
    match pattern.split_once('/') {
        Some(("cgroup", rest)) => format!("/sys/fs/cgroup/{rest}"),
        Some(("net", rest)) => format!("/sys/class/net/{rest}"),
        Some(("pods", rest)) => format!("/var/log/pods/{rest}"),
        Some(("root", rest)) => format!("/{rest}"),
        _ => format!("/{pattern}"),
    }
}

/// The files of one pattern, by the names that its stars stand for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub files: BTreeMap<Vec<String>, String>,
    /// Some could not be read, or there were too many: what is missing may still be there.
    pub cut: bool,
}

#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<&'static str, Found>);

static NONE: Found = Found {
    files: BTreeMap::new(),
    cut: false,
};

impl Files {
    pub(super) fn read(roots: &Roots, patterns: &[&'static str]) -> Self {
        let mut folders = Folders::default();
        let found = patterns
            .iter()
            .map(|&pattern| (pattern, find(roots, pattern, &mut folders)));
        Self(found.collect())
    }

    pub(super) fn any(&self) -> bool {
        self.0.values().any(|found| !found.files.is_empty())
    }

    pub(super) fn all(&self, pattern: &str) -> &Found {
        self.0.get(pattern).unwrap_or(&NONE)
    }

    /// The file of a pattern without a star.
    pub(super) fn one(&self, pattern: &str) -> Option<&str> {
        self.all(pattern)
            .files
            .get([].as_slice())
            .map(String::as_str)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn from(files: BTreeMap<&'static str, Found>) -> Self {
        Self(files)
    }

    /// As if they had been read.
    #[cfg(test)]
    pub(super) fn of(files: &[(&'static str, &[&str], &str)]) -> Self {
        let mut all = Self::default();
        for (pattern, names, text) in files {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            let found = all.0.entry(pattern).or_default();
            found.files.insert(names, (*text).to_owned());
        }
        all
    }

    #[cfg(test)]
    pub(super) fn cut(mut self) -> Self {
        for found in self.0.values_mut() {
            found.cut = true;
        }
        self
    }
}

fn find(roots: &Roots, pattern: &str, folders: &mut Folders) -> Found {
    let mut found = Found::default();
    let mut parts = pattern.split('/').peekable();
    let counted = parts.peek() == Some(&"cgroup");
    let Some(root) = parts.next().and_then(|name| roots.of(name)) else {
        return found;
    };
    let mut places = vec![(Vec::new(), root.to_owned())];
    while let Some(part) = parts.next() {
        if !part.contains(['*', '#']) {
            places.iter_mut().for_each(|(_, path)| path.push(part));
            continue;
        }
        let last = parts.peek().is_none();
        let mut below = Vec::new();
        for (names, path) in &places {
            let mut take = |name: &str| {
                let names = names.iter().cloned().chain([name.to_owned()]).collect();
                below.push((names, path.join(name)));
                below.len() < MOST
            };
            let whole = if last {
                list(path, false, |name| !fits(part, name) || take(name))
            } else {
                let inside = folders.of(path, counted);
                let mut fitting = inside.names.iter().filter(|name| fits(part, name));
                fitting.all(|name| take(name)) && inside.whole
            };
            found.cut |= !whole;
        }
        places = below;
    }
    let folder = pattern.ends_with('/');
    for (names, path) in places {
        let text = if folder {
            is_folder(&path)
        } else {
            read(&path)
        };
        match text {
            Ok(text) => drop(found.files.insert(names, text)),
            Err(error) => found.cut |= !is_gone(&error),
        }
    }
    found
}

/// The folders inside of folders, each listed once though several patterns lead through it.
#[derive(Default)]
struct Folders(HashMap<PathBuf, Inside>);

struct Inside {
    names: Vec<String>,
    whole: bool,
}

impl Folders {
    /// `counted`: the links of a folder are its name, itself, and those inside, as of a cgroup.
    fn of(&mut self, path: &Path, counted: bool) -> &Inside {
        if !self.0.contains_key(path) {
            let mut names = Vec::new();
            let has_none = || fs::metadata(path).is_ok_and(|folder| folder.nlink() == 2);
            let whole = (counted && has_none())
                || list(path, true, |name| {
                    names.push(name.to_owned());
                    true
                });
            self.0.insert(path.to_owned(), Inside { names, whole });
        }
        &self.0[path]
    }
}

/// Whether all of the folder's names were taken.
fn list(folder: &Path, only_folders: bool, mut take: impl FnMut(&str) -> bool) -> bool {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return is_gone(&error),
    };
    for (index, entry) in entries.enumerate() {
        let Ok(entry) = entry else {
            return false;
        };
        // A link may lead to a folder.
        let is_file = || entry.file_type().is_ok_and(|kind| kind.is_file());
        if only_folders && is_file() {
            continue;
        }
        let name = entry.file_name();
        if index >= MOST || name.to_str().is_some_and(|name| !take(name)) {
            return false;
        }
    }
    true
}

fn fits(pattern: &str, name: &str) -> bool {
    if pattern == "#" {
        return name.bytes().all(|byte| byte.is_ascii_digit());
    }
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == name;
    };
    name.strip_prefix(before).is_some_and(|rest| {
        let mut starts = rest
            .char_indices()
            .map(|(index, _)| index)
            .chain([rest.len()]);
        starts.any(|start| fits(after, &rest[start..]))
    })
}

fn is_folder(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.is_dir() {
        Ok(String::new())
    } else {
        Err(ErrorKind::NotADirectory.into())
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
    ) || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ESRCH))
}

/// Whole lines only, if it is larger than anything is.
fn read(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    // Most are read at once; the text that is kept is as long as it is.
    let mut bytes = Vec::with_capacity(USUAL);
    file.take(LARGEST as u64).read_to_end(&mut bytes)?;
    if bytes.len() == LARGEST {
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(end.unwrap_or(0));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(folder: &Path) -> Roots {
        Roots::find(&folder.join("proc"), &folder.join("sys"))
    }

    fn write(folder: &Path, path: &str, content: &[u8]) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn a_pattern_finds_files_by_the_names_of_its_stars() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("sys/block/sda/stat", "a"),
            ("sys/block/sdb/stat", "b"),
            ("sys/block/sdb/size", "c"),
            ("sys/edac/mc0/dimm1/count", "d"),
            ("sys/edac/mc0/other1/count", "e"),
            ("sys/edac/power", "no folder"),
        ] {
            write(folder.path(), path, text.as_bytes());
        }
        let patterns = ["sys/block/*/stat", "sys/edac/*/dimm*/count", "proc/none"];
        let files = Files::read(&roots(folder.path()), &patterns);
        let names: Vec<_> = files.all(patterns[0]).files.iter().collect();
        assert_eq!(
            names,
            [
                (&vec!["sda".to_owned()], &"a".to_owned()),
                (&vec!["sdb".to_owned()], &"b".to_owned())
            ]
        );
        let names: Vec<_> = files.all(patterns[1]).files.keys().collect();
        assert_eq!(names, [&["mc0", "dimm1"]]);
        assert_eq!(files.one("proc/none"), None);
        assert!(!files.all(patterns[1]).cut && !files.all("proc/none").cut);
    }

    #[test]
    fn what_is_too_large_ends_with_a_whole_line_and_what_is_no_text_is_shown_as_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let lines = b"0123456789\n".repeat(LARGEST / 10);
        write(folder.path(), "proc/long", &lines);
        write(folder.path(), "proc/one", &vec![b'x'; LARGEST * 2]);
        write(folder.path(), "proc/binary", b"\xff\x001\n");
        let patterns = ["proc/long", "proc/one", "proc/binary"];
        let files = Files::read(&roots(folder.path()), &patterns);
        let long = files.one("proc/long").unwrap();
        assert!(
            long.len() < LARGEST && long.ends_with("\n0123456789"),
            "{}",
            long.len()
        );
        assert_eq!(files.one("proc/one"), Some(""));
        assert_eq!(files.one("proc/binary"), Some("\u{fffd}\u{0}1\n"));
    }

    #[test]
    fn too_many_are_cut_and_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MOST {
            write(folder.path(), &format!("sys/x/{number}"), b"1");
        }
        let files = Files::read(&roots(folder.path()), &["sys/x/*"]);
        let found = files.all("sys/x/*");
        assert!(found.cut);
        assert_eq!(found.files.len(), MOST);
    }

    #[test]
    fn the_hosts_own_cgroup_mount_is_preferred() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "sys/fs/cgroup/a", b"container");
        let files = Files::read(&roots(folder.path()), &["cgroup/a"]);
        assert_eq!(files.one("cgroup/a"), Some("container"));
        write(folder.path(), "proc/1/root/sys/fs/cgroup/a", b"host");
        let files = Files::read(&roots(folder.path()), &["cgroup/a"]);
        assert_eq!(files.one("cgroup/a"), Some("host"));
    }
}
