//! The lines as their programs write them, and what strangers put into them.

use super::*;
use crate::reason::Reason;

fn journal(unit: &str, line: &str) -> Option<(String, String)> {
    told(
        &Origin::Journal {
            unit: unit.to_owned(),
        },
        line,
    )
}

fn file(path: &str, line: &str) -> Option<(String, String)> {
    told(
        &Origin::File {
            path: path.to_owned(),
        },
        line,
    )
}

/// Reason and entity.
fn told(origin: &Origin, line: &str) -> Option<(String, String)> {
    match read(origin, line.as_bytes())? {
        What::Logged(fault) => Some((fault.reason.name().into_owned(), fault.entity)),
        other => panic!("{other:?}"),
    }
}

fn is(reason: &str, entity: &str) -> Option<(String, String)> {
    Some((reason.to_owned(), entity.to_owned()))
}

const KUBELET: &str = "kubelet.service";
const SYSTEMD: &str = "init.scope";

#[test]
fn probes_are_told_by_their_pods_in_both_forms() {
    let probe = |kind: &str| {
        format!(
            "I0918 12:00:00.123456    1234 prober.go:107] \"Probe failed\" probeType=\"{kind}\" \
             pod=\"default/x\" podUID=\"u\" containerName=\"c\" probeResult=\"failure\" output=\"\""
        )
    };
    assert_eq!(
        journal(KUBELET, &probe("Readiness")),
        is("ReadinessProbeFailures", "pod default/x")
    );
    assert_eq!(
        journal(KUBELET, &probe("Liveness")),
        is("LivenessProbeFailures", "pod default/x")
    );
    assert_eq!(journal(KUBELET, &probe("Startup")), None);
    assert_eq!(
        journal(
            KUBELET,
            "Liveness probe for \"foo:bar\" failed (failure): x"
        ),
        is("LivenessProbeFailures", "pod foo:bar")
    );
    assert_eq!(
        journal(KUBELET, "Liveness probe for \"foo:bar\" succeeded"),
        None
    );
}

#[test]
fn what_a_probe_printed_is_nobody_elses_fault() {
    let line = "I0918 12:00:00.123456    1234 prober.go:107] \"Probe failed\" probeType=\"Readiness\" \
        pod=\"default/x\" output=\"fork/exec: resource temporarily unavailable OCI runtime create failed: \"";
    assert_eq!(
        journal(KUBELET, line),
        is("ReadinessProbeFailures", "pod default/x")
    );
}

#[test]
fn a_fork_that_fails_is_told_in_both_wordings() {
    for line in [
        "E0918 12:00:00.0 1 x.go:1] fork/exec /usr/bin/x: resource temporarily unavailable",
        "runtime: failed to create new OS thread (have 9 already; errno=11)",
    ] {
        for unit in [KUBELET, "containerd.service"] {
            assert_eq!(
                journal(unit, line),
                is("ForkFailedOutOfPIDs", unit),
                "{line}"
            );
        }
        assert_eq!(journal("other.service", line), None);
        assert_eq!(journal(SYSTEMD, line), None);
    }
    assert_eq!(journal(KUBELET, "fork/exec /usr/bin/x: no such file"), None);
    assert_eq!(
        journal(KUBELET, "failed to create new OS thread (errno=12)"),
        None
    );
}

#[test]
fn the_other_lines_of_kubelet_are_known() {
    let stuck = "I0918 12:00:00.0 1 kubelet.go:1] \"Pod still has one or more containers in the \
        non-exited state and will not be removed from desired state\" pod=\"default/a-pod\"";
    assert_eq!(
        journal(KUBELET, stuck),
        is("PodStuckTerminating", "pod default/a-pod")
    );
    let create = "E0918 12:00:00.0 1 pod_workers.go:1] \"Error syncing pod, skipping\" err=\"failed to \
        create containerd task: OCI runtime create failed: runc\" pod=\"default/b\"";
    assert_eq!(
        journal(KUBELET, create),
        is("ContainerRuntimeFailed", "pod default/b")
    );
    let hosts =
        "error mounting \"/var/lib/kubelet/pods/c02d9022/etc-hosts\" to rootfs at \"/etc/hosts\"";
    assert_eq!(
        journal("containerd.service", hosts),
        is("EtcHostsMountFailed", "containerd.service")
    );
    let slow = "fs: disk usage and inodes count on following dirs took 9.5s: [/var/lib]";
    assert_eq!(journal(KUBELET, slow), is("KubeletDiskUsageSlow", KUBELET));
    for line in ["", "started", "] ", "I0"] {
        assert_eq!(journal(KUBELET, line), None, "{line}");
    }
}

