//! Opens the sources that this host supports, and says what the others miss.

use tracing::{info, warn};

use crate::args::SourceArgs;
use crate::reason::ConditionType;
use crate::source::Source;
use crate::source::bpf::{BpfSource, Hook, HookStatus};
use crate::source::kmsg::KmsgSource;
use crate::source::nvml::{self, NvmlSource};

pub(crate) struct Host {
    pub sources: Vec<Box<dyn Source + Send>>,
    pub hooks: Vec<HookStatus>,
    /// Why the kernel log cannot be read.
    pub kernel_log: Result<(), String>,
    /// Why GPUs are not watched: on most nodes, because there are none.
    pub nvml: Result<(), String>,
    gpu_driver: bool,
}

impl Host {
    pub(crate) fn open(args: &SourceArgs) -> Self {
        let mut sources: Vec<Box<dyn Source + Send>> = Vec::new();
        let hooks = match BpfSource::load(&args.disable_hooks, &args.disable_variants) {
            Ok((source, hooks)) => {
                sources.push(Box::new(source));
                hooks
            }
            Err(error) => {
                let missing = Some(format!("{error:#}"));
                Hook::ALL
                    .into_iter()
                    .map(|hook| HookStatus {
                        hook,
                        using: None,
                        missing: missing.clone(),
                    })
                    .collect()
            }
        };
        let kernel_log = KmsgSource::open(args.host_sys.clone())
            .map(|source| sources.push(Box::new(source)))
            .map_err(|error| format!("{error:#}"));
        let nvml = NvmlSource::start(args)
            .map(|source| sources.push(Box::new(source)))
            .map_err(|error| format!("{error:#}"));
        Self {
            sources,
            hooks,
            kernel_log,
            nvml,
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
                // Only log rules of the configuration look at it so far.
                ConditionType::ContainerRuntimeReady => false,
                // By the kernel log alone until NVML answers.
                ConditionType::AcceleratedHardwareReady => log && self.gpu_driver,
            })
            .collect()
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
    }
}
