//! XFS whose free space is in small pieces: it can say that it is full while it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::asked::Asked;
use super::files::Files;
use super::{Counter, fsmap, told};
use crate::reason::Reason;
use crate::signal::{LogFault, What};
use crate::text;

const MOUNTS: &str = "proc/1/mounts";
/// Looks between two readings: a whole one goes through all pieces of free space.
const EVERY: u32 = 20;
/// As EKS's agent has it, in blocks.
const SMALL: u64 = 16;
const MOST_MOUNTS: usize = 16;

/// By device that is mounted: the mean size of a free piece, in blocks, where it is known.
type Means = BTreeMap<String, Option<u64>>;

pub(super) struct XfsSpace {
    proc: PathBuf,
    disks: Option<Asked<Result<Means, String>>>,
    judge: Judge,
}

#[derive(Default)]
struct Judge(BTreeSet<String>);

impl XfsSpace {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self {
            proc,
            disks: None,
            judge: Judge::default(),
        }
    }
}

impl Counter for XfsSpace {
    fn name(&self) -> &'static str {
        "xfs-free-space"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[MOUNTS]
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.disks.as_ref())
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let Some(text) = files.one(MOUNTS) else {
            return Vec::new();
        };
        if mounts(text).next().is_none() {
            return self.judge.look(Means::new());
        }
        let disks = Asked::started(&mut self.disks, "xfs-free-space", || {
            let proc = self.proc.clone();
            move || read(&proc).map_err(|error| error.to_string())
        });
        let means = disks.and_then(|disks| disks.take_well_each(EVERY, "the free space of XFS"));
        means.map_or_else(Vec::new, |means| self.judge.look(means))
    }
}

impl Judge {
    fn look(&mut self, means: Means) -> Vec<What> {
        let fault = |device: String, message: String| {
            LogFault::on_device(Reason::XfsSmallAverageClusterSize, device, message)
        };
        let mut found = Vec::new();
        for device in self.0.extract_if(.., |device| !means.contains_key(device)) {
            let message = format!("{device} is mounted no more");
            found.push(told::over(fault(device, message)));
        }
        for (device, blocks) in means {
            let Some(blocks) = blocks else {
                continue;
            };
            if blocks < SMALL {
                let message = format!(
                    "the free space of {device} is in pieces of {blocks} blocks on average"
                );
                self.0.insert(device.clone());
                found.push(told::still(fault(device, message)));
            } else if self.0.remove(&device) {
                let message = format!("the free space of {device} is in larger pieces");
                found.push(told::over(fault(device, message)));
            }
        }
        found
    }
}

/// Device and mount point of each XFS, one for each device.
fn mounts(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut seen = BTreeSet::new();
    let mounts = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
        // A backslash stands for a character that this list cannot have.
        (kind == "xfs" && !point.contains('\\')).then_some((device, point))
    });
    mounts.filter(move |(device, _)| seen.insert(*device))
}

fn read(proc: &Path) -> io::Result<Means> {
    let mut means = Means::new();
    let root = proc.join("1/root");
    let text = fs::read_to_string(proc.join("1/mounts"))?;
    for (index, (device, point)) in mounts(&text).enumerate() {
        let blocks = if index < MOST_MOUNTS {
            let folder = File::open(root.join(point.trim_start_matches('/')));
            // Unmounted by now, or covered by another one.
            folder
                .and_then(|folder| fsmap::mean_free_blocks(&folder))
                .unwrap_or_default()
        } else {
            None
        };
        let name = device.strip_prefix("/dev/").unwrap_or(device);
        let name = text::part(name, 64);
        means.insert(name, blocks);
    }
    Ok(means)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Counted;

    const NAME: &str = "nvme0n1p1";

    fn look(judge: &mut Judge, means: &[(&str, Option<u64>)]) -> Vec<(String, Counted)> {
        let means = means
            .iter()
            .map(|(name, blocks)| ((*name).to_owned(), *blocks));
        let found = judge.look(means.collect()).into_iter();
        let found = found.map(|what| match what {
            What::Counted { fault, counted } => (fault.entity, counted),
            other => panic!("{other:?}"),
        });
        found.collect()
    }

    #[test]
    fn small_pieces_are_told_until_they_are_larger() {
        let mut judge = Judge::default();
        let mut look = |blocks| look(&mut judge, &[(NAME, Some(blocks))]);
        assert_eq!(look(16), []);
        assert_eq!(look(15), [(NAME.to_owned(), Counted::Still)]);
        assert_eq!(look(0), [(NAME.to_owned(), Counted::Still)]);
        assert_eq!(look(400), [(NAME.to_owned(), Counted::Over)]);
        assert_eq!(look(400), []);
    }

    #[test]
    fn what_is_unmounted_has_no_small_pieces_and_what_cannot_be_read_is_as_it_was() {
        let mut judge = Judge::default();
        let other = ("sdb", Some(400));
        let still = [(NAME.to_owned(), Counted::Still)];
        assert_eq!(look(&mut judge, &[(NAME, Some(3)), other]), still);
        assert_eq!(look(&mut judge, &[(NAME, None), other]), []);
        let over = [(NAME.to_owned(), Counted::Over)];
        assert_eq!(look(&mut judge, &[other]), over);
        assert_eq!(look(&mut judge, &[other]), []);
    }

    #[test]
    fn the_last_xfs_that_is_unmounted_is_over_too() {
        let mut counter = XfsSpace::new(PathBuf::from("/nonexistent"));
        counter.judge.0.insert(NAME.to_owned());
        let files = Files::of(&[(MOUNTS, &[], "proc /proc proc rw 0 0\n")]);
        let over = counter.look(&files, Duration::ZERO);
        assert!(matches!(
            over.as_slice(),
            [What::Counted {
                counted: Counted::Over,
                ..
            }]
        ));
        let unreadable = Files::of(&[]);
        counter.judge.0.insert(NAME.to_owned());
        assert_eq!(counter.look(&unreadable, Duration::ZERO), []);
    }

    #[test]
    fn each_xfs_is_looked_at_once() {
        let text = "proc /proc proc rw 0 0\n/dev/nvme0n1p1 / xfs rw 0 0\n\
            /dev/nvme0n1p1 /var/lib/x xfs rw 0 0\n/dev/sda1 /a\\040b xfs rw 0 0\n\
            /dev/sdb1 /data ext4 rw 0 0\n/dev/sdc1\n";
        let found: Vec<_> = mounts(text).collect();
        assert_eq!(found, [("/dev/nvme0n1p1", "/")]);
    }
}
