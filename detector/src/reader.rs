//! The one thread from the kernel to the decision: waits for the sources, for messages, and for the
//! time that the core asked for; nothing ticks.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::clock;
use crate::core::{Core, Evidence, Existing, Input, Output};
use crate::probe::Prober;
use crate::source::Source;

/// What other threads tell the reader.
pub(crate) enum Message {
    Existing(Vec<Existing>),
    Evidence {
        device: String,
        evidence: Evidence,
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

/// Starts the thread. It ends with [`Message::Stop`], or with an error when a source breaks.
pub(crate) fn start(
    sources: Vec<Box<dyn Source + Send>>,
    core: Core,
    prober: Prober,
    output: impl FnMut(Output) + Send + 'static,
) -> anyhow::Result<(Mailbox, JoinHandle<anyhow::Result<()>>)> {
    let (queue, messages) = mpsc::channel();
    let wake = Arc::new(
        eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).context("make an eventfd")?,
    );
    let mailbox = Mailbox { queue, wake };
    let reader = Reader {
        sources,
        core,
        prober,
        mailbox: mailbox.clone(),
        messages,
        output,
    };
    let thread = thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || reader.run());
    Ok((mailbox, thread.context("start the reader thread")?))
}

struct Reader<F> {
    sources: Vec<Box<dyn Source + Send>>,
    core: Core,
    prober: Prober,
    mailbox: Mailbox,
    messages: Receiver<Message>,
    output: F,
}

impl<F: FnMut(Output)> Reader<F> {
    fn run(mut self) -> anyhow::Result<()> {
        take_priority();
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
                    Message::Evidence { device, evidence } => {
                        self.step(Input::Evidence { device, evidence })
                    }
                    // Who asked may have given up.
                    Message::Ping(answer) => drop(answer.send(())),
                    Message::Stop => return Ok(()),
                }
            }
            if self.core.wake_at().is_some_and(|at| at <= clock::boot()) {
                self.step(Input::Wake);
            }
        }
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
        let timeout = self
            .core
            .wake_at()
            .map(|at| at.saturating_sub(clock::boot()));
        let timeout = timeout
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
            mailbox,
            output,
            ..
        } = self;
        let source = &mut sources[index];
        source
            .drain(&mut |signal| {
                let outputs = core.step(Input::Signal(signal), clock::now());
                hand_over(outputs, prober, mailbox, output);
            })
            .with_context(|| format!("the source {:?} broke", source.name()))
    }

    fn step(&mut self, input: Input) {
        let outputs = self.core.step(input, clock::now());
        hand_over(outputs, &self.prober, &self.mailbox, &mut self.output);
    }
}

fn hand_over(
    outputs: Vec<Output>,
    prober: &Prober,
    mailbox: &Mailbox,
    output: &mut impl FnMut(Output),
) {
    for item in outputs {
        match item {
            Output::Probe { device } => {
                let mailbox = mailbox.clone();
                prober.probe(device, move |device, evidence| {
                    mailbox.send(Message::Evidence { device, evidence })
                });
            }
            Output::Transition(_) | Output::Conditions { .. } => output(item),
        }
    }
}

/// Sick nodes are busy nodes: at load 9 on two CPUs a normal reader woke 10 ms after the event, a
/// real-time one 71 µs (Linux 6.18).
fn take_priority() {
    let parameters = libc::sched_param { sched_priority: 5 };
    // Not for the threads that this one starts: a probe may be slow.
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    #[expect(unsafe_code, reason = "sched_setscheduler is a C function")]
    // SAFETY: 0 is the calling thread, and `parameters` outlives the call.
    let real_time = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } == 0;
    if real_time {
        info!(priority = 5, "the reader thread runs under SCHED_RR");
        return;
    }
    // EPERM where RT_GROUP_SCHED is on and the process is not in the root cgroup.
    let nice = rustix::process::nice(-10).is_ok();
    info!(
        nice,
        "SCHED_RR is not allowed here; the reader thread is niced instead where that is allowed"
    );
}
