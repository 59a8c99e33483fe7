//! PURE. Rows of `NetworkingReady` about the host's interfaces and the agents that give pods their
//! addresses.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

const RECOVERED: Clears = Clears::Recovered {
    settle: Duration::from_secs(30),
};

const fn warning(name: &'static str) -> Row {
    Row {
        name,
        condition: ConditionType::NetworkingReady,
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

pub(super) const MISSING_LOOPBACK_INTERFACE: Row = Row {
    severity: Severity::Fatal,
    clears: RECOVERED,
    threshold: "two readings, 30 s apart",
    meaning: "The host has no loopback interface.",
    cause: "Somebody has taken `lo` away; the kernel itself does not.",
    advice: "Replace or reboot the node: nothing on the host that talks to 127.0.0.1 works, kubelet's probes included.",
    source: "/sys/class/net of the host's network namespace, read every 30 s",
    ..warning("MissingLoopbackInterface")
};

pub(super) const INTERFACE_NOT_UP: Row = Row {
    severity: Severity::Fatal,
    clears: RECOVERED,
    threshold: "two readings, 30 s apart. Fatal for `lo` and for an interface that had the default route; a Warning for any other network card that had been up",
    meaning: "An interface was set down.",
    cause: "A person, a program that manages the network, or a driver that failed.",
    advice: "`ip link set NAME up`, and look for who set it down. Interfaces without hardware (bridges, tunnels, pods' ends) and IP over InfiniBand do not count, nor a card that has never been up.",
    source: "flags, type and device of /sys/class/net in the host's network namespace, and /proc/1/net/route, read every 30 s",
    ..warning("InterfaceNotUp")
};

pub(super) const INTERFACE_NOT_RUNNING: Row = Row {
    meaning: "An interface is set up and has no link.",
    cause: "A cable, a switch port, a network interface of the cloud that was detached, or a driver that failed.",
    advice: "`ip link` and `ethtool` say what the card sees. Interfaces without hardware (bridges, tunnels, pods' ends) and IP over InfiniBand do not count, nor a card that has never had a link.",
    source: "operstate, type and device of /sys/class/net in the host's network namespace, and /proc/1/net/route, read every 30 s",
    name: "InterfaceNotRunning",
    ..INTERFACE_NOT_UP
};

pub(super) const IPAMD_NOT_READY: Row = Row {
    threshold: "3 lines within 5 minutes",
    meaning: "The VPC CNI's address manager does not reach the API server.",
    cause: "At the start of a node, that its network is not ready yet: one line is normal. Else the API server, or a rule or route that keeps the node from it.",
    advice: "Look whether other nodes have it: then it is the API server. EKS's agent makes the node Fatal by one line; many nodes share this fault by nature, so nodemend never does.",
    source: "/var/log/aws-routed-eni/ipamd.log: `Unable to reach API Server`, `Failed to check API server connectivity`",
    ..warning("IPAMDNotReady")
};

pub(super) const IPAMD_REPEATEDLY_RESTART: Row = Row {
    threshold: "6 starts within an hour",
    meaning: "The VPC CNI's address manager starts again and again: new pods get no address meanwhile.",
    cause: "Too little memory for the aws-node pod, or a fault that it ends with.",
    advice: "`kubectl logs -n kube-system --previous` of the node's aws-node pod.",
    source: "/var/log/aws-routed-eni/ipamd.log: `Starting L-IPAMD`",
    ..warning("IPAMDRepeatedlyRestart")
};

pub(super) const IPAMD_NO_IPS: Row = Row {
    threshold: "each line",
    meaning: "The subnet has no free addresses for this node's pods.",
    cause: "A subnet that is too small, or addresses that are held by other nodes as a reserve.",
    advice: "Add a subnet, use prefix delegation or custom networking, or lower WARM_ENI_TARGET. A new node of the same subnet would have no addresses either.",
    source: "/var/log/aws-routed-eni/ipamd.log: `InsufficientFreeAddressesInSubnet`",
    ..warning("IPAMDNoIPs")
};

pub(super) const IPAMD_NOT_RUNNING: Row = Row {
    severity: Severity::Fatal,
    clears: RECOVERED,
    threshold: "for 5 minutes, while the node has the pod",
    meaning: "The node has an aws-node pod, and its address manager does not run: new pods get no address.",
    cause: "The pod crashes, its image cannot be pulled, or it was stopped.",
    advice: "`kubectl describe pod -n kube-system` of the node's aws-node pod.",
    source: "/var/log/pods/*_aws-node-*/aws-vpc-cni-init, and processes called `aws-k8s-agent` in /proc, read every 30 s",
    ..warning("IPAMDNotRunning")
};

pub(super) const IPAMD_INCONSISTENT_STATE: Row = Row {
    clears: RECOVERED,
    threshold: "two readings",
    meaning: "The VPC CNI's address manager has recorded another address for a pod than it has: it can give the pod's address to another one.",
    cause: "ipamd's record was lost or restored while pods ran, or two programs give addresses.",
    advice: "Delete the pod that the message names; if it comes back, restart the aws-node pod of this node.",
    source: "/run/aws-node/ipam.json, against the addresses of all ready sandboxes by CRI on the socket of containerd or CRI-O, read every 2 minutes",
    ..warning("IPAMDInconsistentState")
};

pub(super) const NETWORK_SYSCTL: Row = Row {
    clears: RECOVERED,
    threshold: "two readings, 30 s apart",
    meaning: "The host forwards no packets: pods reach nothing outside of their node.",
    cause: "A program that sets `net.ipv4.ip_forward` to 0, or an image that was hardened.",
    advice: "`sysctl -w net.ipv4.ip_forward=1`, and look for who sets it.",
    source: "/proc/sys/net/ipv4/ip_forward, read every 30 s",
    ..warning("NetworkSysctl")
};

pub(super) const EFA_ERROR_METRIC: Row = Row {
    threshold: "between two readings, 30 s apart, of one device: 100 of a counter; 1,000 of retrans_pkts; 1,000,000 of retrans_bytes",
    meaning: "An Elastic Fabric Adapter counts errors: messages are sent again, or are lost.",
    cause: "A peer that does not answer, congestion, or a fault of the fabric.",
    advice: "The message names the counter. Look whether the peers of the same job have it too.",
    source: "hw_counters of /sys/class/infiniband (rx_drops, rdma_write_wr_err, rdma_read_wr_err, unresponsive_remote_events, impaired_remote_conn_events, retrans_timeout_events, retrans_pkts, retrans_bytes) of devices of vendor 0x1d0f, device 0xefa*, read every 30 s",
    ..warning("EFAErrorMetric")
};

pub(super) const NPA_REPEATEDLY_RESTART: Row = Row {
    threshold: "5 restarts within 10 minutes",
    meaning: "The AWS network policy agent starts again and again: network policies are not applied meanwhile.",
    cause: "A fault that it ends with.",
    advice: "`journalctl -u aws-network-policy-agent`.",
    source: "`NRestarts` at systemd's own socket, and the journal of systemd: `aws-network-policy-agent.service: Scheduled restart job, restart counter is at N.`",
    ..warning("NPARepeatedlyRestart")
};

pub(super) const NPA_BPF_RECOVERY_ERROR: Row = Row {
    threshold: "each line",
    meaning: "The AWS network policy agent could not take over its BPF programs and maps after a restart: network policies may not be applied.",
    cause: "Leftovers of another version in /sys/fs/bpf, or a fault of the agent.",
    advice: "Replace the node if it does not end by itself.",
    source: "/var/log/aws-routed-eni/network-policy-agent.log: `Failed to recover the BPF state`, `BPF State Recovery failed`, `failed to recover global maps`, `got err for ingress in-mem map`, `got err for egress in-mem map`",
    ..warning("NPABPFRecoveryError")
};

pub(super) const MISSING_IP_RULES: Row = Row {
    clears: RECOVERED,
    threshold: "two readings, 30 s apart",
    meaning: "Pods have addresses of the VPC CNI and no routing rule: packets do not find them, or take the wrong way.",
    cause: "A program that manages the network (systemd-networkd, NetworkManager) and has taken rules away that it did not make, or somebody did.",
    advice: "`ip rule` must have `512: from all to ADDRESS` for each pod. Restart the pods that are named, and keep that program from foreign rules (`ManageForeignRoutingPolicyRules=no`).",
    source: "/run/aws-node/ipam.json, and the host's routing rules (netlink, RTM_GETRULE), read every 30 s",
    ..warning("MissingIPRules")
};

pub(super) const MISSING_IP_ROUTES: Row = Row {
    meaning: "Pods have addresses of the VPC CNI and a routing rule, and no route leads to them.",
    cause: "The host's end of the pod's interface is gone or down, or a program has taken routes away that it did not make.",
    advice: "`ip route show table all` must have `ADDRESS dev eni...` for each pod. Restart the pods that are named.",
    source: "/run/aws-node/ipam.json, and the host's rules and routes (netlink, RTM_GETRULE, RTM_GETROUTE), read every 30 s",
    name: "MissingIPRoutes",
    ..MISSING_IP_RULES
};

pub(super) const MISSING_DEFAULT_ROUTES: Row = Row {
    meaning: "A routing table that pods are sent to has no default route: they reach nothing outside of their subnet.",
    cause: "The network interface of that table was set down or detached, or a program has taken its routes away.",
    advice: "`ip route show table N` must have `default via ...`. Restart the node's aws-node pod, which makes it anew.",
    source: "rules of priority 1536 and the host's routes (netlink, RTM_GETRULE, RTM_GETROUTE), read every 30 s where there is /run/aws-node/ipam.json",
    name: "MissingDefaultRoutes",
    ..MISSING_IP_RULES
};

const FILTERS: &str = "rules of nftables (netlink, NFT_MSG_GETRULE) and of the old tables (getsockopt, IPT_SO_GET_ENTRIES) in the host's network namespace; looked at every 30 s, read when they have changed";

pub(super) const PORT_CONFLICT: Row = Row {
    clears: RECOVERED,
    threshold: "one reading",
    meaning: "A rule of a packet filter sends packets to port 10250 elsewhere: kubelet does not get them.",
    cause: "A pod with `hostPort: 10250`, or somebody's own rule.",
    advice: "Look for the pod with that host port: logs, exec and metrics of the whole node fail meanwhile.",
    source: FILTERS,
    ..warning("PortConflict")
};

pub(super) const UNEXPECTED_REJECT_RULE: Row = Row {
    meaning: "A rule of a packet filter drops or rejects packets, and nobody wrote it who is known to do so on nodes.",
    cause: "A firewall on the host (ufw, fail2ban, a security agent), or somebody's own rule.",
    advice: "The message names table and chain. If it is meant to be so, allow it by `sources.counters.allowedFilterChains`. Known: chains of kube-proxy, kubelet, Calico, Cilium, kube-router, Weave, Docker, Podman, Istio and libvirt, the VPC CNI's of node-local pods, and rules about invalid packets.",
    name: "UnexpectedRejectRule",
    ..PORT_CONFLICT
};

pub(super) const MAC_ADDRESS_POLICY_MISCONFIGURED: Row = Row {
    clears: RECOVERED,
    threshold: "one reading",
    meaning: "udev gives the host's ends of pods other hardware addresses than the VPC CNI knows: their packets are lost.",
    cause: "A `.link` file with a MACAddressPolicy other than `none`, as the default of systemd is.",
    advice: "A file `/etc/systemd/network/99-default.link.d/none.conf` with `[Link]` and `MACAddressPolicy=none`; it holds for pods that start after it.",
    source: "/run/udev/data of veth interfaces, and systemd's `.link` files with what is dropped in beside them, read every 5 minutes where there is /run/aws-node/ipam.json",
    ..warning("MACAddressPolicyMisconfigured")
};

pub(super) const KUBE_PROXY_NOT_READY: Row = Row {
    threshold: "each line",
    meaning: "kube-proxy asks the API server for a kind of resource that it does not have: services may not be reached.",
    cause: "A kube-proxy of another version than the API server.",
    advice: "Bring kube-proxy to the version of the cluster. All nodes have it by nature, so it is a Warning.",
    source: "/var/log/pods/*_kube-proxy-*/kube-proxy/*.log, read every 30 s: `Failed to watch` ... `the server could not find the requested resource`, as klog wrote it before structured logs and as it does now",
    ..warning("KubeProxyNotReady")
};

pub(super) const NPA_NOT_RUNNING: Row = Row {
    severity: Severity::Fatal,
    clears: RECOVERED,
    threshold: "for 15 minutes, after it had run",
    meaning: "The AWS network policy agent is a service of this host (EKS Auto Mode), and does not run: network policies are not applied to new pods.",
    cause: "It has ended and systemd does not start it again, or somebody has stopped it.",
    advice: "`systemctl status aws-network-policy-agent` and `journalctl -u` of it.",
    source: "the unit's file, and its cgroup, which systemd takes away when it ends; read every 30 s",
    ..warning("NPANotRunning")
};
