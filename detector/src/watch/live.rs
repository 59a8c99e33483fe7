//! The live view: drawn anew when something has changed, and when the window has.

use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::task::Poll;
use std::time::Duration;

use anyhow::Context;
use rustix::process;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::terminal::{LogLine, Terminal};
use super::view::View;
use crate::args::Format;
use crate::core::Output;
use crate::logging;
use crate::metrics::Metrics;

/// What comes together is drawn together; a flood makes 20 pictures a second.
const TOGETHER: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By a signal.
    Asked,
    ReaderEnded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Stop,
    Suspend,
    Continue,
    Resized,
}

/// Starts the log; its lines come here as long as they would be written over the view.
pub(super) fn start_log() -> UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    if io::stderr().is_terminal() {
        logging::start_in_view(move || {
            let sender = sender.clone();
            // The view may be over.
            LogLine(move |line| drop(sender.send(line)))
        });
    } else {
        logging::start(Format::Text);
    }
    lines
}

pub(super) fn show(
    mut view: View,
    metrics: &Metrics,
    mut outputs: UnboundedReceiver<Output>,
    mut log: UnboundedReceiver<String>,
) -> anyhow::Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start tokio")?;
    runtime.block_on(async {
        let mut signals = listen()?;
        let mut terminal = Terminal::take()?;
        loop {
            view.count(metrics.sources());
            terminal.draw(&view)?;
            tokio::select! {
                output = outputs.recv() => match output {
                    Some(output) => view.take(output),
                    None => return Ok(End::ReaderEnded),
                },
                Some(line) = log.recv() => view.log(line),
                said = next(&mut signals) => match said {
                    Said::Stop => return Ok(End::Asked),
                    Said::Suspend => {
                        terminal.suspend();
                        process::kill_process(process::getpid(), process::Signal::STOP)
                            .context("stop this process")?;
                    }
                    Said::Continue => terminal.resume()?,
                    Said::Resized => terminal.forget(),
                },
            }
            tokio::time::sleep(TOGETHER).await;
            while let Ok(output) = outputs.try_recv() {
                view.take(output);
            }
            while let Ok(line) = log.try_recv() {
                view.log(line);
            }
        }
    })
}

fn listen() -> anyhow::Result<Vec<(Said, Signal)>> {
    let kinds = [
        (Said::Stop, SignalKind::interrupt()),
        (Said::Stop, SignalKind::terminate()),
        (Said::Stop, SignalKind::hangup()),
        (Said::Stop, SignalKind::quit()),
        (Said::Suspend, SignalKind::from_raw(libc::SIGTSTP)),
        (Said::Continue, SignalKind::from_raw(libc::SIGCONT)),
        (Said::Resized, SignalKind::window_change()),
    ];
    kinds
        .into_iter()
        .map(|(said, kind)| Ok((said, signal(kind)?)))
        .collect::<io::Result<_>>()
        .context("listen for signals")
}

async fn next(signals: &mut [(Said, Signal)]) -> Said {
    poll_fn(|context| {
        for (said, signal) in &mut *signals {
            if let Poll::Ready(Some(())) = signal.poll_recv(context) {
                return Poll::Ready(*said);
            }
        }
        Poll::Pending
    })
    .await
}
