//! Opens the sources that this host supports, and says what the others miss.

use tracing::{info, warn};

use crate::args::{Interval, SourceArgs};
use crate::config::Config;
use crate::probe;
use crate::reason::ConditionType;
use crate::rules::Live;
use crate::signal::SourceName;
use crate::source::Source;
use crate::source::bpf::{BpfSource, Hook, HookStatus};
use crate::source::counters::{self, CounterStatus, CountersSource};
use crate::source::file::FileSource;
use crate::source::kmsg::KmsgSource;
use crate::source::nvml::{self, NvmlSource};
use crate::source::pressure::PressureSource;

pub(crate) struct Host {
    pub sources: Vec<Box<dyn Source + Send>>,
    pub hooks: Vec<HookStatus>,
    /// Why the kernel log cannot be read.
    pub kernel_log: Result<(), String>,
    /// Why GPUs are not watched: on most nodes, because there are none.
    pub nvml: Result<(), String>,
    /// Why no log file can be followed.
    pub log_files: Result<(), String>,
    /// Why nothing that the kernel only counts is read.
    pub counted: Result<(), String>,
    pub counters: Vec<CounterStatus>,
    gpu_driver: bool,
}

impl Host {
    pub(crate) fn open(flags: &SourceArgs, config: &Config) -> Self {
        let args = &effective(flags, config);
        let off = |key| Err(format!("turned off by the configuration ({key}.enabled)"));
        let mut sources: Vec<Box<dyn Source + Send>> = Vec::new();
        let hooks = match BpfSource::load(args) {
            Ok((source, hooks)) => {
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
            KmsgSource::open(args.host_sys.clone(), told.clone())
                .map(|source| sources.push(Box::new(source)))
                .map_err(|error| format!("{error:#}"))
        } else {
            off("sources.kernelLog")
        };
        let nvml = if config.at_start.nvml.enabled {
            NvmlSource::start(args)
                .map(|source| sources.push(Box::new(source)))
                .map_err(|error| format!("{error:#}"))
        } else {
            off("sources.nvml")
        };
        let (counted, counters) = if config.at_start.counters {
            open_counters(args, &told, kernel_log.is_ok(), &mut sources)
        } else {
            let why = "turned off by the configuration (sources.counters.enabled)";
            (Err(why.to_owned()), counters::unused(args, why))
        };
        let log_files = probe::find_host_root(&args.host_proc)
            .and_then(FileSource::start)
            .map(|source| sources.push(Box::new(source)))
            .map_err(|error| format!("{error:#}"));
        Self {
            sources,
            hooks,
            kernel_log,
            nvml,
            log_files,
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
                    log && attached(Hook::Oom) && attached(Hook::HungTask)
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

    /// Whether there is anything to wait for. Log files alone count only where a rule names one, and
    /// counters never: they tell the rest.
    pub(crate) fn watches_nothing(&self, config: &Config) -> bool {
        let others = self
            .sources
            .iter()
            .filter(|source| !matches!(source.name(), SourceName::File | SourceName::Counters));
        others.count() == 0 && (self.log_files.is_err() || config.rules.files().next().is_none())
    }

    pub(crate) fn live(&self) -> Live {
        Live {
            kernel_log: self.kernel_log.is_ok(),
            files: self.log_files.is_ok(),
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
        if let Err(missing) = &self.kernel_log {
            warn!(source = "kernel log", missing, "not watched");
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
    if let Some(library) = &at_start.nvml.library {
        args.nvml_library = library.into();
    }
    if let Some(interval) = at_start.nvml.interval {
        args.gpu_interval = Interval(interval);
    }
    args
}
