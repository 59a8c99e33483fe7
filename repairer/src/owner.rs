//! PURE. Whose a node is, by its providerID, its labels and what AWS says of its instance. What
//! does not fit together is nobody's to touch.

use crate::cluster::{Facts, InstanceId, InstanceView, NodeView, ProviderIdError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An Auto Scaling group, which launches another instance in its place; `node_group`: the EKS
    /// managed node group above it.
    Group {
        instance: InstanceId,
        group: String,
        node_group: Option<String>,
    },
    /// `by`: what says so. Only its NodeClaim is to be touched.
    Karpenter {
        instance: InstanceId,
        by: String,
    },
    /// An EC2 instance that nothing would replace.
    StandAlone(InstanceId),
    Fargate,
    Hybrid,
    /// AWS repairs these.
    AutoMode,
    /// Another cloud, or none.
    Elsewhere(String),
    Unclear {
        why: String,
        clears: &'static str,
    },
}

const COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";
const NODE_GROUP_LABEL: &str = "eks.amazonaws.com/nodegroup";
const NODE_GROUP_TAG: &str = "eks:nodegroup-name";
pub const CLUSTER_TAG: &str = "eks:cluster-name";
const GROUP_TAG: &str = "aws:autoscaling:groupName";
/// As labels, and as tags of the instance.
const KARPENTER: [&str; 3] = [
    "karpenter.sh/nodepool",
    "karpenter.sh/nodeclaim",
    "karpenter.sh/provisioner-name",
];
const MEND: &str = "mend the node's labels or providerID, or the instance's tags";

/// The tags that say whose an instance is, or which cluster's; others are not kept.
pub fn tells(tag: &str) -> bool {
    let known = [NODE_GROUP_TAG, CLUSTER_TAG, GROUP_TAG];
    known.contains(&tag) || KARPENTER.contains(&tag)
}

impl Owner {
    pub fn of(node: &NodeView, view: Option<&InstanceView>) -> Self {
        let by_label = match node.labels.get(COMPUTE_TYPE).map(String::as_str) {
            None => None,
            Some("fargate") => Some(Self::Fargate),
            Some("hybrid") => Some(Self::Hybrid),
            Some("auto") => Some(Self::AutoMode),
            Some(other) => Some(unclear(
                format!("the node's label {COMPUTE_TYPE} is `{other}`, which is not known"),
                "a version of nodemend that knows it",
            )),
        };
        by_label
            .or_else(|| by_provider_id(&node.provider_id))
            .unwrap_or_else(|| match node.instance() {
                Ok(instance) => of_instance(node, instance, view),
                Err(error) => {
                    let clears = match error {
                        ProviderIdError::Empty => "the providerID is set",
                        ProviderIdError::Foreign(_) => "nothing: only EC2 instances are repaired",
                    };
                    unclear(error.to_string(), clears)
                }
            })
    }

    pub fn is_labelled_karpenter(node: &NodeView) -> bool {
        KARPENTER.iter().any(|key| node.labels.contains_key(*key))
    }

    /// Why nodemend must not repair it, and what would change that.
    pub fn refusal(&self) -> Option<(String, String)> {
        let never = |what: &str| {
            let message = format!("the node is {what}");
            Some((
                message,
                "nothing: only whoever owns the node can repair it".to_owned(),
            ))
        };
        match self {
            Self::Group { .. } | Self::Karpenter { .. } => None,
            Self::StandAlone(instance) => Some((
                format!("{instance} is in no Auto Scaling group: nothing would replace it"),
                "attach the instance to an Auto Scaling group".to_owned(),
            )),
            Self::Fargate => never("a pod's own machine (Fargate)"),
            Self::Hybrid => never("a hybrid node: its machine is not AWS's"),
            Self::AutoMode => never("of EKS Auto Mode, which repairs it"),
            Self::Elsewhere(scheme) => {
                never(&format!("not on AWS: its providerID begins with {scheme}"))
            }
            Self::Unclear { why, clears } => Some((why.clone(), (*clears).to_owned())),
        }
    }
}

fn unclear(why: String, clears: &'static str) -> Owner {
    Owner::Unclear { why, clears }
}

/// What needs no instance to be told.
fn by_provider_id(provider_id: &str) -> Option<Owner> {
    let (scheme, rest) = provider_id.split_once("://")?;
    match scheme {
        "aws"
            if rest
                .rsplit('/')
                .next()
                .is_some_and(|last| last.starts_with("fargate-")) =>
        {
            Some(Owner::Fargate)
        }
        "aws" => None,
        "eks-hybrid" => Some(Owner::Hybrid),
        other => Some(Owner::Elsewhere(
            format!("{other}://").chars().take(40).collect(),
        )),
    }
}

