//! PURE. The XML of answers. Element names and nesting are those of the service models of the EC2
//! (2016-11-15) and Auto Scaling (2011-01-01) APIs, for the members that callers here read.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::group::Group;
use super::machine::{Instance, InstanceState};
use super::service::Service;
use super::state::{Activity, Refusal, State};

pub(super) fn success(service: Service, action: &str, inside: &str, request_id: &str) -> String {
    match service {
        Service::Ec2 => format!(
            "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>{request_id}</requestId>{inside}</{action}Response>"
        ),
        Service::Eks | Service::ZonalShift => inside.to_owned(),
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
        Service::Eks | Service::ZonalShift => {
            serde_json::json!({"message": refusal.message}).to_string()
        }
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
        let (name, code) = instance.state(&state.delays, now).name_and_code();
        let reservation = instance.id.replacen("i-", "r-", 1);
        let spot = match &instance.spot {
            Some(_) => "<instanceLifecycle>spot</instanceLifecycle>",
            None => "",
        };
        let reserved = instance.capacity_reservation.as_ref().map(|id| {
            format!(
                "<capacityReservationId>{}</capacityReservationId>",
                escape(id)
            )
        });
        push(
            &mut xml,
            format_args!(
                "<item><reservationId>{reservation}</reservationId><ownerId>123456789012</ownerId><groupSet/><instancesSet><item>\
             <instanceId>{}</instanceId><imageId>ami-00000000000000001</imageId>\
             <instanceState><code>{code}</code><name>{name}</name></instanceState>\
             <privateDnsName>{}</privateDnsName><instanceType>m5.large</instanceType><launchTime>{}</launchTime>\
             <placement><availabilityZone>{}</availabilityZone><availabilityZoneId>{}</availabilityZoneId><tenancy>default</tenancy></placement>\
             {spot}{}<tagSet>{}</tagSet></item></instancesSet></item>",
                instance.id,
                instance.private_dns,
                time(instance.launched),
                escape(&instance.zone),
                instance.zone_id(),
                reserved.unwrap_or_default(),
                tags(instance),
            ),
        );
    }
    format!("<reservationSet>{xml}</reservationSet>")
}

fn tags(instance: &Instance) -> String {
    let group = (
        "aws:autoscaling:groupName".to_owned(),
        instance.group.clone(),
    );
    let group = (!instance.group.is_empty()).then_some(group);
    let all = group.iter().chain(&instance.tags);
    all.map(|(key, value)| {
        let (key, value) = (escape(key), escape(value));
        format!("<item><key>{key}</key><value>{value}</value></item>")
    })
    .collect()
}

/// Status and reachability, of the instance and of the system below it.
pub(super) fn checks(
    state: &State,
    instance: &Instance,
    now: Timestamp,
) -> [(&'static str, &'static str); 2] {
    if instance.state(&state.delays, now) != InstanceState::Running {
        return [("not-applicable", "insufficient-data"); 2];
    }
    match instance.impaired.filter(|since| *since <= now) {
        Some(_) => [("impaired", "failed"), ("ok", "passed")],
        None => [("ok", "passed"); 2],
    }
}

/// EC2 tells of instances that are not running only when asked for all.
pub(super) fn instance_status(state: &State, ids: &[String], all: bool, now: Timestamp) -> String {
    let mut xml = String::new();
    for instance in ids.iter().filter_map(|id| state.instances.get(id)) {
        let current = instance.state(&state.delays, now);
        if current != InstanceState::Running && !all {
            continue;
        }
        let (name, code) = current.name_and_code();
        let [of_instance, of_system] = checks(state, instance, now);
        let details = |(status, reachability): (&str, &str)| {
            let since = instance.impaired.filter(|_| status == "impaired");
            let since = since.map(|at| format!("<impairedSince>{}</impairedSince>", time(at)));
            format!(
                "<status>{status}</status><details><item><name>reachability</name><status>{reachability}</status>{}</item></details>",
                since.unwrap_or_default()
            )
        };
        let events: String = instance
            .events
            .iter()
            .map(|(code, at)| {
                format!(
                    "<item><instanceEventId>instance-event-0</instanceEventId><code>{}</code><description>scheduled</description><notBefore>{}</notBefore></item>",
                    escape(code),
                    time(*at)
                )
            })
            .collect();
        push(
            &mut xml,
            format_args!(
                "<item><instanceId>{}</instanceId><availabilityZone>{}</availabilityZone>\
             <instanceState><code>{code}</code><name>{name}</name></instanceState>\
             <systemStatus>{}</systemStatus><instanceStatus>{}</instanceStatus><eventsSet>{events}</eventsSet></item>",
                instance.id,
                escape(&instance.zone),
                details(of_system),
                details(of_instance),
            ),
        );
    }
    format!("<instanceStatusSet>{xml}</instanceStatusSet>")
}

pub(super) fn termination_protection(instance: &Instance) -> String {
    format!(
        "<instanceId>{}</instanceId><disableApiTermination><value>{}</value></disableApiTermination>",
        instance.id, instance.termination_protection
    )
}

pub(super) fn spot_requests(state: &State, ids: &[String]) -> String {
    let requests: String = ids
        .iter()
        .filter_map(|id| {
            let code = state.instances.get(id)?.spot.as_ref()?;
            Some(format!(
                "<item><spotInstanceRequestId>sir-00000001</spotInstanceRequestId><instanceId>{id}</instanceId><state>active</state>\
                 <status><code>{}</code></status></item>",
                escape(code)
            ))
        })
        .collect();
    format!("<spotInstanceRequestSet>{requests}</spotInstanceRequestSet>")
}

