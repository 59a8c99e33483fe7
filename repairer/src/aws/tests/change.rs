//! What a call comes to that changes something, whatever goes wrong. Each is sent once.

use std::time::Duration;

use nodemend_tests::cloud::{Answer, Call, Cloud, Fault, InstanceState, Kind};

use super::{GROUP, Scene};
use crate::aws::Outcome;
use crate::decide::InstanceTarget;
use crate::lease::Term;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Terminate,
    SetUnhealthy,
    Reboot,
}

impl Act {
    const ALL: [Self; 3] = [Self::Terminate, Self::SetUnhealthy, Self::Reboot];

    fn call(self) -> &'static str {
        match self {
            Self::Terminate => "autoscaling:TerminateInstanceInAutoScalingGroup",
            Self::SetUnhealthy => "autoscaling:SetInstanceHealth",
            Self::Reboot => "ec2:RebootInstances",
        }
    }

    /// Exactly what is asked, besides the name.
    fn params(self, id: &str) -> Vec<(String, String)> {
        let pairs: &[(&str, &str)] = match self {
            Self::Terminate => &[
                ("InstanceId", id),
                ("ShouldDecrementDesiredCapacity", "false"),
            ],
            Self::SetUnhealthy => &[
                ("HealthStatus", "Unhealthy"),
                ("InstanceId", id),
                ("ShouldRespectGracePeriod", "false"),
            ],
            Self::Reboot => &[("InstanceId.1", id)],
        };
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    async fn make(self, scene: &Scene) -> Outcome {
        let clearance = InstanceTarget::of_a_test(scene.instance());
        let (aws, term) = (&scene.aws, Term::of_a_test());
        match self {
            Self::Terminate => aws.terminate(clearance, term).await,
            Self::SetUnhealthy => aws.set_unhealthy(clearance, term).await,
            Self::Reboot => aws.reboot(clearance, term).await,
        }
    }

    fn has_acted(self, cloud: &Cloud, id: &str) -> bool {
        let instances = cloud.instances();
        let seen = instances.iter().find(|instance| instance.id == id).unwrap();
        match self {
            Self::Terminate => seen.state != InstanceState::Running,
            Self::SetUnhealthy => {
                let mut unhealthy = false;
                cloud.instance(id, |instance| unhealthy = instance.is_unhealthy());
                unhealthy
            }
            Self::Reboot => seen.reboots == 1,
        }
    }
}

/// The name of the outcome, and its message.
fn told(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Accepted { message, .. } => ("Accepted", message.clone().unwrap_or_default()),
        Outcome::Refused { message, .. } => ("Refused", message.clone()),
        Outcome::Denied { message, .. } => ("Denied", message.clone()),
        Outcome::Throttled { message, .. } => ("Throttled", message.clone()),
        Outcome::Busy { message, .. } => ("Busy", message.clone()),
        Outcome::Unknown { message } => ("Unknown", message.clone()),
    }
}

fn refuse(code: &str) -> Kind {
    Kind::Refuse {
        code: code.to_owned(),
        message: "no".to_owned(),
    }
}

#[tokio::test]
async fn each_fault_ends_one_call_and_says_whether_aws_has_acted() {
    // What goes wrong, the outcome, and whether AWS has done it all the same.
    let rows: Vec<(Option<Kind>, &str, bool)> = vec![
        (None, "Accepted", true),
        (Some(Kind::Throttle), "Throttled", false),
        (Some(Kind::Deny), "Denied", false),
        (Some(refuse("AccessDenied")), "Denied", false),
        (Some(refuse("UnauthorizedOperation")), "Denied", false),
        (Some(refuse("ScalingActivityInProgress")), "Busy", false),
        (Some(refuse("ResourceContention")), "Busy", false),
        (Some(refuse("ValidationError")), "Refused", false),
        (Some(refuse("OperationNotPermitted")), "Refused", false),
        (Some(refuse("InvalidInstanceID.NotFound")), "Refused", false),
        (Some(refuse("ExpiredToken")), "Refused", false),
        (Some(refuse("InternalFailure")), "Unknown", false),
        (Some(Kind::Status(500)), "Unknown", false),
        (Some(Kind::Status(503)), "Unknown", false),
        (Some(Kind::Reset), "Unknown", false),
        (Some(Kind::LostReply), "Unknown", true),
    ];
    for act in Act::ALL {
        for (fault, expected, acted) in &rows {
            let scene = Scene::start().await;
            let before = scene.cloud.sizes(GROUP);
            if let Some(kind) = fault.clone() {
                scene.cloud.add_fault(Fault {
                    action: None,
                    times: 1,
                    kind,
                });
            }
            let outcome = act.make(&scene).await;
            let what = format!("{act:?} {fault:?}: {outcome:?}");
            assert_eq!(told(&outcome).0, *expected, "{what}");
            assert_eq!(act.has_acted(&scene.cloud, scene.id()), *acted, "{what}");
            assert_eq!(scene.cloud.sizes(GROUP), before, "{what}");
            assert_sent_once(act, &scene, &what);
        }
    }
}