fn of_instance(node: &NodeView, instance: InstanceId, view: Option<&InstanceView>) -> Owner {
    let no_facts = Facts::default();
    let tags = view.map_or(&no_facts, |view| &view.facts).tags.clone();
    let label = KARPENTER.iter().find(|key| node.labels.contains_key(**key));
    let tag = KARPENTER.iter().find(|key| tags.contains_key(**key));
    let by = match (label, tag) {
        (Some(key), _) => Some(format!("its label {key}")),
        (None, Some(key)) => Some(format!("the tag {key} of {instance}")),
        (None, None) => None,
    };
    if let Some(by) = by {
        return match view.and_then(|view| view.group.as_ref()) {
            None => Owner::Karpenter { instance, by },
            Some(group) => unclear(
                format!(
                    "the node belongs to Karpenter, says {by}, but {instance} is in the Auto Scaling group {group}"
                ),
                MEND,
            ),
        };
    }
    let Some(view) = view else {
        let why = format!("AWS has not said yet to which Auto Scaling group {instance} belongs");
        return unclear(why, "AWS describes the instance");
    };
    let node_group_label = node.labels.get(NODE_GROUP_LABEL);
    let node_group_tag = tags.get(NODE_GROUP_TAG);
    let Some(group) = view.group.clone() else {
        return match (node_group_label, tags.get(GROUP_TAG)) {
            (None, None) => Owner::StandAlone(instance),
            (Some(label), _) => unclear(
                format!(
                    "the node's label {NODE_GROUP_LABEL} is `{label}`, but {instance} is in no Auto Scaling group"
                ),
                MEND,
            ),
            (None, Some(tag)) => unclear(
                format!(
                    "{instance} has the tag {GROUP_TAG}={tag}, but Auto Scaling does not know it"
                ),
                "Auto Scaling and EC2 say the same of the instance",
            ),
        };
    };
    if let Some(tag) = tags.get(GROUP_TAG).filter(|tag| **tag != group) {
        return unclear(
            format!(
                "Auto Scaling says that {instance} is in {group}, its tag {GROUP_TAG} says {tag}"
            ),
            "Auto Scaling and EC2 say the same of the instance",
        );
    }
    if let (Some(label), Some(tag)) = (node_group_label, node_group_tag)
        && label != tag
    {
        return unclear(
            format!(
                "the node's label {NODE_GROUP_LABEL} is `{label}`, the tag {NODE_GROUP_TAG} of {instance} is `{tag}`"
            ),
            MEND,
        );
    }
    let node_group = node_group_tag.or(node_group_label).cloned();
    Owner::Group {
        instance,
        group,
        node_group,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::{self, GROUP};

    struct Case {
        what: &'static str,
        provider_id: Option<&'static str>,
        labels: &'static [(&'static str, &'static str)],
        tags: &'static [(&'static str, &'static str)],
        /// `None`: AWS has not answered.
        group: Option<Option<&'static str>>,
        /// Of the answer, in Rust's debug form.
        expected: &'static str,
        /// Of the refusal.
        says: &'static str,
    }

    const ASG: Option<Option<&str>> = Some(Some(GROUP));
    const PLAIN: Case = Case {
        what: "",
        provider_id: None,
        labels: &[],
        tags: &[],
        group: ASG,
        expected: "",
        says: "",
    };

    #[test]
    fn each_owner_is_told_apart() {
        let cases = [
            Case {
                what: "a member of a group",
                tags: &[("aws:autoscaling:groupName", GROUP)],
                expected: "Group { instance: InstanceId(\"i-00000000000000000\"), group: \"workers-asg\", node_group: None }",
                ..PLAIN
            },
            Case {
                what: "a managed node group",
                labels: &[("eks.amazonaws.com/nodegroup", "blue")],
                tags: &[("eks:nodegroup-name", "blue")],
                expected: "Group { instance: InstanceId(\"i-00000000000000000\"), group: \"workers-asg\", node_group: Some(\"blue\") }",
                ..PLAIN
            },
            Case {
                what: "Karpenter, by label, before AWS has answered",
                labels: &[("karpenter.sh/nodepool", "default")],
                group: None,
                expected: "Karpenter { instance: InstanceId(\"i-00000000000000000\"), by: \"its label karpenter.sh/nodepool\" }",
                ..PLAIN
            },
            Case {
                what: "Karpenter's by label, and a member of a group",
                labels: &[("karpenter.sh/nodepool", "default")],
                expected: "Unclear",
                says: "is in the Auto Scaling group workers-asg",
                ..PLAIN
            },
            Case {
                what: "Karpenter, by tag, where the label is gone",
                tags: &[("karpenter.sh/nodeclaim", "default-x7k2p")],
                group: Some(None),
                expected: "Karpenter { instance: InstanceId(\"i-00000000000000000\"), by: \"the tag karpenter.sh/nodeclaim of i-",
                ..PLAIN
            },
            Case {
                what: "Auto Mode is Karpenter's too, but AWS's first",
                labels: &[
                    ("eks.amazonaws.com/compute-type", "auto"),
                    ("karpenter.sh/nodepool", "general-purpose"),
                ],
                expected: "AutoMode",
                says: "EKS Auto Mode, which repairs it",
                ..PLAIN
            },
            Case {
                what: "stand-alone",
                group: Some(None),
                expected: "StandAlone",
                says: "nothing would replace it",
                ..PLAIN
            },
            Case {
                what: "Fargate by label",
                labels: &[("eks.amazonaws.com/compute-type", "fargate")],
                expected: "Fargate",
                says: "Fargate",
                ..PLAIN
            },
            Case {
                what: "Fargate by providerID",
                provider_id: Some("aws:///us-west-2b/0123abcd/fargate-ip-10-0-0-1.ec2.internal"),
                group: None,
                expected: "Fargate",
                says: "Fargate",
                ..PLAIN
            },
            Case {
                what: "hybrid",
                provider_id: Some("eks-hybrid:///us-west-2/prod/mi-0123456789abcdef0"),
                group: None,
                expected: "Hybrid",
                says: "hybrid",
                ..PLAIN
            },
            Case {
                what: "another cloud",
                provider_id: Some("gce://project/zone/name"),
                group: None,
                expected: "Elsewhere",
                says: "not on AWS: its providerID begins with gce://",
                ..PLAIN
            },
            Case {
                what: "no providerID yet",
                provider_id: Some(""),
                group: None,
                expected: "Unclear",
                says: "spec.providerID is empty",
                ..PLAIN
            },
            Case {
                what: "a compute type that is new",
                labels: &[("eks.amazonaws.com/compute-type", "quantum")],
                expected: "Unclear",
                says: "`quantum`",
                ..PLAIN
            },
            Case {
                what: "AWS has not answered",
                group: None,
                expected: "Unclear",
                says: "AWS has not said yet",
                ..PLAIN
            },
            Case {
                what: "detached from its node group",
                labels: &[("eks.amazonaws.com/nodegroup", "blue")],
                group: Some(None),
                expected: "Unclear",
                says: "in no Auto Scaling group",
                ..PLAIN
            },
            Case {
                what: "Auto Scaling does not know it yet, or any more",
                tags: &[("aws:autoscaling:groupName", GROUP)],
                group: Some(None),
                expected: "Unclear",
                says: "Auto Scaling does not know it",
                ..PLAIN
            },
            Case {
                what: "Auto Scaling and its tag differ",
                tags: &[("aws:autoscaling:groupName", "another")],
                expected: "Unclear",
                says: "its tag aws:autoscaling:groupName says another",
                ..PLAIN
            },
            Case {
                what: "label and tag name different node groups",
                labels: &[("eks.amazonaws.com/nodegroup", "blue")],
                tags: &[("eks:nodegroup-name", "green")],
                expected: "Unclear",
                says: "`blue`",
                ..PLAIN
            },
        ];
        for case in cases {
            let mut node = fixture::node("node-0", 0);
            if let Some(provider_id) = case.provider_id {
                node.provider_id = provider_id.to_owned();
            }
            let own = |pairs: &[(&str, &str)]| {
                let own = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
                pairs.iter().map(own).collect()
            };
            node.labels = own(case.labels);
            let view = case.group.map(|group| InstanceView {
                group: group.map(str::to_owned),
                facts: Facts {
                    tags: own(case.tags),
                    ..Facts::default()
                },
                ..fixture::in_service()
            });
            let owner = Owner::of(&node, view.as_ref());
            let told = format!("{owner:?}");
            assert!(told.starts_with(case.expected), "{}: {told}", case.what);
            let message = owner
                .refusal()
                .map(|(message, _)| message)
                .unwrap_or_default();
            assert!(message.contains(case.says), "{}: {message}", case.what);
            let is_ours = matches!(owner, Owner::Group { .. } | Owner::Karpenter { .. });
            assert_eq!(is_ours, message.is_empty(), "{}", case.what);
        }
    }
}
