//! The state on the host's tmpfs: never on the disk whose death it may have to report.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tracing::{info, warn};

use super::{Read, State};
use crate::core::{self, Settings};
use crate::finding::Transition;

const NAME: &str = "detector-state.json";

pub(crate) struct StateFile {
    folder: PathBuf,
    /// A folder that cannot be written is said once, not at each write.
    broken: bool,
}

/// What the agent before this one left.
#[derive(Debug, PartialEq)]
pub(crate) enum Left {
    Nothing,
    State(Box<Read>),
    /// It could not be read, and was set aside.
    Damaged(String),
}

impl Left {
    /// What the agent before this one could not tell any more.
    pub(crate) fn untold(&self, settings: &Settings) -> Vec<Transition> {
        match self {
            Self::State(read) => core::untold(&read.state, settings),
            Self::Nothing | Self::Damaged(_) => Vec::new(),
        }
    }
}

impl StateFile {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            broken: false,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    pub(crate) fn load(&self, boot_id: &str) -> Left {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Left::Nothing,
            Err(error) => {
                let error = anyhow::Error::new(error).context("it cannot be read");
                return self.damaged(&path, &error);
            }
        };
        match State::parse(&bytes, boot_id) {
            Ok(Some(read)) => {
                info!(
                    path = %path.display(),
                    version = read.state.version,
                    findings = read.state.findings.len(),
                    left_out = read.left_out,
                    "going on from the state of the agent before this one"
                );
                Left::State(Box::new(read))
            }
            Ok(None) => {
                info!(path = %path.display(), "the state is from another boot");
                Left::Nothing
            }
            Err(error) => self.damaged(&path, &error),
        }
    }

    fn damaged(&self, path: &Path, error: &anyhow::Error) -> Left {
        let aside = self.folder.join(format!("{NAME}.damaged"));
        let why = match fs::rename(path, &aside) {
            Ok(()) => format!("{error:#}; it was set aside as {}", aside.display()),
            Err(rename) => format!("{error:#}; it could not be set aside: {rename}"),
        };
        warn!(path = %path.display(), why, "the state of the agent before this one is damaged");
        Left::Damaged(why)
    }

    /// Whole or not at all.
    pub(crate) fn save(&mut self, state: &State) {
        match self.write(state) {
            Ok(()) => self.broken = false,
            Err(error) if self.broken => tracing::debug!(error = format!("{error:#}"), "no state"),
            Err(error) => {
                self.broken = true;
                warn!(
                    error = format!("{error:#}"),
                    "the state cannot be saved: after a restart, findings are rebuilt from the kernel log and the Node; mount a tmpfs of the host at --state-dir"
                );
            }
        }
    }

    fn write(&self, state: &State) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(state).context("serialize the state")?;
        let new = self.folder.join(format!("{NAME}.new"));
        let show = || format!("write {}", new.display());
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("create {}", self.folder.display()))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&new)
            .with_context(show)?;
        file.write_all(&bytes).with_context(show)?;
        let path = self.path();
        fs::rename(&new, &path).with_context(|| format!("replace {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::finding::Now;

    fn state() -> State {
        let now = Now {
            boot: Duration::from_secs(9),
            wall: "2026-01-02T03:04:05Z".parse().unwrap(),
        };
        State::new("boot".to_owned(), now, Duration::ZERO)
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = StateFile::new(folder.path().join("new"));
        assert_eq!(file.load("boot"), Left::Nothing);
        file.save(&state());
        let Left::State(read) = file.load("boot") else {
            panic!("no state")
        };
        assert_eq!(read.state, state());
        assert_eq!(file.load("another"), Left::Nothing);
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_the_next_one_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = StateFile::new(folder.path().to_owned());
        fs::write(file.path(), b"{\"format\":").unwrap();
        let Left::Damaged(why) = file.load("boot") else {
            panic!("it was read")
        };
        assert!(why.contains("set aside"), "{why}");
        assert_eq!(file.load("boot"), Left::Nothing);
        file.save(&state());
        assert!(matches!(file.load("boot"), Left::State(_)));
        assert!(folder.path().join(format!("{NAME}.damaged")).exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_survived() {
        let mut file = StateFile::new(PathBuf::from("/proc/nodemend"));
        file.save(&state());
        assert!(file.broken);
        assert_eq!(file.load("boot"), Left::Nothing);
    }
}
