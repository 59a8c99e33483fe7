//! EC2 and Auto Scaling: describes instances, and makes the one call that destroys.
//!
//! The SDK sends a call again whose answer was lost (a terminate three times), so retries are off
//! for what changes anything: what became of it is settled by describing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion};
use aws_sdk_autoscaling::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_autoscaling::operation::RequestId;
use aws_sdk_ec2::types::{Filter, InstanceStateName};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use crate::cluster::{InstanceState, InstanceView};
use crate::decide::Clearance;
use crate::lease::Term;
use crate::metrics::CountCalls;

const READ_ATTEMPT: Duration = Duration::from_secs(5);
const READ: Duration = Duration::from_secs(15);
/// Less than the time after which a call without an answer counts as not made.
const MUTATION: Duration = Duration::from_secs(10);
/// The API's limit of `DescribeAutoScalingInstances`; EC2 takes 200 values in a filter.
const MOST_IDS: usize = 50;

pub struct Aws {
    ec2: aws_sdk_ec2::Client,
    autoscaling: aws_sdk_autoscaling::Client,
}

/// What a call that changes something came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted {
        request_id: Option<String>,
        message: Option<String>,
    },
    /// AWS said no, and will again.
    Refused {
        request_id: Option<String>,
        message: String,
    },
    /// AWS did not act, but may if asked later.
    Throttled {
        request_id: Option<String>,
        message: String,
    },
    /// No answer, or none that tells: it may have acted.
    Unknown { message: String },
}

impl Aws {
    /// Credentials and region come from the SDK's default chain (environment, IRSA, Pod Identity,
    /// instance metadata).
    pub async fn connect(count: CountCalls) -> anyhow::Result<Self> {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(READ_ATTEMPT)
            .operation_timeout(READ)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .timeout_config(timeouts)
            .app_name(AppName::new("nodemend").context("name the application to AWS")?)
            .load()
            .await;
        ensure!(
            config
                .region()
                .is_some_and(|region| !region.as_ref().is_empty()),
            "no AWS region: set AWS_REGION, or let the pod reach the instance metadata service"
        );
        let ec2 = aws_sdk_ec2::config::Builder::from(&config).interceptor(count.clone());
        let autoscaling = aws_sdk_autoscaling::config::Builder::from(&config).interceptor(count);
        Ok(Self {
            ec2: aws_sdk_ec2::Client::from_conf(ec2.build()),
            autoscaling: aws_sdk_autoscaling::Client::from_conf(autoscaling.build()),
        })
    }

    /// What AWS says of these instances. One that it does not know any more is gone.
    pub async fn describe(
        &self,
        ids: &BTreeSet<String>,
    ) -> anyhow::Result<BTreeMap<String, InstanceView>> {
        let ids: Vec<_> = ids.iter().cloned().collect();
        let mut found = BTreeMap::new();
        for chunk in ids.chunks(MOST_IDS) {
            for id in chunk {
                found.insert(
                    id.clone(),
                    InstanceView {
                        group: None,
                        lifecycle: None,
                        state: InstanceState::Gone,
                        checks_pass: None,
                    },
                );
            }
            self.add_states(chunk, &mut found).await?;
            self.add_groups(chunk, &mut found).await?;
        }
        Ok(found)
    }

    async fn add_states(
        &self,
        ids: &[String],
        found: &mut BTreeMap<String, InstanceView>,
    ) -> anyhow::Result<()> {
        // By filter: one unknown id among `InstanceIds` fails the whole call.
        let filter = Filter::builder()
            .name("instance-id")
            .set_values(Some(ids.to_vec()))
            .build();
        let mut pages = self
            .ec2
            .describe_instances()
            .filters(filter)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(explain).context("ec2 DescribeInstances")?;
            let instances = page
                .reservations
                .into_iter()
                .flatten()
                .filter_map(|r| r.instances)
                .flatten();
            for instance in instances {
                let state = match instance.state.and_then(|state| state.name) {
                    Some(InstanceStateName::ShuttingDown) => InstanceState::Going,
                    Some(InstanceStateName::Terminated) => InstanceState::Gone,
                    _ => InstanceState::There,
                };
                if let Some(view) = instance.instance_id.and_then(|id| found.get_mut(&id)) {
                    view.state = state;
                }
            }
        }
        Ok(())
    }

    async fn add_groups(
        &self,
        ids: &[String],
        found: &mut BTreeMap<String, InstanceView>,
    ) -> anyhow::Result<()> {
        let call = self
            .autoscaling
            .describe_auto_scaling_instances()
            .set_instance_ids(Some(ids.to_vec()));
        let mut pages = call.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page
                .map_err(explain)
                .context("autoscaling DescribeAutoScalingInstances")?;
            for member in page.auto_scaling_instances.into_iter().flatten() {
                if let Some(view) = member.instance_id.and_then(|id| found.get_mut(&id)) {
                    view.group = member.auto_scaling_group_name;
                    view.lifecycle = member.lifecycle_state;
                }
            }
        }
        Ok(())
    }

    /// Terminates the instance; its group launches another, because the desired capacity stays.
    pub async fn terminate(&self, clearance: Clearance, _term: Term) -> Outcome {
        let once = aws_sdk_autoscaling::config::Config::builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_attempt_timeout(MUTATION)
                    .build(),
            );
        let answer = self
            .autoscaling
            .terminate_instance_in_auto_scaling_group()
            .instance_id(clearance.instance().as_str())
            .should_decrement_desired_capacity(false)
            .customize()
            .config_override(once)
            .send()
            .await;
        match answer {
            Ok(output) => Outcome::Accepted {
                request_id: output.request_id().map(str::to_owned),
                message: output.activity.and_then(|activity| activity.description),
            },
            Err(error) => judge(&error),
        }
    }
}

fn judge<E, R>(error: &SdkError<E, R>) -> Outcome
where
    E: std::error::Error + ProvideErrorMetadata + RequestId + Send + Sync + 'static,
    R: std::fmt::Debug,
    SdkError<E, R>: std::error::Error,
{
    let SdkError::ServiceError(answer) = error else {
        let message = DisplayErrorContext(error).to_string();
        return match error {
            // It was never sent.
            SdkError::ConstructionFailure(_) => Outcome::Refused {
                request_id: None,
                message,
            },
            _ => Outcome::Unknown { message },
        };
    };
    let answer = answer.err();
    let request_id = answer.request_id().map(str::to_owned);
    let code = answer.code().unwrap_or("no error code");
    let message = format!("{code}: {}", answer.message().unwrap_or("no message"));
    let later = [
        "Throttling",
        "RequestLimitExceeded",
        "ResourceContention",
        "ScalingActivityInProgress",
    ];
    if later.iter().any(|known| code.starts_with(known)) {
        Outcome::Throttled {
            request_id,
            message,
        }
    } else if code == "no error code"
        || code.starts_with("Internal")
        || code.starts_with("ServiceUnavailable")
    {
        Outcome::Unknown { message }
    } else {
        Outcome::Refused {
            request_id,
            message,
        }
    }
}

/// The SDK's errors say little by themselves; their sources do.
fn explain<E>(error: E) -> anyhow::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    anyhow::anyhow!("{}", DisplayErrorContext(error))
}
