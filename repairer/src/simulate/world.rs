//! PURE. A cluster and a cloud that do what they are told, on a virtual clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use serde_json::Value;

use super::file::{
    CloudFile, ConditionFile, DrainLabel, File, LaunchesFile, LimitsFile, NodeFile, PdbFile,
    PodFile, Rebooted, Terminate, UnhealthyPods, What,
};
use crate::api::policy::RepairPolicy;
use crate::api::repair::{
    AttemptResult, NodeRef, NodeRepair, NodeRepairSpec, NodeRepairStatus, PolicyRef, Trigger,
};
use crate::api::validate;
use crate::api::{OUT_OF_SERVICE, TAINT};
use crate::claim::{self, ClaimView, Claims};
use crate::cluster::{
    Asked, Cluster, ConditionView, DETECTOR, InstanceState, InstanceView, Launches, LeaseView,
    NodeView,
};
use crate::decide::{Act, Clearance, Step, Target};
use crate::drain::{Answer, Attachment, Owner, PodView, Wish};
use crate::unjoined::{self, Members};

/// Kubernetes' default.
const KUBELET_LEASE: Duration = Duration::from_secs(40);

pub struct World {
    pub cluster: Cluster,
    cloud: CloudFile,
    /// Conditions, by node and type, that nobody confirms.
    unconfirmed: BTreeSet<(String, String)>,
    /// Nodes whose clocks are wrong.
    clocks: BTreeMap<String, NodeFile>,
    /// Nodes whose kubelets are silent, since when.
    silent: BTreeMap<String, Timestamp>,
    budgets: BTreeMap<String, PdbFile>,
    /// Budget, name and time of return of pods that are on their way.
    moving: Vec<(String, Timestamp)>,
    pods: BTreeMap<String, Pod>,
    /// Volumes of pods that have left, with the node and when they are detached.
    detaching: Vec<(Timestamp, Attachment)>,
    /// Nodes that come back from a reboot, and when.
    booting: Vec<(Timestamp, String)>,
    boots: u32,
    /// Instances that go, with what they were.
    going: BTreeMap<String, Going>,
    /// What is to join, and when.
    joining: Vec<(Timestamp, NodeView, Option<String>)>,
    /// Nodes that turn bad, and when.
    turning: Vec<(Timestamp, String, ConditionFile)>,
    joined: u32,
    instances: u32,
    repairs: u32,
    pub reachable: bool,
    /// Nodes whose instance was terminated, in order.
    pub destroyed: Vec<String>,
    pub calls: usize,
    pub reboots: usize,
}

/// A pod that is there.
struct Pod {
    file: PodFile,
    uid: String,
    created: Timestamp,
    /// When its grace is over, once it was told to end.
    ends: Option<Timestamp>,
    /// When it has ended.
    gone: Option<Timestamp>,
}

struct Going {
    at: Timestamp,
    node: String,
}

/// What a step came to, for the report and for what must hold.
pub enum Done {
    Opened(String),
    Recorded(String),
    Cordoned(String),
    Uncordoned(String),
    Evicted {
        repair: String,
        pods: Vec<String>,
    },
    Terminated {
        repair: String,
        instance: String,
        group: String,
        result: &'static str,
    },
    Deleted {
        repair: String,
        pods: Vec<String>,
    },
    Rebooted {
        repair: String,
        instance: String,
        result: &'static str,
    },
    Marked {
        repair: String,
        what: &'static str,
    },
    Dismissed(String),
    Forgotten(String),
}

impl World {
    pub fn new(file: &File) -> anyhow::Result<Self> {
        let mut world = Self {
            cluster: Cluster::default(),
            cloud: file.cloud.clone(),
            unconfirmed: BTreeSet::new(),
            clocks: BTreeMap::new(),
            silent: BTreeMap::new(),
            budgets: file
                .pdbs
                .iter()
                .map(|pdb| (pdb.name.clone(), pdb.clone()))
                .collect(),
            moving: Vec::new(),
            pods: BTreeMap::new(),
            detaching: Vec::new(),
            booting: Vec::new(),
            boots: 0,
            going: BTreeMap::new(),
            joining: Vec::new(),
            turning: Vec::new(),
            joined: 0,
            instances: 0,
            repairs: 0,
            reachable: true,
            destroyed: Vec::new(),
            calls: 0,
            reboots: 0,
        };
        world.cluster.leases = Asked::Yes(BTreeMap::new());
        world.cluster.members = Some(Members::default());
        if file.nodes.iter().any(|node| node.node_pool.is_some()) {
            world.cluster.claims = Asked::Yes(Ok(Claims::default()));
        }
        world.set_limits(&file.limits);
        world.set_cloud();
        for policy in &file.policies {
            let mut object = RepairPolicy::new(&policy.name, policy.spec.0.clone());
            object.metadata.uid = Some(format!("uid-{}", policy.name));
            object.metadata.generation = Some(1);
            world.cluster.policies.push(object);
        }
        world.sort_policies();
        for node in &file.nodes {
            for name in node.names() {
                world.add_node(&name, node, file.start)?;
            }
        }
        for pod in &file.pods {
            for index in 0..pod.count.unwrap_or(1) {
                world.add_pod(pod, index, file.start - pod_age());
            }
        }
        Ok(world)
    }

