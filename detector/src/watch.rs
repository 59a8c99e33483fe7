//! `nodemend-detector watch`: findings and conditions of this host, live, without a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use self::live::End;
use self::view::View;
use crate::args::{Format, SourceArgs};
use crate::clock;
use crate::core::Core;
use crate::host::Host;
use crate::logging;
use crate::metrics::{Metrics, counted};
use crate::probe::Prober;
use crate::reader::{self, Memory, Message};
use crate::reload::ConfigFile;
use crate::signal::SourceName;
use crate::source::bpf::HookStatus;
use crate::state::file::Left;

mod json;
mod lines;
mod live;
mod row;
mod terminal;
mod view;

enum Display {
    /// With the log's lines.
    Live(UnboundedReceiver<String>),
    Lines(Format),
}

pub(crate) fn watch(args: &SourceArgs, format: Format) -> anyhow::Result<()> {
    let display = if format == Format::Text && terminal::can_draw() {
        Display::Live(live::start_log())
    } else {
        logging::start(format);
        Display::Lines(format)
    };
    let (file, mut config) = ConfigFile::open(args).context("use the configuration")?;
    let host = Host::open(args, &config);
    let logs = host.logs();
    let journal = logs.feed(&mut config);
    if host.watches_nothing(&config) {
        bail!("nothing can be watched on this host; `nodemend-detector check` says why");
    }
    let (sender, outputs) = mpsc::unbounded_channel();
    let core = Core::new(host.monitored());
    let prober = Prober::new(args.host_proc.clone(), args.critical_mounts.clone());
    let metrics = Arc::new(Metrics::default());
    metrics.host(&host);
    let missing = missing(&host, journal.err());
    // What a look at the host shows is nobody's memory.
    let memory = Memory {
        boot_id: clock::boot_id()?,
        left: Left::Nothing,
    };
    let config = Arc::new(config);
    let output = move |output| {
        // When nobody shows it any more the process is on its way out.
        drop(sender.send(output));
    };
    let (mailbox, thread) = reader::start(
        counted::all(host.sources, &metrics),
        core,
        prober,
        Arc::clone(&config),
        memory,
        output,
    )?;
    let changes = mailbox.clone();
    file.watch(&config, logs, move |message| changes.send(message))?;
    // There is no Node whose conditions could stand already.
    mailbox.send(Message::Existing(Vec::new()));
    match display {
        Display::Live(log) => {
            let view = View::new(host.hooks, missing);
            if live::show(view, &metrics, outputs, log)? == End::Asked {
                return Ok(());
            }
        }
        Display::Lines(format) => lines::show(format, &host.hooks, outputs)?,
    }
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("the reader thread panicked"),
    }
}

/// Why a source is not watched.
fn missing(host: &Host, journal: Option<String>) -> BTreeMap<SourceName, String> {
    let programs = host
        .sources
        .iter()
        .any(|open| open.name() == SourceName::Bpf);
    let why = |status: &HookStatus| status.missing.clone();
    let programs = if programs {
        None
    } else {
        host.hooks.first().and_then(why)
    };
    let others = [
        (SourceName::Nvml, &host.nvml),
        (SourceName::File, &host.log_files),
        (SourceName::Counters, &host.counted),
    ];
    let others = others
        .into_iter()
        .filter_map(|(source, open)| Some((source, open.clone().err()?)))
        .chain(journal.map(|why| (SourceName::Journal, why)));
    let kernel_log = host.kernel_log.as_ref().err();
    programs
        .map(|why| (SourceName::Bpf, why))
        .into_iter()
        .chain(kernel_log.map(|why| (SourceName::Kmsg, why.clone())))
        .chain(others)
        .collect()
}
