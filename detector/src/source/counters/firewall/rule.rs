//! PURE. What one rule of a packet filter does, and whose it is.

/// kubelet's own port: whoever takes its packets cuts the node off.
pub(super) const KUBELET: u16 = 10250;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub table: String,
    pub chain: String,
    pub comments: Vec<String>,
    /// Only packets that connection tracking calls invalid.
    pub invalid_only: bool,
    /// Only packets to this port, or to some that it is one of.
    pub ports: Option<(u16, u16)>,
    pub does: Does,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// Drops or rejects.
    Refuse,
    /// Changes where the packet goes to.
    Redirect,
    Other,
}

/// Chains of those who write packet filters on nodes, and refuse packets as a part of it: kube-proxy and
/// kubelet, Calico, Cilium, kube-router, Weave, Docker, Podman, firewalld's and libvirt's own.
const KNOWN_CHAINS: [&str; 12] = [
    "KUBE-",
    "cali-",
    "CILIUM_",
    "OLD_CILIUM_",
    "KUBE_",
    "WEAVE-",
    "DOCKER",
    "CNI-",
    "NETAVARK",
    "ISTIO",
    "LIBVIRT_",
    "AWS-",
];
/// Tables of nftables that belong to one of them as a whole.
const KNOWN_TABLES: [&str; 8] = [
    "kube-proxy",
    "calico",
    "cilium",
    "docker-bridges",
    "netavark",
    "cni_hostport",
    "istio",
    "libvirt_network",
];
/// The VPC CNI's, of addresses that only containers of the same node may use.
const NODE_LOCAL: &str = "Block Node Local Pod access";

impl Rule {
    /// A refusal that no known owner wrote.
    pub(super) fn refuses_unexpectedly(&self, allowed: &[String]) -> bool {
        self.does == Does::Refuse
            && !self.invalid_only
            && !KNOWN_CHAINS
                .iter()
                .any(|known| self.chain.starts_with(known))
            && !KNOWN_TABLES.contains(&bare(&self.table))
            && !self
                .comments
                .iter()
                .any(|comment| comment.contains(NODE_LOCAL))
            && !allowed.contains(&self.place())
    }

    pub(super) fn takes_kubelets_port(&self) -> bool {
        let every = Some((0, u16::MAX));
        let named = self.ports != every
            && self
                .ports
                .is_some_and(|(first, last)| (first..=last).contains(&KUBELET));
        self.does == Does::Redirect && named
    }

    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.table, self.chain)
    }
}

/// Without the family that nftables' own tables are shown with.
fn bare(table: &str) -> &str {
    table.rsplit(' ').next().unwrap_or(table)
}

#[cfg(test)]
impl Rule {
    /// Of all packets, in the table `filter`.
    pub(super) fn of(chain: &str, does: Does) -> Self {
        Self {
            table: "filter".to_owned(),
            chain: chain.to_owned(),
            comments: Vec::new(),
            invalid_only: false,
            ports: None,
            does,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_unexpected_unless_its_owner_is_known_or_allowed() {
        for chain in ["INPUT", "SOMETHING-ELSE", "TWISTLOCK-NET-OUTPUT", "ATTACK"] {
            assert!(
                Rule::of(chain, Does::Refuse).refuses_unexpectedly(&[]),
                "{chain}"
            );
            assert!(
                !Rule::of(chain, Does::Other).refuses_unexpectedly(&[]),
                "{chain}"
            );
        }
        for chain in [
            "KUBE-FORWARD",
            "KUBE-SERVICES",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-FIREWALL",
            "KUBE-IPVS-FILTER",
            "KUBE-SOURCE-RANGES-FIREWALL",
            "cali-tw-eni59dda123e85",
            "DOCKER-ISOLATION-STAGE-2",
        ] {
            assert!(
                !Rule::of(chain, Does::Refuse).refuses_unexpectedly(&[]),
                "{chain}"
            );
        }
        let mut native = Rule::of("reject-chain", Does::Refuse);
        native.table = "ip6 kube-proxy".to_owned();
        assert!(!native.refuses_unexpectedly(&[]));
    }

    #[test]
    fn node_local_pods_and_invalid_packets_may_be_refused() {
        let mut node_local = Rule::of("FORWARD", Does::Refuse);
        node_local.comments = vec!["Block Node Local Pod access via IPv4".to_owned()];
        assert!(!node_local.refuses_unexpectedly(&[]));
        let mut invalid = Rule::of("FORWARD", Does::Refuse);
        invalid.invalid_only = true;
        assert!(!invalid.refuses_unexpectedly(&[]));
    }

    #[test]
    fn a_chain_is_allowed_in_its_own_table() {
        let mine = Rule::of("MY-CUSTOM-CHAIN", Does::Refuse);
        let allowed = |place: &str| !mine.refuses_unexpectedly(&[place.to_owned()]);
        assert!(allowed("filter/MY-CUSTOM-CHAIN"));
        assert!(!allowed("nat/MY-CUSTOM-CHAIN"));
    }

    #[test]
    fn kubelets_port_is_taken_by_a_rule_that_names_it() {
        let mut redirect = Rule::of("CNI-DN-08cb4d05ff8daf230ce42", Does::Redirect);
        assert!(!redirect.takes_kubelets_port(), "every port");
        for (ports, taken) in [
            ((10250, 10250), true),
            ((10000, 11000), true),
            ((10251, 10260), false),
            ((0, u16::MAX), false),
        ] {
            redirect.ports = Some(ports);
            assert_eq!(redirect.takes_kubelets_port(), taken, "{ports:?}");
        }
        redirect.ports = Some((KUBELET, KUBELET));
        redirect.does = Does::Other;
        assert!(!redirect.takes_kubelets_port());
    }
}
