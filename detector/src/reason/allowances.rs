//! PURE. Rows about what AWS allows an instance and its volumes: what is above it is queued or dropped
//! outside of the instance, where the kernel sees only that it takes long.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

const QUIET: Clears = Clears::Quiet(Duration::from_secs(600));

const fn network(name: &'static str, threshold: &'static str, meaning: &'static str) -> Row {
    Row {
        name,
        condition: ConditionType::NetworkingReady,
        severity: Severity::Warning,
        clears: QUIET,
        eks: true,
        threshold,
        meaning,
        cause: "More traffic than the instance type allows, for a moment or all the time.",
        advice: "Spread the load, or use a larger instance type; bursts of a second do not show in averages of CloudWatch.",
        source: "statistics of the ena driver (ethtool's SIOCETHTOOL, which needs no program): bw_in_allowance_exceeded, bw_out_allowance_exceeded, pps_allowance_exceeded, conntrack_allowance_exceeded, linklocal_allowance_exceeded; read every 30 s",
    }
}

const fn storage(name: &'static str, meaning: &'static str, advice: &'static str) -> Row {
    Row {
        name,
        condition: ConditionType::StorageReady,
        severity: Severity::Warning,
        clears: QUIET,
        eks: true,
        threshold: "5 of the 30 seconds between two readings",
        meaning,
        cause: "More reads and writes than were paid for.",
        advice,
        source: "log page 0xD0 of EBS's NVMe controllers (Amazon EBS User Guide, detailed performance statistics), read every 30 s",
    }
}

pub(super) const BANDWIDTH_IN_EXCEEDED: Row = network(
    "BandwidthInExceeded",
    "180 packets of one interface between two readings, 30 s apart",
    "Packets to the instance were queued or dropped, because they were more bytes than its type allows.",
);

pub(super) const BANDWIDTH_OUT_EXCEEDED: Row = network(
    "BandwidthOutExceeded",
    "100 packets of one interface between two readings, 30 s apart",
    "Packets from the instance were queued or dropped, because they were more bytes than its type allows.",
);

pub(super) const PPS_EXCEEDED: Row = network(
    "PPSExceeded",
    "320 packets of one interface between two readings, 30 s apart",
    "Packets were queued or dropped, because they were more a second than the instance's type allows.",
);

pub(super) const CONNTRACK_EXCEEDED: Row = network(
    "ConntrackExceeded",
    "100 packets of one interface between two readings, 30 s apart",
    "Packets of new connections were dropped, because the instance has as many connections as its type allows to be tracked.",
);

pub(super) const LINK_LOCAL_EXCEEDED: Row = network(
    "LinkLocalExceeded",
    "100 packets of one interface between two readings, 30 s apart",
    "Packets to local services (DNS, instance metadata, time) were dropped: 1,024 a second are allowed for each interface. Mostly it is DNS: NodeLocal DNSCache helps.",
);

pub(super) const EBS_VOLUME_IOPS_EXCEEDED: Row = storage(
    "EBSVolumeIOPSExceeded",
    "An EBS volume was asked for more operations a second than it has.",
    "Raise the volume's IOPS, or look for who reads and writes.",
);

pub(super) const EBS_VOLUME_THROUGHPUT_EXCEEDED: Row = storage(
    "EBSVolumeThroughputExceeded",
    "An EBS volume was asked for more bytes a second than it has.",
    "Raise the volume's throughput, or look for who reads and writes.",
);

pub(super) const EBS_INSTANCE_IOPS_EXCEEDED: Row = storage(
    "EBSInstanceIOPSExceeded",
    "The instance was asked for more operations a second, to all its EBS volumes, than its type has.",
    "Use a larger instance type, or spread the pods with volumes.",
);

pub(super) const EBS_INSTANCE_THROUGHPUT_EXCEEDED: Row = storage(
    "EBSInstanceThroughputExceeded",
    "The instance was asked for more bytes a second, to all its EBS volumes, than its type has.",
    "Use a larger instance type, or spread the pods with volumes.",
);
