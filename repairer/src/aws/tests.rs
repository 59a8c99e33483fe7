//! The real SDK over HTTP against the local AWS: what is asked, how often, and what is made of it.

mod change;
mod endpoint;
mod iam;
mod preflight;
mod reads;

use std::sync::Arc;

#[expect(deprecated, reason = "the new names are in a crate of the SDK's own")]
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
use aws_config::{BehaviorVersion, Region};
use nodemend_tests::cloud::{Call, Clock, Cloud, Delays};

use super::{Aws, configured};
use crate::cluster::InstanceId;
use crate::metrics::CountCalls;

pub(super) const GROUP: &str = "workers";
const CREDENTIALS: &str = "[default]\naws_access_key_id = local\naws_secret_access_key = local\n";

/// A group of three, and the SDK pointed at it and at nothing else.
pub(super) struct Scene {
    pub(super) cloud: Cloud,
    pub(super) aws: Aws,
    pub(super) ids: Vec<String>,
}

impl Scene {
    pub(super) async fn start() -> Self {
        Self::start_with(Clock::Real, Delays::default()).await
    }

    #[expect(deprecated, reason = "as above")]
    pub(super) async fn start_with(clock: Clock, delays: Delays) -> Self {
        let cloud = Cloud::start_with(clock, delays).await.unwrap();
        let ids = cloud.create_group(GROUP, &["us-west-2a", "us-west-2b", "us-west-2a"]);
        let files = ProfileFiles::builder()
            .with_contents(ProfileFileKind::Credentials, CREDENTIALS)
            .build();
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .endpoint_url(cloud.url())
            .region(Region::new("us-west-2"))
            .profile_files(files);
        let config = configured(loader).await.unwrap();
        let aws = Aws::with(&config, CountCalls(Arc::default())).unwrap();
        Self { cloud, aws, ids }
    }

    /// Of the instance that is acted on.
    pub(super) fn id(&self) -> &str {
        &self.ids[0]
    }

    pub(super) fn instance(&self) -> InstanceId {
        InstanceId::parse(&format!("aws:///us-west-2a/{}", self.id())).unwrap()
    }

    pub(super) fn named(&self) -> Vec<String> {
        self.cloud.calls().iter().map(Call::name).collect()
    }
}
