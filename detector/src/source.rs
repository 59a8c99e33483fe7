//! Where signals come from.
//!
//! The core thread waits for all descriptors at once and drains whoever is
//! readable, synchronously: nothing stands between the kernel's ring and the
//! decision.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::rules::LogRules;
use crate::signal::{Signal, SourceName};

mod bell;
pub(crate) mod blocked;
pub(crate) mod bpf;
pub(crate) mod counters;
pub(crate) mod file;
mod hardware;
pub(crate) mod journal;
pub(crate) mod kmsg;
pub(crate) mod nvml;
mod pci;
pub(crate) mod pressure;
mod timer;
mod within;

/// Something that can be waited for and then drained without blocking.
pub(crate) trait Source {
    fn name(&self) -> SourceName;

    /// Readable when [`Source::drain`] has something to do.
    fn fds(&self) -> Vec<BorrowedFd<'_>>;

    /// Whether it can see anything now; some wait for what they look at.
    fn is_up(&self) -> bool {
        true
    }

    /// How far it has read each log, by the log's name, where it can go on from there.
    fn positions(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// Goes on where the agent before this one stopped; agents have been watching since `since`.
    fn resume(&mut self, _since: Duration, _positions: &BTreeMap<String, u64>) {}

    /// Hands over what is there now. What comes in a flood is handed over in parts, so that the other
    /// sources have their turn. An error means that the source is broken.
    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()>;

    /// Takes the log rules that are in force from now on. Most sources read no lines.
    fn configure(&mut self, _rules: &Arc<LogRules>) {}
}
