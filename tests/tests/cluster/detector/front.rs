//! A front before the real API server that answers some requests itself, badly. It speaks to the
//! API server as the detector's service account.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kube::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::suite::Cluster;

pub(super) enum Fault {
    /// A `Status` as the API server makes it.
    Status(u16),
    /// As priority and fairness does: plain text, and the number in a header only.
    Busy { retry_after: u32 },
    /// One byte at a time, without end.
    Trickle,
}

pub(super) struct Front {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
    folder: TempDir,
}

#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: Instant,
    method: Method,
}

struct Shared {
    upstream: Client,
    /// By method, the answers to the next requests.
    faults: Mutex<VecDeque<(Method, Fault)>>,
    seen: Mutex<Vec<Seen>>,
}

impl Front {
    pub(super) async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let upstream = cluster
            .control_plane
            .client_for_service_account("nodemend-system", "nodemend-detector")
            .await?;
        let shared = Arc::new(Shared {
            upstream,
            faults: Mutex::default(),
            seen: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("open a port")?;
        let url = format!("http://{}", listener.local_addr().context("read a port")?);
        let service = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // It ends with the test.
            drop(axum::serve(listener, service).await);
        });
        let folder = tempfile::tempdir().context("make a folder")?;
        Ok(Self {
            url,
            shared,
            server,
            folder,
        })
    }

    pub(super) fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "front",
            "clusters": [{"name": "front", "cluster": {"server": self.url}}],
            "users": [{"name": "front", "user": {}}],
            "contexts": [{"name": "front", "context": {"cluster": "front", "user": "front"}}],
        });
        let path = self.folder.path().join("kubeconfig");
        fs::write(&path, config.to_string()).context("write a kubeconfig")?;
        Ok(path)
    }

    /// The next requests of this method are answered so, in this order.
    pub(super) fn fail(&self, method: &Method, faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter().map(|fault| (method.clone(), fault));
        lock(&self.shared.faults).extend(faults);
    }

    pub(super) fn seen(&self, method: &Method) -> Vec<Seen> {
        let seen = lock(&self.shared.seen);
        seen.iter()
            .filter(|seen| seen.method == *method)
            .cloned()
            .collect()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    lock(&shared.seen).push(Seen {
        at: Instant::now(),
        method: head.method.clone(),
    });
    let fault = {
        let mut faults = lock(&shared.faults);
        let index = faults.iter().position(|(method, _)| *method == head.method);
        index.and_then(|index| faults.remove(index))
    };
    match fault.map(|(_, fault)| fault) {
        Some(Fault::Status(code)) => status(code),
        Some(Fault::Busy { retry_after }) => (
            StatusCode::TOO_MANY_REQUESTS,
            [(header::RETRY_AFTER, retry_after.to_string())],
            "Too many requests, please try again later.\n",
        )
            .into_response(),
        Some(Fault::Trickle) => {
            let bytes = futures::stream::unfold((), async |()| {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
            });
            Response::new(Body::from_stream(bytes))
        }
        None => {
            let body = match axum::body::to_bytes(body, 4 << 20).await {
                Ok(body) => body,
                Err(error) => {
                    return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
                }
            };
            let mut head = head;
            for name in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH] {
                head.headers.remove(name);
            }
            let request = Request::from_parts(head, kube::client::Body::from(body));
            match shared.upstream.send(request).await {
                Ok(answer) => {
                    let mut response = answer.map(Body::new);
                    response.headers_mut().remove(header::TRANSFER_ENCODING);
                    response
                }
                Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
            }
        }
    }
}

fn status(code: u16) -> Response {
    let body: Value = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("injected {code}"), "reason": "Injected", "code": code,
    });
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, axum::Json(body)).into_response()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
