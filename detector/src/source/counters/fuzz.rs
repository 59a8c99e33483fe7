//! The kernel's small files, its answers by netlink, and its old tables of rules.

use std::collections::BTreeMap;
use std::time::Duration;

use super::files::{Files, Found};
use super::*;
use crate::fuzz;

/// Those that ask for nothing but files.
fn counters_of_files() -> Vec<Box<dyn Counter>> {
    vec![
        Box::new(conntrack::Conntrack::new(HOST.to_owned())),
        Box::new(cpu_pressure::CpuPressure),
        Box::new(edac::Edac::default()),
        Box::new(efa::Efa::default()),
        Box::new(forwarding::Forwarding::default()),
        Box::new(host_limits::OpenFiles),
        Box::new(host_limits::Processes),
        Box::new(interfaces::Interfaces::default()),
        Box::new(io_pressure::IoPressure),
        Box::new(mac_policy::MacPolicy::default()),
        Box::new(neighbours::Neighbours::default()),
        Box::new(pcie::Pcie::default()),
        Box::new(pids::PidsLimits::default()),
        Box::new(poisoned::Poisoned::default()),
        Box::new(policy_agent::PolicyAgent::default()),
        Box::new(processes::ProcessSweep::default()),
        Box::new(scsi::Scsi::default()),
        Box::new(softnet::Softnet::default()),
        Box::new(steal::Steal::new(STEP)),
        Box::new(stuck::StuckDisks::new(STEP)),
        Box::new(tcp_memory::TcpMemory),
        Box::new(thermal::Throttled::default()),
        Box::new(zram::Zram),
    ]
}

const HOST: &str = "network of the host";
const STEP: Duration = Duration::from_secs(60);
/// Begins the next reading.
const NEXT: &str = "=\n";
const READINGS: usize = 4;

/// Files, each ended by NUL: a line with its pattern and what the pattern's stars stand for, separated by
/// spaces, then what is in it. A line `=` begins the next reading.
pub(crate) fn counters(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut counters = counters_of_files();
    let patterns: Vec<_> = counters
        .iter()
        .flat_map(|counter| counter.wants())
        .collect();
    let patterns: Vec<_> = patterns
        .into_iter()
        .chain(&pod_routes::CHECKPOINTS)
        .collect();
    let mut told = Vec::new();
    for (at, reading) in (1..).zip(text.split(NEXT).take(READINGS)) {
        let mut files: BTreeMap<&'static str, Found> = BTreeMap::new();
        for file in reading.split('\0') {
            let (head, content) = file.split_once('\n').unwrap_or_default();
            let mut words = head.split(' ').map(str::to_owned);
            let pattern = words.next().unwrap_or_default();
            if let Some(known) = patterns.iter().find(|known| ***known == pattern) {
                let found = files.entry(known).or_default();
                let stars = known.matches(['*', '#']).count();
                let mut names: Vec<_> = words.collect();
                names.resize(stars, "x".to_owned());
                found.files.insert(names, content.to_owned());
            }
        }
        let files = Files::from(files);
        for counter in &mut counters {
            told.extend(counter.look(&files, at * STEP));
        }
        told.extend(pod_routes::fuzz(&files));
    }
    fuzz::tell(told);
}

/// One read of the socket; what is in it is taken for each of what we ask for.
pub(crate) fn netlink(bytes: &[u8]) {
    let messages = netlink::fuzz(bytes);
    let messages = messages.iter().map(Vec::as_slice).chain([bytes]);
    let mut told = Vec::new();
    for message in messages {
        routes::fuzz(message);
        told.extend(firewall::fuzz_rule(message));
    }
    fuzz::tell(told);
}

/// The shape of a table, and its entries.
pub(crate) fn tables(bytes: &[u8]) {
    fuzz::tell(firewall::fuzz_table(bytes));
}
