//! Zonal shifts of the cluster, as ARC tells them: zones are named by their ids.

use std::collections::BTreeSet;

use anyhow::Context;
use aws_sdk_arczonalshift::error::ProvideErrorMetadata;
use aws_sdk_arczonalshift::types::{AppliedStatus, AutoshiftAppliedStatus};
use jiff::Timestamp;

use super::{Aws, explain};

impl Aws {
    /// The ARN by which ARC knows an EKS cluster.
    pub async fn cluster_arn(&self, cluster: &str) -> anyhow::Result<String> {
        let answer = self
            .eks
            .describe_cluster()
            .name(cluster)
            .send()
            .await
            .map_err(explain)
            .with_context(|| format!("eks DescribeCluster {cluster}"))?;
        let arn = answer.cluster.and_then(|cluster| cluster.arn);
        arn.with_context(|| format!("EKS says no ARN of {cluster}"))
    }

    /// The zones that traffic is shifted away from now. None where ARC does not know the cluster.
    pub async fn shifted(&self, arn: &str, now: Timestamp) -> anyhow::Result<BTreeSet<String>> {
        let asked = self
            .zonal_shift
            .get_managed_resource()
            .resource_identifier(arn)
            .send()
            .await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) if error.code() == Some("ResourceNotFoundException") => {
                return Ok(BTreeSet::new());
            }
            Err(error) => {
                return Err(explain(error)).context("arc-zonal-shift GetManagedResource");
            }
        };
        let own = answer
            .zonal_shifts
            .into_iter()
            .filter(|shift| shift.applied_status == AppliedStatus::Applied)
            .filter(|shift| shift.expiry_time.secs() > now.as_second())
            .map(|shift| shift.away_from);
        let auto = answer.autoshifts.into_iter().flatten();
        let auto = auto
            .filter(|shift| shift.applied_status == AutoshiftAppliedStatus::Applied)
            .map(|shift| shift.away_from);
        Ok(own.chain(auto).collect())
    }
}