    fn sort_policies(&mut self) {
        self.cluster
            .policies
            .sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    }

    /// In an Auto Scaling group, or with a NodeClaim of a NodePool; its providerID.
    fn new_instance(&mut self, zone: &str, group: Option<&str>, now: Timestamp) -> String {
        let id = format!("i-{:017x}", self.instances);
        let pool = group.filter(|group| group.starts_with(claim::GROUP_PREFIX));
        let group = group.filter(|_| pool.is_none());
        if let (Some(pool), Some(claims)) = (pool, claims(&mut self.cluster)) {
            let name = format!("claim-{}", self.instances);
            claims.insert(ClaimView {
                uid: format!("uid-{name}"),
                name,
                group: Some(pool.to_owned()),
                provider_id: format!("aws:///{zone}/{id}"),
                created: now,
                deleting: false,
            });
        }
        self.instances += 1;
        let view = InstanceView {
            group: group.map(str::to_owned),
            lifecycle: group.map(|_| "InService".to_owned()),
            state: InstanceState::There,
            checks_pass: None,
            facts: crate::cluster::Facts::default(),
        };
        self.cluster.instances.insert(id.clone(), view);
        format!("aws:///{zone}/{id}")
    }

    fn add_node(&mut self, name: &str, file: &NodeFile, start: Timestamp) -> anyhow::Result<()> {
        let pool = file.node_pool.as_ref();
        let pool_group = pool.map(|pool| format!("{}{pool}", claim::GROUP_PREFIX));
        let group = file.group.as_deref().or(pool_group.as_deref());
        let created = start - file.age.0;
        let made = self.new_instance(&file.zone, group, created);
        let mut labels = file.labels.clone();
        if let Some(pool) = pool {
            labels.insert("karpenter.sh/nodepool".to_owned(), pool.clone());
        }
        labels.insert("topology.kubernetes.io/zone".to_owned(), file.zone.clone());
        if let Some(id) = &file.zone_id {
            labels.insert("topology.k8s.aws/zone-id".to_owned(), id.clone());
        }
        let mut devices = BTreeMap::new();
        for (resource, share) in &file.devices {
            let (given, capacity) = share
                .split_once('/')
                .with_context(|| format!("node {name}: {resource} is not allocatable/capacity"))?;
            devices.insert(resource.clone(), (given.to_owned(), capacity.to_owned()));
        }
        let ready = ConditionFile {
            kind: "Ready".to_owned(),
            status: super::file::Status::Bool(true),
            reason: "KubeletReady".to_owned(),
            writer: Some("kubelet".to_owned()),
            age: Some(file.age),
        };
        let mut node = NodeView {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            resource_version: "1".to_owned(),
            labels,
            provider_id: file.provider_id.clone().unwrap_or(made),
            joined: !file.never_joined,
            unschedulable: file.cordoned,
            taints: Vec::new(),
            conditions: Vec::new(),
            created,
            deleting: false,
            others: Vec::new(),
            devices,
            boot_id: format!("boot-of-{name}"),
            marks: None,
            kept_off: file
                .asks_to_stay
                .then(|| claim::DO_NOT_DISRUPT.to_owned())
                .into_iter()
                .collect(),
            dismissed: None,
            traits: file.traits.clone(),
        };
        if file.never_joined {
            node.uid = node.instance()?.to_string();
            node.conditions = vec![unjoined::condition(created, start)];
        } else {
            set_condition(&mut node, &ready, start);
        }
        for condition in &file.conditions {
            set_condition(&mut node, condition, start);
        }
        if file.clock(start) != start {
            self.clocks.insert(name.to_owned(), file.clone());
        }
        self.cluster.nodes.insert(name.to_owned(), node);
        Ok(())
    }

    fn add_pod(&mut self, file: &PodFile, index: u32, created: Timestamp) {
        let name = match file.count {
            None => file.name.clone(),
            Some(_) => format!("{}-{index}", file.name),
        };
        let key = format!("{}/{}/{name}", file.node, file.namespace);
        let uid = format!("uid-{name}");
        let file = PodFile {
            name,
            ..file.clone()
        };
        let pod = Pod {
            file,
            uid,
            created,
            ends: None,
            gone: None,
        };
        self.pods.insert(key, pod);
    }

    /// Names of those that somebody might miss.
    pub fn pods_on(&self, node: &str) -> Vec<String> {
        let here = self.pods.values().filter(|pod| pod.file.node == node);
        here.filter(|pod| !pod.file.daemon_set && !pod.file.static_pod)
            .map(|pod| pod.file.name.clone())
            .collect()
    }

    fn set_limits(&mut self, file: &LimitsFile) {
        let limits = &mut self.cluster.limits;
        limits.paused = file.paused.unwrap_or(limits.paused);
        limits.max_parallel = file.max_parallel.unwrap_or(limits.max_parallel);
        limits.max_repairs_per_hour = file
            .max_repairs_per_hour
            .unwrap_or(limits.max_repairs_per_hour);
    }

    fn set_cloud(&mut self) {
        let launches = |(group, file): (&String, &LaunchesFile)| {
            let launches = Launches {
                suspended: file.suspended.clone(),
                failed: file.failed,
                failure: file.failure.clone(),
                ..Launches::default()
            };
            (group.clone(), launches)
        };
        if let Some(groups) = &self.cloud.launches {
            self.cluster.launches = Asked::Yes(groups.iter().map(launches).collect());
        }
        if let Some(shifted) = &self.cloud.shifted {
            self.cluster.shifted = Asked::Yes(Ok(shifted.clone()));
        }
    }

