//! The RepairPolicy of the story and the NodeRepair that it leads to, read as a person would: by
//! their field names, with no code of the repairer's.

use anyhow::Context;
use jiff::Timestamp;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Value, json};

const NAME: &str = "nodemend-demo";
const FLEET: &str = "nodemend-fleet";

pub(super) struct Records {
    policies: Api<DynamicObject>,
    repairs: Api<DynamicObject>,
}

/// The status of a NodeRepair, as far as the story is about it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Repair {
    pub(super) phase: String,
    pub(super) outcome: Option<String>,
    pub(super) hold: Option<Hold>,
    pub(super) drain: Option<Drain>,
    pub(super) timeline: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Hold {
    pub(super) gate: String,
    pub(super) message: String,
    /// Further closed gates.
    #[serde(default)]
    pub(super) behind: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Drain {
    #[serde(default)]
    pub(super) blocked: Vec<Blocked>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Blocked {
    pub(super) pod: String,
    pub(super) why: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    pub(super) event: String,
}

impl Records {
    pub(super) fn new(client: &Client) -> Self {
        let api = |kind: &str, plural: &str| {
            let kind = GroupVersionKind::gvk("nodemend.dev", "v1alpha1", kind);
            Api::all_with(
                client.clone(),
                &ApiResource::from_gvk_with_plural(&kind, plural),
            )
        };
        Self {
            policies: api("RepairPolicy", "repairpolicies"),
            repairs: api("NodeRepair", "noderepairs"),
        }
    }

    pub(super) async fn create_policy(&self) -> anyhow::Result<()> {
        let rule = |condition: &str| {
            json!({
                "nodeMonitoringCondition": condition,
                "minRepairWaitTime": "5s",
                "repairActions": ["Replace"],
            })
        };
        let spec = json!({
            "mode": "Disabled",
            "selector": {"matchLabels": {"type": "kwok"}},
            "cordon": {"after": "1s", "recoverySoak": "5s"},
            "drain": {"timeout": "2m"},
            "verify": {"replaceDeadline": "1m", "soak": "2s"},
            "rules": [rule("StorageReady"), rule("AcceleratedHardwareReady")],
        });
        self.create(NAME, &spec).await
    }

    /// For the nodes with a label, before all others; its thresholds are the default ones.
    pub(super) async fn create_fleet_policy(
        &self,
        (key, value): (&str, &str),
    ) -> anyhow::Result<()> {
        let rule = json!({
            "nodeMonitoringCondition": "Ready",
            "status": ["False", "Unknown"],
            "minRepairWaitTime": "10s",
            "repairActions": ["Replace"],
        });
        let spec = json!({
            "mode": "Enforce",
            "priority": 1,
            "selector": {"matchLabels": {key: value}},
            "cordon": {"after": "1s", "recoverySoak": "1s"},
            "verify": {"replaceDeadline": "1m", "soak": "1s"},
            // They are young, and do not count as still joining.
            "startupTimeout": "1s",
            "rules": [rule],
        });
        self.create(FLEET, &spec).await
    }

    async fn create(&self, name: &str, spec: &Value) -> anyhow::Result<()> {
        let policy = json!({
            "apiVersion": "nodemend.dev/v1alpha1",
            "kind": "RepairPolicy",
            "metadata": {"name": name},
            "spec": spec,
        });
        let policy = serde_json::from_value(policy).context("write a RepairPolicy")?;
        self.policies
            .create(&PostParams::default(), &policy)
            .await
            .context("create the RepairPolicy")?;
        Ok(())
    }

    /// What a person does, in `kubectl patch`'s words.
    pub(super) async fn enable(&self) -> anyhow::Result<String> {
        let patch = json!({"spec": {"mode": "Enforce"}});
        self.policies
            .patch(NAME, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context("enable the RepairPolicy")?;
        Ok(format!(
            "kubectl patch repairpolicy {NAME} --type=merge -p '{patch}'"
        ))
    }

    /// The NodeRepair of a node.
    pub(super) async fn repair(&self, node: &str) -> anyhow::Result<Option<Repair>> {
        let repairs = self
            .repairs
            .list(&ListParams::default())
            .await
            .context("list NodeRepairs")?
            .items;
        let of_node = |object: &DynamicObject| object.data["spec"]["nodeRef"]["name"] == node;
        let Some(object) = repairs.into_iter().find(of_node) else {
            return Ok(None);
        };
        match object.data.get("status") {
            Some(status) => Repair::deserialize(status)
                .map(Some)
                .context("read the status of a NodeRepair"),
            None => Ok(Some(Repair::default())),
        }
    }
}
