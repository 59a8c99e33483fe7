//! What is read, and what is made of it.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use nodemend_tests::cloud::{Fault, Kind, NodeGroup, Shift};
use serde_json::json;

use super::{GROUP, Scene};
use crate::aws::Managed;
use crate::clock;
use crate::cluster::InstanceState;

#[tokio::test]
async fn instances_are_described_with_what_says_whose_they_are() {
    let scene = Scene::start().await;
    let alone = scene.cloud.create_instance("us-west-2b");
    scene.cloud.instance(scene.id(), |instance| {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        instance.tags = vec![
            tag("eks:nodegroup-name", "blue"),
            tag("Name", "of no interest"),
        ];
    });
    let gone = "i-0123456789abcdef0".to_owned();
    let ids = [scene.id().to_owned(), alone.clone(), gone.clone()].into();
    let views = scene.aws.describe(&ids).await.unwrap();
    let first = &views[scene.id()];
    assert_eq!(
        (first.group.as_deref(), first.lifecycle.as_deref()),
        (Some(GROUP), Some("InService"))
    );
    assert_eq!(first.facts.zone_id.as_deref(), Some("usw2-az1"));
    let tags: Vec<_> = first.facts.tags.keys().map(String::as_str).collect();
    assert_eq!(tags, ["aws:autoscaling:groupName", "eks:nodegroup-name"]);
    assert_eq!(
        (&views[&alone].group, views[&alone].state),
        (&None, InstanceState::There)
    );
    assert_eq!(
        (&views[&gone].group, views[&gone].state),
        (&None, InstanceState::Gone)
    );
    assert_eq!(
        scene.named(),
        [
            "ec2:DescribeInstances",
            "autoscaling:DescribeAutoScalingInstances"
        ]
    );
}

#[tokio::test]
async fn a_read_is_tried_again_by_the_sdk() {
    for kind in [
        Kind::Throttle,
        Kind::Status(500),
        Kind::Reset,
        Kind::LostReply,
    ] {
        let scene = Scene::start().await;
        scene.cloud.add_fault(Fault {
            action: Some("DescribeInstances".to_owned()),
            times: 1,
            kind: kind.clone(),
        });
        let ids: BTreeSet<_> = scene.ids.iter().cloned().collect();
        let views = scene.aws.describe(&ids).await.unwrap();
        assert!(
            views
                .values()
                .all(|view| view.state == InstanceState::There),
            "{kind:?}"
        );
        assert_eq!(scene.named().len(), 3, "{kind:?}");
    }
}

#[tokio::test]
async fn only_what_is_impaired_or_scheduled_is_told() {
    let scene = Scene::start().await;
    let since = clock::now() - SignedDuration::from_mins(5);
    let later = clock::now() + SignedDuration::from_hours(48);
    scene
        .cloud
        .instance(&scene.ids[1], |instance| instance.impaired = Some(since));
    scene.cloud.instance(&scene.ids[2], |instance| {
        instance.events = vec![("instance-retirement".to_owned(), later)];
    });
    scene.cloud.instance(scene.id(), |instance| {
        instance.events = vec![("system-reboot".to_owned(), later)];
    });
    let checks = scene.aws.checks(clock::now()).await.unwrap();
    let impaired: Vec<_> = checks.impaired.iter().collect();
    assert_eq!(impaired.len(), 1);
    assert_eq!(impaired[0].0, &scene.ids[1]);
    assert_eq!(impaired[0].1.reason, "InstanceUnreachable");
    assert_eq!(
        impaired[0].1.since.map(|at| at.as_second()),
        Some(since.as_second())
    );
    let events: Vec<_> = checks
        .events
        .iter()
        .map(|(id, event)| (id, event.reason))
        .collect();
    assert_eq!(events, [(&scene.ids[2], "InstanceRetirement")]);
    assert_eq!(scene.named(), ["ec2:DescribeInstanceStatus"; 3]);
}

#[tokio::test]
async fn a_scan_that_is_not_whole_is_none() {
    for nth in 0..3 {
        let scene = Scene::start().await;
        // The scans before it succeed.
        for _ in 0..nth {
            scene.cloud.add_fault(Fault {
                action: Some("DescribeInstanceStatus".to_owned()),
                times: 1,
                kind: Kind::Hang(std::time::Duration::ZERO),
            });
        }
        scene.cloud.add_fault(Fault {
            action: Some("DescribeInstanceStatus".to_owned()),
            times: 1,
            kind: Kind::Deny,
        });
        scene.aws.checks(clock::now()).await.unwrap_err();
        assert_eq!(scene.named().len(), nth + 1);
    }
}

#[tokio::test]
async fn only_a_shift_that_is_applied_and_not_over_counts() {
    let now = clock::now();
    let shift = |zone: u32, applied, hours, auto| Shift {
        zone_id: format!("usw2-az{zone}"),
        applied,
        expires: now + SignedDuration::from_hours(hours),
        auto,
    };
    let rows = [
        (None, ""),
        (Some(vec![]), ""),
        (Some(vec![shift(1, true, 1, false)]), "usw2-az1"),
        (Some(vec![shift(1, false, 1, false)]), ""),
        (Some(vec![shift(1, true, -1, false)]), ""),
        (Some(vec![shift(2, true, 0, true)]), "usw2-az2"),
        (Some(vec![shift(2, false, 0, true)]), ""),
        // One of two is ended early: the other one stands.
        (
            Some(vec![
                shift(1, false, 1, false),
                shift(3, true, 1, false),
                shift(2, true, 0, true),
            ]),
            "usw2-az2,usw2-az3",
        ),
    ];
    for (shifts, expected) in rows {
        let scene = Scene::start().await;
        scene.cloud.set_shifts(shifts);
        let arn = scene.aws.cluster_arn("prod").await.unwrap();
        let zones = scene.aws.shifted(&arn, now).await.unwrap();
        assert_eq!(zones.into_iter().collect::<Vec<_>>().join(","), expected);
        assert_eq!(
            scene.named(),
            ["eks:DescribeCluster", "arc-zonal-shift:GetManagedResource"]
        );
    }
}

#[tokio::test]
async fn an_arc_that_does_not_answer_is_an_error_and_no_shift() {
    let scene = Scene::start().await;
    let arn = scene.aws.cluster_arn("prod").await.unwrap();
    scene.cloud.add_fault(Fault {
        action: Some("GetManagedResource".to_owned()),
        times: 1,
        kind: Kind::Deny,
    });
    let error = scene.aws.shifted(&arn, clock::now()).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("arc-zonal-shift:GetManagedResource"),
        "{error:#}"
    );
}

#[tokio::test]
async fn a_node_group_that_eks_repairs_itself_is_told() {
    let scene = Scene::start().await;
    let managed = Managed {
        cluster: "prod".to_owned(),
        name: "blue".to_owned(),
    };
    for (config, itself) in [
        (None, false),
        (Some(json!({"enabled": false})), false),
        (Some(json!({"enabled": true})), true),
    ] {
        scene.cloud.set_node_group(NodeGroup {
            cluster: managed.cluster.clone(),
            name: managed.name.clone(),
            group: GROUP.to_owned(),
            status: "ACTIVE".to_owned(),
            issues: Vec::new(),
            repair_config: config,
        });
        let launches = scene.aws.launches(GROUP, Some(&managed)).await.unwrap();
        let node_group = launches.unwrap().node_group.unwrap();
        assert_eq!(node_group.repairs_itself, itself);
    }
}
