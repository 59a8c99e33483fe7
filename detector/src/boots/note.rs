//! The list of boots on the host's disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Boots, Unexpected, pstore};
use crate::signal::{Signal, What};
use crate::{aside, clock};

const NAME: &str = "boots.json";
/// More of a dump is not read.
const DUMP_LIMIT: u64 = 1 << 20;

/// A boot that nobody asked for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Found {
    pub unexpected: Unexpected,
    /// Of the kernel that died, where pstore has them.
    pub last_words: Option<String>,
}

impl Found {
    pub(crate) fn signal(self) -> Signal {
        Signal {
            at: clock::boot(),
            historic: false,
            what: What::UnexpectedBoot {
                count: self.unexpected.count,
                last_words: self.last_words,
            },
        }
    }
}

/// Has the start of the agent noted, by a process that nobody waits for: the disk may be what is
/// broken. `found` is called if this boot was unexpected; `dumps` are the folders for last words.
pub(crate) fn start_aside(
    folder: PathBuf,
    boot_id: String,
    dumps: [PathBuf; 2],
    found: impl FnOnce(Found) + Send + 'static,
) -> anyhow::Result<()> {
    thread::Builder::new()
        .name("boots".to_owned())
        .spawn(move || {
            let now = clock::now().wall.to_string();
            let child =
                aside::start(&[&"note-start", &folder, &boot_id, &now, &dumps[0], &dumps[1]]);
            let answer = child.context("start a process").and_then(aside::answer);
            match answer {
                Ok(Some(unexpected)) => found(unexpected),
                Ok(None) => {}
                Err(error) => complain(&error),
            }
        })
        .context("start the thread for the list of boots")?;
    Ok(())
}

/// Has it noted that the agent was told to stop, and waits no longer than `patience` for that.
pub(crate) fn stop_aside(folder: &Path, patience: Duration) {
    match aside::start(&[&"note-stop", &folder]) {
        Ok(mut child) => {
            if !aside::ends_within(&mut child, patience) {
                warn!("the disk does not answer: the next boot may count as unexpected");
            }
        }
        Err(error) => complain(&error.into()),
    }
}

fn complain(error: &anyhow::Error) {
    warn!(
        error = format!("{error:#}"),
        "this boot is not noted: boots that nobody asked for cannot be told; mount a folder of the host's disk at --boots-dir"
    );
}

/// In the process of its own.
pub(crate) fn start(
    folder: &Path,
    boot_id: &str,
    now: Timestamp,
    dumps: &[PathBuf],
) -> anyhow::Result<Option<Found>> {
    let unexpected = change(folder, |boots| boots.start(boot_id, now))?;
    Ok(unexpected.map(|unexpected| Found {
        last_words: newest_dump(dumps, unexpected.before),
        unexpected,
    }))
}

/// Reads, changes and writes the list. One that is damaged begins anew: it is not worth a word more
/// than the next boot would have been.
pub(crate) fn change<T>(folder: &Path, change: impl FnOnce(&mut Boots) -> T) -> anyhow::Result<T> {
    let path = folder.join(NAME);
    let show = || format!("read {}", path.display());
    let mut boots = match fs::read(&path) {
        Ok(bytes) => Boots::parse(&bytes).unwrap_or_default(),
        Err(error) if error.kind() == ErrorKind::NotFound => Boots::default(),
        Err(error) => return Err(error).with_context(show),
    };
    let answer = change(&mut boots);
    let bytes = serde_json::to_vec(&boots).context("serialize the list of boots")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let new = folder.join(format!("{NAME}.new"));
    let show = || format!("write {}", new.display());
    let mut file = File::create(&new).with_context(show)?;
    file.write_all(&bytes).with_context(show)?;
    // It is for the time after a crash.
    file.sync_all().with_context(show)?;
    fs::rename(&new, &path).with_context(|| format!("replace {}", path.display()))?;
    Ok(answer)
}

/// What the newest dump says that is not older than the boot that died.
fn newest_dump(folders: &[PathBuf], since: Timestamp) -> Option<String> {
    let since = std::time::SystemTime::from(since);
    let mut dumps: Vec<_> = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"dmesg"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .filter(|(modified, _)| *modified >= since)
        .collect();
    dumps.sort();
    let (_, path) = dumps.pop()?;
    let mut bytes = Vec::new();
    let file = File::open(&path).ok()?;
    file.take(DUMP_LIMIT).read_to_end(&mut bytes).ok()?;
    pstore::last_words(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(folder: &Path, id: &str, hour: i64) -> Option<Found> {
        let now = Timestamp::from_second(1_700_000_000 + hour * 3600).unwrap();
        start(folder, id, now, &[]).unwrap()
    }

    #[test]
    fn a_boot_without_a_stop_before_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        assert_eq!(boot(&folder, "a", 0), None);
        change(&folder, Boots::stop).unwrap();
        assert_eq!(boot(&folder, "b", 1), None);
        assert_eq!(boot(&folder, "c", 2).unwrap().unexpected.count, 1);
    }

    #[test]
    fn a_damaged_list_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), b"{").unwrap();
        assert_eq!(boot(folder.path(), "a", 0), None);
        assert!(boot(folder.path(), "b", 1).is_some());
    }

    #[test]
    fn the_newest_dump_since_the_boot_is_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dmesg-efi-1"), b"<0>[ 1.0] old\n").unwrap();
        let old = File::options()
            .write(true)
            .open(folder.path().join("dmesg-efi-1"))
            .unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::write(folder.path().join("dmesg-efi-2"), b"<0>[ 1.0] new\n").unwrap();
        fs::write(folder.path().join("console-1"), b"other\n").unwrap();
        let folders = [folder.path().to_owned()];
        let since = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(newest_dump(&folders, since(1000)).as_deref(), Some("new"));
        assert_eq!(newest_dump(&folders, since(100_000_000_000)), None);
    }
}
