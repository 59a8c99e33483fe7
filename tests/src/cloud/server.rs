//! The HTTP side of the local AWS: reads a call, lets faults and crash points have their way,
//! asks the state, and keeps the record.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::fault::{self, Kind};
use super::query::{self, Params, Service};
use super::record::{Answer, Call};
use super::state::Refusal;
use super::{Shared, lock, render};
use crate::connection::Connection;
use crate::crash_point::When;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().route("/", post(call)).with_state(shared)
}

async fn call(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let mut params: Params = fields.into_iter().collect();
    let service = Service::of(&params);
    params.remove("Version");
    let action = params.remove("Action").unwrap_or_default();
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let mut record = Call {
        at: shared.clock.now(),
        service: service.map_or("unknown", Service::name),
        action,
        params,
        authorized: headers.contains_key(header::AUTHORIZATION),
        attempt: text("amz-sdk-request"),
        user_agent: text("user-agent").unwrap_or_default(),
        answer: Answer::Lost,
    };
    let index = {
        // Recorded before it is answered, so that a call that is never answered is seen too.
        let mut calls = lock(&shared.calls);
        calls.push(record.clone());
        calls.len() - 1
    };

    let reached = if record.is_mutating() {
        shared.points.record(&record.action)
    } else {
        None
    };
    let fault = fault::take(&mut lock(&shared.faults), &record.action);
    let after = match reached {
        Some(reached) if reached.when == When::Before => {
            (reached.act)();
            connection.cut();
            return StatusCode::NO_CONTENT.into_response();
        }
        reached => reached,
    };
    let request_id = format!("00000000-0000-4000-9000-{index:012x}");
    let (answer, response) = act(&shared, service, &record, fault.as_ref(), &request_id).await;
    let lost = matches!(fault, Some(Kind::LostReply)) || after.is_some();
    record.answer = if lost { Answer::Lost } else { answer };
    if let Some(kept) = lock(&shared.calls).get_mut(index) {
        kept.answer = record.answer;
    }
    if let Some(reached) = after {
        (reached.act)();
    }
    if lost {
        connection.cut();
    }
    response
}

async fn act(
    shared: &Shared,
    service: Option<Service>,
    call: &Call,
    fault: Option<&Kind>,
    request_id: &str,
) -> (Answer, Response) {
    let Some(service) = service else {
        let refusal = Refusal::client(
            "NoSuchVersion",
            "The requested version is not valid.".to_owned(),
        );
        return refuse(Service::AutoScaling, &refusal, request_id);
    };
    match fault {
        None | Some(Kind::LostReply) => {}
        Some(Kind::Hang(duration)) => tokio::time::sleep(*duration).await,
        Some(Kind::Throttle) => return refuse(service, &service.throttling(), request_id),
        Some(Kind::Refuse { code, message }) => {
            return refuse(service, &Refusal::client(code, message.clone()), request_id);
        }
        Some(Kind::Status(status)) => {
            let code = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return (
                Answer::Error(code.as_u16().to_string()),
                code.into_response(),
            );
        }
    }
    let result = match query::dry_run(service, &call.params) {
        Some(refusal) => Err(refusal),
        None => shared
            .state(|state, now| query::answer(service, &call.action, &call.params, state, now)),
    };
    match result {
        Ok(inside) => (
            Answer::Done,
            xml(
                StatusCode::OK,
                render::success(service, &call.action, &inside, request_id),
                request_id,
            ),
        ),
        Err(refusal) => refuse(service, &refusal, request_id),
    }
}

fn refuse(service: Service, refusal: &Refusal, request_id: &str) -> (Answer, Response) {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = render::error(service, refusal, request_id);
    (
        Answer::Error(refusal.code.clone()),
        xml(status, body, request_id),
    )
}

fn xml(status: StatusCode, body: String, request_id: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/xml;charset=UTF-8"),
        ("x-amzn-requestid", request_id),
    ];
    (status, headers, Body::from(body)).into_response()
}
