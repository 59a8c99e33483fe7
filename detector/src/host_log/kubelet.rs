//! PURE. Lines of kubelet, and of containerd, which reports the same runtime.

use super::{between, shown};
use crate::reason::Reason;
use crate::signal::LogFault;

pub(super) fn read(unit: &str, line: &str) -> Option<LogFault> {
    let text = without_header(line);
    // First of all: what a probe printed stands in the rest of its line.
    if let Some(kind) = probe(text) {
        let reason = match kind {
            "Readiness" => Reason::ReadinessProbeFailures,
            "Liveness" => Reason::LivenessProbeFailures,
            _startup => return None,
        };
        return Some(about_pod(reason, unit, text));
    }
    let reason = if is_fork_failure(text) {
        return Some(fault(Reason::ForkFailedOutOfPids, unit, text));
    } else if text.contains(
        "Pod still has one or more containers in the non-exited state and will not be removed from desired state",
    ) {
        Reason::PodStuckTerminating
    } else if is_etc_hosts(text) {
        Reason::EtcHostsMountFailed
    } else if text.contains("OCI runtime create failed: ") {
        Reason::ContainerRuntimeFailed
    } else if text.contains("fs: disk usage and inodes count on following dirs took") {
        return Some(fault(Reason::KubeletDiskUsageSlow, unit, text));
    } else {
        return None;
    };
    Some(about_pod(reason, unit, text))
}

/// klog's: `E0918 12:00:00.123456    1234 file.go:123] `.
fn without_header(line: &str) -> &str {
    let begins = line.as_bytes().first_chunk().is_some_and(|[level, month]| {
        matches!(level, b'I' | b'W' | b'E' | b'F') && month.is_ascii_digit()
    });
    match line.split_once("] ") {
        Some((_, text)) if begins => text,
        _ => line,
    }
}

/// `"Probe failed" probeType="Readiness" ...`, and before structured logs `Readiness probe for "pod" failed`.
fn probe(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("\"Probe failed\" probeType=\"") {
        return rest.split_once('"').map(|(kind, _)| kind);
    }
    let (kind, rest) = text.split_once(" probe for \"")?;
    let (_, rest) = rest.split_once('"')?;
    let failed = rest.starts_with(" failed") && matches!(kind, "Readiness" | "Liveness");
    failed.then_some(kind)
}

fn is_fork_failure(text: &str) -> bool {
    let forks = text
        .split_once("fork/exec")
        .is_some_and(|(_, rest)| rest.contains("resource temporarily unavailable"));
    let threads = text
        .split_once("failed to create new OS thread")
        .is_some_and(|(_, rest)| rest.contains("errno=11"));
    forks || threads
}

fn is_etc_hosts(text: &str) -> bool {
    let mount = text.split_once("error mounting").map(|(_, rest)| rest);
    mount.is_some_and(|mount| mount.contains("etc-hosts") && mount.contains("to rootfs"))
}

fn about_pod(reason: Reason, unit: &str, text: &str) -> LogFault {
    let pod = between(text, "pod=\"", "\"")
        .or_else(|| between(text, "probe for \"", "\""))
        .filter(|pod| !pod.is_empty() && pod.len() <= 320);
    match pod {
        Some(pod) => fault(reason, &format!("pod {}", shown(pod)), text),
        None => fault(reason, unit, text),
    }
}

fn fault(reason: Reason, entity: &str, text: &str) -> LogFault {
    LogFault::new(reason, entity.to_owned(), shown(text))
}
