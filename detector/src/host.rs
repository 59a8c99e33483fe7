//! Opens the sources that this host supports, and says what the others miss.

use std::path::PathBuf;

use tracing::{info, warn};

use crate::args::{Interval, SourceArgs};
use crate::config::Config;
use crate::logs::Logs;
use crate::probe;
use crate::reason::ConditionType;
use crate::signal::SourceName;
use crate::source::Source;
use crate::source::blocked::BlockedSource;
use crate::source::bpf::{BpfSource, Hook, HookStatus};
use crate::source::counters::{self, CounterStatus, CountersSource};
use crate::source::file::FileSource;
use crate::source::journal::JournalSource;
use crate::source::kmsg::{self, KernelLog};
use crate::source::nvml::{self, NvmlSource};
use crate::source::pressure::PressureSource;

pub(crate) struct Host {
    pub sources: Vec<Box<dyn Source + Send>>,
    pub hooks: Vec<HookStatus>,
    /// How the kernel log is read, or why it cannot be.
    pub kernel_log: Result<KernelLog, String>,
    /// Why GPUs are not watched: on most nodes, because there are none.
    pub nvml: Result<(), String>,
    /// Why no log file can be followed.
    pub log_files: Result<(), String>,
    /// The host's root, or why no journal can be followed there.
    journal: Result<PathBuf, String>,
    /// Why nothing that the kernel only counts is read.
    pub counted: Result<(), String>,
    pub counters: Vec<CounterStatus>,
    gpu_driver: bool,
}

impl Host {
    pub(crate) fn open(flags: &SourceArgs, config: &Config) -> Self {
        let args = &effective(flags, config);
        let off = |key| format!("turned off by the configuration ({key}.enabled)");
        let mut sources: Vec<Box<dyn Source + Send>> = Vec::new();
        let mut copies = None;
        let hooks = match BpfSource::load(args) {
            Ok((source, mut hooks)) => {
                let console = |status: &&mut HookStatus| {
                    status.hook == Hook::Console && status.using.is_some()
                };
                if let Some(status) = hooks.iter_mut().find(console) {
                    match source.lines() {
                        Ok(lines) => copies = Some(lines),
                        Err(error) => {
                            (status.using, status.missing) = (None, Some(format!("{error:#}")));
                        }
                    }
                }
                if let Some(status) = hooks
                    .iter_mut()
                    .find(|status| status.hook == Hook::BlockedTask && status.using.is_some())
                {
                    match BlockedSource::start(source.tasks(), args.task_interval.0) {
                        Ok(source) => sources.push(Box::new(source)),
                        Err(error) => {
                            (status.using, status.missing) = (None, Some(format!("{error:#}")));
                        }
                    }
                }
                sources.push(Box::new(source));
                hooks
            }
            Err(error) => {
                let why = format!("{error:#}");
                Hook::ALL
                    .into_iter()
                    .map(|hook| HookStatus::not_attached(hook, why.clone()))
                    .collect()
            }
        };
        let attached = hooks.iter().filter(|status| status.using.is_some());
        let told: Vec<_> = attached.map(|status| status.hook).collect();
        let kernel_log = if config.at_start.kernel_log {
            kmsg::open(
                args.host_proc.clone(),
                args.host_sys.clone(),
                told.clone(),
                copies,
            )
            .map(|(source, log)| {
                sources.push(source);
                log
            })
            .map_err(|error| format!("{error:#}"))
        } else {
            Err(off("sources.kernelLog"))
        };
        let nvml = if config.at_start.nvml.enabled {
            NvmlSource::start(args)
                .map(|source| sources.push(Box::new(source)))
                .map_err(|error| format!("{error:#}"))
        } else {
            Err(off("sources.nvml"))
        };
        let (counted, counters) = if config.at_start.counters {
            open_counters(args, &told, kernel_log.is_ok(), &mut sources)
        } else {
            let why = "turned off by the configuration (sources.counters.enabled)";
            (Err(why.to_owned()), counters::unused(args, why))
        };
        let root = probe::find_host_root(&args.host_proc).map_err(|error| format!("{error:#}"));
        let log_files = root.clone().and_then(|root| {
            FileSource::start(root)
                .map(|source| sources.push(Box::new(source)))
                .map_err(|error| format!("{error:#}"))
        });
        // Also where there is no journal: it may come later.
        let journal = root.and_then(|root| {
            let source = JournalSource::start(&root).map_err(|error| format!("{error:#}"))?;
            sources.push(Box::new(source));
            Ok(root)
        });
        Self {
            sources,
            hooks,
            kernel_log,
            nvml,
            log_files,
            journal,
            counted,
            counters,
            gpu_driver: nvml::driver_loaded(&args.host_sys),
        }
    }