    /// What happens by itself until `now`.
    pub fn live(&mut self, now: Timestamp) {
        self.moving.retain(|(_, back)| *back > now);
        self.pods_end(now);
        self.nodes_boot(now);
        self.instances_go(now);
        self.nodes_join(now);
        let (due, later) = std::mem::take(&mut self.turning)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.turning = later;
        for (_, node, condition) in due {
            if let Some(node) = self.cluster.nodes.get_mut(&node) {
                set_condition(node, &condition, now);
            }
        }
        for node in self.cluster.nodes.values_mut() {
            for condition in &mut node.conditions {
                let key = (node.name.clone(), condition.kind.clone());
                if !self.unconfirmed.contains(&key) {
                    let clock = self.clocks.get(&node.name);
                    condition.heartbeat = Some(clock.map_or(now, |file| file.clock(now)));
                }
            }
        }
        let leases = self.cluster.nodes.keys().map(|name| {
            let renewed = self.silent.get(name).copied().unwrap_or(now);
            let lease = LeaseView {
                renewed,
                lasts: KUBELET_LEASE,
            };
            (name.clone(), Some(lease))
        });
        self.cluster.leases = Asked::Yes(leases.collect());
        self.look_at_pods();
    }

    fn pod_views(&self) -> BTreeMap<String, Vec<PodView>> {
        let mut views: BTreeMap<_, Vec<_>> = self
            .cluster
            .nodes
            .keys()
            .map(|name| (name.clone(), Vec::new()))
            .collect();
        for pod in self.pods.values() {
            let file = &pod.file;
            let Some(pods) = views.get_mut(&file.node) else {
                continue;
            };
            pods.push(PodView {
                namespace: file.namespace.clone(),
                name: file.name.clone(),
                uid: pod.uid.clone(),
                labels: BTreeMap::new(),
                created: pod.created,
                ends: pod.ends,
                finalizers: file
                    .finalizer
                    .then(|| "example.test/kept".to_owned())
                    .into_iter()
                    .collect(),
                ended: file.ended,
                owner: if file.static_pod {
                    Owner::Static
                } else if file.daemon_set || file.orphan {
                    Owner::DaemonSet(file.name.clone())
                } else if file.unmanaged {
                    Owner::None
                } else {
                    Owner::Controller
                },
                local_volume: file.local_volume,
                claims: file
                    .detaches_in
                    .map(|_| format!("{}/{}", file.namespace, file.name))
                    .into_iter()
                    .collect(),
                critical: file.critical,
                grace: file.grace.0,
                tolerates_cordon: file.tolerates,
                asks_to_stay: file.asks_to_stay.then(|| "a mark".to_owned()),
                wish: file.drain.map(|label| match label {
                    DrainLabel::Skip => Wish::Skip,
                    DrainLabel::Wait => Wish::Wait,
                }),
            });
        }
        views
    }

    fn attachments(&self) -> Vec<Attachment> {
        let of_pods = self
            .pods
            .values()
            .filter(|pod| pod.file.detaches_in.is_some());
        let of_pods = of_pods.map(|pod| attachment(&pod.file));
        let detaching = self.detaching.iter().map(|(_, volume)| volume.clone());
        of_pods.chain(detaching).collect()
    }

    fn look_at_pods(&mut self) {
        let sets = self.pods.values().filter(|pod| pod.file.daemon_set);
        let sets = sets.map(|pod| format!("{}/{}", pod.file.namespace, pod.file.name));
        self.cluster.daemon_sets = Some(sets.collect());
        self.cluster.pods = self.pod_views();
        self.cluster.attachments = Some(self.attachments());
    }

