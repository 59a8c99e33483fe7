//! That the local AWS does what AWS does, seen through the real SDK: on a clock that the test turns.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use nodemend_tests::cloud::{Clock, Delays};

use super::{GROUP, Scene};
use crate::aws::Outcome;
use crate::cluster::InstanceState;
use crate::decide::InstanceTarget;
use crate::lease::Term;

struct Turned {
    scene: Scene,
    now: Arc<Mutex<Timestamp>>,
}

impl Turned {
    /// Everything takes AWS ten seconds.
    async fn start(consistency: Duration) -> Self {
        let ten = Duration::from_secs(10);
        let now = Arc::new(Mutex::new(Timestamp::from_second(1_800_000_000).unwrap()));
        let delays = Delays {
            pending: ten,
            shutting_down: ten,
            replacement: ten,
            consistency,
        };
        let scene = Scene::start_with(Clock::Manual(Arc::clone(&now)), delays).await;
        Self { scene, now }
    }

    fn pass(&self, seconds: u64) {
        *self.now.lock().unwrap() += Duration::from_secs(seconds);
    }

    async fn terminate(&self) -> Outcome {
        let target = InstanceTarget::of_a_test(self.scene.instance());
        self.scene.aws.terminate(target, Term::of_a_test()).await
    }

    /// The instance that came last.
    fn newest(&self) -> String {
        let instances = self.scene.cloud.instances();
        instances.last().unwrap().id.clone()
    }

    async fn lifecycle(&self, id: &str) -> Option<String> {
        let ids = [id.to_owned()].into();
        let mut views = self.scene.aws.describe(&ids).await.unwrap();
        views.remove(id)?.lifecycle
    }
}

#[tokio::test]
async fn a_launching_hook_holds_an_instance_before_it_serves() {
    let turned = Turned::start(Duration::ZERO).await;
    let cloud = &turned.scene.cloud;
    let hook = Duration::from_secs(60);
    cloud.group(GROUP, |group| group.launching_hook = Some(hook));
    assert!(matches!(turned.terminate().await, Outcome::Accepted { .. }));
    turned.pass(10);
    let new = turned.newest();
    let mut seen = Vec::new();
    for seconds in [5, 10, 40, 30] {
        turned.pass(seconds);
        seen.push(turned.lifecycle(&new).await.unwrap_or_default());
    }
    let expected = ["Pending", "Pending:Wait", "Pending:Wait", "InService"];
    assert_eq!(seen, expected);
    // A member that only waits is none that never joined.
    let groups = [GROUP.to_owned()].into();
    let serving = turned.scene.aws.members(&groups).await.unwrap();
    assert_eq!(serving.len(), 3);
}

#[tokio::test]
async fn an_instance_that_was_just_launched_is_not_known_to_be_gone() {
    let turned = Turned::start(Duration::from_secs(30)).await;
    turned.terminate().await;
    turned.pass(10);
    let new = turned.newest();
    let ids = [new.clone()].into();
    // Auto Scaling knows it, EC2 does not yet: nothing is said.
    let views = turned.scene.aws.describe(&ids).await.unwrap();
    assert!(!views.contains_key(&new), "{views:?}");
    turned.pass(40);
    let views = turned.scene.aws.describe(&ids).await.unwrap();
    assert_eq!(views[&new].state, InstanceState::There);
}

#[tokio::test]
async fn beyond_the_rate_calls_are_throttled_until_the_bucket_fills_again() {
    let turned = Turned::start(Duration::ZERO).await;
    turned.scene.cloud.limit_rate(1, Duration::from_secs(10));
    assert!(matches!(turned.terminate().await, Outcome::Accepted { .. }));
    for _ in 0..3 {
        let told = turned.terminate().await;
        let Outcome::Throttled { message, .. } = told else {
            panic!("{told:?}")
        };
        assert_eq!(message, "Throttling: Rate exceeded");
    }
    turned.pass(10);
    let told = turned.terminate().await;
    // AWS answers: the instance has left its group.
    assert!(matches!(told, Outcome::Refused { .. }), "{told:?}");
}

#[tokio::test]
async fn a_member_that_is_said_to_be_unhealthy_is_described_so() {
    let turned = Turned::start(Duration::ZERO).await;
    // Or the group would act on it at once.
    turned.scene.cloud.group(GROUP, |group| {
        let why = "User suspended at 2026-11-28T03:00:00Z".to_owned();
        group.suspended.insert("HealthCheck".to_owned(), why);
    });
    let (aws, id) = (&turned.scene.aws, turned.scene.id());
    let unhealthy = async || {
        aws.describe(&[id.to_owned()].into()).await.unwrap()[id]
            .facts
            .unhealthy
    };
    assert!(!unhealthy().await);
    let target = InstanceTarget::of_a_test(turned.scene.instance());
    aws.set_unhealthy(target, Term::of_a_test()).await;
    assert!(unhealthy().await);
}

#[tokio::test]
async fn a_replacement_comes_in_the_zone_of_what_it_replaces() {
    let turned = Turned::start(Duration::ZERO).await;
    let before = turned.scene.cloud.sizes(GROUP);
    turned.terminate().await;
    turned.pass(20);
    let ids: std::collections::BTreeSet<_> = turned.scene.ids.iter().cloned().collect();
    let new = turned.newest();
    let all = ids.into_iter().chain([new.clone()]).collect();
    let views = turned.scene.aws.describe(&all).await.unwrap();
    let zone = |id: &str| views[id].facts.zone_id.clone();
    assert_eq!(zone(&new), zone(turned.scene.id()));
    assert_ne!(zone(&new), zone(&turned.scene.ids[1]));
    assert_eq!(turned.scene.cloud.sizes(GROUP), before);
}
