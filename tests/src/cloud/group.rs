//! PURE. An Auto Scaling group, and the EKS node group that may stand above it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

/// Public fields are a test's to set, through `Cloud::group`.
#[derive(Clone, Debug)]
pub struct Group {
    pub(super) name: String,
    pub(super) zones: Vec<String>,
    pub(super) created: Timestamp,
    pub min: usize,
    pub max: usize,
    pub desired: usize,
    /// Processes, and why each is suspended.
    pub suspended: BTreeMap<String, String>,
    /// `Delete in progress`.
    pub status: Option<String>,
    /// How long a hook holds an instance that is to be terminated, unless it is completed.
    pub terminating_hook: Option<Duration>,
    /// The same for one that was launched: `Pending:Wait` until then.
    pub launching_hook: Option<Duration>,
    /// What every launch ends with.
    pub launch_failure: Option<String>,
    /// Minimum and maximum healthy percentage of the instance maintenance policy.
    pub maintenance: Option<(u32, u32)>,
    /// Of its warm pool.
    pub reuse_on_scale_in: bool,
    /// The status of its last instance refresh.
    pub refresh: Option<String>,
}

impl Group {
    pub(super) fn new(name: &str, zones: &[&str], created: Timestamp) -> Self {
        let mut distinct: Vec<_> = zones.iter().map(|&zone| zone.to_owned()).collect();
        distinct.sort();
        distinct.dedup();
        Self {
            name: name.to_owned(),
            zones: distinct,
            created,
            min: 0,
            max: zones.len() + 1,
            desired: zones.len(),
            suspended: BTreeMap::new(),
            status: None,
            terminating_hook: None,
            launching_hook: None,
            launch_failure: None,
            maintenance: None,
            reuse_on_scale_in: false,
            refresh: None,
        }
    }

    pub(super) fn runs(&self, process: &str) -> bool {
        !self.suspended.contains_key(process)
    }
}

/// What `DescribeNodegroup` says.
#[derive(Clone, Debug)]
pub struct NodeGroup {
    pub cluster: String,
    pub name: String,
    /// The Auto Scaling group below it.
    pub group: String,
    /// `ACTIVE`, `UPDATING`, `DEGRADED`, `DELETING` ...
    pub status: String,
    /// Codes and messages.
    pub issues: Vec<(String, String)>,
    /// As the API has it, in JSON.
    pub repair_config: Option<Value>,
}

/// A zonal shift of the cluster, as ARC has it.
#[derive(Clone, Debug)]
pub struct Shift {
    pub zone_id: String,
    pub applied: bool,
    pub expires: Timestamp,
    /// Started by AWS, without an end.
    pub auto: bool,
}
