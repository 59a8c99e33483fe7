//! PURE. Rows of `NetworkingReady`.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) const PACKETS_DROPPED: Row = Row {
    name: "PacketsDropped",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "100 packets of one reason on one interface of one network namespace within a second (QDISC_DROP: 1000), counted from a sample of about every eighth; at most 16 of these places are told in a second for each reason; reasons that mean that something ran out: SOCKET_RCVBUFF, SOCKET_BACKLOG, PROTO_MEM, NOMEM, CPU_BACKLOG, FULL_RING, QDISC_DROP, NEIGH_QUEUEFULL, TCP_RFQ_PRUNE, TCP_OFO_QUEUE_PRUNE",
    meaning: "The kernel dropped packets because a buffer or a queue was full.",
    cause: "A receiver that is slower than its senders, bursts that are larger than a queue, memory pressure in the network stack.",
    advice: "SOCKET_RCVBUFF: the named receiver is too slow or its buffer too small. CPU_BACKLOG, FULL_RING: the node receives more than it can handle. NOMEM, PROTO_MEM: memory is short.",
    source: "tracepoint skb:kfree_skb with enum skb_drop_reason (5.17 and later; 5.15 by backport), names from the running kernel's BTF; where that is not to be had, `dropped` of /proc/net/softnet_stat, 100 on one CPU between two readings",
};

pub(super) const CONNTRACK_EXCEEDED_KERNEL: Row = Row {
    name: "ConntrackExceededKernel",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: true,
    threshold: "each line; one finding for each network namespace, where the kernel names it; each packet by the counters; 90 % of the limit in two readings",
    meaning: "The table of tracked connections is full: packets of new connections are dropped.",
    cause: "More connections than `net.netfilter.nf_conntrack_max`, or many short ones whose entries wait for their timeouts.",
    advice: "Compare `nf_conntrack_count` with `nf_conntrack_max` in /proc/sys/net/netfilter; raise the limit (kube-proxy's `conntrack.maxPerCore`), or look for the pod that opens the connections.",
    source: "kernel log, level 4: `nf_conntrack: nf_conntrack: table full, dropping packet`, with ` in netns N` in recent kernels (net/netfilter/nf_conntrack_core.c); /proc/net/stat/nf_conntrack (`drop`, `early_drop`, `entries`) and `nf_conntrack_max`, read every 30 s, of the host's own namespace",
};

pub(super) const NETWORK_TRANSMIT_TIMEOUT: Row = Row {
    name: "NetworkTransmitTimeout",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line; one finding for each interface",
    meaning: "A network interface did not send what was queued for some seconds; the driver resets it.",
    cause: "A network card, its firmware or its driver that hangs, or a virtual machine that was paused.",
    advice: "A single one can be a paused virtual machine. Repeated ones: update driver and firmware, or replace the node.",
    source: "tracepoint net:net_dev_xmit_timeout; kernel log, level 6 or 4: `NETDEV WATCHDOG: eth0 (driver): transmit queue N timed out`; level 2 since 6.5: `driver device eth0: NETDEV WATCHDOG: CPU: N: transmit queue N timed out N ms` (net/sched/sch_generic.c). The first form comes once in a boot",
};

pub(super) const DEVLINK_HEALTH_ERROR: Row = Row {
    name: "DevlinkHealthError",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each report; one finding for each device and reporter",
    meaning: "The driver of a network card or SmartNIC reported that a part of the device is ill (its firmware, a queue).",
    cause: "Firmware faults, queues that got stuck, failing hardware.",
    advice: "`devlink health show` says what the driver did about it; `devlink health dump show` keeps the evidence. Update the firmware, or replace the machine if it repeats.",
    source: "tracepoint devlink:devlink_health_report (include/trace/events/devlink.h)",
};

