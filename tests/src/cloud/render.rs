//! PURE. The XML of answers. Element names and nesting are those of the service models of the EC2
//! (2016-11-15) and Auto Scaling (2011-01-01) APIs, for the members that callers here read.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::query::Service;
use super::state::{Activity, Group, Instance, InstanceState, Refusal, State};

pub(super) fn success(service: Service, action: &str, inside: &str, request_id: &str) -> String {
    match service {
        Service::Ec2 => format!(
            "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>{request_id}</requestId>{inside}</{action}Response>"
        ),
        Service::AutoScaling => format!(
            "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
             <{action}Result>{inside}</{action}Result>\
             <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
        ),
    }
}

pub(super) fn error(service: Service, refusal: &Refusal, request_id: &str) -> String {
    let (code, message) = (escape(&refusal.code), escape(&refusal.message));
    match service {
        Service::Ec2 => format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
             <RequestID>{request_id}</RequestID></Response>"
        ),
        Service::AutoScaling => {
            let side = if refusal.status < 500 {
                "Sender"
            } else {
                "Receiver"
            };
            format!(
                "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
                 <Error><Type>{side}</Type><Code>{code}</Code><Message>{message}</Message></Error>\
                 <RequestId>{request_id}</RequestId></ErrorResponse>"
            )
        }
    }
}

pub(super) fn instances(state: &State, ids: &[String], now: Timestamp) -> String {
    let mut xml = String::new();
    for instance in ids.iter().filter_map(|id| state.instances.get(id)) {
        let (name, code) = state.state_of(instance, now).name_and_code();
        let reservation = instance.id.replacen("i-", "r-", 1);
        push(
            &mut xml,
            format_args!(
                "<item><reservationId>{reservation}</reservationId><ownerId>123456789012</ownerId><groupSet/><instancesSet><item>\
             <instanceId>{}</instanceId><imageId>ami-00000000000000001</imageId>\
             <instanceState><code>{code}</code><name>{name}</name></instanceState>\
             <privateDnsName>{}</privateDnsName><instanceType>m5.large</instanceType><launchTime>{}</launchTime>\
             <placement><availabilityZone>{}</availabilityZone><tenancy>default</tenancy></placement>\
             <tagSet><item><key>aws:autoscaling:groupName</key><value>{}</value></item></tagSet>\
             </item></instancesSet></item>",
                instance.id,
                instance.private_dns,
                time(instance.launched),
                escape(&instance.zone),
                escape(&instance.group),
            ),
        );
    }
    format!("<reservationSet>{xml}</reservationSet>")
}

/// EC2 tells of instances that are not running only when asked for all.
pub(super) fn instance_status(state: &State, ids: &[String], all: bool, now: Timestamp) -> String {
    let mut xml = String::new();
    for instance in ids.iter().filter_map(|id| state.instances.get(id)) {
        let current = state.state_of(instance, now);
        let running = current == InstanceState::Running;
        if !running && !all {
            continue;
        }
        let (name, code) = current.name_and_code();
        let (status, reachability) = if running {
            ("ok", "passed")
        } else {
            ("not-applicable", "insufficient-data")
        };
        let details = format!(
            "<status>{status}</status><details><item><name>reachability</name><status>{reachability}</status></item></details>"
        );
        push(
            &mut xml,
            format_args!(
                "<item><instanceId>{}</instanceId><availabilityZone>{}</availabilityZone>\
             <instanceState><code>{code}</code><name>{name}</name></instanceState>\
             <systemStatus>{details}</systemStatus><instanceStatus>{details}</instanceStatus></item>",
                instance.id,
                escape(&instance.zone),
            ),
        );
    }
    format!("<instanceStatusSet>{xml}</instanceStatusSet>")
}

