//! Every cause that stands against a repair: set in the cloud, read by the SDK, told by its name.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use nodemend_tests::cloud::{Clock, Cloud, Delays, NodeGroup};

use super::{GROUP, Scene};
use crate::api::policy::{Replace, ReplaceBy};
use crate::aws::Managed;
use crate::capacity::{self, Cause};

/// As the second look before a call asks them.
const ASKED: [&str; 7] = [
    "ec2:DescribeInstances",
    "autoscaling:DescribeAutoScalingInstances",
    "ec2:DescribeInstanceAttribute",
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeScalingActivities",
    "autoscaling:DescribeInstanceRefreshes",
    "eks:DescribeNodegroup",
];

async fn causes(scene: &Scene, by: ReplaceBy) -> Vec<Cause> {
    let wish = Replace {
        by,
        ..Replace::default()
    };
    let id = scene.id().to_owned();
    let mut views = scene.aws.describe(&[id.clone()].into()).await.unwrap();
    let mut view = views.remove(&id).unwrap();
    view.facts.last = Some(scene.aws.last_facts(&id, &view.facts).await.unwrap());
    let managed = Managed {
        cluster: "prod".to_owned(),
        name: "blue".to_owned(),
    };
    let launches = scene.aws.launches(GROUP, Some(&managed)).await.unwrap();
    let mut causes = capacity::of_instance(&view, &wish);
    causes.extend(capacity::of_group(GROUP, &launches.unwrap(), &wish));
    causes
}

fn blue(status: &str) -> NodeGroup {
    NodeGroup {
        cluster: "prod".to_owned(),
        name: "blue".to_owned(),
        group: GROUP.to_owned(),
        status: status.to_owned(),
        issues: Vec::new(),
        repair_config: None,
    }
}

fn suspend(cloud: &Cloud, process: &str, why: &str) {
    let (process, why) = (process.to_owned(), why.to_owned());
    cloud.group(GROUP, |group| drop(group.suspended.insert(process, why)));
}

fn lifecycle(cloud: &Cloud, id: &str, state: &str) {
    cloud.instance(id, |instance| instance.lifecycle = Some(state.to_owned()));
}

const USER: &str = "User suspended at 2026-11-28T03:00:00Z";

type Set = fn(&Cloud, &str);

#[tokio::test]
async fn each_cause_is_read_and_told_by_its_name() {
    let rows: [(&str, Set); 20] = [
        ("", |_, _| {}),
        ("", |cloud, _| suspend(cloud, "AZRebalance", USER)),
        ("SuspendedProcess", |cloud, _| {
            suspend(cloud, "Launch", USER)
        }),
        ("SuspendedProcess", |cloud, _| {
            suspend(cloud, "Terminate", USER)
        }),
        ("SuspendedByAws", |cloud, _| {
            suspend(
                cloud,
                "Launch",
                "Administratively suspended: launches have failed for 24 hours",
            );
        }),
        ("Standby", |cloud, id| lifecycle(cloud, id, "Standby")),
        ("WarmPool", |cloud, id| {
            lifecycle(cloud, id, "Warmed:Stopped")
        }),
        ("Detached", |cloud, id| lifecycle(cloud, id, "Detaching")),
        ("NotInService", |cloud, id| {
            lifecycle(cloud, id, "Pending:Wait")
        }),
        ("ScaleInProtection", |cloud, id| {
            cloud.instance(id, |instance| instance.protected_from_scale_in = true);
        }),
        ("TerminationProtection", |cloud, id| {
            cloud.instance(id, |instance| instance.termination_protection = true);
        }),
        ("SpotInterruption", |cloud, id| {
            cloud.instance(id, |instance| {
                instance.spot = Some("marked-for-termination".to_owned())
            });
        }),
        ("CapacityReservation", |cloud, id| {
            // It is not there any more.
            cloud.instance(id, |instance| {
                instance.capacity_reservation = Some("cr-0".to_owned())
            });
        }),
        ("GroupDeleting", |cloud, _| {
            cloud.group(GROUP, |group| {
                group.status = Some("Delete in progress".to_owned())
            });
        }),
        ("Sizes", |cloud, _| {
            cloud.group(GROUP, |group| group.max = 2)
        }),
        ("InstanceRefresh", |cloud, _| {
            cloud.group(GROUP, |group| group.refresh = Some("InProgress".to_owned()));
        }),
        ("", |cloud, _| {
            cloud.group(GROUP, |group| group.refresh = Some("Successful".to_owned()));
        }),
        ("WarmPoolReuse", |cloud, _| {
            cloud.group(GROUP, |group| group.reuse_on_scale_in = true);
        }),
        ("NodeGroup", |cloud, _| {
            cloud.set_node_group(blue("UPDATING"))
        }),
        ("NodeGroup", |cloud, _| {
            let issue = (
                "AccessDenied".to_owned(),
                "the node role is gone".to_owned(),
            );
            cloud.set_node_group(NodeGroup {
                issues: vec![issue],
                ..blue("DEGRADED")
            });
        }),
    ];
    for (expected, set) in rows {
        let scene = Scene::start().await;
        scene.cloud.set_node_group(blue("ACTIVE"));
        set(&scene.cloud, scene.id());
        let told = causes(&scene, ReplaceBy::Terminate).await;
        let names: Vec<_> = told.iter().map(|cause| cause.name).collect();
        assert_eq!(names.join(","), expected, "{told:?}");
        let further = [
            "ec2:DescribeSpotInstanceRequests",
            "ec2:DescribeCapacityReservations",
        ];
        let mut asked = scene.named();
        asked.retain(|name| !further.contains(&name.as_str()));
        assert_eq!(asked, ASKED, "{expected}");
    }
}

