//! `/metrics` and `/healthz`: read only, few connections at a time, each with a deadline.

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
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::metrics::Metrics;

const MOST_CONNECTIONS: usize = 16;
/// From the first byte of a request to its last.
const HEADERS_WITHIN: Duration = Duration::from_secs(2);
/// A connection is for one request; one that stays longer is cut, whatever it does.
const LONGEST_CONNECTION: Duration = Duration::from_secs(15);
const LARGEST_HEADERS: usize = 16 << 10;

/// A port that is taken is told, and costs the repairer nothing else.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            error!(
                %address, %error,
                "no /metrics and /healthz: choose another --http-address, or none"
            );
            return;
        }
    };
    let bound = listener.local_addr().unwrap_or(address);
    info!(address = %bound, "serving /metrics and /healthz");
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // Taken before the connection is: the kernel's queue holds the others.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let metrics = Arc::clone(&metrics);
                tokio::spawn(async move {
                    connection(stream, metrics).await;
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

async fn connection(stream: TcpStream, metrics: Arc<Metrics>) {
    let service = service_fn(move |request| {
        let response = answer(&request, &metrics);
        async move { Ok::<_, Infallible>(response) }
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

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n");
    }
    match request.uri().path() {
        "/metrics" => page(StatusCode::OK, PROMETHEUS, metrics.text()),
        // An API server or an AWS that is away is no illness of the repairer: a restart would not
        // bring it back.
        "/healthz" if metrics.is_alive() => page(StatusCode::OK, TEXT, "ok\n"),
        "/healthz" => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the loop hangs\n"),
        _ => page(StatusCode::NOT_FOUND, TEXT, "/metrics\n/healthz\n"),
    }
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

fn page(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
