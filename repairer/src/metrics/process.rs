//! What this process costs, as Prometheus' own clients name it.

use std::fs;

pub(super) struct Process {
    /// User and system time of all threads.
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
}

/// None where /proc is not what it is on Linux.
pub(super) fn read() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name before may hold anything, also a parenthesis.
    let (_, rest) = stat.rsplit_once(") ")?;
    // State is field 3 of proc(5).
    let field = |number: usize| rest.split(' ').nth(number - 3)?.parse::<u64>().ok();
    let parameters = (
        rustix::param::clock_ticks_per_second(),
        rustix::param::page_size(),
    );
    let page = u64::try_from(parameters.1).ok()?;
    let ticks = u32::try_from(field(14)?.saturating_add(field(15)?)).unwrap_or(u32::MAX);
    let per_second = u32::try_from(parameters.0)
        .ok()
        .filter(|&ticks| ticks > 0)?;
    Some(Process {
        cpu_seconds: f64::from(ticks) / f64::from(per_second),
        resident_bytes: field(24)?.saturating_mul(page),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let process = read().unwrap();
        assert!(
            process.resident_bytes > 1 << 20,
            "{}",
            process.resident_bytes
        );
    }
}
