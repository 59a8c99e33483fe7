//! The list of boots on the host's disk, read and written by a thread that nobody waits for: the disk
//! may be what is broken.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tracing::{info, warn};

use super::{Boots, Unexpected, pstore};
use crate::clock;
use crate::signal::{Signal, What};

const NAME: &str = "boots.json";
/// More of a dump is not read.
const DUMP_LIMIT: u64 = 1 << 20;

/// The thread; it ends with its owner.
pub(crate) struct Marker(Sender<Sender<()>>);

/// What was found at start.
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

impl Marker {
    /// `found` is called if this boot was unexpected; `dumps` are the folders for kernels' last words.
    pub(crate) fn start(
        folder: PathBuf,
        dumps: [PathBuf; 2],
        boot_id: String,
        found: impl FnOnce(Found) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = mpsc::channel::<Sender<()>>();
        thread::Builder::new()
            .name("boots".to_owned())
            .spawn(move || {
                let mut boots = match load(&folder) {
                    Ok(boots) => boots,
                    Err(error) => {
                        warn!(
                            error = format!("{error:#}"),
                            "the boots before this one are not known"
                        );
                        Boots::default()
                    }
                };
                let unexpected = boots.start(&boot_id, clock::now().wall);
                complain(save(&folder, &boots));
                match unexpected {
                    Some(unexpected) => {
                        let last_words = newest_dump(&dumps, unexpected.before);
                        found(Found {
                            unexpected,
                            last_words,
                        });
                    }
                    None => drop(found),
                }
                // Without a word the agent was killed, and so, maybe, is the host.
                if let Ok(done) = stopped.recv() {
                    boots.stop();
                    complain(save(&folder, &boots));
                    drop(done);
                }
            })
            .context("start the thread for the list of boots")?;
        Ok(Self(stop))
    }

    /// Notes that the agent was told to stop; waits no longer than `patience`.
    pub(crate) fn stop(self, patience: Duration) {
        let (done, written) = mpsc::channel();
        // Else the thread has panicked, and said so.
        if self.0.send(done).is_ok()
            && written.recv_timeout(patience) == Err(RecvTimeoutError::Timeout)
        {
            warn!("the disk does not answer: the next boot will count as unexpected");
        }
    }
}

fn complain(result: anyhow::Result<()>) {
    if let Err(error) = result {
        warn!(
            error = format!("{error:#}"),
            "this boot is not noted: unexpected reboots cannot be told; mount a folder of the host's disk at --boots-dir"
        );
    }
}

fn load(folder: &Path) -> anyhow::Result<Boots> {
    let path = folder.join(NAME);
    match fs::read(&path) {
        Ok(bytes) => Boots::parse(&bytes).with_context(|| format!("read {}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Boots::default()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn save(folder: &Path, boots: &Boots) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(boots).context("serialize the list of boots")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let (path, new) = (folder.join(NAME), folder.join(format!("{NAME}.new")));
    let show = || format!("write {}", new.display());
    let mut file = File::create(&new).with_context(show)?;
    file.write_all(&bytes).with_context(show)?;
    // It is for the time after a crash.
    file.sync_all().with_context(show)?;
    fs::rename(&new, &path).with_context(|| format!("replace {}", path.display()))
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
    let read = File::open(&path).and_then(|file| file.take(DUMP_LIMIT).read_to_end(&mut bytes));
    if let Err(error) = read {
        warn!(path = %path.display(), %error, "the last words of the kernel before cannot be read");
        return None;
    }
    info!(path = %path.display(), "the kernel before left a dump");
    pstore::last_words(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(folder: &Path, boot: &str) -> (Marker, mpsc::Receiver<Found>) {
        let (sender, found) = mpsc::channel();
        let marker = Marker::start(
            folder.to_owned(),
            [PathBuf::from("/nonexistent"), PathBuf::from("/nonexistent")],
            boot.to_owned(),
            move |what| drop(sender.send(what)),
        );
        (marker.unwrap(), found)
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_boot_without_a_stop_before_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (first, found) = start(folder.path(), "a");
        assert!(found.recv().is_err(), "nothing is known yet");
        first.stop(PATIENCE);
        let (second, found) = start(folder.path(), "b");
        assert!(found.recv().is_err(), "it was asked for");
        drop(second);
        let (_third, found) = start(folder.path(), "c");
        assert_eq!(found.recv().unwrap().unexpected.count, 1);
    }

    #[test]
    fn a_damaged_list_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), b"{").unwrap();
        let (marker, found) = start(folder.path(), "a");
        assert!(found.recv().is_err());
        marker.stop(PATIENCE);
        assert!(load(folder.path()).is_ok());
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
