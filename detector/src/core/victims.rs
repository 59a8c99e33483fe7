//! PURE. Victims of the OOM killer: several lines and a tracepoint tell of one, and a process is
//! killed once.

use std::collections::VecDeque;
use std::time::Duration;

use crate::signal::{Signal, What};

/// Within which all of them tell.
const ONE_KILL: Duration = Duration::from_secs(10);
const MOST: usize = 256;

#[derive(Default)]
pub(super) struct Victims(VecDeque<(u32, Duration)>);

impl Victims {
    /// Whether this kill has been told.
    pub(super) fn knows(&mut self, signal: &Signal) -> bool {
        let What::OomKill { victim, .. } = &signal.what else {
            return false;
        };
        let near = |at: Duration| signal.at.abs_diff(at) <= ONE_KILL;
        if self
            .0
            .iter()
            .any(|&(pid, at)| pid == victim.pid && near(at))
        {
            return true;
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((victim.pid, signal.at));
        false
    }
}
