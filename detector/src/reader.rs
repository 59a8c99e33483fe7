//! The one thread from the kernel to the decision: waits for the sources, for messages, and for the
//! time that the core asked for; nothing ticks.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;
use tracing::warn;

use crate::clock;
use crate::config::{Config, Scope};
use crate::core::{Core, Evidence, Existing, Input, NodeSays, Output, TaskState};
use crate::probe::{CpuState, Prober};
use crate::signal::{Signal, What};
use crate::source::Source;
use crate::state::State;
use crate::state::file::Left;
use crate::urgency;

/// What other threads tell the reader.
pub(crate) enum Message {
    Existing(Vec<Existing>),
    Node(NodeSays),
    Evidence {
        device: String,
        evidence: Evidence,
    },
    Task {
        pid: u32,
        state: TaskState,
    },
    Cpu {
        cpu: u32,
        state: CpuState,
    },
    /// From a thread that is no source.
    Signal(Signal),
    /// The configuration file has changed; `config` is absent where the old one stays in force.
    Config {
        config: Option<Arc<Config>>,
        state: What,
    },
    /// Answered at once by a reader that is alive.
    Ping(oneshot::Sender<()>),
    Stop,
}

/// The way into the reader: a queue and the descriptor that wakes it.
#[derive(Clone)]
pub(crate) struct Mailbox {
    queue: Sender<Message>,
    wake: Arc<OwnedFd>,
}

impl Mailbox {
    pub(crate) fn send(&self, message: Message) {
        // A reader that is gone has reported why, and wants nothing more.
        if self.queue.send(message).is_ok()
            && let Err(error) = rustix::io::write(&self.wake, &1u64.to_ne_bytes())
        {
            warn!(%error, "the reader thread could not be woken");
        }
    }
}

/// What the agent before this one left, and what the next one will be left.
pub(crate) struct Memory {
    pub boot_id: String,
    pub left: Left,
}

/// Repeats of what has been told change only numbers: these are saved a little later.
const SAVE_DELAY: Duration = Duration::from_secs(1);
/// Lines that say nothing move the position in the log: how old a saved one may become.
const POSITION_AGE: Duration = Duration::from_secs(30);

/// Starts the thread. It ends with [`Message::Stop`], or with an error when a source breaks.
pub(crate) fn start(
    sources: Vec<Box<dyn Source + Send>>,
    core: Core,
    prober: Prober,
    config: Arc<Config>,
    memory: Memory,
    output: impl FnMut(Output) + Send + 'static,
) -> anyhow::Result<(Mailbox, JoinHandle<anyhow::Result<()>>)> {
    let (queue, messages) = mpsc::channel();
    let wake = Arc::new(
        eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).context("make an eventfd")?,
    );
    let mailbox = Mailbox { queue, wake };
    let mut reader = Reader {
        sources,
        core,
        prober,
        scope: Scope::default(),
        mailbox: mailbox.clone(),
        messages,
        boot_id: memory.boot_id,
        first_start: clock::boot(),
        save_at: None,
        saved: Duration::ZERO,
        saved_positions: BTreeMap::new(),
        output,
    };
    let thread = thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || {
            reader.configure(&config);
            reader.run(memory.left)
        });
    Ok((mailbox, thread.context("start the reader thread")?))
}

struct Reader<F> {
    sources: Vec<Box<dyn Source + Send>>,
    core: Core,
    prober: Prober,
    scope: Scope,
    mailbox: Mailbox,
    messages: Receiver<Message>,
    boot_id: String,
    /// Of the first agent in this boot.
    first_start: Duration,
    /// When what has changed is to be saved.
    save_at: Option<Duration>,
    saved: Duration,
    saved_positions: BTreeMap<String, u64>,
    output: F,
}

impl<F: FnMut(Output)> Reader<F> {
    fn run(mut self, left: Left) -> anyhow::Result<()> {
        urgency::scheduling().log();
        self.go_on(left);
        for source in 0..self.sources.len() {
            self.drain(source)?;
        }
        self.step(Input::HistoryRead);
        loop {
            for source in self.wait()? {
                self.drain(source)?;
            }
            while let Ok(message) = self.messages.try_recv() {
                match message {
                    Message::Existing(existing) => self.step(Input::Existing(existing)),
                    Message::Node(says) => self.step(Input::Node(says)),
                    Message::Signal(signal) => self.step(Input::Signal(signal)),
                    Message::Evidence { device, evidence } => {
                        self.step(Input::Evidence { device, evidence })
                    }
                    Message::Task { pid, state } => self.step(Input::Task { pid, state }),
                    Message::Cpu { cpu, state } => self.step(Input::Cpu { cpu, state }),
                    Message::Stop => {
                        self.save();
                        return Ok(());
                    }
                    Message::Config { config, state } => {
                        if let Some(config) = config {
                            self.configure(&config);
                        }
                        self.step(Input::Signal(Signal {
                            at: clock::boot(),
                            historic: false,
                            what: state,
                        }));
                    }
                    // Who asked may have given up.
                    Message::Ping(answer) => drop(answer.send(())),
                }
            }
            if self.core.wake_at().is_some_and(|at| at <= clock::boot()) {
                self.step(Input::Wake);
            }
            self.save_if_due();
        }
    }

