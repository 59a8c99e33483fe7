//! Where credentials come from: STS for IRSA, the agent of EKS Pod Identity, and the instance metadata
//! service, version 2. Each hands out a key of its own, so that a call shows which one it was made with.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::{Value, json};

use super::Shared;
use super::query::Params;

pub const IRSA_KEY: &str = "KEYOFIRSA";
pub const POD_IDENTITY_KEY: &str = "KEYOFPODIDENTITY";
pub const INSTANCE_KEY: &str = "KEYOFINSTANCE";
/// What the files in the pod are to hold; without a newline, which no header may have.
pub const TOKEN: &str = "token-of-the-pod";
/// Where the instance says that it is.
pub const INSTANCE_REGION: &str = "eu-central-1";

const STS_VERSION: &str = "2011-06-15";
const EXPIRES: &str = "2100-01-01T00:00:00Z";
const ROLE: &str = "nodes";
const METADATA_TOKEN: &str = "metadata-token";
const METADATA_HEADER: &str = "x-aws-ec2-metadata-token";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/credentials", get(pod_identity))
        .route("/latest/api/token", put(metadata_token))
        .route("/latest/meta-data/placement/region", get(region))
        .route(
            "/latest/meta-data/iam/security-credentials/",
            get(async |headers: HeaderMap| metadata(&headers, ROLE.to_owned())),
        )
        .route(
            "/latest/meta-data/iam/security-credentials/nodes",
            get(instance_role),
        )
}

/// `None`: another service is asked.
pub(super) fn sts(params: &Params) -> Option<Response> {
    if params.get("Version").map(String::as_str) != Some(STS_VERSION) {
        return None;
    }
    let token = params.get("WebIdentityToken").map(String::as_str);
    let role = params.get("RoleArn").cloned().unwrap_or_default();
    if params.get("Action").map(String::as_str) != Some("AssumeRoleWithWebIdentity")
        || token != Some(TOKEN)
    {
        let body = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>\
                    <Message>No.</Message></Error></ErrorResponse>";
        return Some((StatusCode::BAD_REQUEST, body).into_response());
    }
    let body = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/{STS_VERSION}/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{IRSA_KEY}</AccessKeyId>\
         <SecretAccessKey>local</SecretAccessKey><SessionToken>local</SessionToken>\
         <Expiration>{EXPIRES}</Expiration></Credentials><AssumedRoleUser><Arn>{role}</Arn>\
         <AssumedRoleId>local</AssumedRoleId></AssumedRoleUser></AssumeRoleWithWebIdentityResult>\
         <ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"
    );
    Some(([(header::CONTENT_TYPE, "text/xml")], body).into_response())
}

async fn pod_identity(headers: HeaderMap) -> Response {
    let token = headers.get(header::AUTHORIZATION);
    if token.is_none_or(|token| token != TOKEN) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    axum::Json(credentials(POD_IDENTITY_KEY)).into_response()
}

/// Without its lifetime the SDK does not take the token.
async fn metadata_token() -> Response {
    let lifetime = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
    (lifetime, METADATA_TOKEN).into_response()
}

async fn region(headers: HeaderMap) -> Response {
    metadata(&headers, INSTANCE_REGION.to_owned())
}

async fn instance_role(headers: HeaderMap) -> Response {
    let mut credentials = credentials(INSTANCE_KEY);
    credentials["Code"] = json!("Success");
    credentials["Type"] = json!("AWS-HMAC");
    credentials["LastUpdated"] = json!("2026-01-01T00:00:00Z");
    metadata(&headers, credentials.to_string())
}

/// Version 1, without a token, is refused.
fn metadata(headers: &HeaderMap, body: String) -> Response {
    let token = headers.get(METADATA_HEADER);
    if token.is_none_or(|token| token != METADATA_TOKEN) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    body.into_response()
}

fn credentials(key: &str) -> Value {
    json!({
        "AccessKeyId": key,
        "SecretAccessKey": "local",
        "Token": "local",
        "Expiration": EXPIRES,
    })
}
