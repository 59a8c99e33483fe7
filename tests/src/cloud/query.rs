//! PURE. The query protocol of EC2 and Auto Scaling: form fields in, XML out. Each action reads
//! its parameters, looks at or changes the state, and says its answer.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::machine::Instance;
use super::render;
use super::service::Service;
use super::state::{self, Refusal, State};

pub(super) type Params = BTreeMap<String, String>;

/// The inside of the answer's element.
pub(super) fn answer(
    service: Service,
    action: &str,
    params: &Params,
    state: &mut State,
    now: Timestamp,
) -> Result<String, Refusal> {
    match service {
        Service::Ec2 => ec2(action, params, state, now),
        Service::AutoScaling => auto_scaling(action, params, state, now),
        Service::Eks | Service::ZonalShift => Err(invalid_action(action)),
    }
}

fn ec2(
    action: &str,
    params: &Params,
    state: &mut State,
    now: Timestamp,
) -> Result<String, Refusal> {
    // Descriptions are of a while ago.
    let then = now - state.delays.consistency;
    match action {
        "DescribeInstances" => {
            let chosen = choose(state, params, then)?;
            Ok(render::instances(state, &chosen, then))
        }
        "DescribeInstanceStatus" => {
            let chosen = choose(state, params, then)?;
            let all = params
                .get("IncludeAllInstances")
                .is_some_and(|value| value == "true");
            Ok(render::instance_status(state, &chosen, all, then))
        }
        "DescribeInstanceAttribute" => {
            let id = required(params, "InstanceId")?;
            let instance = state.instances.get(id);
            let instance = instance.ok_or_else(|| state::no_such_instance(id))?;
            Ok(render::termination_protection(instance))
        }
        "DescribeSpotInstanceRequests" => {
            let chosen = filtered(params, "instance-id");
            Ok(render::spot_requests(state, &chosen))
        }
        "DescribeCapacityReservations" => {
            let ids = list(params, "CapacityReservationId");
            Ok(render::capacity_reservations(state, &ids, then))
        }
        "RebootInstances" => {
            state.reboot(&list(params, "InstanceId"), now)?;
            Ok("<return>true</return>".to_owned())
        }
        unknown => Err(invalid_action(unknown)),
    }
}

fn auto_scaling(
    action: &str,
    params: &Params,
    state: &mut State,
    now: Timestamp,
) -> Result<String, Refusal> {
    match action {
        "DescribeAutoScalingInstances" => {
            let ids = list(params, "InstanceIds.member");
            Ok(render::group_instances(state, &ids, now))
        }
        "DescribeAutoScalingGroups" => {
            let names = list(params, "AutoScalingGroupNames.member");
            Ok(render::groups(state, &names, now))
        }
        "DescribeScalingActivities" => {
            let group = params.get("AutoScalingGroupName").map(String::as_str);
            let ids = list(params, "ActivityIds.member");
            Ok(render::activities(state, group, &ids, now))
        }
        "DescribeInstanceRefreshes" => {
            let group = required(params, "AutoScalingGroupName")?;
            Ok(render::refreshes(state, group))
        }
        "TerminateInstanceInAutoScalingGroup" => {
            let id = required(params, "InstanceId")?;
            let decrement = boolean(params, "ShouldDecrementDesiredCapacity")?;
            let activity = state.terminate_in_group(id, decrement, now)?;
            Ok(format!(
                "<Activity>{}</Activity>",
                render::activity(&activity, now)
            ))
        }
        "SetInstanceHealth" => {
            let id = required(params, "InstanceId")?;
            let healthy = match required(params, "HealthStatus")? {
                "Healthy" => true,
                "Unhealthy" => false,
                other => {
                    let message = format!("'{other}' is neither Healthy nor Unhealthy");
                    return Err(Refusal::client("ValidationError", message));
                }
            };
            state.set_health(id, healthy, now)?;
            Ok(String::new())
        }
        unknown => Err(invalid_action(unknown)),
    }
}

fn invalid_action(unknown: &str) -> Refusal {
    let message = format!("The action {unknown} is not valid for this web service.");
    Refusal::client("InvalidAction", message)
}

fn boolean(params: &Params, name: &str) -> Result<bool, Refusal> {
    match required(params, name)? {
        "true" => Ok(true),
        "false" => Ok(false),
        other => {
            let message = format!("'{other}' is not a boolean");
            Err(Refusal::client("ValidationError", message))
        }
    }
}