    /// Those whose time has come are gone; those that tolerate the cordon are back.
    fn pods_end(&mut self, now: Timestamp) {
        self.detaching.retain(|(at, _)| *at > now);
        let due = |pod: &Pod| pod.gone.is_some_and(|gone| gone <= now);
        let silent = &self.silent;
        let keys: Vec<_> = self
            .pods
            .iter()
            .filter(|(_, pod)| due(pod) && !silent.contains_key(&pod.file.node))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            let Some(pod) = self.pods.remove(&key) else {
                continue;
            };
            if let Some(wait) = pod.file.detaches_in {
                self.detaching.push((now + wait.0, attachment(&pod.file)));
            }
            if pod.file.tolerates && self.cluster.nodes.contains_key(&pod.file.node) {
                let again = Pod {
                    uid: format!("{}-again", pod.uid),
                    created: now,
                    ends: None,
                    gone: None,
                    file: pod.file,
                };
                self.pods.insert(key, again);
            }
        }
    }

    fn nodes_boot(&mut self, now: Timestamp) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.booting)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.booting = later;
        let well = match self.cloud.rebooted {
            Rebooted::Lost => return,
            Rebooted::StillSick => false,
            Rebooted::Well | Rebooted::Relapses => true,
        };
        for (_, name) in due {
            self.boots += 1;
            self.silent.remove(&name);
            let Some(node) = self.cluster.nodes.get_mut(&name) else {
                continue;
            };
            node.boot_id = format!("boot-{}", self.boots);
            set_condition(node, &ready("True", "KubeletReady", "kubelet"), now);
            let sick = node.conditions.iter().filter(|c| c.status == "False");
            let sick: Vec<_> = sick.cloned().collect();
            for condition in sick.iter().filter(|_| well) {
                let as_it_is = |status: &str, reason: &str| ConditionFile {
                    kind: condition.kind.clone(),
                    status: super::file::Status::Text(status.to_owned()),
                    reason: reason.to_owned(),
                    writer: condition.writer.clone(),
                    age: None,
                };
                set_condition(node, &as_it_is("True", "Well"), now);
                if self.cloud.rebooted == Rebooted::Relapses {
                    let again = as_it_is("False", &condition.reason);
                    let at = now + self.cloud.relapses_in.0;
                    self.turning.push((at, name.clone(), again));
                }
            }
        }
    }

    fn instances_go(&mut self, now: Timestamp) {
        let gone: Vec<_> = self
            .going
            .iter()
            .filter(|(_, going)| going.at <= now)
            .map(|(id, going)| (id.clone(), going.node.clone()))
            .collect();
        for (id, name) in gone {
            self.going.remove(&id);
            if let Some(view) = self.cluster.instances.get_mut(&id) {
                view.state = InstanceState::Gone;
                view.lifecycle = None;
            }
            if let Some(node) = self.cluster.nodes.remove(&name) {
                self.forget_claim(&node);
            }
            self.pods.retain(|_, pod| pod.file.node != name);
            self.detaching.retain(|(_, volume)| volume.node != name);
        }
    }

    fn forget_claim(&mut self, node: &NodeView) {
        let uid = self.cluster.claim_of(node).map(|claim| claim.uid.clone());
        if let (Some(uid), Some(claims)) = (uid, claims(&mut self.cluster)) {
            claims.remove(&uid);
        }
    }

    fn nodes_join(&mut self, now: Timestamp) {
        // A group that cannot launch keeps them waiting.
        let suspended = |group: &Option<String>| match (&self.cluster.launches, group) {
            (Asked::Yes(launches), Some(group)) => launches
                .get(group)
                .is_some_and(|launches| launches.suspended.iter().any(|s| s == "Launch")),
            (Asked::Yes(_) | Asked::No, _) => false,
        };
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.joining)
            .into_iter()
            .partition(|(at, _, group)| *at <= now && !suspended(group));
        self.joining = later;
        for (_, mut node, group) in due {
            self.joined += 1;
            node.name = format!("new-{}", self.joined);
            node.uid = format!("uid-{}", node.name);
            node.created = now;
            let zone = node.zone().unwrap_or("us-west-2a").to_owned();
            node.provider_id = self.new_instance(&zone, group.as_deref(), now);
            let ready = ConditionFile {
                kind: "Ready".to_owned(),
                status: super::file::Status::Bool(true),
                reason: "KubeletReady".to_owned(),
                writer: Some("kubelet".to_owned()),
                age: None,
            };
            set_condition(&mut node, &ready, now);
            if let Some(bad) = &self.cloud.replacements_turn_bad {
                let turn = (now + bad.after.0, node.name.clone(), bad.condition.clone());
                self.turning.push(turn);
            }
            self.cluster.nodes.insert(node.name.clone(), node);
        }
    }

    /// When something happens by itself next.
    pub fn next(&self) -> Option<Timestamp> {
        let going = self.going.values().map(|going| going.at);
        let joining = self.joining.iter().map(|(at, ..)| *at);
        let turning = self.turning.iter().map(|(at, ..)| *at);
        let moving = self.moving.iter().map(|(_, at)| *at);
        let booting = self.booting.iter().map(|(at, _)| *at);
        let detaching = self.detaching.iter().map(|(at, _)| *at);
        let ending = self.pods.values().filter_map(|pod| pod.gone);
        let moving = moving.chain(booting).chain(detaching).chain(ending);
        going.chain(joining).chain(turning).chain(moving).min()
    }

    fn named<'a>(&'a mut self, names: &[String]) -> anyhow::Result<Vec<&'a mut NodeView>> {
        let known = |name: &&String| self.cluster.nodes.contains_key(*name);
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            anyhow::bail!("there is no node {unknown} then");
        }
        let nodes = self.cluster.nodes.values_mut();
        Ok(nodes.filter(|node| names.contains(&node.name)).collect())
    }

    /// True: it has another process begin.
    pub fn happen(&mut self, what: &What, now: Timestamp) -> anyhow::Result<bool> {
        match what {
            What::Condition {
                nodes,
                kind,
                status,
                reason,
                writer,
            } => {
                let condition = ConditionFile {
                    kind: kind.clone(),
                    status: status.clone(),
                    reason: reason.clone(),
                    writer: writer.clone(),
                    age: None,
                };
                let clocks = self.clocks.clone();
                for node in self.named(nodes)? {
                    let clock = clocks.get(&node.name);
                    let at = clock.map_or(now, |file| file.clock(now));
                    set_condition(node, &condition, at);
                }
                self.unconfirmed
                    .retain(|(node, of)| of != kind || !nodes.contains(node));
            }
            What::ResetTransition { nodes, kind } => {
                for node in self.named(nodes)? {
                    let of_kind = |c: &&mut ConditionView| c.kind == *kind;
                    if let Some(condition) = node.conditions.iter_mut().find(of_kind) {
                        condition.transition = Some(now);
                    }
                }
            }
            What::StopHeartbeat { nodes, kind } => {
                for node in nodes {
                    self.unconfirmed.insert((node.clone(), kind.clone()));
                }
            }
            What::Silent { nodes } => {
                // What the node controller writes, when it has waited for long enough.
                let unknown = ready("Unknown", "NodeStatusUnknown", "kube-controller-manager");
                for node in self.named(nodes)? {
                    set_condition(node, &unknown, now);
                }
                let since = now - Duration::from_secs(60);
                self.silent
                    .extend(nodes.iter().map(|node| (node.clone(), since)));
            }
            What::Reports { nodes } => {
                let well = ready("True", "KubeletReady", "kubelet");
                for node in self.named(nodes)? {
                    set_condition(node, &well, now);
                }
                self.silent.retain(|node, _| !nodes.contains(node));
            }
            What::Label {
                nodes,
                label,
                value,
            } => {
                for node in self.named(nodes)? {
                    match value {
                        Some(value) => drop(node.labels.insert(label.clone(), value.clone())),
                        None => drop(node.labels.remove(label)),
                    }
                }
            }
            What::Mark { nodes, by } => {
                for node in self.named(nodes)? {
                    node.others.push(by.clone());
                }
            }
            What::Unmark { nodes } => {
                for node in self.named(nodes)? {
                    node.others.clear();
                }
            }
            What::Cordon { nodes } => {
                for node in self.named(nodes)? {
                    node.unschedulable = true;
                }
            }
            What::Uncordon { nodes } => {
                // As kubectl does it: our taint stays.
                for node in self.named(nodes)? {
                    node.unschedulable = false;
                }
            }
            What::Delete { nodes } => {
                for name in nodes {
                    let node = self.cluster.nodes.remove(name);
                    if let Some(node) = &node {
                        self.forget_claim(node);
                    }
                    let id = node.and_then(|node| node.instance().ok());
                    if let Some(view) =
                        id.and_then(|id| self.cluster.instances.get_mut(id.as_str()))
                    {
                        view.state = InstanceState::Gone;
                        view.lifecycle = None;
                    }
                }
            }
            What::Recreate { nodes } => self.recreate(nodes, now)?,
            What::Pdb(pdb) => drop(self.budgets.insert(pdb.name.clone(), pdb.clone())),
            What::Pod(pod) => {
                self.named(std::slice::from_ref(&pod.node))?;
                self.add_pod(pod, 0, now);
            }
            What::Policy { name, merge } => self.merge_policy(name, merge)?,
            What::DeletePolicy { name } => {
                let policies = &mut self.cluster.policies;
                policies.retain(|policy| policy.metadata.name.as_ref() != Some(name));
            }
            What::Limits(limits) => self.set_limits(limits),
            What::Repair {
                node,
                requested_by,
                override_gates,
                action,
            } => {
                let uid = self
                    .named(std::slice::from_ref(node))?
                    .first()
                    .map(|n| n.uid.clone());
                let spec = NodeRepairSpec {
                    node_ref: NodeRef {
                        name: node.clone(),
                        uid: uid.unwrap_or_default(),
                    },
                    provider_id: String::new(),
                    policy_ref: PolicyRef::default(),
                    trigger: Trigger::Manual,
                    action: *action,
                    override_gates: override_gates.clone(),
                    requested_by: Some(requested_by.clone()),
                };
                self.repairs += 1;
                let name = format!("manual-{}", self.repairs);
                self.insert(&name, NodeRepair::new(&name, spec), now);
            }
            What::DeleteRepairs { node } => {
                let repairs = &mut self.cluster.repairs;
                repairs.retain(|_, repair| repair.spec.node_ref.name != *node);
            }
            What::Stop { nodes } => self.set_instances(nodes, InstanceState::Stopped)?,
            What::Start { nodes } => self.set_instances(nodes, InstanceState::There)?,
            What::Cloud {
                terminate,
                reboot,
                rebooted,
                launches,
                shifted,
                replaces_in,
            } => {
                let cloud = &mut self.cloud;
                cloud.terminate = terminate.unwrap_or(cloud.terminate);
                cloud.reboot = reboot.unwrap_or(cloud.reboot);
                cloud.rebooted = rebooted.unwrap_or(cloud.rebooted);
                cloud.launches = launches.clone().or(cloud.launches.take());
                cloud.shifted = shifted.clone().or(cloud.shifted.take());
                cloud.replaces_in = replaces_in.unwrap_or(cloud.replaces_in);
                self.set_cloud();
            }
            What::Restart {} => return Ok(true),
            What::Api { reachable } => self.reachable = *reachable,
        }
        Ok(false)
    }

    fn set_instances(&mut self, names: &[String], state: InstanceState) -> anyhow::Result<()> {
        let ids = self.named(names)?.into_iter().map(|node| node.instance());
        let ids: Vec<_> = ids.filter_map(Result::ok).collect();
        for id in ids {
            if let Some(view) = self.cluster.instances.get_mut(id.as_str()) {
                view.state = state;
            }
        }
        Ok(())
    }

    fn recreate(&mut self, names: &[String], now: Timestamp) -> anyhow::Result<()> {
        for name in names {
            let old = self.cluster.nodes.get(name).cloned();
            let mut node = old.with_context(|| format!("there is no node {name} then"))?;
            let zone = node.zone().unwrap_or("us-west-2a").to_owned();
            let group = self.cluster.group_of(&node).map(str::to_owned);
            self.forget_claim(&node);
            if let Ok(id) = node.instance()
                && let Some(view) = self.cluster.instances.get_mut(id.as_str())
            {
                view.state = InstanceState::Gone;
                view.lifecycle = None;
            }
            node.provider_id = self.new_instance(&zone, group.as_deref(), now);
            node.uid = format!("{}-again", node.uid);
            node.created = now;
            node.unschedulable = false;
            node.taints.clear();
            node.marks = None;
            node.conditions.clear();
            set_condition(&mut node, &ready("True", "KubeletReady", "kubelet"), now);
            self.cluster.nodes.insert(name.clone(), node);
        }
        Ok(())
    }

    fn merge_policy(&mut self, name: &str, merge: &Value) -> anyhow::Result<()> {
        let policies = &mut self.cluster.policies;
        let policy = policies
            .iter_mut()
            .find(|policy| policy.metadata.name.as_deref() == Some(name))
            .with_context(|| format!("there is no policy {name} then"))?;
        let mut spec = serde_json::to_value(&policy.spec).context("write the policy")?;
        overlay(&mut spec, merge);
        let (spec, found) = validate::read(&spec);
        if let Some(error) = validate::first_error(&found) {
            anyhow::bail!("what is laid over policy {name}: {error}");
        }
        policy.spec = spec.context("read the policy")?;
        let generation = policy.metadata.generation.get_or_insert(0);
        *generation += 1;
        Ok(())
    }

    fn insert(&mut self, name: &str, mut repair: NodeRepair, now: Timestamp) {
        repair.metadata.creation_timestamp = Some(Time(now));
        self.cluster.repairs.insert(name.to_owned(), repair);
    }

    /// Does what was decided. What the API server and the real steps refuse is refused here, too.
    pub fn carry_out(&mut self, step: Step, now: Timestamp) -> anyhow::Result<Done> {
        Ok(match step {
            Step::Open(repair) => {
                let name = repair.metadata.name.clone().unwrap_or_default();
                self.insert(&name, *repair, now);
                Done::Opened(name)
            }
            Step::Record { repair, status } => {
                let object = self.cluster.repairs.get_mut(&repair);
                let object = object.with_context(|| format!("{repair} is not there"))?;
                // What is read back is what the API stores, not what was in memory.
                let json = serde_json::to_value(*status).context("write the status")?;
                object.status = Some(serde_json::from_value(json).context("read the status")?);
                Done::Recorded(repair)
            }
            Step::Forget { repair } => {
                self.cluster.repairs.remove(&repair);
                Done::Forgotten(repair)
            }
            Step::Act { repair, act } => self.act(repair, act, now)?,
            Step::Dismiss { node } => {
                let view = self.cluster.nodes.get_mut(&node);
                let view = view.with_context(|| format!("{node} is not there"))?;
                undo(view, false);
                view.dismissed = Some(now);
                Done::Dismissed(node)
            }
        })
    }

    fn act(&mut self, repair: String, act: Act, now: Timestamp) -> anyhow::Result<Done> {
        let object = self.cluster.repairs.get(&repair).cloned();
        let object = object.with_context(|| format!("{repair} is not there"))?;
        let name = object.spec.node_ref.name.clone();
        match act {
            Act::Cordon => {
                let node = self.cluster.nodes.get_mut(&name);
                let node = node.with_context(|| format!("{name} is not there"))?;
                let ours = (!node.unschedulable).then(|| "unschedulable".to_owned());
                node.marks = Some(ours.into_iter().collect());
                node.unschedulable = true;
                push_taint(node, TAINT, None, "NoSchedule");
                Ok(Done::Cordoned(repair))
            }
            Act::Uncordon => {
                let found = object.status.as_ref().is_some_and(|s| s.found_cordoned);
                let node = self.cluster.nodes.get_mut(&name);
                let node = node.with_context(|| format!("{name} is not there"))?;
                ensure!(
                    node.has_marks(),
                    "{name} is un-cordoned without a mark of ours"
                );
                undo(node, found);
                Ok(Done::Uncordoned(repair))
            }
            Act::Evict(pods) => Ok(self.evict(repair, &name, &pods, now)),
            Act::Delete(deletions) => {
                let mut pods = Vec::new();
                for deletion in deletions {
                    pods.push(deletion.pod.label());
                    self.end_pod(&name, &deletion.pod, deletion.grace, now);
                }
                self.look_at_pods();
                Ok(Done::Deleted { repair, pods })
            }
            Act::StepDown(pod) => Ok(self.evict(repair, &name, &[*pod], now)),
            Act::OutOfService => {
                let node = self.cluster.nodes.get_mut(&name);
                let node = node.with_context(|| format!("{name} is not there"))?;
                let (key, value) = OUT_OF_SERVICE;
                push_taint(node, key, Some(value), "NoExecute");
                // The garbage collector of the control plane takes its pods away.
                self.pods.retain(|_, pod| pod.file.node != name);
                self.look_at_pods();
                let what = "out of service";
                Ok(Done::Marked { repair, what })
            }
            Act::BackInService => {
                let node = self.cluster.nodes.get_mut(&name);
                let node = node.with_context(|| format!("{name} is not there"))?;
                node.taints.retain(|taint| taint.key != OUT_OF_SERVICE.0);
                let what = "back in service";
                Ok(Done::Marked { repair, what })
            }
            Act::Reboot(clearance) => self.reboot(repair, &name, &clearance, now),
            Act::Replace(clearance) => self.replace(repair, &name, &clearance, now),
        }
    }

    /// Told to end. What does not end at once is seen to be ending.
    fn end_pod(&mut self, node: &str, view: &PodView, grace: Duration, now: Timestamp) {
        let key = format!("{node}/{}", view.label());
        let Some(pod) = self.pods.get_mut(&key) else {
            return;
        };
        let lasts = match (pod.file.never_ends, pod.file.ends_in) {
            (true, _) => None,
            (false, Some(wait)) => Some(wait.0.min(grace)),
            (false, None) => Some(Duration::ZERO),
        };
        // A finalizer keeps the object for ever.
        let gone = lasts
            .filter(|_| !pod.file.finalizer)
            .map(|lasts| now + lasts);
        let ends = now + grace;
        pod.ends = Some(pod.ends.map_or(ends, |before| before.min(ends)));
        pod.gone = pod.gone.into_iter().chain(gone).min();
        self.pods_end(now);
    }

    fn reboot(
        &mut self,
        repair: String,
        name: &str,
        clearance: &Clearance,
        now: Timestamp,
    ) -> anyhow::Result<Done> {
        self.begin_call(&repair, clearance, now)?;
        self.reboots += 1;
        let instance = clearance.instance().to_string();
        let mode = self.cloud.reboot;
        if matches!(mode, Terminate::Accept | Terminate::LoseAnswer) {
            let unknown = ready("Unknown", "NodeStatusUnknown", "kube-controller-manager");
            let node = self.cluster.nodes.get_mut(name);
            let node = node.with_context(|| format!("{name} is not there"))?;
            set_condition(node, &unknown, now);
            self.silent.insert(name.to_owned(), now);
            let back = now + self.cloud.reboots_in.0;
            self.booting.push((back, name.to_owned()));
        }
        self.end_call(&repair, mode, now);
        Ok(Done::Rebooted {
            repair,
            instance,
            result: answered(mode),
        })
    }

    /// The intent of a call that destroys.
    fn begin_call(
        &mut self,
        repair: &str,
        clearance: &Clearance,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let status = self.status(repair);
        let status = status.with_context(|| format!("{repair} has no status"))?;
        status.begin_attempt(clearance, now);
        Ok(())
    }

    /// What AWS has answered to it, if anything.
    fn end_call(&mut self, repair: &str, mode: Terminate, now: Timestamp) {
        let (result, message) = match mode {
            Terminate::Accept => (AttemptResult::Accepted, None),
            Terminate::Refuse => {
                let message = "AccessDenied: refused in the simulation".to_owned();
                (AttemptResult::Refused, Some(message))
            }
            Terminate::Throttle => {
                let message = "Throttling: throttled in the simulation".to_owned();
                (AttemptResult::Throttled, Some(message))
            }
            Terminate::LoseAnswer | Terminate::Hang => return,
        };
        if let Some(status) = self.status(repair) {
            status.end_attempt(result, None, message, now);
        }
    }

    fn status(&mut self, repair: &str) -> Option<&mut NodeRepairStatus> {
        self.cluster.repairs.get_mut(repair)?.status.as_mut()
    }

    fn evict(&mut self, repair: String, node: &str, pods: &[PodView], now: Timestamp) -> Done {
        let mut evicted = Vec::new();
        for pod in pods {
            let key = format!("{node}/{}", pod.label());
            let Some(there) = self.pods.get(&key) else {
                continue;
            };
            let file = there.file.clone();
            let answer = match &file.pdb {
                Some(budget) => self.ask_budget(budget, &file, now),
                None => Answer::Accepted,
            };
            if answer == Answer::Accepted {
                self.end_pod(node, pod, file.grace.0, now);
                evicted.push(pod.label());
            }
            self.cluster.tries.note(&pod.uid, answer, now);
        }
        self.look_at_pods();
        Done::Evicted {
            repair,
            pods: evicted,
        }
    }

    fn ask_budget(&mut self, budget: &str, pod: &PodFile, now: Timestamp) -> Answer {
        let known = self.budgets.get(budget);
        let always = UnhealthyPods::AlwaysAllow;
        if pod.not_ready && known.is_some_and(|b| b.unhealthy_pod_eviction_policy == always) {
            return Answer::Accepted;
        }
        let allowed = known.map_or(0, |budget| budget.allowed) as usize;
        let moving = self.moving.iter().filter(|(name, _)| name == budget);
        if moving.count() >= allowed {
            let message = format!("disruption budget {budget} allows {allowed} disruptions");
            return Answer::Budget(message);
        }
        self.moving.push((budget.to_owned(), now + pod.moves_in.0));
        Answer::Accepted
    }

    /// Intent, call and end, in this order, as the real step has them.
    fn replace(
        &mut self,
        repair: String,
        name: &str,
        clearance: &Clearance,
        now: Timestamp,
    ) -> anyhow::Result<Done> {
        self.begin_call(&repair, clearance, now)?;
        self.calls += 1;
        let instance = clearance.instance().to_string();
        let mode = self.cloud.terminate;
        if matches!(mode, Terminate::Accept | Terminate::LoseAnswer) {
            ensure!(
                !self.going.contains_key(&instance),
                "{instance} is terminated twice"
            );
            let node = self.cluster.nodes.get(name).cloned();
            let node = node.with_context(|| format!("{name} is not there"))?;
            ensure!(
                node.instance().ok().as_ref() == Some(clearance.instance()),
                "{instance} is not the instance of {name}"
            );
            let view = self.cluster.instances.get_mut(&instance);
            let view = view.with_context(|| format!("{instance} is not known"))?;
            match clearance.target() {
                Target::Instance(_) => {
                    view.state = InstanceState::Going;
                    view.lifecycle = Some("Terminating".to_owned());
                }
                Target::Claim(target) => {
                    let claims = claims(&mut self.cluster);
                    let claim = claims.and_then(|claims| claims.get_mut(target.uid()));
                    let claim = claim.with_context(|| format!("{name} has no NodeClaim"))?;
                    claim.deleting = true;
                }
            }
            let going = Going {
                at: now + self.cloud.terminates_in.0,
                node: name.to_owned(),
            };
            self.going.insert(instance.clone(), going);
            self.destroyed.push(name.to_owned());
            let mut replacement = node;
            replacement.unschedulable = false;
            replacement.joined = true;
            replacement.taints.clear();
            replacement.marks = None;
            replacement.boot_id = format!("boot-after-{instance}");
            replacement.conditions.clear();
            replacement.others.clear();
            replacement.kept_off.clear();
            let group = Some(clearance.group().to_owned());
            let claim = matches!(clearance.target(), Target::Claim(_));
            if !(claim && self.cloud.karpenter_launches_none) {
                self.joining
                    .push((now + self.cloud.replaces_in.0, replacement, group));
            }
        }
        self.end_call(&repair, mode, now);
        Ok(Done::Terminated {
            repair,
            instance,
            group: clearance.group().to_owned(),
            result: answered(mode),
        })
    }
}

