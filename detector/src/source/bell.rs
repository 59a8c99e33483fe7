//! An eventfd between a thread and the reader: one rings, the other wakes.

use std::os::fd::OwnedFd;

use anyhow::Context;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use tracing::warn;

pub(super) fn event() -> anyhow::Result<OwnedFd> {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).context("make an eventfd")
}

/// Makes the descriptor readable. EAGAIN: it is already.
pub(super) fn ring(event: &OwnedFd) {
    if let Err(error) = rustix::io::write(event, &1u64.to_ne_bytes())
        && error != Errno::AGAIN
    {
        warn!(%error, "an eventfd could not be written");
    }
}

/// Takes what [`ring`] wrote.
pub(super) fn silence(event: &OwnedFd) -> anyhow::Result<()> {
    let mut counter = [0; 8];
    match rustix::io::read(event, &mut counter) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error).context("read an eventfd"),
    }
}
