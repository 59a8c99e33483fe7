//! PURE. How lines that count begin: their first four bytes are what the filter in the kernel knows.
//! Lines that begin with a process' name or a driver's cannot be among them.

const WORDS: &[&str] = &[
    "AER: ",
    "Abor",
    "BTRFS",
    "BUG: ",
    "Buffer I/O",
    "EDAC ",
    "EXT4-fs",
    "Fixing",
    "I/O error",
    "INFO: ",
    "Insufficient stack",
    "Internal error",
    "JBD2: ",
    "Kernel panic",
    "Killed process",
    "MCE: Killing",
    "NEURON_HW_ERR=",
    "Memory cgroup out of memory",
    "Memory failure: ",
    "NETDEV WATCHDOG",
    "NFS: ",
    "NMI: ",
    "NMI watchdog",
    "NVRM: ",
    "Neighbour table",
    "Oops: ",
    "Out of memory",
    "TCP: ",
    "Unable to handle",
    "VFS: file-max",
    "WARNING: ",
    "XFS (",
    "XFS: ",
    "[Hardware Error]",
    "amdgpu ",
    "arp_cache",
    "block ",
    "blk_update_request",
    "cgroup: fork",
    "clocksource: ",
    "critical",
    "cxl_pci ",
    "device-mapper: ",
    "divide error",
    "ena ",
    "i915 ",
    "nvidia-nvswitch",
    "general protection",
    "igb ",
    "igc ",
    "e1000e ",
    "ip_conntrack",
    "ipv4: ",
    "ipv6: ",
    "ixgbe ",
    "kernel BUG at",
    "lockd: ",
    "mce: ",
    "md/raid",
    "mlx5_core ",
    "ndisc_cache",
    "neighbour: ",
    "nf_conntrack: ",
    "nfs: ",
    "nvme",
    "oom-kill:",
    "pciehp ",
    "pcieport ",
    "rcu: ",
    "recoverable transport error",
    "thermal ",
    "timeout error",
    "tsc: ",
    "unregister_netdevice",
    "watchdog: ",
    "protection error",
    "operation not supported",
    "xe 0",
];

/// Behind these a number begins.
const NUMBERED: &[&str] = &["ata", "sd ", "CPU", "202", "203", "{"];

/// Each by its four bytes, as a little-endian number.
pub(crate) fn all() -> Vec<u32> {
    let words = WORDS.iter().filter_map(|word| of(word));
    let numbered = NUMBERED.iter().flat_map(|word| {
        let with_digits = match word.len() {
            // `{1}[Hardware Error]`, `{12}[...`
            1 => (1..100).map(|n| format!("{word}{n}}}[Ha")).collect(),
            _ => (0..10).map(|n| format!("{word}{n}")).collect::<Vec<_>>(),
        };
        with_digits.into_iter().filter_map(|text| of(&text))
    });
    let mut all: Vec<_> = words.chain(numbered).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn of(text: &str) -> Option<u32> {
    let bytes = text.as_bytes().first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use detector_ebpf::MOST_BEGINNINGS;

    use super::super::properties::WHOLE;
    use super::*;

    #[test]
    fn the_filter_lets_every_line_pass_that_does_not_begin_with_a_name() {
        let all = all();
        assert!(all.len() <= MOST_BEGINNINGS as usize, "{}", all.len());
        let missed: Vec<_> = WHOLE
            .iter()
            // Its driver's name comes first.
            .filter(|(_, line)| !line.contains(": NETDEV WATCHDOG: "))
            .filter(|(_, line)| !of(line).is_some_and(|four| all.contains(&four)))
            .map(|(_, line)| *line)
            .collect();
        assert_eq!(missed, [""; 0]);
    }
}
