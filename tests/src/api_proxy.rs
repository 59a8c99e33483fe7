//! A reverse proxy before the API server: plain HTTP on loopback in, HTTPS out, the caller's token
//! passed through, watches streamed. It names every call that changes something and can be armed
//! to crash the caller before or after one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use kube::Client;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::connection::Connection;
use crate::control_plane::ControlPlane;
use crate::crash_point::{CrashPoints, When};

/// Larger than what the API server takes (3 MiB).
const MAX_BODY: usize = 4 << 20;

pub struct ApiProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    upstream: Client,
    points: CrashPoints,
    requests: AtomicU64,
    /// The resource whose watches are in trouble.
    trouble: watch::Sender<Option<(String, Trouble)>>,
}

/// What happens to the watches of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// They end, and new ones are refused.
    Cut,
    /// They stay open, and what they would say is lost.
    Silent,
}

/// What the API server says when it has forgotten the version that a watch would go on from.
const GONE: &[u8] = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
    r#""message":"too old resource version","reason":"Expired","code":410}}"#,
    "\n"
)
.as_bytes();

impl ApiProxy {
    pub async fn start(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let upstream = control_plane.client_without_identity().await?;
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("open a port for the API proxy")?;
        let address = listener.local_addr().context("read a port")?;
        let shared = Arc::new(Shared {
            upstream,
            points: CrashPoints::default(),
            requests: AtomicU64::new(0),
            trouble: watch::Sender::new(None),
        });
        let service = Router::new()
            .fallback(forward)
            .with_state(Arc::clone(&shared))
            .into_make_service_with_connect_info::<Connection>();
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                tracing::error!(%error, "API proxy");
            }
        });
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The calls that change something are named `VERB resource[/subresource][ phase=...]`.
    pub fn points(&self) -> &CrashPoints {
        &self.shared.points
    }

    /// All requests so far, reads and watches too.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Until another call says `None`. Watches that were silent end then, with 410 Gone.
    pub fn trouble_watches(&self, resource: Option<(&str, Trouble)>) {
        let trouble = resource.map(|(resource, trouble)| (resource.to_owned(), trouble));
        self.shared.trouble.send_replace(trouble);
    }

    /// The same service account, through this proxy.
    pub fn kubeconfig(
        &self,
        control_plane: &ControlPlane,
        kubeconfig: &Path,
    ) -> anyhow::Result<PathBuf> {
        control_plane.kubeconfig_via(&self.url(), kubeconfig)
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn forward(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let (mut head, body) = request.into_parts();
    let body = match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(body) => body,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let watched = is_watch(&head.uri).then(|| head.uri.path().to_owned());
    let cut = Some(Trouble::Cut);
    if watched
        .as_ref()
        .is_some_and(|path| trouble_of(path, &shared.trouble) == cut)
    {
        return (StatusCode::SERVICE_UNAVAILABLE, "cut off by a test").into_response();
    }
    let reached = name(&head.method, &head.uri, &body).and_then(|name| shared.points.record(&name));
    let after = match reached {
        Some(reached) if reached.when == When::Before => {
            (reached.act)();
            connection.cut();
            return StatusCode::NO_CONTENT.into_response();
        }
        reached => reached,
    };
    // Those of this connection, not of the next one.
    for name in [
        header::HOST,
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
    ] {
        head.headers.remove(name);
    }
    let outgoing = Request::from_parts(head, kube::client::Body::from(body));
    match shared.upstream.send(outgoing).await {
        Ok(answer) => {
            let mut response = answer.map(|body| match watched {
                Some(path) => Body::from_stream(troubled(Body::new(body), path, shared)),
                None => Body::new(body),
            });
            response.headers_mut().remove(header::CONNECTION);
            response.headers_mut().remove(header::TRANSFER_ENCODING);
            if let Some(reached) = after {
                (reached.act)();
                connection.cut();
            }
            response
        }
        Err(error) => (
            StatusCode::BAD_GATEWAY,
            format!("forward to the API server: {error}"),
        )
            .into_response(),
    }
}

fn trouble_of(path: &str, trouble: &watch::Sender<Option<(String, Trouble)>>) -> Option<Trouble> {
    let trouble = trouble.borrow();
    let (resource, trouble) = trouble.as_ref()?;
    path.ends_with(resource.as_str()).then_some(*trouble)
}

/// A watch, as far as the trouble lets it through.
fn troubled(
    body: Body,
    path: String,
    shared: Arc<Shared>,
) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let changes = shared.trouble.subscribe();
    let begin = (body.into_data_stream(), changes, false);
    futures::stream::unfold(Some(begin), move |state| {
        let (path, shared) = (path.clone(), Arc::clone(&shared));
        async move {
            let (mut body, mut changes, mut lost) = state?;
            loop {
                changes.mark_unchanged();
                let trouble = trouble_of(&path, &shared.trouble);
                match trouble {
                    Some(Trouble::Cut) => return None,
                    Some(Trouble::Silent) => lost = true,
                    None if lost => return Some((Ok(Bytes::from_static(GONE)), None)),
                    None => {}
                }
                tokio::select! {
                    chunk = body.next() => {
                        let chunk = chunk?;
                        if trouble.is_none() {
                            return Some((chunk, Some((body, changes, lost))));
                        }
                    }
                    changed = changes.changed() => changed.ok()?,
                }
            }
        }
    })
}

