//! PURE. What kubelet, the container runtime, systemd, cron and the VPC CNI write of their faults.
//!
//! Each line is a Warning by itself: parts of it are chosen by strangers, so what needs more than a
//! Warning needs more than a line.

use crate::reason::Reason;
use crate::rules::Origin;
use crate::signal::{LogFault, What};

mod cron;
mod kubelet;
mod systemd;
mod vpc_cni;

/// Units of the journal. All that systemd writes itself is of `init.scope`.
pub(crate) const UNITS: [&str; 6] = [
    "containerd.service",
    "cron.service",
    "crond.service",
    "init.scope",
    KUBELETS[0],
    KUBELETS[1],
];

/// The second of Ubuntu's image for EKS, where kubelet is a snap.
const KUBELETS: [&str; 2] = ["kubelet.service", "snap.kubelet-eks.daemon.service"];

/// Where an agent or a daemon of the host writes a file of its own.
pub(crate) const FILES: [&str; 3] = [cron::LOG, vpc_cni::IPAMD_LOG, vpc_cni::POLICY_LOG];

/// What the line means, if anything.
pub(crate) fn read(origin: &Origin, line: &[u8]) -> Option<What> {
    let line = String::from_utf8_lossy(line);
    let fault = match origin {
        Origin::Journal { unit } => match unit.as_str() {
            unit if KUBELETS.contains(&unit) => kubelet::read(unit, &line),
            "containerd.service" => kubelet::read(unit, &line),
            "init.scope" => systemd::read(&line),
            "cron.service" | "crond.service" => cron::read(&line),
            _ => None,
        },
        Origin::File { path } => match path.as_str() {
            cron::LOG => cron::read(&line),
            vpc_cni::IPAMD_LOG => vpc_cni::ipamd(&line),
            vpc_cni::POLICY_LOG => vpc_cni::policy_agent(&line),
            _ => None,
        },
        Origin::KernelLog => None,
    };
    fault.map(What::Logged)
}

/// The reason for a service of the host that systemd starts again and again.
pub(crate) fn restarted(unit: &str) -> Option<Reason> {
    systemd::restarted(unit)
}

/// A service of the host that systemd calls failed.
pub(crate) fn failed(unit: &str, result: &str) -> LogFault {
    systemd::failed(unit, result)
}

/// What a stranger may have chosen, in one line of a finding.
fn shown(text: &str) -> String {
    crate::text::part(text.trim(), 256)
}

/// The text between the two, up to the first `end`.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    rest.split_once(end).map(|(between, _)| between)
}

#[cfg(test)]
mod tests;
