//! PURE. Karpenter's NodeClaims. Each stands for one node and its instance: who deletes it has Karpenter
//! end both, and launch another node where pods need one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject};

use crate::cluster::{Asked, Cluster, InstanceId, NodeView};
use crate::owner::Owner;

const API_GROUP: &str = "karpenter.sh";
const VERSION: &str = "v1";
const POOL_LABEL: &str = "karpenter.sh/nodepool";
/// What a node of a NodePool counts in: no Auto Scaling group has a `/` in such a name.
pub const GROUP_PREFIX: &str = "nodepool/";
/// A person's wish, or our own mark, that Karpenter leaves the node alone.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimView {
    pub name: String,
    pub uid: String,
    /// `nodepool/NAME`; a claim of no pool is replaced by nobody.
    pub group: Option<String>,
    pub provider_id: String,
    pub created: Timestamp,
    /// Somebody has deleted it: Karpenter ends its node.
    pub deleting: bool,
}

impl ClaimView {
    /// `None`: an object without a name or UID did not come from an API server.
    pub fn read(object: &DynamicObject) -> Option<Self> {
        let pool = object.labels().get(POOL_LABEL);
        let provider_id = object.data["status"]["providerID"].as_str();
        Some(Self {
            name: object.metadata.name.clone()?,
            uid: object.metadata.uid.clone()?,
            group: pool.map(|pool| format!("{GROUP_PREFIX}{pool}")),
            provider_id: provider_id.unwrap_or_default().to_owned(),
            created: object.metadata.creation_timestamp.as_ref()?.0,
            deleting: object.metadata.deletion_timestamp.is_some(),
        })
    }
}

/// All of a cluster, by the instance that they have got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(BTreeMap<String, Vec<ClaimView>>);

impl FromIterator<ClaimView> for Claims {
    fn from_iter<I: IntoIterator<Item = ClaimView>>(claims: I) -> Self {
        let mut all = Self::default();
        for claim in claims {
            let of_instance = all.0.entry(claim.provider_id.clone()).or_default();
            of_instance.push(claim);
        }
        all
    }
}

impl Claims {
    pub fn of(&self, node: &NodeView) -> &[ClaimView] {
        let of_node = self.0.get(&node.provider_id);
        // One that has no instance yet is no node's.
        let known = of_node.filter(|_| !node.provider_id.is_empty());
        known.map_or(&[], Vec::as_slice)
    }

    pub fn all(&self) -> impl Iterator<Item = &ClaimView> {
        self.0.values().flatten()
    }

    pub fn find(&self, uid: &str) -> Option<&ClaimView> {
        self.all().find(|claim| claim.uid == uid)
    }

    /// For simulations and tests, which play Karpenter.
    pub fn insert(&mut self, claim: ClaimView) {
        let of_instance = self.0.entry(claim.provider_id.clone()).or_default();
        of_instance.push(claim);
    }

    pub fn get_mut(&mut self, uid: &str) -> Option<&mut ClaimView> {
        let mut all = self.0.values_mut().flatten();
        all.find(|claim| claim.uid == uid)
    }

    pub fn remove(&mut self, uid: &str) {
        for claims in self.0.values_mut() {
            claims.retain(|claim| claim.uid != uid);
        }
    }
}

pub fn resource() -> ApiResource {
    ApiResource {
        group: API_GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: format!("{API_GROUP}/{VERSION}"),
        kind: "NodeClaim".to_owned(),
        plural: "nodeclaims".to_owned(),
    }
}

impl Cluster {
    /// The NodeClaim of a node, where it is known and the only one.
    pub fn claim_of(&self, node: &NodeView) -> Option<&ClaimView> {
        match &self.claims {
            Asked::Yes(Ok(claims)) => match claims.of(node) {
                [one] => Some(one),
                _ => None,
            },
            Asked::Yes(Err(_)) | Asked::No => None,
        }
    }

    pub fn is_karpenters(&self, node: &NodeView) -> bool {
        Owner::is_labelled_karpenter(node) || self.claim_of(node).is_some()
    }