pub(super) fn group_instances(state: &State, ids: &[String], now: Timestamp) -> String {
    let mut xml = String::new();
    for instance in state
        .instances
        .values()
        .filter(|instance| ids.is_empty() || ids.contains(&instance.id))
    {
        if let Some(member) = group_instance(state, instance, now) {
            push(
                &mut xml,
                format_args!(
                    "<member><AutoScalingGroupName>{}</AutoScalingGroupName>{member}</member>",
                    escape(&instance.group)
                ),
            );
        }
    }
    format!("<AutoScalingInstances>{xml}</AutoScalingInstances>")
}

pub(super) fn groups(state: &State, names: &[String], now: Timestamp) -> String {
    let chosen = state
        .groups
        .values()
        .filter(|group| names.is_empty() || names.contains(&group.name));
    let members: String = chosen
        .map(|group| format!("<member>{}</member>", one_group(state, group, now)))
        .collect();
    format!("<AutoScalingGroups>{members}</AutoScalingGroups>")
}

fn one_group(state: &State, group: &Group, now: Timestamp) -> String {
    let name = escape(&group.name);
    let zones: String = group
        .zones
        .iter()
        .map(|zone| format!("<member>{}</member>", escape(zone)))
        .collect();
    let instances: String = state
        .instances
        .values()
        .filter(|instance| instance.group == group.name)
        .filter_map(|instance| group_instance(state, instance, now))
        .map(|inside| format!("<member>{inside}</member>"))
        .collect();
    format!(
        "<AutoScalingGroupName>{name}</AutoScalingGroupName>\
         <AutoScalingGroupARN>arn:aws:autoscaling:us-west-2:123456789012:autoScalingGroup:0:autoScalingGroupName/{name}</AutoScalingGroupARN>\
         <MinSize>{}</MinSize><MaxSize>{}</MaxSize><DesiredCapacity>{}</DesiredCapacity><DefaultCooldown>300</DefaultCooldown>\
         <AvailabilityZones>{zones}</AvailabilityZones><HealthCheckType>EC2</HealthCheckType>\
         <HealthCheckGracePeriod>0</HealthCheckGracePeriod><Instances>{instances}</Instances>\
         <CreatedTime>{}</CreatedTime><SuspendedProcesses/><Tags/>",
        group.min,
        group.max,
        group.desired,
        time(group.created),
    )
}

fn group_instance(state: &State, instance: &Instance, now: Timestamp) -> Option<String> {
    let lifecycle = state.state_of(instance, now).lifecycle()?;
    Some(format!(
        "<InstanceId>{}</InstanceId><InstanceType>m5.large</InstanceType><AvailabilityZone>{}</AvailabilityZone>\
         <LifecycleState>{lifecycle}</LifecycleState><HealthStatus>Healthy</HealthStatus>\
         <ProtectedFromScaleIn>false</ProtectedFromScaleIn>",
        instance.id,
        escape(&instance.zone),
    ))
}

/// Newest first, as Auto Scaling tells them.
pub(super) fn activities(
    state: &State,
    group: Option<&str>,
    ids: &[String],
    now: Timestamp,
) -> String {
    let members: String = state
        .activities
        .iter()
        .rev()
        .filter(|activity| group.is_none_or(|group| activity.group == group))
        .filter(|activity| ids.is_empty() || ids.contains(&activity.id))
        .map(|a| format!("<member>{}</member>", activity(a, now)))
        .collect();
    format!("<Activities>{members}</Activities>")
}

pub(super) fn activity(activity: &Activity, now: Timestamp) -> String {
    let (status, progress, end) = if now >= activity.ends {
        (
            "Successful",
            100,
            format!("<EndTime>{}</EndTime>", time(activity.ends)),
        )
    } else {
        ("InProgress", 0, String::new())
    };
    format!(
        "<ActivityId>{}</ActivityId><AutoScalingGroupName>{}</AutoScalingGroupName><Description>{}</Description>\
         <Cause>{}</Cause><StartTime>{}</StartTime>{end}<StatusCode>{status}</StatusCode><Progress>{progress}</Progress>",
        activity.id,
        escape(&activity.group),
        escape(&activity.description),
        escape(&activity.cause),
        time(activity.started),
    )
}

fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

fn push(xml: &mut String, item: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _written = xml.write_fmt(item);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
