//! Reads the configuration file at start, and again whenever it changes.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;
use tracing::{error, info, warn};

use crate::args::SourceArgs;
use crate::config::{self, Config, ConfigError};
use crate::logs::Logs;
use crate::reader::Message;
use crate::signal::What;

pub(crate) const DEFAULT_PATH: &str = "/etc/nodemend/detector.yaml";

/// The kubelet's last step of a ConfigMap's update is a rename, but an editor takes several.
const SETTLE: Duration = Duration::from_millis(200);
/// Nothing tells when the file's directory appears.
const RETRY: Duration = Duration::from_secs(5);
const MOST_CHANGES: usize = 20;

pub(crate) struct ConfigFile {
    path: PathBuf,
    /// Named by the user, so it must be there.
    explicit: bool,
    /// What the flags say where the file does not.
    critical_mounts: Vec<String>,
    content: Content,
}

/// What was found where the file should be.
#[derive(PartialEq, Eq)]
enum Content {
    Absent,
    Bytes(Vec<u8>),
    Unreadable(String),
}

impl ConfigFile {
    /// What is in force from the start. All errors at once, one a line.
    pub(crate) fn open(args: &SourceArgs) -> anyhow::Result<(Self, Config)> {
        let path = args.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let file = Self {
            path: path.to_owned(),
            explicit: args.config.is_some(),
            critical_mounts: args.critical_mounts.clone(),
            content: read(path),
        };
        let config = match &file.content {
            Content::Absent if !file.explicit => file.complete(Config::default()),
            content => match file.parse(content) {
                Ok(config) => config,
                Err(wrong) => bail!("{}", lines(&file.path, &wrong).join("\n")),
            },
        };
        Ok((file, config))
    }

    fn parse(&self, content: &Content) -> Result<Config, Vec<ConfigError>> {
        match content {
            Content::Bytes(bytes) => config::parse(bytes).map(|config| self.complete(config)),
            Content::Absent => Err(vec![about_the_file("there is no such file")]),
            Content::Unreadable(why) => Err(vec![about_the_file(why)]),
        }
    }

    fn complete(&self, mut config: Config) -> Config {
        let flags = || self.critical_mounts.clone();
        config.critical_mounts.get_or_insert_with(flags);
        config
    }

    /// For `check`.
    pub(crate) fn describe(&self) -> String {
        match self.content {
            Content::Absent => format!("defaults; no {}", self.name()),
            Content::Bytes(_) | Content::Unreadable(_) => self.name(),
        }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Tells `send` what became of every change, from a thread that nobody waits for.
    pub(crate) fn watch(
        mut self,
        running: &Config,
        logs: Logs,
        send: impl Fn(Message) + Send + 'static,
    ) -> anyhow::Result<()> {
        let at_start = running.at_start.clone();
        let work = move || {
            // Of the run before this one there may be a finding left.
            send(self.told(None, None, None));
            loop {
                let watch = self.add_watches();
                // After the watches: a change since the last look is seen now or told.
                let content = read(&self.path);
                if content != self.content {
                    send(self.change(&content, &at_start, &logs));
                    self.content = content;
                }
                if let Err(error) = wait(watch.as_ref()) {
                    warn!(error = format!("{error:#}"), "changes of the configuration");
                    thread::sleep(RETRY);
                }
            }
        };
        thread::Builder::new()
            .name("config".to_owned())
            .spawn(work)
            .context("start the thread that watches the configuration")?;
        Ok(())
    }

    fn change(&self, content: &Content, at_start: &config::AtStart, logs: &Logs) -> Message {
        let file = self.name();
        match self.parse(content) {
            Ok(mut config) => {
                // In the log, where there is no journal.
                drop(logs.feed(&mut config));
                let pending = at_start.differs_in(&config.at_start);
                info!(
                    file,
                    ?pending,
                    "the configuration has changed and is in force"
                );
                let pending = (!pending.is_empty()).then(|| pending.join(", "));
                self.told(Some(Arc::new(config)), None, pending)
            }
            Err(wrong) => {
                for line in lines(&self.path, &wrong) {
                    error!("{line}");
                }
                self.told(None, Some(config::summary(&wrong)), None)
            }
        }
    }

    fn told(
        &self,
        config: Option<Arc<Config>>,
        invalid: Option<String>,
        pending: Option<String>,
    ) -> Message {
        let file = self.name();
        let state = What::Configuration {
            file,
            invalid,
            pending,
        };
        Message::Config { config, state }
    }

    /// On the directory: a ConfigMap's file is a link through `..data`, which is replaced. None: it
    /// cannot be watched.
    fn add_watches(&self) -> Option<OwnedFd> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = inotify::init(flags)
            .inspect_err(|error| warn!(%error, "the configuration is looked at every 5 s"))
            .ok()?;
        let changes = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        let target = self.path.canonicalize().ok();
        let directory = |path: &Path| path.parent().map(Path::to_owned);
        inotify::add_watch(&watch, directory(&self.path)?, changes).ok()?;
        // Elsewhere, where the file is a link of the user's own.
        if let Some(target) = target.as_deref().and_then(directory) {
            inotify::add_watch(&watch, target, changes).ok()?;
        }
        Some(watch)
    }
}

/// `FILE:LINE:COLUMN: path: message`
pub(crate) fn lines(path: &Path, errors: &[ConfigError]) -> Vec<String> {
    let line = |error: &ConfigError| {
        let space = if error.place.line > 0 { "" } else { " " };
        format!("{}:{space}{error}", path.display())
    };
    errors.iter().map(line).collect()
}

/// For `check`: no thread, no flags.
pub(crate) fn validate(path: &Path) -> Result<Config, Vec<ConfigError>> {
    match read(path) {
        Content::Bytes(bytes) => config::parse(&bytes),
        Content::Absent => Err(vec![about_the_file("there is no such file")]),
        Content::Unreadable(why) => Err(vec![about_the_file(&why)]),
    }
}

fn about_the_file(message: &str) -> ConfigError {
    ConfigError {
        path: String::new(),
        place: config::Place::default(),
        message: message.to_owned(),
    }
}

fn read(path: &Path) -> Content {
    match bytes(path) {
        Ok(bytes) => Content::Bytes(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Content::Absent,
        Err(error) => Content::Unreadable(format!("cannot be read: {error}")),
    }
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    // A FIFO must not hold up the thread.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    // One more than allowed shows that it is too long.
    let limit = u64::try_from(config::FILE_LIMIT).map_or(u64::MAX, |limit| limit + 1);
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Until something has changed and settled, or for a while where nothing can tell.
fn wait(watch: Option<&OwnedFd>) -> anyhow::Result<()> {
    let Some(watch) = watch else {
        thread::sleep(RETRY);
        return Ok(());
    };
    let mut timeout = None;
    // In a folder where something changes all the time it never settles.
    for _ in 0..MOST_CHANGES {
        let mut fds = [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error).context("wait for changes of the configuration"),
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(watch, &mut buffer);
        while events.next().is_ok() {}
        let settle = Timespec::try_from(SETTLE).context("compute the time to sleep")?;
        timeout = Some(settle);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
