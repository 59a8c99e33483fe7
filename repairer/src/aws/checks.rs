//! EC2's own checks of its instances, and what it has scheduled for them. Few instances have either,
//! so only those are asked for.

use anyhow::Context;
use aws_sdk_ec2::types::{EventCode, Filter, InstanceStatus, InstanceStatusSummary, StatusType};
use jiff::Timestamp;

use super::{Aws, explain};
use crate::cluster::{Checks, Event, Impaired};

/// Events after which the instance is not what it was; a reboot by AWS is none.
const EVENTS: [(EventCode, &str); 2] = [
    (EventCode::InstanceRetirement, "InstanceRetirement"),
    (EventCode::InstanceStop, "InstanceStop"),
];

impl Aws {
    /// Of all three scans, or an error: what one of them has not told is not known.
    pub async fn checks(&self, now: Timestamp) -> anyhow::Result<Checks> {
        let mut checks = Checks {
            at: now,
            ..Checks::default()
        };
        // The system below an instance explains more than the instance.
        for (filter, reason) in [
            ("instance-status.status", "InstanceUnreachable"),
            ("system-status.status", "SystemUnreachable"),
        ] {
            for status in self.statuses(filter, &["impaired"]).await? {
                let summary = match reason {
                    "SystemUnreachable" => status.system_status,
                    _ => status.instance_status,
                };
                if let Some(id) = status.instance_id {
                    let since = summary.and_then(impaired_since);
                    checks.impaired.insert(id, Impaired { reason, since });
                }
            }
        }
        let codes: Vec<_> = EVENTS.iter().map(|(code, _)| code.as_str()).collect();
        for status in self.statuses("event.code", &codes).await? {
            let event = first_event(&status);
            if let (Some(id), Some(event)) = (status.instance_id, event) {
                checks.events.insert(id, event);
            }
        }
        Ok(checks)
    }

    async fn statuses(&self, filter: &str, values: &[&str]) -> anyhow::Result<Vec<InstanceStatus>> {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        let filter = Filter::builder()
            .name(filter)
            .set_values(Some(values))
            .build();
        let mut pages = self
            .ec2
            .describe_instance_status()
            .filters(filter)
            .into_paginator()
            .send();
        let mut statuses = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page
                .map_err(explain)
                .context("ec2 DescribeInstanceStatus")?;
            statuses.extend(page.instance_statuses.into_iter().flatten());
        }
        Ok(statuses)
    }
}

fn impaired_since(summary: InstanceStatusSummary) -> Option<Timestamp> {
    let details = summary.details.into_iter().flatten();
    let failed = details.filter(|detail| detail.status == Some(StatusType::Failed));
    failed
        .filter_map(|detail| time(detail.impaired_since?.secs()))
        .min()
}

/// EC2 leaves an event that is over in the list, and says so in its description.
fn first_event(status: &InstanceStatus) -> Option<Event> {
    let ahead = status.events().iter().filter(|event| {
        let description = event.description().unwrap_or_default();
        !description.starts_with("[Completed]") && !description.starts_with("[Canceled]")
    });
    let known = ahead.filter_map(|event| {
        let (_, reason) = EVENTS.iter().find(|(code, _)| Some(code) == event.code())?;
        Some(Event {
            reason,
            not_before: event.not_before().and_then(|at| time(at.secs())),
        })
    });
    known.min_by_key(|event| event.not_before)
}

fn time(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds).ok()
}
