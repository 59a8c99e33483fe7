//! `/metrics`, `/healthz` and `/findings`: read only, few connections at a time, each with a deadline.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use self::health::Vitals;
use crate::clock;
use crate::metrics::Metrics;
use crate::reader::{Mailbox, Message};

mod findings;
mod health;

const MOST_CONNECTIONS: usize = 16;
/// From the first byte of a request to its last.
const HEADERS_WITHIN: Duration = Duration::from_secs(2);
/// A connection is for one request; one that stays longer is cut, whatever it does.
const LONGEST_CONNECTION: Duration = Duration::from_secs(15);
const LARGEST_HEADERS: usize = 16 << 10;
const READER_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A port that is taken is told, and costs the agent nothing else.
pub(crate) async fn serve(address: SocketAddr, metrics: Arc<Metrics>, mailbox: Mailbox) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            error!(
                %address, %error,
                "no /metrics, /healthz and /findings: choose another --http-address, or none"
            );
            return;
        }
    };
    let bound = listener.local_addr().unwrap_or(address);
    info!(address = %bound, "serving /metrics, /healthz and /findings");
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // Taken before the connection is: the kernel's queue holds the others.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (metrics, mailbox) = (Arc::clone(&metrics), mailbox.clone());
                tokio::spawn(async move {
                    connection(stream, metrics, mailbox).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "a connection was not accepted");
                // Out of descriptors: trying again at once would not make any.
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, metrics: Arc<Metrics>, mailbox: Mailbox) {
    let service = service_fn(move |request| {
        let (metrics, mailbox) = (Arc::clone(&metrics), mailbox.clone());
        async move { Ok::<_, Infallible>(answer(&request, &metrics, &mailbox).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(LARGEST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(LONGEST_CONNECTION, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection ended"),
        Err(_elapsed) => debug!("a connection was cut: it stayed too long"),
    }
}

async fn answer(
    request: &Request<Incoming>,
    metrics: &Metrics,
    mailbox: &Mailbox,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return page(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "GET only\n".to_owned(),
        );
    }
    match request.uri().path() {
        "/metrics" => page(StatusCode::OK, PROMETHEUS, metrics.text()),
        "/findings" => page(StatusCode::OK, JSON, findings::json(&metrics.known())),
        "/healthz" => {
            let vitals = Vitals {
                now: clock::boot(),
                reader_answers: reader_answers(mailbox).await,
                exporting: metrics.exporting(),
            };
            let status = if vitals.healthy() {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            page(status, JSON, vitals.json())
        }
        _ => {
            let pages = "/metrics\n/healthz\n/findings\n";
            page(StatusCode::NOT_FOUND, TEXT, pages.to_owned())
        }
    }
}

async fn reader_answers(mailbox: &Mailbox) -> bool {
    let (sender, answer) = oneshot::channel();
    mailbox.send(Message::Ping(sender));
    matches!(timeout(READER_ANSWERS_WITHIN, answer).await, Ok(Ok(())))
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn page(status: StatusCode, kind: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
