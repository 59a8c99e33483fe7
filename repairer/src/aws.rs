//! What is asked of AWS. Reads are retried by the SDK; what changes anything never is: the SDK sends
//! a call again whose answer was lost (a terminate three times). What became of such a call is
//! settled by describing.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion};
use aws_sdk_autoscaling::error::DisplayErrorContext;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use crate::metrics::CountCalls;

mod change;
mod checks;
mod describe;
mod launches;
mod pace;
mod shift;
#[cfg(test)]
mod tests;

pub use self::change::Outcome;
pub use self::launches::Managed;
use self::pace::Pace;

const READ_ATTEMPT: Duration = Duration::from_secs(5);
const READ: Duration = Duration::from_secs(15);

pub struct Aws {
    ec2: aws_sdk_ec2::Client,
    autoscaling: aws_sdk_autoscaling::Client,
    eks: aws_sdk_eks::Client,
    zonal_shift: aws_sdk_arczonalshift::Client,
    /// Of the calls that change anything, for all repairs.
    pace: Mutex<Pace>,
}

impl Aws {
    /// Credentials and region come from the SDK's default chain (environment, IRSA, Pod Identity,
    /// instance metadata).
    pub async fn connect(count: CountCalls) -> anyhow::Result<Self> {
        Self::with(aws_config::defaults(BehaviorVersion::latest()), count).await
    }

    async fn with(loader: aws_config::ConfigLoader, count: CountCalls) -> anyhow::Result<Self> {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(READ_ATTEMPT)
            .operation_timeout(READ)
            .build();
        let config = loader
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
        let autoscaling =
            aws_sdk_autoscaling::config::Builder::from(&config).interceptor(count.clone());
        let eks = aws_sdk_eks::config::Builder::from(&config).interceptor(count.clone());
        let zonal_shift = aws_sdk_arczonalshift::config::Builder::from(&config).interceptor(count);
        Ok(Self {
            ec2: aws_sdk_ec2::Client::from_conf(ec2.build()),
            autoscaling: aws_sdk_autoscaling::Client::from_conf(autoscaling.build()),
            eks: aws_sdk_eks::Client::from_conf(eks.build()),
            zonal_shift: aws_sdk_arczonalshift::Client::from_conf(zonal_shift.build()),
            pace: Mutex::default(),
        })
    }
}

/// The SDK's errors say little by themselves; their sources do.
fn explain<E>(error: E) -> anyhow::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    anyhow::anyhow!("{}", DisplayErrorContext(error))
}