/// The values of one filter.
fn filtered(params: &Params, wanted: &str) -> Vec<String> {
    let filters = (1..).map_while(|index| {
        let name = params.get(&format!("Filter.{index}.Name"))?;
        Some((index, name))
    });
    let mut of_name = filters.filter(|(_, name)| *name == wanted);
    of_name.next().map_or_else(Vec::new, |(index, _)| {
        list(params, &format!("Filter.{index}.Value"))
    })
}

/// A dry run is refused with this when it would have been allowed.
pub(super) fn dry_run(service: Service, params: &Params) -> Option<Refusal> {
    let dry = service == Service::Ec2 && params.get("DryRun").is_some_and(|value| value == "true");
    dry.then(|| Refusal {
        status: 412,
        code: "DryRunOperation".to_owned(),
        message: "Request would have succeeded, but DryRun flag is set.".to_owned(),
    })
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, Refusal> {
    params.get(name).map(String::as_str).ok_or_else(|| {
        Refusal::client("ValidationError", format!("1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"))
    })
}

/// `Name.1`, `Name.2`, ...
fn list(params: &Params, name: &str) -> Vec<String> {
    (1..)
        .map_while(|index| params.get(&format!("{name}.{index}")).cloned())
        .collect()
}

/// The instances that `InstanceId.N` and `Filter.N` select.
fn choose(state: &State, params: &Params, now: Timestamp) -> Result<Vec<String>, Refusal> {
    let ids = list(params, "InstanceId");
    for id in &ids {
        let hex = id.strip_prefix("i-").unwrap_or_default();
        if hex.is_empty() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Refusal::client(
                "InvalidInstanceID.Malformed",
                format!("Invalid id: \"{id}\""),
            ));
        }
        if state.instances.get(id).is_none_or(|i| i.launched > now) {
            return Err(state::no_such_instance(id));
        }
    }
    let mut chosen = Vec::new();
    for instance in state.instances.values() {
        let named = ids.is_empty() || ids.contains(&instance.id);
        if named && instance.launched <= now && passes(state, instance, params, now)? {
            chosen.push(instance.id.clone());
        }
    }
    Ok(chosen)
}

fn passes(
    state: &State,
    instance: &Instance,
    params: &Params,
    now: Timestamp,
) -> Result<bool, Refusal> {
    for index in 1.. {
        let Some(name) = params.get(&format!("Filter.{index}.Name")) else {
            break;
        };
        let values = list(params, &format!("Filter.{index}.Value"));
        let [of_instance, of_system] = render::checks(state, instance, now);
        let event = instance.events.first().map(|(code, _)| code.as_str());
        let actual = match name.as_str() {
            "instance-status.status" => of_instance.0,
            "system-status.status" => of_system.0,
            "event.code" => event.unwrap_or_default(),
            "instance-id" => instance.id.as_str(),
            "private-dns-name" => instance.private_dns.as_str(),
            "availability-zone" => instance.zone.as_str(),
            "instance-state-name" => instance.state(&state.delays, now).name_and_code().0,
            "tag:aws:autoscaling:groupName" => instance.group.as_str(),
            other => {
                return Err(Refusal::client(
                    "InvalidParameterValue",
                    format!("The filter '{other}' is invalid"),
                ));
            }
        };
        if !values.iter().any(|value| value == actual) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::state::Delays;
    use super::*;

    fn ask(action: &str, pairs: &[(&str, &str)]) -> Result<String, Refusal> {
        let now = Timestamp::UNIX_EPOCH;
        let mut state = State::new(Delays::default());
        state.create_group("workers", &["us-west-2a", "us-west-2b"], now);
        let params = pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        answer(Service::Ec2, action, &params, &mut state, now)
    }

    #[test]
    fn a_filter_selects_among_instances() {
        let xml = ask(
            "DescribeInstances",
            &[
                ("Filter.1.Name", "availability-zone"),
                ("Filter.1.Value.1", "us-west-2b"),
            ],
        )
        .unwrap();
        let named = |id: &str| xml.contains(&format!("<instanceId>{id}</instanceId>"));
        assert!(
            !named("i-00000000000000001") && named("i-00000000000000002"),
            "{xml}"
        );
    }

    #[test]
    fn an_unknown_instance_is_not_found() {
        let refusal = ask(
            "DescribeInstances",
            &[("InstanceId.1", "i-0123456789abcdef0")],
        )
        .unwrap_err();
        assert_eq!(refusal.code, "InvalidInstanceID.NotFound");
    }

    #[test]
    fn an_unknown_action_is_invalid() {
        assert_eq!(ask("RunInstances", &[]).unwrap_err().code, "InvalidAction");
    }
}
