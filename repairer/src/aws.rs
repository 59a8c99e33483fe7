//! What is asked of AWS. Reads are retried by the SDK; what changes anything never is: the SDK sends
//! a call again whose answer was lost (a terminate three times). What became of such a call is
//! settled by describing.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_autoscaling::error::DisplayErrorContext;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use crate::metrics::CountCalls;

mod change;
mod checks;
mod describe;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
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
    /// instance metadata); a region that this does not know is the Nodes' own.
    pub async fn connect(count: CountCalls, of_nodes: Option<String>) -> anyhow::Result<Self> {
        let chain = || aws_config::defaults(BehaviorVersion::latest());
        let mut config = configured(chain()).await?;
        if let (None, Some(region)) = (region_of(&config), of_nodes) {
            config = configured(chain().region(Region::new(region))).await?;
        }
        Self::with(&config, count)
    }

    fn with(config: &SdkConfig, count: CountCalls) -> anyhow::Result<Self> {
        ensure!(
            region_of(config).is_some(),
            "no AWS region: set AWS_REGION, or let the pod reach the instance metadata service; no Node tells it either"
        );
        let ec2 = aws_sdk_ec2::config::Builder::from(config).interceptor(count.clone());
        let autoscaling =
            aws_sdk_autoscaling::config::Builder::from(config).interceptor(count.clone());
        let eks = aws_sdk_eks::config::Builder::from(config).interceptor(count.clone());
        let zonal_shift = aws_sdk_arczonalshift::config::Builder::from(config).interceptor(count);
        Ok(Self {
            ec2: aws_sdk_ec2::Client::from_conf(ec2.build()),
            autoscaling: aws_sdk_autoscaling::Client::from_conf(autoscaling.build()),
            eks: aws_sdk_eks::Client::from_conf(eks.build()),
            zonal_shift: aws_sdk_arczonalshift::Client::from_conf(zonal_shift.build()),
            pace: Mutex::default(),
        })
    }
}

fn region_of(config: &SdkConfig) -> Option<&str> {
    let region = config.region().map(AsRef::as_ref);
    region.filter(|region| !region.is_empty())
}

async fn configured(loader: ConfigLoader) -> anyhow::Result<SdkConfig> {
    // HTTPS_PROXY, HTTP_PROXY and NO_PROXY, which the SDK's own client does not look at.
    let http =
        aws_smithy_http_client::Builder::new().build_with_connector_fn(|settings, _components| {
            let mut connector = Connector::builder();
            connector.set_connector_settings(settings.cloned());
            connector
                .proxy_config(ProxyConfig::from_env())
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .build()
        });
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(READ_ATTEMPT)
        .operation_timeout(READ)
        .build();
    Ok(loader
        .http_client(http)
        .timeout_config(timeouts)
        .app_name(AppName::new("nodemend").context("name the application to AWS")?)
        .load()
        .await)
}

/// The SDK's errors say little by themselves; their sources do.
fn explain<E>(error: E) -> anyhow::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    anyhow::anyhow!("{}", DisplayErrorContext(error))
}
