//! The HTTP side of the local AWS: reads a call, lets faults and crash points have their way,
//! asks the state, and keeps the record.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Form, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::fault::{self, Kind};
use super::query::{self, Params};
use super::record::{Answer, Call};
use super::service::Service;
use super::state::Refusal;
use super::{Shared, identity, lock, render, rest};
use crate::connection::Connection;
use crate::crash_point::When;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", post(query))
        .route("/clusters/{cluster}", get(describe_cluster))
        .route(
            "/clusters/{cluster}/node-groups/{name}",
            get(describe_node_group),
        )
        .route("/managedresources/{id}", get(managed_resource))
        .merge(identity::routes())
        .with_state(shared)
}

type Common = (State<Arc<Shared>>, ConnectInfo<Connection>, HeaderMap);

async fn query(
    state: State<Arc<Shared>>,
    connection: ConnectInfo<Connection>,
    headers: HeaderMap,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let mut params: Params = fields.into_iter().collect();
    if let Some(answer) = identity::sts(&params) {
        return answer;
    }
    let service = Service::of(&params);
    params.remove("Version");
    let action = params.remove("Action").unwrap_or_default();
    call((state, connection, headers), service, &action, params).await
}

async fn describe_cluster(
    state: State<Arc<Shared>>,
    connection: ConnectInfo<Connection>,
    headers: HeaderMap,
    Path(cluster): Path<String>,
) -> Response {
    let params = [("name".to_owned(), cluster)].into();
    let common = (state, connection, headers);
    call(common, Some(Service::Eks), "DescribeCluster", params).await
}

async fn describe_node_group(
    state: State<Arc<Shared>>,
    connection: ConnectInfo<Connection>,
    headers: HeaderMap,
    Path((cluster, name)): Path<(String, String)>,
) -> Response {
    let params = [
        ("clusterName".to_owned(), cluster),
        ("nodegroupName".to_owned(), name),
    ]
    .into();
    let common = (state, connection, headers);
    call(common, Some(Service::Eks), "DescribeNodegroup", params).await
}

async fn managed_resource(
    state: State<Arc<Shared>>,
    connection: ConnectInfo<Connection>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let params = [("resourceIdentifier".to_owned(), id)].into();
    let common = (state, connection, headers);
    call(
        common,
        Some(Service::ZonalShift),
        "GetManagedResource",
        params,
    )
    .await
}

async fn call(
    (State(shared), ConnectInfo(connection), headers): Common,
    service: Option<Service>,
    action: &str,
    params: Params,
) -> Response {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let mut record = Call {
        at: shared.clock.now(),
        service: service.map_or("unknown", Service::name),
        action: action.to_owned(),
        params,
        authorized: headers.contains_key(header::AUTHORIZATION),
        credential: text("authorization").and_then(|signature| {
            let (_, rest) = signature.split_once("Credential=")?;
            Some(rest.split(',').next()?.to_owned())
        }),
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
    let too_fast = {
        let mut rate = lock(&shared.rate);
        rate.as_mut()
            .is_some_and(|rate| !rate.lets_through(record.at))
    };
    let fault = match too_fast {
        true => Some(Kind::Throttle),
        false => fault::take(&mut lock(&shared.faults), &record.action),
    };
    if matches!(fault, Some(Kind::Reset)) {
        connection.cut();
        return StatusCode::NO_CONTENT.into_response();
    }
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
        // The connection is cut by the caller.
        None | Some(Kind::LostReply | Kind::Reset) => {}
        Some(Kind::Hang(duration)) => tokio::time::sleep(*duration).await,
        Some(Kind::Throttle) => return refuse(service, &service.throttling(), request_id),
        Some(Kind::Deny) => return refuse(service, &service.denied(&call.action), request_id),
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
    let allowed = lock(&shared.allowed)
        .as_ref()
        .is_none_or(|allowed| allowed.contains(&call.name()));
    let result = match query::dry_run(service, &call.params) {
        _ if !allowed => Err(service.denied(&call.action)),
        Some(refusal) => Err(refusal),
        None => shared.state(|state, now| {
            let of = |name: &str| {
                call.params
                    .get(name)
                    .map(String::as_str)
                    .unwrap_or_default()
            };
            match service {
                Service::Ec2 | Service::AutoScaling => {
                    query::answer(service, &call.action, &call.params, state, now)
                }
                Service::Eks if call.action == "DescribeCluster" => {
                    Ok(rest::cluster(of("name")).to_string())
                }
                Service::Eks => rest::node_group(state, of("clusterName"), of("nodegroupName"))
                    .map(|json| json.to_string()),
                Service::ZonalShift => rest::managed_resource(state, of("resourceIdentifier"), now)
                    .map(|json| json.to_string()),
            }
        }),
    };
    match result {
        Ok(inside) => {
            let body = render::success(service, &call.action, &inside, request_id);
            (
                Answer::Done,
                respond(service, StatusCode::OK, body, request_id, ""),
            )
        }
        Err(refusal) => refuse(service, &refusal, request_id),
    }
}

fn refuse(service: Service, refusal: &Refusal, request_id: &str) -> (Answer, Response) {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = render::error(service, refusal, request_id);
    (
        Answer::Error(refusal.code.clone()),
        respond(service, status, body, request_id, &refusal.code),
    )
}

fn respond(
    service: Service,
    status: StatusCode,
    body: String,
    request_id: &str,
    error: &str,
) -> Response {
    let kind = match service {
        Service::Ec2 | Service::AutoScaling => "text/xml;charset=UTF-8",
        Service::Eks | Service::ZonalShift => "application/json",
    };
    let headers = [
        (header::CONTENT_TYPE.as_str(), kind),
        ("x-amzn-requestid", request_id),
        ("x-amzn-errortype", error),
    ];
    (status, headers, Body::from(body)).into_response()
}
