//! What stands against new instances of a group, as Auto Scaling and EKS tell it.

use std::collections::BTreeSet;

use anyhow::Context;
use aws_sdk_autoscaling::types::{InstanceRefreshStatus, ScalingActivityStatusCode};
use aws_sdk_eks::types::Nodegroup;

use super::{Aws, explain};
use crate::cluster::{Launches, NodeGroup, Sizes};

/// As many of a group's last activities are looked at.
const ACTIVITIES: i32 = 20;
/// Of a managed node group's health.
const MOST_ISSUES: usize = 5;
const MESSAGE_LIMIT: usize = 300;

/// A managed node group above an Auto Scaling group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Managed {
    pub cluster: String,
    pub name: String,
}

impl Aws {
    /// `None`: Auto Scaling does not know the group.
    pub async fn launches(
        &self,
        group: &str,
        managed: Option<&Managed>,
    ) -> anyhow::Result<Option<Launches>> {
        let answer = self
            .autoscaling
            .describe_auto_scaling_groups()
            .auto_scaling_group_names(group)
            .send()
            .await
            .map_err(explain)
            .context("autoscaling DescribeAutoScalingGroups")?;
        let mut groups = answer.auto_scaling_groups.into_iter().flatten();
        let Some(found) = groups.next() else {
            return Ok(None);
        };
        let mut launches = Launches {
            sizes: found
                .min_size
                .zip(found.desired_capacity)
                .zip(found.max_size)
                .map(|((min, desired), max)| Sizes { min, desired, max }),
            status: found.status,
            launches_first: found
                .instance_maintenance_policy
                .and_then(|policy| policy.max_healthy_percentage)
                .is_some_and(|most| most > 100),
            reuses_instances: found
                .warm_pool_configuration
                .and_then(|pool| pool.instance_reuse_policy)
                .and_then(|policy| policy.reuse_on_scale_in)
                .unwrap_or_default(),
            ..Launches::default()
        };
        for process in found.suspended_processes.into_iter().flatten() {
            let name = process.process_name.unwrap_or_default();
            let why = process.suspension_reason.unwrap_or_default();
            // "User suspended at 2026-11-28T03:00:00Z"; anything else is AWS's own doing.
            if !why.starts_with("User suspended") {
                launches.suspended_by_aws.insert(name.clone(), short(&why));
            }
            launches.suspended.push(name);
        }
        self.add_activities(group, &mut launches).await?;
        launches.refresh = self.refresh(group).await?;
        if let Some(managed) = managed {
            launches.node_group = Some(self.node_group(managed).await?);
        }
        Ok(Some(launches))
    }

    async fn add_activities(&self, group: &str, launches: &mut Launches) -> anyhow::Result<()> {
        let answer = self
            .autoscaling
            .describe_scaling_activities()
            .auto_scaling_group_name(group)
            .max_records(ACTIVITIES)
            .send()
            .await
            .map_err(explain)
            .context("autoscaling DescribeScalingActivities")?;
        // Newest first.
        let of_launches = answer.activities.into_iter().flatten().filter(|activity| {
            let description = activity.description.as_deref().unwrap_or_default();
            description.starts_with("Launching")
        });
        for activity in of_launches {
            match activity.status_code {
                Some(ScalingActivityStatusCode::Failed) => {
                    launches.failed += 1;
                    let why = activity.status_message.or(activity.description);
                    launches.failure = launches.failure.take().or(why.map(|why| short(&why)));
                }
                Some(ScalingActivityStatusCode::Successful) => break,
                _ => {}
            }
        }
        Ok(())
    }

    async fn refresh(&self, group: &str) -> anyhow::Result<Option<String>> {
        let answer = self
            .autoscaling
            .describe_instance_refreshes()
            .auto_scaling_group_name(group)
            .max_records(1)
            .send()
            .await
            .map_err(explain)
            .context("autoscaling DescribeInstanceRefreshes")?;
        let mut refreshes = answer.instance_refreshes.into_iter().flatten();
        let status = refreshes.next().and_then(|refresh| refresh.status);
        let ended = [
            InstanceRefreshStatus::Successful,
            InstanceRefreshStatus::Failed,
            InstanceRefreshStatus::Cancelled,
            InstanceRefreshStatus::RollbackFailed,
            InstanceRefreshStatus::RollbackSuccessful,
        ];
        let running = status.filter(|status| !ended.contains(status));
        Ok(running.map(|status| status.as_str().to_owned()))
    }

    async fn node_group(&self, managed: &Managed) -> anyhow::Result<NodeGroup> {
        let found = self.describe_node_group(managed).await?;
        let issues = found.health.and_then(|health| health.issues);
        let issues = issues.into_iter().flatten().map(|issue| {
            let code = issue.code.map(|code| code.as_str().to_owned());
            let message = issue.message.unwrap_or_default();
            short(&format!("{}: {message}", code.unwrap_or_default()))
        });
        let distinct: BTreeSet<_> = issues.collect();
        Ok(NodeGroup {
            name: managed.name.clone(),
            status: found
                .status
                .map(|status| status.as_str().to_owned())
                .unwrap_or_default(),
            issues: distinct.into_iter().take(MOST_ISSUES).collect(),
            repairs_itself: found
                .node_repair_config
                .and_then(|config| config.enabled)
                .unwrap_or_default(),
        })
    }

    pub async fn describe_node_group(&self, managed: &Managed) -> anyhow::Result<Nodegroup> {
        let (cluster, name) = (&managed.cluster, &managed.name);
        let answer = self
            .eks
            .describe_nodegroup()
            .cluster_name(cluster)
            .nodegroup_name(name)
            .send()
            .await
            .map_err(explain)
            .with_context(|| format!("eks DescribeNodegroup {cluster} {name}"))?;
        answer
            .nodegroup
            .with_context(|| format!("EKS says nothing of {name}"))
    }
}

fn short(text: &str) -> String {
    text.chars().take(MESSAGE_LIMIT).collect()
}