    /// The conditions whose faults would be seen. The others are left absent: never healthy unseen.
    pub(crate) fn monitored(&self) -> Vec<ConditionType> {
        let log = self.kernel_log.is_ok();
        let attached = |hook| {
            self.hooks
                .iter()
                .any(|status| status.hook == hook && status.using.is_some())
        };
        ConditionType::ALL
            .into_iter()
            .filter(|condition| match condition {
                ConditionType::KernelReady => {
                    let hung = attached(Hook::HungTask) || attached(Hook::BlockedTask);
                    log && attached(Hook::Oom) && hung
                }
                ConditionType::StorageReady => log && attached(Hook::BlockIo),
                ConditionType::NetworkingReady => attached(Hook::NetDrop),
                // Only log rules look at it: `Settings::fed_by_rules`.
                ConditionType::ContainerRuntimeReady => false,
                // By the kernel log alone until NVML answers.
                ConditionType::AcceleratedHardwareReady => log && self.gpu_driver,
            })
            .collect()
    }

    /// Whether there is anything to wait for. Log files and the journal count only where a rule names
    /// one of them.
    pub(crate) fn watches_nothing(&self, config: &Config) -> bool {
        let counts = |source: SourceName| match source {
            SourceName::File => config.rules.asked_files().next().is_some(),
            SourceName::Journal => config.rules.asked_units().next().is_some(),
            // They tell the rest of what others tell.
            SourceName::Counters => false,
            SourceName::Bpf | SourceName::Kmsg | SourceName::Nvml => true,
        };
        !self.sources.iter().any(|source| counts(source.name()))
    }

    pub(crate) fn logs(&self) -> Logs {
        Logs {
            kernel_log: self.kernel_log.is_ok(),
            files: self.log_files.is_ok(),
            journal: self.journal.clone(),
        }
    }

    pub(crate) fn log(&self) {
        for status in &self.hooks {
            match (&status.using, &status.missing) {
                (Some(using), missing) => {
                    info!(
                        hook = status.hook.name(),
                        using,
                        not_preferred = missing.as_deref(),
                        "attached"
                    );
                }
                (None, missing) if status.absent => info!(
                    hook = status.hook.name(),
                    missing = missing.as_deref(),
                    "not on this kernel"
                ),
                (None, missing) => warn!(
                    hook = status.hook.name(),
                    missing = missing.as_deref(),
                    "not watched"
                ),
            }
        }
        match &self.kernel_log {
            Ok(KernelLog {
                using,
                missing: Some(missing),
            }) => warn!(source = "kernel log", using, missing, "not by the device"),
            Ok(_) => {}
            Err(missing) => warn!(source = "kernel log", missing, "not watched"),
        }
        if let Err(missing) = &self.nvml {
            info!(source = "NVML", missing, "not watched");
        }
        if let Err(missing) = &self.log_files {
            warn!(source = "log files", missing, "not watched");
        }
        for status in &self.counters {
            let CounterStatus {
                name,
                using,
                missing,
                absent,
            } = status;
            match (using, missing) {
                (Some(using), _) => info!(counter = name, using, "counted"),
                (None, missing) if *absent => {
                    info!(counter = name, missing, "not on this host");
                }
                (None, missing) => warn!(counter = name, missing, "not watched"),
            }
        }
    }
}

type Counters = (Result<(), String>, Vec<CounterStatus>);

fn open_counters(
    args: &SourceArgs,
    told: &[Hook],
    kernel_log: bool,
    sources: &mut Vec<Box<dyn Source + Send>>,
) -> Counters {
    let (counted, mut counters) = match CountersSource::start(args, told, kernel_log) {
        Ok((source, counters)) => {
            sources.push(Box::new(source));
            (Ok(()), counters)
        }
        Err(error) => {
            let why = format!("{error:#}");
            let unused = counters::unused(args, &why);
            (Err(why), unused)
        }
    };
    let mut pressure = CounterStatus {
        name: "memory-stall",
        using: None,
        missing: None,
        absent: false,
    };
    match PressureSource::open(&args.host_proc) {
        Ok(Some(source)) => {
            sources.push(Box::new(source));
            pressure.using = Some("trigger of /proc/pressure/memory".to_owned());
        }
        Ok(None) => {
            pressure.missing =
                Some("no pressure/memory in /proc: CONFIG_PSI, or psi=1 at boot".to_owned());
            pressure.absent = true;
        }
        Err(error) => pressure.missing = Some(format!("{error:#}")),
    }
    counters.push(pressure);
    counters.sort_by_key(|status| status.name);
    (counted, counters)
}

/// What the file says goes before what the flags say: it is what changes live. A hook is off when
/// either says so.
fn effective(flags: &SourceArgs, config: &Config) -> SourceArgs {
    let mut args = flags.clone();
    let at_start = &config.at_start;
    args.disable_hooks.extend(&at_start.disabled_hooks);
    args.allowed_filter_chains
        .extend(at_start.allowed_filter_chains.iter().cloned());
    if let Some(library) = &at_start.nvml.library {
        args.nvml_library = library.into();
    }
    if let Some(interval) = at_start.nvml.interval {
        args.gpu_interval = Interval(interval);
    }
    args
}
