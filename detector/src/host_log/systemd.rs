//! PURE. Lines that systemd itself writes of units.

use super::{KUBELETS, shown};
use crate::reason::{Reason, intern_unit};
use crate::signal::LogFault;

/// A unit that is called so tells of its restarts under a reason of its own.
const POLICY_AGENT: &str = "aws-network-policy-agent.service";

pub(super) fn read(line: &str) -> Option<LogFault> {
    if let Some(name) = line.strip_prefix("Failed to start ") {
        // `kubelet.service - kubelet: The Kubernetes Node Agent.`, or the description alone.
        let name = name.split(" - ").next().unwrap_or(name);
        let name = shown(name.trim_end_matches('.'));
        let message = format!("systemd failed to start {name}");
        return Some(LogFault::new(Reason::ServiceFailedToStart, name, message));
    }
    if line.starts_with("Unit kubelet.service entered failed state") {
        return Some(kubelet_failed(line));
    }
    let (unit, text) = line.split_once(": ")?;
    if KUBELETS.contains(&unit) && text.starts_with("Failed with result '") {
        return Some(kubelet_failed(line));
    }
    if !text.starts_with("Scheduled restart job, restart counter is at ") {
        return None;
    }
    Some(LogFault::new(restarted(unit)?, shown(unit), shown(line)))
}

/// The reason for restarts of a unit.
pub(super) fn restarted(unit: &str) -> Option<Reason> {
    if unit == POLICY_AGENT {
        return Some(Reason::NpaRepeatedlyRestart);
    }
    let unit = if KUBELETS.contains(&unit) {
        KUBELETS[0]
    } else {
        unit
    };
    let unit = intern_unit(&titled(unit.strip_suffix(".service")?))?;
    Some(Reason::UnitRepeatedRestart(unit))
}

fn kubelet_failed(line: &str) -> LogFault {
    LogFault::new(Reason::KubeletFailed, KUBELETS[0].to_owned(), shown(line))
}

/// A unit that systemd itself calls failed, and how it ended.
pub(super) fn failed(unit: &str, result: &str) -> LogFault {
    let message = format!("{unit} has failed: {result}");
    if KUBELETS.contains(&unit) {
        return kubelet_failed(&message);
    }
    LogFault::new(Reason::ServiceFailedToStart, shown(unit), message)
}

/// As EKS's agent writes it: `Nvidia-Persistenced`. Instances of a template count as the template.
fn titled(unit: &str) -> String {
    let template = unit.split('@').next().unwrap_or(unit);
    let parts = template
        .split(|c: char| !c.is_ascii_alphanumeric())
        .map(|part| {
            let mut letters = part.chars();
            let first = letters.next().map(|first| first.to_ascii_uppercase());
            first.into_iter().chain(letters).collect::<String>()
        });
    parts.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::titled;

    #[test]
    fn units_are_called_as_eks_calls_them() {
        assert_eq!(titled("kubelet"), "Kubelet");
        assert_eq!(titled("my-custom-service"), "My-Custom-Service");
        assert_eq!(titled("nvidia-persistenced"), "Nvidia-Persistenced");
        assert_eq!(titled("getty@tty1"), "Getty");
        assert_eq!(titled(""), "");
    }
}
