//! The calls that change anything: each is sent once, with a deadline, and no faster than AWS likes.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_autoscaling::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_autoscaling::operation::RequestId;
use tokio::time::Instant;

use super::Aws;
use crate::decide::InstanceTarget;
use crate::lease::Term;

/// Less than the time after which a call without an answer counts as not made.
const MUTATION: Duration = Duration::from_secs(10);

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
    /// The account may not make this call, whichever the instance.
    Denied {
        request_id: Option<String>,
        message: String,
    },
    /// AWS did not act because of all calls together.
    Throttled {
        request_id: Option<String>,
        message: String,
    },
    /// AWS did not act because the group is busy with something else.
    Busy {
        request_id: Option<String>,
        message: String,
    },
    /// No answer, or none that tells: it may have acted.
    Unknown { message: String },
}

impl Aws {
    /// How long no call may be made that changes anything.
    pub fn must_wait(&self) -> Option<Duration> {
        self.pace(|pace| pace.wait(Instant::now()))
    }

    /// Terminates the instance; its group launches another, because the desired capacity stays.
    pub async fn terminate(&self, target: InstanceTarget, _term: Term) -> Outcome {
        let answer = self
            .autoscaling
            .terminate_instance_in_auto_scaling_group()
            .instance_id(target.id().as_str())
            .should_decrement_desired_capacity(false)
            .customize()
            .config_override(once())
            .send()
            .await;
        self.settle(answer.map(|output| {
            let request_id = output.request_id().map(str::to_owned);
            let activity = output.activity.and_then(|activity| activity.description);
            (request_id, activity)
        }))
    }

    /// Tells the group that the instance is unhealthy; the group replaces it in its own time.
    pub async fn set_unhealthy(&self, target: InstanceTarget, _term: Term) -> Outcome {
        let answer = self
            .autoscaling
            .set_instance_health()
            .instance_id(target.id().as_str())
            .health_status("Unhealthy")
            .should_respect_grace_period(false)
            .customize()
            .config_override(once())
            .send()
            .await;
        self.settle(answer.map(|output| (output.request_id().map(str::to_owned), None)))
    }

    /// Restarts the instance in place. EC2 queues it and says no more: a changed boot id is the proof.
    pub async fn reboot(&self, target: InstanceTarget, _term: Term) -> Outcome {
        let answer = self
            .ec2
            .reboot_instances()
            .instance_ids(target.id().as_str())
            .customize()
            .config_override(
                aws_sdk_ec2::config::Builder::new()
                    .retry_config(RetryConfig::disabled())
                    .timeout_config(deadline()),
            )
            .send()
            .await;
        self.settle(answer.map(|output| (output.request_id().map(str::to_owned), None)))
    }

    fn settle<E, R>(
        &self,
        answer: Result<(Option<String>, Option<String>), SdkError<E, R>>,
    ) -> Outcome
    where
        E: std::error::Error + ProvideErrorMetadata + RequestId + Send + Sync + 'static,
        R: std::fmt::Debug,
        SdkError<E, R>: std::error::Error,
    {
        let outcome = match answer {
            Ok((request_id, message)) => Outcome::Accepted {
                request_id,
                message,
            },
            Err(error) => judge(&error),
        };
        let throttled = matches!(outcome, Outcome::Throttled { .. });
        self.pace(|pace| pace.learn(throttled, Instant::now()));
        outcome
    }
}

/// For Auto Scaling.
fn once() -> aws_sdk_autoscaling::config::Builder {
    aws_sdk_autoscaling::config::Builder::new()
        .retry_config(RetryConfig::disabled())
        .timeout_config(deadline())
}

fn deadline() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(MUTATION)
        .build()
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
    let is = |known: &[&str]| known.iter().any(|known| code.starts_with(known));
    if is(&[
        "AccessDenied",
        "UnauthorizedOperation",
        "OptInRequired",
        "AuthFailure",
    ]) {
        Outcome::Denied {
            request_id,
            message,
        }
    } else if is(&["Throttling", "RequestLimitExceeded"]) {
        Outcome::Throttled {
            request_id,
            message,
        }
    } else if is(&["ResourceContention", "ScalingActivityInProgress"]) {
        Outcome::Busy {
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
