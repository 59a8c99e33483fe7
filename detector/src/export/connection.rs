//! The requests to the API server: each with a deadline, and what a refusal says about the next try.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::Response;
use http::header::RETRY_AFTER;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use kube::client::ClientBuilder;
use kube::{Api, Client, Config};
use serde_json::Value;
use tokio::time::timeout;
use tower::util::MapResponseLayer;
use tracing::{error, warn};

use super::LONGEST_ROUND;
use super::foreign::MANAGER;
use crate::clock;
use crate::metrics::Metrics;

/// kube has no read timeout of its own; what takes longer, also byte by byte, is tried again on a
/// new connection.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// No `Retry-After` in the last answer.
const NOT_ASKED: u64 = u64::MAX;

pub(super) struct Connection {
    config: Config,
    client: Client,
    node: String,
    /// Seconds, of the last answer. There is one request at a time.
    asked: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

/// The API server did not take it.
pub(super) struct Refusal {
    /// HTTP status; 0 when there was no answer.
    pub(super) code: u16,
    /// How long the server wants us to wait.
    pub(super) asked: Option<Duration>,
    pub(super) error: anyhow::Error,
}

impl Connection {
    pub(super) fn new(config: Config, node: &str, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicU64::new(NOT_ASKED));
        Ok(Self {
            client: client(&config, &asked)?,
            config,
            node: node.to_owned(),
            asked,
            metrics,
        })
    }

    pub(super) async fn get_node(&mut self) -> Result<Node, Refusal> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = self.node.clone();
        self.request("get Node", nodes.get(&node)).await
    }

    pub(super) async fn patch_node_status(&mut self, patch: Value) -> Result<Node, Refusal> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (node, patch) = (self.node.clone(), Patch::Strategic(patch));
        let parameters = parameters();
        self.request(
            "patch status of Node",
            nodes.patch_status(&node, &parameters, &patch),
        )
        .await
    }

    pub(super) async fn create_event(&mut self, event: &Event) -> Result<(), Refusal> {
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        self.request("create Event", events.create(&parameters, event))
            .await
            .map(drop)
    }

    pub(super) async fn patch_event(
        &mut self,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<(), Refusal> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let (parameters, patch) = (parameters(), Patch::Merge(patch));
        self.request("patch Event", events.patch(name, &parameters, &patch))
            .await
            .map(drop)
    }

    async fn request<T>(
        &mut self,
        verb: &'static str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Refusal> {
        self.asked.store(NOT_ASKED, Ordering::Relaxed);
        let limit = clock::boot() + REQUEST_TIMEOUT + LONGEST_ROUND;
        self.metrics.exporter_back_by(Some(limit));
        self.metrics.requested(verb);
        let refusal = match timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                let header = self.asked.load(Ordering::Relaxed);
                let header = (header != NOT_ASKED).then(|| Duration::from_secs(header));
                explain(error, header, &self.node)
            }
            Err(_elapsed) => {
                let seconds = REQUEST_TIMEOUT.as_secs();
                Refusal {
                    code: 0,
                    asked: None,
                    error: anyhow!("no answer from the API server within {seconds} s"),
                }
            }
        };
        self.metrics
            .export_failed(verb, refusal.code, &refusal.error);
        if refusal.code == 401 {
            self.renew();
        }
        Err(refusal)
    }

    /// kube reads a token file again after a minute; a token that has expired must not wait for it.
    fn renew(&mut self) {
        match client(&self.config, &self.asked) {
            Ok(client) => self.client = client,
            Err(error) => error!(
                error = format!("{error:#}"),
                "the token cannot be read again; the old one stays in use"
            ),
        }
    }

    pub(super) fn complain(&self, verb: &str, error: &anyhow::Error, delay: Duration) {
        warn!(
            verb,
            node = self.node,
            error = format!("{error:#}"),
            retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            "the API server did not take it"
        );
    }
}

/// `kube::Error` has no headers, and the API server's own 429 has no body with the number in it.
fn client(config: &Config, asked: &Arc<AtomicU64>) -> anyhow::Result<Client> {
    let asked = Arc::clone(asked);
    let remember = MapResponseLayer::new(move |response: Response<_>| {
        let seconds = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        asked.store(seconds.unwrap_or(NOT_ASKED), Ordering::Relaxed);
        response
    });
    Ok(ClientBuilder::try_from(config.clone())
        .context("make a Kubernetes client")?
        .with_layer(&remember)
        .build())
}

fn parameters() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Names the remedy of what a person must mend.
fn explain(error: kube::Error, header: Option<Duration>, node: &str) -> Refusal {
    let (code, body) = match &error {
        kube::Error::Api(status) => {
            let details = status.details.as_ref();
            let seconds = details.map_or(0, |details| details.retry_after_seconds);
            (status.code, Some(seconds).filter(|&seconds| seconds > 0))
        }
        _ => (0, None),
    };
    let error = anyhow::Error::new(error);
    let error = match code {
        401 => error.context("the API server does not know this token: is the service account still there?"),
        403 => error.context("RBAC forbids it: apply deploy/rbac/detector.yaml and use the service account nodemend-detector"),
        404 => error.context(format!("no Node `{node}`: --node-name (NODE_NAME) must be the name of this host's Node object")),
        _ => error,
    };
    Refusal {
        code,
        asked: header.or(body.map(|seconds| Duration::from_secs(seconds.into()))),
        error,
    }
}