#[tokio::test]
async fn a_launch_before_the_terminate_needs_more() {
    let rows: [(&str, Set); 5] = [
        ("", |_, _| {}),
        ("SuspendedProcess", |cloud, _| {
            suspend(cloud, "HealthCheck", USER)
        }),
        ("SuspendedProcess", |cloud, _| {
            suspend(cloud, "ReplaceUnhealthy", USER)
        }),
        ("MaintenancePolicy", |cloud, _| {
            cloud.group(GROUP, |group| group.maintenance = Some((90, 100)));
        }),
        ("CapacityReservation", |cloud, id| {
            cloud.set_reservation("cr-1", 1);
            cloud.instance(id, |instance| {
                instance.capacity_reservation = Some("cr-1".to_owned())
            });
        }),
    ];
    for (expected, set) in rows {
        let scene = Scene::start().await;
        scene.cloud.set_node_group(blue("ACTIVE"));
        scene
            .cloud
            .group(GROUP, |group| group.maintenance = Some((100, 110)));
        set(&scene.cloud, scene.id());
        let told = causes(&scene, ReplaceBy::InstanceHealth).await;
        let names: Vec<_> = told.iter().map(|cause| cause.name).collect();
        assert_eq!(names.join(","), expected, "{told:?}");
    }
}

#[tokio::test]
async fn failed_launches_are_counted_from_the_newest_until_one_that_succeeded() {
    use std::sync::{Arc, Mutex};
    let now = Arc::new(Mutex::new(Timestamp::from_second(1_800_000_000).unwrap()));
    let pass = |seconds| *now.lock().unwrap() += Duration::from_secs(seconds);
    let delay = Duration::from_secs(10);
    let delays = Delays {
        pending: delay,
        shutting_down: delay,
        replacement: delay,
        consistency: Duration::ZERO,
    };
    let scene = Scene::start_with(Clock::Manual(Arc::clone(&now)), delays).await;
    let failure = "We currently do not have sufficient p5.48xlarge capacity. (Code: InsufficientInstanceCapacity)";
    scene.cloud.group(GROUP, |group| {
        group.launch_failure = Some(failure.to_owned())
    });
    let clearance = crate::decide::InstanceTarget::of_a_test(scene.instance());
    scene
        .aws
        .terminate(clearance, crate::lease::Term::of_a_test())
        .await;
    let mut failed = BTreeMap::new();
    for second in [0, 10, 20, 30, 40, 50] {
        let launches = scene.aws.launches(GROUP, None).await.unwrap().unwrap();
        let causes = capacity::of_group(GROUP, &launches, &Replace::default());
        let names: Vec<_> = causes.iter().map(|cause| cause.name).collect();
        failed.insert(second, (launches.failed, names.join(",")));
        if second == 30 {
            scene
                .cloud
                .group(GROUP, |group| group.launch_failure = None);
        }
        pass(10);
    }
    // The one that succeeds takes 10 s.
    let expected = [(0, 0), (10, 1), (20, 2), (30, 3), (40, 3), (50, 0)];
    for (second, count) in expected {
        let name = if count >= 3 {
            "InsufficientCapacity"
        } else {
            ""
        };
        assert_eq!(
            failed[&second],
            (count, name.to_owned()),
            "after {second} s"
        );
    }
}

#[tokio::test]
async fn what_aws_does_not_tell_is_an_error() {
    let scene = Scene::start().await;
    scene
        .cloud
        .allow_only(["autoscaling:DescribeAutoScalingGroups".to_owned()].into());
    let error = scene.aws.launches(GROUP, None).await.unwrap_err();
    let message = format!("{error:#}");
    assert!(
        message.contains("autoscaling:DescribeScalingActivities"),
        "{message}"
    );
    let error = scene
        .aws
        .describe(&scene.ids.iter().cloned().collect())
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("ec2:DescribeInstances"));
}
