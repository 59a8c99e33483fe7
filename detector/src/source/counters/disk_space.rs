//! File systems that the node cannot do without, and that are nearly full: kubelet evicts pods, and then
//! nothing can be written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{OFlags, fstatvfs};

use super::asked::Asked;
use super::files::Files;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, What};
use crate::source::within;
use crate::text;

const MOUNTS: &str = "proc/1/mounts";
/// Looks between two readings.
const EVERY: u32 = 2;
/// Hundredths that are left: as kubelet's own defaults for evictions (`nodefs.available`,
/// `nodefs.inodesFree`).
const LEAST_SPACE: u64 = 10;
const LEAST_INODES: u64 = 5;

/// Of one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    bytes: (u64, u64),
    /// None of a total of none: the file system makes them as it needs them.
    inodes: (u64, u64),
}

/// By path; of one file system the first.
type Found = BTreeMap<String, Left>;

pub(super) struct DiskSpace {
    proc: PathBuf,
    paths: Vec<String>,
    disks: Option<Asked<Result<Found, String>>>,
    judge: Judge,
}

#[derive(Default)]
struct Judge(BTreeSet<String>);

impl DiskSpace {
    pub(super) fn new(proc: PathBuf, paths: Vec<String>) -> Self {
        Self {
            proc,
            paths,
            disks: None,
            judge: Judge::default(),
        }
    }
}

impl Counter for DiskSpace {
    fn name(&self) -> &'static str {
        "disk-space"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[MOUNTS]
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.disks.as_ref())
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        if !files.any() {
            return Vec::new();
        }
        let disks = Asked::started(&mut self.disks, "disk-space", || {
            let (root, paths) = (self.proc.join("1/root"), self.paths.clone());
            move || read(&root, &paths)
        });
        let found =
            disks.and_then(|disks| disks.take_well_each(EVERY, "the space that is left on disks"));
        found.map_or_else(Vec::new, |found| self.judge.look(&found))
    }
}

impl Judge {
    fn look(&mut self, found: &Found) -> Vec<What> {
        let fault = |path: String, message| LogFault::new(Reason::DiskNearlyFull, path, message);
        let well = |path: &String| found.get(path).and_then(|left| short(*left)).is_none();
        let over = self.0.extract_if(.., |path| well(path));
        let over = over.map(|path| {
            let message = format!("{path} has room again");
            told::over(fault(path, message))
        });
        let mut told: Vec<What> = over.collect();
        for (path, left) in found {
            let Some((percent, what)) = short(*left) else {
                continue;
            };
            self.0.insert(path.clone());
            let message = format!("{percent} % of the {what} of {path} are left");
            told.push(told::still(fault(path.clone(), message)));
        }
        told
    }
}

/// Of what there is too little, and how many hundredths are left.
fn short(left: Left) -> Option<(u64, &'static str)> {
    let percent = |(left, all): (u64, u64)| left.saturating_mul(100).checked_div(all);
    let space = percent(left.bytes).filter(|percent| *percent < LEAST_SPACE);
    let inodes = percent(left.inodes).filter(|percent| *percent < LEAST_INODES);
    space
        .map(|percent| (percent, "bytes"))
        .or_else(|| inodes.map(|percent| (percent, "inodes")))
}

fn read(root: &Path, paths: &[String]) -> Result<Found, String> {
    let root = within::root(root).map_err(|error| format!("{error:#}"))?;
    let mut seen = BTreeSet::new();
    let mut found = Found::new();
    for path in paths {
        let failed = |error: std::io::Error| format!("{path}: {error}");
        let Some(folder) = within::resolve(&root, path, OFlags::empty()).map_err(failed)? else {
            continue;
        };
        let state = fstatvfs(&folder).map_err(|error| failed(error.into()))?;
        if seen.insert(state.f_fsid) {
            let left = Left {
                bytes: (state.f_bavail, state.f_blocks),
                inodes: (state.f_favail, state.f_files),
            };
            let shown = text::part(path, 128);
            found.insert(shown, left);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Counted;

    /// Path, space that is left of all, inodes that are.
    type Disk<'a> = (&'a str, (u64, u64), (u64, u64));

    fn look(judge: &mut Judge, disks: &[Disk<'_>]) -> Vec<(String, Counted)> {
        let disks = disks.iter().map(|&(path, bytes, inodes)| {
            let left = Left { bytes, inodes };
            (path.to_owned(), left)
        });
        let told = judge.look(&disks.collect()).into_iter();
        let told = told.map(|what| match what {
            What::Counted { fault, counted } => (fault.entity, counted),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    #[test]
    fn little_space_or_few_inodes_are_told_until_there_are_more() {
        let mut judge = Judge::default();
        let still = [("/".to_owned(), Counted::Still)];
        let over = [("/".to_owned(), Counted::Over)];
        assert_eq!(look(&mut judge, &[("/", (100, 1000), (50, 1000))]), []);
        assert_eq!(look(&mut judge, &[("/", (99, 1000), (50, 1000))]), still);
        assert_eq!(look(&mut judge, &[("/", (100, 1000), (49, 1000))]), still);
        assert_eq!(look(&mut judge, &[("/", (0, 1000), (0, 1000))]), still);
        assert_eq!(look(&mut judge, &[("/", (500, 1000), (500, 1000))]), over);
        assert_eq!(look(&mut judge, &[("/", (500, 1000), (500, 1000))]), []);
    }

    #[test]
    fn what_has_no_count_of_inodes_or_is_gone_is_not_full() {
        let mut judge = Judge::default();
        assert_eq!(look(&mut judge, &[("/", (900, 1000), (0, 0))]), []);
        assert_eq!(look(&mut judge, &[("/", (0, 0), (0, 0))]), []);
        look(&mut judge, &[("/data", (1, 1000), (0, 0))]);
        let over = [("/data".to_owned(), Counted::Over)];
        assert_eq!(look(&mut judge, &[]), over);
    }

    #[test]
    fn a_file_system_is_read_once_by_its_first_path() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("inside")).unwrap();
        let paths = ["/", "/inside", "/none"].map(str::to_owned);
        let found = read(root.path(), &paths).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["/"]);
        let (left, all) = found["/"].bytes;
        assert!(0 < all && left <= all, "{found:?}");
    }
}
