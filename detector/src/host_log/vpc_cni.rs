//! PURE. Lines of the VPC CNI's two agents.

use super::shown;
use crate::reason::Reason;
use crate::signal::LogFault;

pub(super) const IPAMD_LOG: &str = "/var/log/aws-routed-eni/ipamd.log";
pub(super) const POLICY_LOG: &str = "/var/log/aws-routed-eni/network-policy-agent.log";

const NOT_READY: [&str; 2] = [
    "Unable to reach API Server",
    "Failed to check API server connectivity",
];
const NOT_RECOVERED: [&str; 5] = [
    "Failed to recover the BPF state",
    "BPF State Recovery failed",
    "failed to recover global maps",
    "got err for ingress in-mem map",
    "got err for egress in-mem map",
];

pub(super) fn ipamd(line: &str) -> Option<LogFault> {
    let reason = if NOT_READY.iter().any(|text| line.contains(text)) {
        Reason::IpamdNotReady
    } else if line.contains("Starting L-IPAMD") {
        Reason::IpamdRepeatedlyRestart
    } else if line.contains("InsufficientFreeAddressesInSubnet") {
        Reason::IpamdNoIps
    } else {
        return None;
    };
    Some(LogFault::new(reason, "ipamd".to_owned(), shown(line)))
}

pub(super) fn policy_agent(line: &str) -> Option<LogFault> {
    let fits = NOT_RECOVERED.iter().any(|text| line.contains(text));
    let entity = "aws-network-policy-agent".to_owned();
    fits.then(|| LogFault::new(Reason::NpaBpfRecoveryError, entity, shown(line)))
}