fn is_watch(uri: &Uri) -> bool {
    let mut pairs = uri.query().into_iter().flat_map(|query| query.split('&'));
    pairs.any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

/// The stable name of a call that changes something; None for reads and dry runs.
fn name(method: &Method, uri: &Uri, body: &[u8]) -> Option<String> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    if uri
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "dryRun=All"))
    {
        return None;
    }
    let mut segments = uri.path().split('/').filter(|segment| !segment.is_empty());
    // /api/v1/..., /apis/GROUP/VERSION/...
    match segments.next()? {
        "api" => segments.next(),
        "apis" => segments.nth(1),
        _ => return Some(format!("{method} {}", uri.path())),
    };
    let rest: Vec<_> = segments.collect();
    let resource = match rest.as_slice() {
        // Two segments and a subresource are the Namespace itself.
        ["namespaces", _, rest @ ..] if !matches!(rest, [] | ["status" | "finalize"]) => rest,
        rest => rest,
    };
    let mut name = match resource {
        [plural, _, sub] => format!("{method} {plural}/{sub}"),
        [plural, ..] => format!("{method} {plural}"),
        [] => format!("{method} {}", uri.path()),
    };
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if let Some(phase) = body.pointer("/status/phase").and_then(Value::as_str) {
        name = format!("{name} phase={phase}");
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(method: Method, uri: &'static str, body: &str) -> Option<String> {
        name(&method, &Uri::from_static(uri), body.as_bytes())
    }

    #[test]
    fn names_the_resource_and_not_the_object() {
        let cases = [
            (
                Method::PATCH,
                "/api/v1/nodes/node-1?fieldManager=x",
                "",
                "PATCH nodes",
            ),
            (
                Method::PATCH,
                "/api/v1/nodes/node-1/status",
                "",
                "PATCH nodes/status",
            ),
            (
                Method::POST,
                "/api/v1/namespaces/default/pods/web-1/eviction",
                "",
                "POST pods/eviction",
            ),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/b",
                "",
                "PUT leases",
            ),
            (
                Method::POST,
                "/apis/nodemend.dev/v1alpha1/noderepairs",
                "{}",
                "POST noderepairs",
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/gone",
                "",
                "DELETE namespaces",
            ),
            (
                Method::PATCH,
                "/apis/nodemend.dev/v1alpha1/noderepairs/a/status",
                r#"{"status":{"phase":"Draining"}}"#,
                "PATCH noderepairs/status phase=Draining",
            ),
        ];
        for (method, uri, body, expected) in cases {
            assert_eq!(named(method, uri, body).as_deref(), Some(expected), "{uri}");
        }
    }

    #[test]
    fn reads_and_dry_runs_have_no_name() {
        assert_eq!(named(Method::GET, "/api/v1/nodes", ""), None);
        assert_eq!(
            named(
                Method::POST,
                "/api/v1/namespaces/a/pods/b/eviction?dryRun=All",
                ""
            ),
            None
        );
    }
}