fn assert_sent_once(act: Act, scene: &Scene, what: &str) {
    let calls = scene.cloud.calls();
    let [call] = calls.as_slice() else {
        panic!("{what}: {calls:?}");
    };
    assert_eq!(call.name(), act.call(), "{what}");
    let params: Vec<_> = call.params.clone().into_iter().collect();
    assert_eq!(params, act.params(scene.id()), "{what}");
    assert_eq!(call.attempt.as_deref(), Some("attempt=1; max=1"), "{what}");
    assert!(
        call.authorized && call.user_agent.contains("nodemend"),
        "{what}"
    );
}

#[tokio::test]
async fn a_call_that_hangs_is_given_up_and_not_sent_again() {
    let scene = Scene::start().await;
    scene.cloud.add_fault(Fault {
        action: None,
        times: 1,
        kind: Kind::Hang(Duration::from_secs(3600)),
    });
    let outcome = Act::Terminate.make(&scene).await;
    assert_eq!(told(&outcome).0, "Unknown");
    assert_sent_once(Act::Terminate, &scene, "hang");
}

#[tokio::test]
async fn the_request_id_and_the_activity_are_told() {
    let scene = Scene::start().await;
    let outcome = Act::Terminate.make(&scene).await;
    let Outcome::Accepted {
        request_id,
        message,
    } = &outcome
    else {
        panic!("{outcome:?}");
    };
    assert!(request_id.is_some());
    let id = scene.id();
    assert_eq!(
        message.as_deref(),
        Some(format!("Terminating EC2 instance: {id}").as_str())
    );
}

#[tokio::test]
async fn who_is_denied_is_told_what_is_missing() {
    let scene = Scene::start().await;
    scene
        .cloud
        .allow_only(["ec2:DescribeInstances".to_owned()].into());
    for act in Act::ALL {
        let (outcome, message) = told(&act.make(&scene).await);
        assert_eq!(outcome, "Denied");
        assert!(message.contains(act.call()), "{message}");
    }
}

#[tokio::test]
async fn throttling_pauses_the_calls_of_all_repairs() {
    let scene = Scene::start().await;
    scene.cloud.add_fault(Fault {
        action: None,
        times: 50,
        kind: Kind::Throttle,
    });
    let mut sent = 0;
    // Fifty repairs that would all go on at once.
    for _ in 0..50 {
        if scene.aws.must_wait().is_none() {
            Act::Terminate.make(&scene).await;
            sent += 1;
        }
    }
    assert_eq!(scene.cloud.calls().len(), sent);
    assert!(sent <= 5, "{sent} calls in the face of throttling");
    assert!(
        scene
            .cloud
            .calls()
            .iter()
            .all(|call| call.answer == Answer::Error("Throttling".to_owned()))
    );
}

/// A hook of somebody else's holds the instance: it is waited for, never completed.
#[tokio::test]
async fn a_hook_is_waited_for() {
    let scene = Scene::start().await;
    let hour = Some(Duration::from_secs(3600));
    scene
        .cloud
        .group(GROUP, |group| group.terminating_hook = hour);
    assert_eq!(told(&Act::Terminate.make(&scene).await).0, "Accepted");
    let ids = [scene.id().to_owned()].into();
    let view = scene
        .aws
        .describe(&ids)
        .await
        .unwrap()
        .remove(scene.id())
        .unwrap();
    assert_eq!(view.lifecycle.as_deref(), Some("Terminating:Wait"));
    assert!(view.is_ending());
    let again = Act::Terminate.make(&scene).await;
    assert_eq!(told(&again).0, "Busy", "{again:?}");
    let mutating: Vec<_> = scene
        .cloud
        .mutating_calls()
        .iter()
        .map(Call::name)
        .collect();
    assert_eq!(mutating, [Act::Terminate.call(); 2]);
    scene.cloud.complete_hook(scene.id());
    let view = scene
        .aws
        .describe(&ids)
        .await
        .unwrap()
        .remove(scene.id())
        .unwrap();
    assert_eq!(view.lifecycle.as_deref(), Some("Terminating"));
}

/// Just after a launch EC2 does not know the instance, and Auto Scaling does.
#[tokio::test]
async fn what_ec2_does_not_know_yet_and_its_group_does_is_unknown() {
    let delays = nodemend_tests::cloud::Delays {
        replacement: Duration::ZERO,
        consistency: Duration::from_secs(60),
        ..Default::default()
    };
    let scene = Scene::start_with(nodemend_tests::cloud::Clock::Real, delays).await;
    Act::Terminate.make(&scene).await;
    let new = scene.cloud.instances().last().unwrap().id.clone();
    let both = [new.clone(), "i-0123456789abcdef0".to_owned()].into();
    let views = scene.aws.describe(&both).await.unwrap();
    assert!(!views.contains_key(&new), "it is taken for gone: {views:?}");
    assert_eq!(views.len(), 1, "what neither of them knows is gone");
}
