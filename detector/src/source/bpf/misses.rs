//! Times that the kernel did not run a program because it was running on that CPU already: faults
//! that nobody counted. Told by `/proc/self/fdinfo` since 5.12; nothing else can take a program off
//! its tracepoint while the agent holds its link.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use aya::Ebpf;

#[derive(Default)]
pub(super) struct Misses(u64);

impl Misses {
    /// Since the last time.
    pub(super) fn newly(&mut self, programs: &Ebpf) -> u64 {
        let total = programs
            .programs()
            .filter_map(|(_, program)| program.fd().ok())
            .filter_map(|program| {
                let number = program.as_fd().as_raw_fd();
                parse(&fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?)
            })
            .sum();
        let before = std::mem::replace(&mut self.0, total);
        total.saturating_sub(before)
    }
}

/// Nothing before 5.12.
fn parse(info: &str) -> Option<u64> {
    let line = |line: &str| line.strip_prefix("recursion_misses:")?.trim().parse().ok();
    info.lines().find_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_told_by_new_kernels_only() {
        let info =
            "pos:\t0\nprog_type:\t26\nrun_cnt:\t0\nrecursion_misses:\t7\nverified_insns:\t80\n";
        assert_eq!(parse(info), Some(7));
        assert_eq!(parse("pos:\t0\nprog_type:\t5\n"), None);
    }
}
