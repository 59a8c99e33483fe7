//! NVIDIA's management library, on a thread of its own: on a dying GPU its calls take seconds, or
//! for ever.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::{Context, bail};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::{Source, pci};
use crate::args::SourceArgs;
use crate::clock;
use crate::signal::{Signal, SourceName, What};

mod deadline;
mod details;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod holders;
mod instance_types;
mod raw;
mod rehearsal;
mod session;

use self::deadline::Deadline;
use self::session::Session;

pub(crate) struct NvmlSource {
    signals: Receiver<Signal>,
    wake: Arc<OwnedFd>,
    deadline: Arc<Deadline>,
}

/// The library creates device nodes when it is loaded, and is of no use before its driver.
pub(crate) fn driver_loaded(sys: &Path) -> bool {
    sys.join("module/nvidia").exists()
}

impl NvmlSource {
    /// An error where there is no NVIDIA GPU. The thread is never waited for.
    pub(crate) fn start(args: &SourceArgs) -> anyhow::Result<Self> {
        if !driver_loaded(&args.host_sys) && !pci::any_of_nvidia(&args.host_sys) {
            bail!("no NVIDIA device on the PCI bus, and no driver");
        }
        let (queue, signals) = mpsc::channel();
        let wake = Arc::new(
            eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
                .context("make an eventfd")?,
        );
        let deadline = Arc::new(Deadline::new()?);
        let session = Session {
            library: args.nvml_library.clone(),
            proc: args.host_proc.clone(),
            sys: args.host_sys.clone(),
            interval: args.gpu_interval.0,
            queue,
            wake: Arc::clone(&wake),
            deadline: Arc::clone(&deadline),
        };
        thread::Builder::new()
            .name("nvml".to_owned())
            .spawn(move || session.run())
            .context("start the NVML thread")?;
        Ok(Self {
            signals,
            wake,
            deadline,
        })
    }
}

impl Source for NvmlSource {
    fn name(&self) -> SourceName {
        SourceName::Nvml
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.wake.as_fd(), self.deadline.fd()]
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        let mut counter = [0; 8];
        match rustix::io::read(&self.wake, &mut counter) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => return Err(error).context("read the eventfd of NVML"),
        }
        for signal in self.signals.try_iter() {
            emit(signal);
        }
        if let Some(hung) = self.deadline.passed()? {
            emit(Signal {
                at: clock::boot(),
                historic: false,
                what: What::Nvml(hung),
            });
        }
        Ok(())
    }
}
