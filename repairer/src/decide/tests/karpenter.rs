//! Nodes of Karpenter's: what may be done with them, and what their NodeClaims tell.

use super::super::gate::Target;
use super::*;
use crate::api::repair::NodeRef;
use crate::claim::{ClaimView, DO_NOT_DISRUPT};
use crate::cluster::Asked;

/// `node-0` is sick, drained and to be replaced; all ten nodes are of the NodePool `default`.
fn replacing() -> Cluster {
    let mut cluster = in_phase(Phase::Replacing);
    cluster.pods.insert("node-0".to_owned(), Vec::new());
    for view in cluster.instances.values_mut() {
        (view.group, view.lifecycle) = (None, None);
    }
    let nodes = cluster.nodes.values_mut().map(|node| {
        let label = ("karpenter.sh/nodepool".to_owned(), "default".to_owned());
        node.labels.extend([label]);
        ClaimView {
            name: format!("claim-of-{}", node.name),
            uid: format!("uid-claim-of-{}", node.name),
            group: Some("nodepool/default".to_owned()),
            provider_id: node.provider_id.clone(),
            created: at(-3600),
            deleting: false,
        }
    });
    let claims = nodes.collect();
    cluster.claims = Asked::Yes(Ok(claims));
    let status = repair(&mut cluster);
    status.group = Some("nodepool/default".to_owned());
    status.node_claim = Some(NodeRef {
        name: "claim-of-node-0".to_owned(),
        uid: "uid-claim-of-node-0".to_owned(),
    });
    cluster
}

fn claim(cluster: &mut Cluster, change: impl FnOnce(&mut ClaimView)) {
    let Asked::Yes(Ok(claims)) = &mut cluster.claims else {
        panic!("no claims")
    };
    change(claims.get_mut("uid-claim-of-node-0").unwrap());
}

fn cleared(cluster: &Cluster) -> Result<Clearance, String> {
    let episodes = episodes_since(cluster, SICK_SINCE);
    clearance(cluster, &episodes, "node-0-repair", at(RIPE)).map_err(|held| held.to_string())
}

#[test]
fn the_clearance_is_for_the_claim_and_not_for_the_instance() {
    let clearance = cleared(&replacing()).unwrap();
    assert_eq!(clearance.group(), "nodepool/default");
    let Target::Claim(target) = clearance.into_target() else {
        panic!("for an instance")
    };
    assert_eq!(
        (target.name(), target.uid()),
        ("claim-of-node-0", "uid-claim-of-node-0")
    );
}

type Change = fn(&mut Cluster);

#[test]
fn whatever_does_not_fit_is_refused_and_named() {
    let rows: [(Change, &str); 7] = [
        (|c| c.claims = Asked::No, "NotOurs: the node belongs to"),
        (
            |c| c.claims = Asked::Yes(Err("forbidden".to_owned())),
            "NotOurs: the node belongs to Karpenter, says its label karpenter.sh/nodepool, and its NodeClaim is not known: forbidden",
        ),
        (
            |c| claim(c, |claim| claim.deleting = true),
            "OtherRepairer: Karpenter removes it",
        ),
        (
            |c| claim(c, |claim| claim.group = None),
            "NotOurs: the NodeClaim claim-of-node-0",
        ),
        (
            |c| repair(c).node_claim.as_mut().unwrap().uid = "uid-before".to_owned(),
            "NotOurs: i-00000000000000000 has the NodeClaim claim-of-node-0 now",
        ),
        (
            |c| repair(c).action = Some(RepairAction::Reboot),
            "Unsupported: the node is Karpenter's: it is replaced, never rebooted",
        ),
        (
            |c| {
                let id = "i-00000000000000000";
                c.instances.get_mut(id).unwrap().group = Some(GROUP.to_owned());
            },
            "NotOurs: the node belongs to Karpenter, says its label karpenter.sh/nodepool, but",
        ),
    ];
    for (change, says) in rows {
        let mut cluster = replacing();
        change(&mut cluster);
        let error = cleared(&cluster).expect_err(says);
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_deletion_whose_answer_is_lost_is_settled_by_the_claim() {
    let mut cluster = replacing();
    let clearance = cleared(&cluster).unwrap();
    repair(&mut cluster).begin_attempt(&clearance, at(RIPE));

    let unknown = Cluster {
        claims: Asked::Yes(Err("forbidden".to_owned())),
        ..cluster.clone()
    };
    let much_later = RIPE + 300;
    assert_eq!(
        plan(&unknown, much_later).steps,
        [],
        "settled without a look"
    );
    assert_eq!(plan(&cluster, RIPE + 19).steps, [], "not repeated");
    let result = |cluster: &Cluster, second| {
        let plan = plan(cluster, second);
        recorded(&plan).attempts[0].result
    };
    assert_eq!(result(&cluster, RIPE + 20), Some(AttemptResult::NotApplied));
    let mut deleting = cluster.clone();
    claim(&mut deleting, |claim| claim.deleting = true);
    assert_eq!(result(&deleting, RIPE + 1), Some(AttemptResult::Accepted));
    cluster.claims = Asked::Yes(Ok(Default::default()));
    assert_eq!(result(&cluster, RIPE + 1), Some(AttemptResult::Accepted));
}

/// Our own mark of the same name is no wish of anybody's.
#[test]
fn a_persons_do_not_disrupt_holds_until_the_timeout_and_ours_does_not() {
    let mut cluster = replacing();
    node(&mut cluster)
        .kept_off
        .insert(DO_NOT_DISRUPT.to_owned());
    let error = cleared(&cluster).unwrap_err();
    assert!(error.starts_with("WaitTime: the node asks"), "{error}");
    let marks = [DO_NOT_DISRUPT.to_owned()].into();
    node(&mut cluster).marks = Some(marks);
    assert!(cleared(&cluster).is_ok());
}
