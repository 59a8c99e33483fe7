//! PURE. Rows of `ContainerRuntimeReady`: kubelet, the container runtime, and services of the host.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

const fn warning(name: &'static str) -> Row {
    Row {
        name,
        condition: ConditionType::ContainerRuntimeReady,
        severity: Severity::Warning,
        clears: Clears::Quiet(Duration::from_secs(600)),
        eks: true,
        threshold: "",
        meaning: "",
        cause: "",
        advice: "",
        source: "",
    }
}

pub(super) const POD_STUCK_TERMINATING: Row = Row {
    threshold: "3 lines about one pod within 10 minutes",
    meaning: "A pod is to end, and a container of it does not.",
    cause: "A process in uninterruptible sleep, a runtime that hangs, or a long grace period.",
    advice: "Look at the pod's processes and the runtime's log. One pod is no reason to replace a node: EKS's agent makes it Fatal, nodemend does not.",
    source: "journal of kubelet.service: `Pod still has one or more containers in the non-exited state and will not be removed from desired state` (pkg/kubelet, verbosity 4 and more)",
    ..warning("PodStuckTerminating")
};

pub(super) const KUBELET_FAILED: Row = Row {
    threshold: "each line",
    meaning: "kubelet has ended with an error; systemd starts it again.",
    cause: "A wrong configuration, an expired certificate, no container runtime, or too little memory.",
    advice: "`journalctl -u kubelet` has kubelet's last words.",
    source: "journal of systemd: `kubelet.service: Failed with result '...'`; `Unit kubelet.service entered failed state.` before systemd 235; state `failed` at systemd's own socket, asked every 30 s",
    ..warning("KubeletFailed")
};

pub(super) const CONTAINER_RUNTIME_FAILED: Row = Row {
    threshold: "each line; one finding for each pod, where the line names it",
    meaning: "The container runtime could not start a container.",
    cause: "Mostly the container itself: a command that does not exist, a mount that is not there. On many pods at once: the runtime or its disk.",
    advice: "`kubectl describe pod` shows the same text.",
    source: "journal of kubelet.service and containerd.service: `OCI runtime create failed: `",
    ..warning("ContainerRuntimeFailed")
};

pub(super) const READINESS_PROBE_FAILURES: Row = Row {
    threshold: "6 within a minute, of one pod",
    meaning: "The readiness probe of a pod fails again and again.",
    cause: "A pod that is not ready, or a node that is too busy or has lost its network.",
    advice: "One pod: look at it. Many pods of one node: look at the node.",
    source: "journal of kubelet.service: `\"Probe failed\" probeType=\"Readiness\"` (pkg/kubelet/prober), and `Readiness probe for \"...\" failed` before structured logs",
    ..warning("ReadinessProbeFailures")
};

pub(super) const LIVENESS_PROBE_FAILURES: Row = Row {
    meaning: "The liveness probe of a pod fails again and again: kubelet restarts its container.",
    source: "journal of kubelet.service: `\"Probe failed\" probeType=\"Liveness\"` (pkg/kubelet/prober), and `Liveness probe for \"...\" failed` before structured logs",
    name: "LivenessProbeFailures",
    ..READINESS_PROBE_FAILURES
};

pub(super) const SERVICE_FAILED_TO_START: Row = Row {
    threshold: "each line, or two readings; one finding for each unit",
    meaning: "systemd could not start a service of the host, or one has ended with an error.",
    cause: "The service's own: `systemctl status` says it.",
    advice: "`systemctl status` and `journalctl -u` of the unit.",
    source: "journal of systemd: `Failed to start NAME`; state `failed` at systemd's own socket, asked every 30 s",
    ..warning("ServiceFailedToStart")
};

pub(super) const UNIT_REPEATED_RESTART: Row = Row {
    threshold: "4 restarts within 10 minutes",
    meaning: "systemd starts a service of the host again and again, because it ends.",
    cause: "The service's own: `journalctl -u` has its last words.",
    advice: "`journalctl -u` of the unit. Of kubelet or the runtime: no pod is started meanwhile.",
    source: "`NRestarts` of each service at systemd's own socket, asked every 30 s; what it tells of later, the journal of systemd tells at once: `NAME.service: Scheduled restart job, restart counter is at N.`. `<Unit>` is the unit's name as EKS's agent writes it: `KubeletRepeatedRestart`, `Nvidia-PersistencedRepeatedRestart`",
    ..warning("<Unit>RepeatedRestart")
};

pub(super) const KUBELET_UNRESPONSIVE: Row = Row {
    severity: Severity::Fatal,
    clears: Clears::Recovered {
        settle: Duration::from_secs(30),
    },
    eks: false,
    threshold: "3 looks without a good answer, 60 s apart from first to last. Fatal only while the thread that hangs is an AppBlocked that is Fatal itself: of this node's own disk, for 120 s. All else, as a kubelet that is stopped, has ended or cannot reach the API server, is a Warning",
    meaning: "kubelet does not answer on its own node, or the API server hears nothing of it while it hears the agent. The message says why, as far as the node knows: a thread in uninterruptible sleep, a process that is stopped or gone, the OOM killer, systemd's word, an expired certificate, and what the Node's own conditions say.",
    cause: "A disk that hangs under kubelet, too little memory, an expired certificate, or a kubelet that somebody has stopped.",
    advice: "A thread that hangs on a disk does not come back: reboot or replace the node. Else `journalctl -u kubelet`.",
    source: "kubelet's own /healthz (`--kubelet-healthz`), and /proc/<pid>/task while it does not answer, read every 30 s; the Node's condition `Ready`, seen with each heartbeat",
    ..warning("KubeletUnresponsive")
};

pub(super) const KUBELET_CERTIFICATE_EXPIRED: Row = Row {
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: false,
    threshold: "less than 5 % of its lifetime left: kubelet renews it when 10 to 30 % are",
    meaning: "A certificate of kubelet has expired or will soon. Without that of a client kubelet cannot reach the API server; without that of a server logs, exec and metrics fail.",
    cause: "Nobody has approved kubelet's request for a new one, or the API server could not be reached for long. Mostly of many nodes at once, so never Fatal.",
    advice: "`kubectl get csr`; `kubectl certificate approve` of kubelet's own.",
    source: "/var/lib/kubelet/pki/kubelet-client-current.pem and kubelet-server-current.pem, read every 10 minutes",
    ..warning("KubeletCertificateExpired")
};

pub(super) const DEPRECATED_CONTAINERD_CONFIGURATION: Row = Row {
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    threshold: "used within the last hour; one finding for each thing that is deprecated",
    meaning: "containerd is configured or asked in a way that its next release will not have.",
    cause: "An old configuration file, or images in an old format.",
    advice: "The message names it; `ctr deprecations list` has the rest. Mend it before containerd is upgraded.",
    source: "containerd's introspection service (`containerd.services.introspection.v1.Introspection/Server`) on /run/containerd/containerd.sock, asked every 10 minutes",
    ..warning("DeprecatedContainerdConfiguration")
};
