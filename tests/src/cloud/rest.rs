//! PURE. The REST services: EKS node groups and the zonal shifts of ARC, in JSON.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::group::NodeGroup;
use super::state::{Refusal, State};

pub(super) const CLUSTER_ARN: &str = "arn:aws:eks:us-west-2:123456789012:cluster/";

pub(super) fn node_group(state: &State, cluster: &str, name: &str) -> Result<Value, Refusal> {
    let of_name = |group: &&NodeGroup| group.cluster == cluster && group.name == name;
    let group = state.node_groups.iter().find(of_name).ok_or_else(|| {
        let message = format!("No node group found for name: {name}.");
        not_found(message)
    })?;
    let issues: Vec<_> = group
        .issues
        .iter()
        .map(|(code, message)| json!({"code": code, "message": message, "resourceIds": []}))
        .collect();
    Ok(json!({"nodegroup": {
        "nodegroupName": group.name,
        "clusterName": group.cluster,
        "status": group.status,
        "resources": {"autoScalingGroups": [{"name": group.group}]},
        "health": {"issues": issues},
        "nodeRepairConfig": group.repair_config,
    }}))
}

pub(super) fn cluster(name: &str) -> Value {
    json!({"cluster": {"name": name, "arn": format!("{CLUSTER_ARN}{name}"), "status": "ACTIVE"}})
}

pub(super) fn managed_resource(state: &State, id: &str, now: Timestamp) -> Result<Value, Refusal> {
    let shifts = state
        .shifts
        .as_ref()
        .filter(|_| id.starts_with(CLUSTER_ARN));
    let shifts = shifts.ok_or_else(|| not_found(format!("Resource {id} is not registered")))?;
    let status = |applied| if applied { "APPLIED" } else { "NOT_APPLIED" };
    let started = now.as_second();
    let (auto, own): (Vec<_>, Vec<_>) = shifts.iter().partition(|shift| shift.auto);
    let own = own.into_iter().map(|shift| {
        json!({
            "appliedStatus": status(shift.applied),
            "zonalShiftId": "00000000-0000-4000-8000-000000000000",
            "resourceIdentifier": id,
            "awayFrom": shift.zone_id,
            "expiryTime": shift.expires.as_second(),
            "startTime": started,
            "comment": "a test",
        })
    });
    let auto = auto.into_iter().map(|shift| {
        json!({"appliedStatus": status(shift.applied), "awayFrom": shift.zone_id, "startTime": started})
    });
    Ok(json!({
        "arn": id,
        "appliedWeights": {},
        "zonalShifts": own.collect::<Vec<_>>(),
        "autoshifts": auto.collect::<Vec<_>>(),
    }))
}

fn not_found(message: String) -> Refusal {
    Refusal {
        status: 404,
        code: "ResourceNotFoundException".to_owned(),
        message,
    }
}
