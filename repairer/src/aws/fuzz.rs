//! What AWS answers, whatever it is: read or refused.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::Credentials;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use jiff::Timestamp;
use tokio::runtime::Runtime;

use super::{Aws, Managed};
use crate::cluster::Facts;
use crate::metrics::CountCalls;

const ID: &str = "i-0123456789abcdef0";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    built.unwrap_or_else(|error| panic!("start tokio: {error}"))
});

static CONFIG: LazyLock<SdkConfig> = LazyLock::new(|| {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-west-2"))
        .credentials_provider(Credentials::new("local", "local", None, None, "local"))
        .retry_config(RetryConfig::disabled());
    RUNTIME.block_on(loader.load())
});

/// To each call the next one, and the last to all that follow.
#[derive(Debug)]
struct Answers {
    status: StatusCode,
    bodies: Vec<Vec<u8>>,
    calls: AtomicUsize,
}

impl HttpConnector for Answers {
    fn call(&self, _request: HttpRequest) -> HttpConnectorFuture {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let body = self.bodies.get(call).or(self.bodies.last());
        let body = SdkBody::from(body.cloned().unwrap_or_default());
        HttpConnectorFuture::ready(Ok(HttpResponse::new(self.status, body)))
    }
}

/// `200 members`, and the bodies below a line `--` each: what is asked, and how its calls are answered.
/// Whether that could be read.
pub(crate) fn answers(bytes: &[u8], now: Timestamp) -> bool {
    let mut parts = bytes.splitn(2, |&byte| byte == b'\n');
    let first = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let Some((status, asked)) = first.split_once(' ') else {
        return false;
    };
    let status = status
        .parse()
        .ok()
        .and_then(|status: u16| StatusCode::try_from(status).ok());
    let Some(status) = status else {
        return false;
    };
    let bodies = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let bodies = bodies.split("\n--\n");
    let answer = SharedHttpConnector::new(Answers {
        status,
        bodies: bodies.map(|body| body.as_bytes().to_vec()).collect(),
        calls: AtomicUsize::new(0),
    });
    let http = http_client_fn(move |_settings, _components| answer.clone());
    let config = CONFIG.to_builder().http_client(http).build();
    let aws = Aws::with(&config, CountCalls(Arc::default()))
        .unwrap_or_else(|error| panic!("make the clients: {error:#}"));
    let one = |text: &str| BTreeSet::from([text.to_owned()]);
    let managed = Managed {
        cluster: "c".to_owned(),
        name: "g".to_owned(),
    };
    match asked {
        "describe" => said(aws.describe(&one(ID)), |found| {
            assert!(found.keys().all(|id| id == ID), "{found:?}");
        }),
        "members" => said(aws.members(&one("g")), |members| {
            for member in members {
                assert!(member.id.as_str().is_ascii(), "{member:?}");
            }
        }),
        "last-facts" => {
            let facts = Facts {
                spot: true,
                reservation: Some("cr-1".to_owned()),
                ..Facts::default()
            };
            said(aws.last_facts(ID, &facts), drop)
        }
        "checks" => said(aws.checks(now), drop),
        "launches" => said(aws.launches("g", Some(&managed)), drop),
        "cluster" => said(aws.cluster_arn("c"), drop),
        "shifted" => said(aws.shifted("arn", now), drop),
        _ => false,
    }
}

/// What cannot be read is an error that says so.
fn said<T>(call: impl Future<Output = anyhow::Result<T>>, look: impl FnOnce(T)) -> bool {
    match RUNTIME.block_on(call) {
        Ok(answer) => {
            look(answer);
            true
        }
        Err(error) => {
            assert!(!format!("{error:#}").is_empty());
            false
        }
    }
}
