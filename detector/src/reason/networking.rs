//! PURE. Rows of `NetworkingReady`.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) const PACKETS_DROPPED: Row = Row {
    name: "PacketsDropped",
    condition: ConditionType::NetworkingReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "100 packets of one reason on one CPU within a second (QDISC_DROP: 1000); reasons that mean that something ran out: SOCKET_RCVBUFF, SOCKET_BACKLOG, PROTO_MEM, NOMEM, CPU_BACKLOG, FULL_RING, QDISC_DROP, NEIGH_QUEUEFULL, TCP_RFQ_PRUNE, TCP_OFO_QUEUE_PRUNE",
    meaning: "The kernel dropped packets because a buffer or a queue was full.",
    cause: "A receiver that is slower than its senders, bursts that are larger than a queue, memory pressure in the network stack.",
    advice: "SOCKET_RCVBUFF: the named receiver is too slow or its buffer too small. CPU_BACKLOG, FULL_RING: the node receives more than it can handle. NOMEM, PROTO_MEM: memory is short.",
    source: "tracepoint skb:kfree_skb with enum skb_drop_reason (5.17 and later; 5.15 by backport), names from the running kernel's BTF",
};
