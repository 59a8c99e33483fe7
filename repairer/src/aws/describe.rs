//! What EC2 and Auto Scaling say of instances.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use aws_sdk_autoscaling::types::LifecycleState;
use aws_sdk_ec2::types::{
    Filter, Instance, InstanceAttributeName, InstanceLifecycleType, InstanceStateName,
};
use jiff::Timestamp;

use super::{Aws, explain};
use crate::cluster::{Facts, InstanceId, InstanceState, InstanceView, LastFacts};
use crate::owner;
use crate::unjoined::Member;

/// The API's limit of `DescribeAutoScalingInstances`; EC2 takes 200 values in a filter.
pub(super) const MOST_IDS: usize = 50;

impl Aws {
    /// What AWS says of these instances. One that it does not know any more is gone.
    pub async fn describe(
        &self,
        ids: &BTreeSet<String>,
    ) -> anyhow::Result<BTreeMap<String, InstanceView>> {
        let ids: Vec<_> = ids.iter().cloned().collect();
        let mut found = BTreeMap::new();
        for chunk in ids.chunks(MOST_IDS) {
            for id in chunk {
                found.insert(
                    id.clone(),
                    InstanceView {
                        group: None,
                        lifecycle: None,
                        state: InstanceState::Gone,
                        checks_pass: None,
                        facts: Facts::default(),
                    },
                );
            }
            let listed = self.add_states(chunk, &mut found).await?;
            self.add_groups(chunk, &mut found).await?;
            // Just after a launch EC2's descriptions lag behind: its group knows it already.
            found.retain(|id, view| {
                !chunk.contains(id) || listed.contains(id) || view.group.is_none()
            });
        }
        Ok(found)
    }