pub(super) fn capacity_reservations(state: &State, ids: &[String], now: Timestamp) -> String {
    let reservations: String = ids
        .iter()
        .filter_map(|id| Some((id, *state.reservations.get(id)?)))
        .map(|(id, total)| {
            let uses = |instance: &&Instance| {
                instance.capacity_reservation.as_ref() == Some(id)
                    && !instance.state(&state.delays, now).is_going()
            };
            let used = state.instances.values().filter(uses).count();
            let free = usize::try_from(total).unwrap_or_default().saturating_sub(used);
            format!(
                "<item><capacityReservationId>{}</capacityReservationId><state>active</state>\
                 <totalInstanceCount>{total}</totalInstanceCount><availableInstanceCount>{free}</availableInstanceCount></item>",
                escape(id)
            )
        })
        .collect();
    format!("<capacityReservationSet>{reservations}</capacityReservationSet>")
}

pub(super) fn refreshes(state: &State, group: &str) -> String {
    let status = state
        .groups
        .get(group)
        .and_then(|group| group.refresh.as_ref());
    let refresh = status.map(|status| {
        format!(
            "<member><InstanceRefreshId>00000000-0000-4000-8000-000000000000</InstanceRefreshId><AutoScalingGroupName>{}</AutoScalingGroupName><Status>{}</Status></member>",
            escape(group),
            escape(status)
        )
    });
    format!(
        "<InstanceRefreshes>{}</InstanceRefreshes>",
        refresh.unwrap_or_default()
    )
}

pub(super) fn group_instances(state: &State, ids: &[String], now: Timestamp) -> String {
    let mut xml = String::new();
    for instance in state
        .instances
        .values()
        .filter(|instance| ids.is_empty() || ids.contains(&instance.id))
    {
        if let Some(member) = group_instance(state, instance, now) {
            let member = member
                .replace(">Healthy<", ">HEALTHY<")
                .replace(">Unhealthy<", ">UNHEALTHY<");
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
    let suspended: String = group
        .suspended
        .iter()
        .map(|(process, why)| {
            let (process, why) = (escape(process), escape(why));
            format!("<member><ProcessName>{process}</ProcessName><SuspensionReason>{why}</SuspensionReason></member>")
        })
        .collect();
    let status = group
        .status
        .as_ref()
        .map(|status| format!("<Status>{}</Status>", escape(status)));
    let maintenance = group.maintenance.map(|(least, most)| {
        format!(
            "<InstanceMaintenancePolicy><MinHealthyPercentage>{least}</MinHealthyPercentage><MaxHealthyPercentage>{most}</MaxHealthyPercentage></InstanceMaintenancePolicy>"
        )
    });
    let warm_pool = group.reuse_on_scale_in.then_some(
        "<WarmPoolConfiguration><MinSize>0</MinSize><InstanceReusePolicy><ReuseOnScaleIn>true</ReuseOnScaleIn></InstanceReusePolicy></WarmPoolConfiguration>",
    );
    format!(
        "<AutoScalingGroupName>{name}</AutoScalingGroupName>\
         <AutoScalingGroupARN>arn:aws:autoscaling:us-west-2:123456789012:autoScalingGroup:0:autoScalingGroupName/{name}</AutoScalingGroupARN>\
         <MinSize>{}</MinSize><MaxSize>{}</MaxSize><DesiredCapacity>{}</DesiredCapacity><DefaultCooldown>300</DefaultCooldown>\
         <AvailabilityZones>{zones}</AvailabilityZones><HealthCheckType>EC2</HealthCheckType>\
         <HealthCheckGracePeriod>0</HealthCheckGracePeriod><Instances>{instances}</Instances>\
         <CreatedTime>{}</CreatedTime><SuspendedProcesses>{suspended}</SuspendedProcesses>{}{}{}<Tags/>",
        group.min,
        group.max,
        group.desired,
        time(group.created),
        status.unwrap_or_default(),
        maintenance.unwrap_or_default(),
        warm_pool.unwrap_or_default(),
    )
}

fn group_instance(state: &State, instance: &Instance, now: Timestamp) -> Option<String> {
    let lifecycle = instance.lifecycle(&state.delays, now)?;
    let health = if instance.unhealthy {
        "Unhealthy"
    } else {
        "Healthy"
    };
    Some(format!(
        "<InstanceId>{}</InstanceId><InstanceType>m5.large</InstanceType><AvailabilityZone>{}</AvailabilityZone>\
         <LifecycleState>{}</LifecycleState><HealthStatus>{health}</HealthStatus>\
         <ProtectedFromScaleIn>{}</ProtectedFromScaleIn>",
        instance.id,
        escape(&instance.zone),
        escape(lifecycle),
        instance.protected_from_scale_in,
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
    let ended = match &activity.failure {
        Some(_) => "Failed",
        None => "Successful",
    };
    let why = activity
        .failure
        .as_ref()
        .map(|why| format!("<StatusMessage>{}</StatusMessage>", escape(why)));
    let (status, progress, end) = if now >= activity.ends {
        (
            ended,
            100,
            format!("<EndTime>{}</EndTime>", time(activity.ends)),
        )
    } else {
        ("InProgress", 0, String::new())
    };
    format!(
        "<ActivityId>{}</ActivityId><AutoScalingGroupName>{}</AutoScalingGroupName><Description>{}</Description>\
         <Cause>{}</Cause><StartTime>{}</StartTime>{end}<StatusCode>{status}</StatusCode>{}<Progress>{progress}</Progress>",
        activity.id,
        escape(&activity.group),
        escape(&activity.description),
        escape(&activity.cause),
        time(activity.started),
        why.unwrap_or_default(),
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