fn claims(cluster: &mut Cluster) -> Option<&mut Claims> {
    match &mut cluster.claims {
        Asked::Yes(Ok(claims)) => Some(claims),
        Asked::Yes(Err(_)) | Asked::No => None,
    }
}

fn answered(mode: Terminate) -> &'static str {
    match mode {
        Terminate::Accept => "accepted",
        Terminate::Refuse => "refused",
        Terminate::Throttle => "throttled",
        Terminate::LoseAnswer | Terminate::Hang => "no answer",
    }
}

/// Older than any drain.
fn pod_age() -> Duration {
    Duration::from_secs(3600)
}

fn attachment(pod: &PodFile) -> Attachment {
    let claim = format!("{}/{}", pod.namespace, pod.name);
    Attachment {
        node: pod.node.clone(),
        volume: format!("pv-{}", pod.name),
        claim: Some(claim),
        shared: false,
    }
}

fn push_taint(node: &mut NodeView, key: &str, value: Option<&str>, effect: &str) {
    node.taints.push(Taint {
        key: key.to_owned(),
        value: value.map(str::to_owned),
        effect: effect.to_owned(),
        time_added: None,
    });
}

/// As the API server is told to: our own, and nothing else.
fn undo(node: &mut NodeView, found_cordoned: bool) {
    let marks = node.marks.take();
    let found = found_cordoned || marks.is_some_and(|marks| !marks.contains("unschedulable"));
    node.unschedulable = node.unschedulable && (found || !node.has_our_taint());
    let ours = [TAINT, OUT_OF_SERVICE.0];
    node.taints
        .retain(|taint| !ours.contains(&taint.key.as_str()));
}