    async fn add_states(
        &self,
        ids: &[String],
        found: &mut BTreeMap<String, InstanceView>,
    ) -> anyhow::Result<BTreeSet<String>> {
        let mut listed = BTreeSet::new();
        // By filter: one unknown id among `InstanceIds` fails the whole call.
        let filter = Filter::builder()
            .name("instance-id")
            .set_values(Some(ids.to_vec()))
            .build();
        let mut pages = self
            .ec2
            .describe_instances()
            .filters(filter)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(explain).context("ec2 DescribeInstances")?;
            let instances = page
                .reservations
                .into_iter()
                .flatten()
                .filter_map(|r| r.instances)
                .flatten();
            for instance in instances {
                let id = instance.instance_id().unwrap_or_default();
                listed.insert(id.to_owned());
                if let Some(view) = found.get_mut(id) {
                    view.state = match instance.state().and_then(|state| state.name()) {
                        Some(InstanceStateName::ShuttingDown) => InstanceState::Going,
                        Some(InstanceStateName::Terminated) => InstanceState::Gone,
                        Some(InstanceStateName::Stopped) => InstanceState::Stopped,
                        _ => InstanceState::There,
                    };
                    view.facts = facts(instance);
                }
            }
        }
        Ok(listed)
    }

    /// Those of the groups that serve.
    pub async fn members(&self, groups: &BTreeSet<String>) -> anyhow::Result<Vec<Member>> {
        let groups: Vec<_> = groups.iter().cloned().collect();
        let mut members = Vec::new();
        for chunk in groups.chunks(MOST_IDS) {
            let call = self
                .autoscaling
                .describe_auto_scaling_groups()
                .set_auto_scaling_group_names(Some(chunk.to_vec()));
            let mut pages = call.into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page
                    .map_err(explain)
                    .context("autoscaling DescribeAutoScalingGroups")?;
                for group in page.auto_scaling_groups.into_iter().flatten() {
                    let name = group.auto_scaling_group_name.unwrap_or_default();
                    let instances = group.instances.into_iter().flatten();
                    members.extend(instances.filter_map(|found| member(&name, found)));
                }
            }
        }
        Ok(members)
    }

    async fn add_groups(
        &self,
        ids: &[String],
        found: &mut BTreeMap<String, InstanceView>,
    ) -> anyhow::Result<()> {
        let call = self
            .autoscaling
            .describe_auto_scaling_instances()
            .set_instance_ids(Some(ids.to_vec()));
        let mut pages = call.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page
                .map_err(explain)
                .context("autoscaling DescribeAutoScalingInstances")?;
            for member in page.auto_scaling_instances.into_iter().flatten() {
                if let Some(view) = member.instance_id.and_then(|id| found.get_mut(&id)) {
                    view.group = member.auto_scaling_group_name;
                    view.lifecycle = member.lifecycle_state;
                    let health = member.health_status.unwrap_or_default();
                    // Upper case here, and not in a group's own list.
                    view.facts.unhealthy = health.eq_ignore_ascii_case("unhealthy");
                    view.facts.protected_from_scale_in =
                        member.protected_from_scale_in.unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// What matters only of an instance that is to be destroyed.
    pub async fn last_facts(&self, id: &str, facts: &Facts) -> anyhow::Result<LastFacts> {
        let attribute = self
            .ec2
            .describe_instance_attribute()
            .instance_id(id)
            .attribute(InstanceAttributeName::DisableApiTermination)
            .send()
            .await
            .map_err(explain)
            .context("ec2 DescribeInstanceAttribute")?;
        let protection = attribute.disable_api_termination.and_then(|p| p.value);
        Ok(LastFacts {
            termination_protection: protection.unwrap_or_default(),
            spot_request: match facts.spot {
                true => self.spot_request(id).await?,
                false => None,
            },
            reservation: match &facts.reservation {
                Some(reservation) => Some(self.reservation(reservation).await?),
                None => None,
            },
        })
    }

    async fn spot_request(&self, id: &str) -> anyhow::Result<Option<String>> {
        let filter = Filter::builder().name("instance-id").values(id).build();
        let answer = self
            .ec2
            .describe_spot_instance_requests()
            .filters(filter)
            .send()
            .await
            .map_err(explain)
            .context("ec2 DescribeSpotInstanceRequests")?;
        let mut requests = answer.spot_instance_requests.into_iter().flatten();
        Ok(requests.find_map(|request| request.status?.code))
    }

    async fn reservation(&self, reservation: &str) -> anyhow::Result<(String, i32)> {
        let answer = self
            .ec2
            .describe_capacity_reservations()
            .capacity_reservation_ids(reservation)
            .send()
            .await
            .map_err(explain)
            .context("ec2 DescribeCapacityReservations")?;
        let mut reservations = answer.capacity_reservations.into_iter().flatten();
        let found = reservations.next().map(|reservation| {
            let state = reservation.state.map(|state| state.as_str().to_owned());
            (
                state.unwrap_or_default(),
                reservation.available_instance_count.unwrap_or_default(),
            )
        });
        Ok(found.unwrap_or_else(|| ("gone".to_owned(), 0)))
    }
}

fn member(group: &str, found: aws_sdk_autoscaling::types::Instance) -> Option<Member> {
    let serves = found.lifecycle_state == Some(LifecycleState::InService);
    let zone = found.availability_zone.filter(|_| serves)?;
    Some(Member {
        id: InstanceId::parse(&format!("aws:///{zone}/{}", found.instance_id?)).ok()?,
        group: group.to_owned(),
        zone,
    })
}

fn facts(instance: Instance) -> Facts {
    let tags = instance.tags.into_iter().flatten();
    let tags = tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())));
    let launched = instance.launch_time.as_ref();
    Facts {
        launched: launched.and_then(|at| Timestamp::from_second(at.secs()).ok()),
        tags: tags.filter(|(key, _)| owner::tells(key)).collect(),
        zone_id: instance
            .placement
            .and_then(|placement| placement.availability_zone_id),
        protected_from_scale_in: false,
        unhealthy: false,
        spot: instance.instance_lifecycle == Some(InstanceLifecycleType::Spot),
        reservation: instance.capacity_reservation_id,
        last: None,
    }
}