pub(super) const NETWORK_HARDWARE_ERROR: Row = Row {
    name: "NetworkHardwareError",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each interface, or card where the driver names no interface",
    meaning: "The driver of a network card says that the card, its firmware or the module in its port fails. Most drivers then reset the card, and connections stall for seconds.",
    cause: "A card or its firmware that hangs, an optical module that is too hot or broken, a PCIe link that was lost.",
    advice: "A single reset: watch. Repeated ones, or a card that does not come back: update driver and firmware, replace the module, the card or the node.",
    source: "kernel log: mlx5_core (level 3: `device's health compromised`, `Fatal error N detected`, `PCI slot is unavailable`, `Port module event[error]`; 0 to 3: `Health issue observed`; 4: `CMD(0xN) timeout. Will cause a leak`), ena (3: `Keep alive watchdog timeout.`, `ENA admin queue is not in running state!`, lost completions, a failed reset), e1000e, igb, igc, ixgbe (3: `Detected Hardware Unit Hang`, `Detected Tx Unit Hang`, `PCIe link lost, device now detached`)",
};

pub(super) const NETDEVICE_LEAK: Row = Row {
    name: "NetdeviceLeak",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line, which the kernel repeats every 10 seconds; one finding for each interface",
    meaning: "An interface is being removed, but something in the kernel still holds it. Meanwhile other changes of interfaces can hang: pods neither start nor end.",
    cause: "A kernel bug that leaks a reference, or a socket or route that goes away slowly.",
    advice: "If it does not end by itself within minutes, only a reboot helps; update the kernel.",
    source: "kernel log, level 0: `unregister_netdevice: waiting for X to become free. Usage count = N` (net/core/dev.c)",
};

pub(super) const NEIGHBOUR_TABLE_FULL: Row = Row {
    name: "NeighbourTableFull",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line; one finding for each table; each neighbour by the counter",
    meaning: "The table of neighbours (ARP, or neighbour discovery of IPv6) is full: new neighbours cannot be reached.",
    cause: "A large layer-2 network, or a scan of one.",
    advice: "Raise `net.ipv4.neigh.default.gc_thresh3` (IPv6: `net.ipv6...`) and the other two thresholds.",
    source: "kernel log, level 6: `neighbour: arp_cache: neighbor table overflow!`; before 3.15 `Neighbour table overflow.` (net/core/neighbour.c); `table_fulls` of /proc/net/stat/arp_cache and ndisc_cache, read every 30 s",
};

pub(super) const SYN_FLOOD: Row = Row {
    name: "SynFlood",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line, which comes once for each listening socket; one finding for each port",
    meaning: "More connections were asked for than a listening socket's queue holds.",
    cause: "Mostly a server that accepts too slowly or with a small backlog; sometimes an attack.",
    advice: "Look at the process that listens on the port, and at `net.core.somaxconn` and its backlog.",
    source: "kernel log, level 6: `TCP: request_sock_TCP: Possible SYN flooding on port N. Sending cookies.`; with the address since 6.2 (net/ipv4/tcp_input.c)",
};

pub(super) const TCP_MEMORY_EXHAUSTED: Row = Row {
    name: "TCPMemoryExhausted",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line, or 95 % of the limit",
    meaning: "All TCP sockets together use more memory than `net.ipv4.tcp_mem` allows: connections are reset and packets dropped.",
    cause: "Many sockets whose data nobody reads, or a limit that is too low for the load.",
    advice: "Look for processes with full receive queues (`ss -tm`); raise `net.ipv4.tcp_mem`.",
    source: "kernel log, level 6: `TCP: out of memory -- consider tuning tcp_mem` (net/ipv4/tcp.c); /proc/net/sockstat, read every 30 s",
};

pub(super) const ORPHAN_SOCKETS_EXCEEDED: Row = Row {
    name: "OrphanSocketsExceeded",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line, or 95 % of the limit",
    meaning: "More TCP sockets have been closed by their processes and still wait for their peers than `net.ipv4.tcp_max_orphans` allows: connections are reset.",
    cause: "Peers that went away without a word, or very many short connections.",
    advice: "Look at `ss -s`; raise `net.ipv4.tcp_max_orphans`, or lower `net.ipv4.tcp_orphan_retries`.",
    source: "kernel log, level 6: `TCP: too many orphaned sockets` (net/ipv4/tcp.c); /proc/net/sockstat, read every 30 s",
};
