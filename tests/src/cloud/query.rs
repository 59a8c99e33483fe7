//! PURE. The query protocol of EC2 and Auto Scaling: form fields in, XML out. Each action reads
//! its parameters, looks at or changes the state, and says its answer.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::render;
use super::state::{self, Instance, Refusal, State};

pub(super) type Params = BTreeMap<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Ec2,
    AutoScaling,
}

impl Service {
    /// Both services are at the same address; the API version tells them apart.
    pub(super) fn of(params: &Params) -> Option<Self> {
        match params.get("Version")?.as_str() {
            "2016-11-15" => Some(Self::Ec2),
            "2011-01-01" => Some(Self::AutoScaling),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::AutoScaling => "autoscaling",
        }
    }

    pub(super) fn throttling(self) -> Refusal {
        let (status, code) = match self {
            Self::Ec2 => (503, "RequestLimitExceeded"),
            Self::AutoScaling => (400, "Throttling"),
        };
        Refusal {
            status,
            code: code.to_owned(),
            message: "Request limit exceeded.".to_owned(),
        }
    }
}

/// The inside of the answer's element.
pub(super) fn answer(
    service: Service,
    action: &str,
    params: &Params,
    state: &mut State,
    now: Timestamp,
) -> Result<String, Refusal> {
    match (service, action) {
        (Service::Ec2, "DescribeInstances") => {
            let chosen = choose(state, params, now)?;
            Ok(render::instances(state, &chosen, now))
        }
        (Service::Ec2, "DescribeInstanceStatus") => {
            let chosen = choose(state, params, now)?;
            let all = params
                .get("IncludeAllInstances")
                .is_some_and(|value| value == "true");
            Ok(render::instance_status(state, &chosen, all, now))
        }
        (Service::Ec2, "RebootInstances") => {
            state.reboot(&list(params, "InstanceId"), now)?;
            Ok("<return>true</return>".to_owned())
        }
        (Service::AutoScaling, "DescribeAutoScalingInstances") => {
            let ids = list(params, "InstanceIds.member");
            Ok(render::group_instances(state, &ids, now))
        }
        (Service::AutoScaling, "DescribeAutoScalingGroups") => {
            let names = list(params, "AutoScalingGroupNames.member");
            Ok(render::groups(state, &names, now))
        }
        (Service::AutoScaling, "DescribeScalingActivities") => {
            let group = params.get("AutoScalingGroupName").map(String::as_str);
            let ids = list(params, "ActivityIds.member");
            Ok(render::activities(state, group, &ids, now))
        }
        (Service::AutoScaling, "TerminateInstanceInAutoScalingGroup") => {
            let id = required(params, "InstanceId")?;
            let decrement = match required(params, "ShouldDecrementDesiredCapacity")? {
                "true" => true,
                "false" => false,
                other => {
                    return Err(Refusal::client(
                        "ValidationError",
                        format!("'{other}' is not a boolean"),
                    ));
                }
            };
            let activity = state.terminate_in_group(id, decrement, now)?;
            Ok(format!(
                "<Activity>{}</Activity>",
                render::activity(&activity, now)
            ))
        }
        (Service::Ec2 | Service::AutoScaling, unknown) => Err(Refusal::client(
            "InvalidAction",
            format!("The action {unknown} is not valid for this web service."),
        )),
    }
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
        if !state.instances.contains_key(id) {
            return Err(state::no_such_instance(id));
        }
    }
    let mut chosen = Vec::new();
    for instance in state.instances.values() {
        let named = ids.is_empty() || ids.contains(&instance.id);
        if named && passes(state, instance, params, now)? {
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
        let actual = match name.as_str() {
            "instance-id" => instance.id.as_str(),
            "private-dns-name" => instance.private_dns.as_str(),
            "availability-zone" => instance.zone.as_str(),
            "instance-state-name" => state.state_of(instance, now).name_and_code().0,
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