    fn go_on(&mut self, left: Left) {
        let now = clock::now();
        let outputs = match left {
            Left::Nothing => return,
            Left::Damaged(why) => self.core.state_damaged(&why, now),
            Left::State(read) => {
                self.first_start = read.state.first_start;
                for source in &mut self.sources {
                    source.resume(self.first_start, &read.state.positions);
                }
                self.core.restore(&read.state, now)
            }
        };
        self.hand_over(outputs);
    }

    fn save_if_due(&mut self) {
        let now = clock::boot();
        let stale = now.saturating_sub(self.saved) >= POSITION_AGE;
        if self.save_at.is_some_and(|at| at <= now)
            || (stale && self.positions() != self.saved_positions)
        {
            self.save();
        }
    }

    fn positions(&self) -> BTreeMap<String, u64> {
        let sources = self.sources.iter();
        sources.flat_map(|source| source.positions()).collect()
    }

    fn save(&mut self) {
        let now = clock::now();
        let mut state = State::new(self.boot_id.clone(), now, self.first_start);
        self.core.save(&mut state);
        state.positions = self.positions();
        self.saved_positions.clone_from(&state.positions);
        (self.save_at, self.saved) = (None, now.boot);
        (self.output)(Output::Open(self.core.open_findings()));
        (self.output)(Output::State(Box::new(state)));
    }

    /// Sleeps until something is readable or due; returns the indices of the readable sources.
    fn wait(&self) -> anyhow::Result<Vec<usize>> {
        let mut owners = Vec::new();
        let mut fds = vec![PollFd::from_borrowed_fd(
            self.mailbox.wake.as_fd(),
            PollFlags::IN,
        )];
        for (index, source) in self.sources.iter().enumerate() {
            for fd in source.fds() {
                owners.push(index);
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        let wake_at = self.core.wake_at().into_iter().chain(self.save_at).min();
        let timeout = wake_at
            .map(|at| at.saturating_sub(clock::boot()))
            .map(Timespec::try_from)
            .transpose()
            .context("compute the time to sleep")?;
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for the sources"),
        }
        if !fds[0].revents().is_empty() {
            let mut counter = [0; 8];
            if let Err(error) = rustix::io::read(&self.mailbox.wake, &mut counter)
                && error != Errno::AGAIN
            {
                return Err(error).context("read the eventfd");
            }
        }
        let mut readable: Vec<_> = owners
            .iter()
            .zip(&fds[1..])
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(&owner, _)| owner)
            .collect();
        readable.dedup();
        Ok(readable)
    }

    fn drain(&mut self, index: usize) -> anyhow::Result<()> {
        let Self {
            sources,
            core,
            prober,
            scope,
            mailbox,
            save_at,
            output,
            ..
        } = self;
        let source = &mut sources[index];
        source
            .drain(&mut |signal| {
                if !scope.admits(&signal.what) {
                    return;
                }
                let outputs = core.step(Input::Signal(signal), clock::now());
                hand_over(outputs, prober, mailbox, save_at, output);
            })
            .with_context(|| format!("the source {:?} broke", source.name()))
    }

    /// All of it, between two signals.
    fn configure(&mut self, config: &Config) {
        for source in &mut self.sources {
            source.configure(&config.rules);
        }
        self.scope = config.scope.clone();
        if let Some(mounts) = &config.critical_mounts {
            self.prober.set_critical(mounts.clone());
        }
        self.step(Input::Settings(config.settings.clone()));
    }

    fn step(&mut self, input: Input) {
        let outputs = self.core.step(input, clock::now());
        self.hand_over(outputs);
    }

    fn hand_over(&mut self, outputs: Vec<Output>) {
        let Self {
            prober,
            mailbox,
            save_at,
            output,
            ..
        } = self;
        hand_over(outputs, prober, mailbox, save_at, output);
    }
}

fn hand_over(
    outputs: Vec<Output>,
    prober: &Prober,
    mailbox: &Mailbox,
    save_at: &mut Option<Duration>,
    output: &mut impl FnMut(Output),
) {
    save_at.get_or_insert_with(|| clock::boot() + SAVE_DELAY);
    for item in outputs {
        match item {
            Output::Probe { device } => {
                let mailbox = mailbox.clone();
                prober.probe(device, move |device, evidence| {
                    mailbox.send(Message::Evidence { device, evidence })
                });
            }
            Output::LookAtCpu { cpu } => {
                let mailbox = mailbox.clone();
                prober.look_at_cpu(cpu, move |state| mailbox.send(Message::Cpu { cpu, state }));
            }
            // It cannot hang: the kernel takes no lock of the task for it.
            Output::LookAtTask { pid } => mailbox.send(Message::Task {
                pid,
                state: prober.task_state(pid),
            }),
            Output::Transition(_) | Output::Conditions { .. } => {
                *save_at = Some(Duration::ZERO);
                output(item);
            }
            Output::Open(_) | Output::State(_) => output(item),
        }
    }
}