fn ready(status: &str, reason: &str, writer: &str) -> ConditionFile {
    ConditionFile {
        kind: "Ready".to_owned(),
        status: super::file::Status::Text(status.to_owned()),
        reason: reason.to_owned(),
        writer: Some(writer.to_owned()),
        age: None,
    }
}

fn set_condition(node: &mut NodeView, file: &ConditionFile, now: Timestamp) {
    let before = node.condition(&file.kind).cloned();
    let kept = before.filter(|before| before.status == file.status.text());
    let changed = file.age.map_or(now, |age| now - age.0);
    node.conditions
        .retain(|condition| condition.kind != file.kind);
    node.conditions.push(ConditionView {
        kind: file.kind.clone(),
        status: file.status.text().to_owned(),
        reason: file.reason.clone(),
        heartbeat: Some(now),
        transition: kept.and_then(|kept| kept.transition).or(Some(changed)),
        writer: Some(file.writer.clone().unwrap_or_else(|| DETECTOR.to_owned())),
    });
    node.conditions.sort_by(|a, b| a.kind.cmp(&b.kind));
}

/// As `kubectl patch --type=merge` does it.
fn overlay(into: &mut Value, merge: &Value) {
    match (into.as_object_mut(), merge.as_object()) {
        (Some(into), Some(merge)) => {
            for (key, value) in merge {
                if value.is_null() {
                    into.remove(key);
                } else {
                    overlay(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Some(_) | None, _) => into.clone_from(merge),
    }
}