#[test]
fn systemd_tells_of_failures_and_restarts() {
    assert_eq!(
        journal(SYSTEMD, "kubelet.service: Failed with result 'exit-code'."),
        is("KubeletFailed", KUBELET)
    );
    assert_eq!(
        journal(SYSTEMD, "Unit kubelet.service entered failed state."),
        is("KubeletFailed", KUBELET)
    );
    assert_eq!(
        journal(SYSTEMD, "sshd.service: Failed with result 'signal'."),
        None
    );
    assert_eq!(
        journal(SYSTEMD, "Failed to start containerd."),
        is("ServiceFailedToStart", "containerd")
    );
    assert_eq!(
        journal(
            SYSTEMD,
            "Failed to start kubelet.service - Kubernetes Kubelet."
        ),
        is("ServiceFailedToStart", KUBELET)
    );
    let restart = |unit: &str| {
        journal(
            SYSTEMD,
            &format!("{unit}: Scheduled restart job, restart counter is at 4."),
        )
    };
    assert_eq!(restart(KUBELET), is("KubeletRepeatedRestart", KUBELET));
    assert_eq!(
        restart("nvidia-persistenced.service"),
        is(
            "Nvidia-PersistencedRepeatedRestart",
            "nvidia-persistenced.service"
        )
    );
    assert_eq!(
        restart("aws-network-policy-agent.service"),
        is("NPARepeatedlyRestart", "aws-network-policy-agent.service")
    );
    assert_eq!(restart("x.timer"), None);
    // Not systemd's own word.
    let line = "kubelet.service: Failed with result 'exit-code'.";
    assert_eq!(journal(KUBELET, line), None);
}

#[test]
fn kubelet_is_kubelet_where_it_is_a_snap() {
    const SNAP: &str = "snap.kubelet-eks.daemon.service";
    assert_eq!(
        journal(SYSTEMD, &format!("{SNAP}: Failed with result 'exit-code'.")),
        is("KubeletFailed", KUBELET)
    );
    let restart = format!("{SNAP}: Scheduled restart job, restart counter is at 4.");
    assert_eq!(
        journal(SYSTEMD, &restart),
        is("KubeletRepeatedRestart", SNAP)
    );
    let slow = "fs: disk usage and inodes count on following dirs took 9.5s: [/var/lib]";
    assert_eq!(journal(SNAP, slow), is("KubeletDiskUsageSlow", SNAP));
    let other = "snap.other.daemon.service";
    assert_eq!(journal(other, slow), None);
}

#[test]
fn a_job_is_its_user_and_its_command() {
    let line = "Sep 17 21:44:01 dev CROND[13867]: (root) CMD (/usr/bin/aja.pl (x))";
    let job = is("RapidCron", "root: /usr/bin/aja.pl (x)");
    assert_eq!(file("/var/log/cron.log", line), job);
    assert_eq!(
        journal("crond.service", "(root) CMD (/usr/bin/aja.pl (x))"),
        job
    );
    assert_eq!(
        journal("cron.service", "(root) RELOAD (crontabs/root)"),
        None
    );
}

#[test]
fn the_vpc_cni_tells_of_both_its_agents() {
    let ipamd = |line: &str| file("/var/log/aws-routed-eni/ipamd.log", line);
    assert_eq!(
        ipamd("{\"level\":\"error\",\"msg\":\"Unable to reach API Server, check\"}"),
        is("IPAMDNotReady", "ipamd")
    );
    assert_eq!(
        ipamd("Failed to check API server connectivity: invalid configuration"),
        is("IPAMDNotReady", "ipamd")
    );
    assert_eq!(
        ipamd("Starting L-IPAMD v1.19"),
        is("IPAMDRepeatedlyRestart", "ipamd")
    );
    assert_eq!(
        ipamd("InsufficientFreeAddressesInSubnet: x"),
        is("IPAMDNoIPs", "ipamd")
    );
    assert_eq!(ipamd("Reached the API Server"), None);
    let policy = |line: &str| file("/var/log/aws-routed-eni/network-policy-agent.log", line);
    for line in [
        "ERROR Failed to recover the BPF state",
        "BPF State Recovery failed error: something",
        "failed to recover global maps",
        "got err for ingress in-mem map",
        "got err for egress in-mem map",
    ] {
        assert_eq!(
            policy(line),
            is("NPABPFRecoveryError", "aws-network-policy-agent"),
            "{line}"
        );
    }
    assert_eq!(policy("NPA started successfully"), None);
    assert_eq!(ipamd("failed to recover global maps"), None);
}

#[test]
fn what_strangers_choose_is_bounded_and_in_one_line() {
    let pod = "x".repeat(10_000);
    let line = format!("Readiness probe for \"{pod}\" failed\u{1b}[31m;\n");
    let (reason, entity) = journal(KUBELET, &line).unwrap();
    assert_eq!(
        (reason.as_str(), entity.as_str()),
        ("ReadinessProbeFailures", KUBELET)
    );
    let hostile = b"(root) CMD (\xff\xfe\x1b[2J;rm)";
    let origin = Origin::Journal {
        unit: "cron.service".to_owned(),
    };
    let Some(What::Logged(fault)) = read(&origin, hostile) else {
        panic!("not read");
    };
    assert_eq!(fault.reason, Reason::RapidCron);
    assert!(!fault.entity.contains(['\u{1b}', ';']), "{}", fault.entity);
}