    /// Somebody besides Karpenter and us wants the node to be left alone.
    pub fn asks_to_stay(&self, node: &NodeView) -> bool {
        let marks = node.marks.as_ref();
        let ours = marks.is_some_and(|marks| marks.contains(DO_NOT_DISRUPT));
        self.is_karpenters(node) && node.kept_off.contains(DO_NOT_DISRUPT) && !ours
    }

    /// The claim that is to be deleted in order to replace a node of Karpenter's, or why there is none
    /// and what would change that.
    pub fn claim_to_delete(
        &self,
        node: &NodeView,
        instance: &InstanceId,
        by: &str,
    ) -> Result<&ClaimView, (String, String)> {
        let refuse = |message: String, clears: &str| Err((message, clears.to_owned()));
        let whose = format!("the node belongs to Karpenter, says {by}");
        let claims = match &self.claims {
            Asked::Yes(Ok(claims)) => claims.of(node),
            Asked::Yes(Err(error)) => {
                let message = format!("{whose}, and its NodeClaim is not known: {error}");
                return refuse(message, "the NodeClaims can be listed");
            }
            Asked::No => {
                let message =
                    format!("{whose}, but the cluster has no NodeClaims ({API_GROUP}/{VERSION})");
                return refuse(message, "a Karpenter with the API karpenter.sh/v1");
            }
        };
        match claims {
            [] => refuse(
                format!("{whose}, but no NodeClaim has its providerID"),
                "the NodeClaim of the node comes back, or the node goes",
            ),
            [one] if one.group.is_none() => refuse(
                format!(
                    "the NodeClaim {} of {instance} is of no NodePool: nothing would replace it",
                    one.name
                ),
                "nothing: only whoever made the NodeClaim can replace it",
            ),
            [one] => Ok(one),
            [first, second, ..] => refuse(
                format!(
                    "the NodeClaims {} and {} both have its providerID",
                    first.name, second.name
                ),
                "delete the NodeClaim that is not real",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture;

    fn claim(name: &str, index: usize) -> ClaimView {
        ClaimView {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            group: Some("nodepool/default".to_owned()),
            provider_id: fixture::provider_id(index),
            created: fixture::at(-3600),
            deleting: false,
        }
    }

    #[test]
    fn a_claim_is_read_from_its_object() {
        let object: DynamicObject = serde_json::from_value(serde_json::json!({
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodeClaim",
            "metadata": {
                "name": "default-x7k2p",
                "uid": "uid-default-x7k2p",
                "creationTimestamp": fixture::at(-3600).to_string(),
                "labels": {"karpenter.sh/nodepool": "default"},
            },
            "status": {"providerID": fixture::provider_id(0)},
        }))
        .unwrap();
        assert_eq!(ClaimView::read(&object), Some(claim("default-x7k2p", 0)));
    }

    #[test]
    fn only_the_one_claim_of_a_pool_is_deleted() {
        let orphan = ClaimView {
            group: None,
            ..claim("c", 0)
        };
        type Row = (Asked<Result<Vec<ClaimView>, String>>, &'static str);
        let rows: [Row; 6] = [
            (Asked::No, "has no NodeClaims"),
            (Asked::Yes(Err("forbidden".to_owned())), "forbidden"),
            (Asked::Yes(Ok(vec![claim("b", 1)])), "no NodeClaim has"),
            (Asked::Yes(Ok(vec![claim("a", 0), claim("b", 0)])), "both"),
            (Asked::Yes(Ok(vec![orphan])), "is of no NodePool"),
            (Asked::Yes(Ok(vec![claim("a", 0), claim("b", 1)])), ""),
        ];
        let node = fixture::node("node-0", 0);
        let instance = node.instance().unwrap();
        for (claims, says) in rows {
            let claims = match claims {
                Asked::No => Asked::No,
                Asked::Yes(all) => Asked::Yes(all.map(|all| all.into_iter().collect())),
            };
            let cluster = Cluster {
                claims,
                ..Cluster::default()
            };
            match cluster.claim_to_delete(&node, &instance, "its label") {
                Ok(claim) => assert_eq!((claim.name.as_str(), says), ("a", "")),
                Err((message, clears)) => {
                    assert!(!says.is_empty() && message.contains(says), "{message}");
                    assert!(!clears.is_empty());
                }
            }
        }
    }
}
