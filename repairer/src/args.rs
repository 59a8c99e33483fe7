//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::duration::Wait;
use crate::cluster::Limits;
use crate::decide::Retention;

/// Repairs sick Kubernetes nodes without making an outage worse.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 cannot run here.
#[derive(Debug, Parser)]
#[command(name = "nodemend-repairer", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the Nodes and repair those that a RepairPolicy with `mode: Enforce` says (the Deployment)
    Run(RunArgs),
    /// Take our cordons off every Node, when no repairer runs any more (after an uninstall)
    Cleanup(CleanupArgs),
    /// Say why a node is or is not being repaired: every gate with its numbers, now
    ///
    /// Exit codes: 0 well, 1 unhealthy or held, 3 cannot run here.
    Explain(ExplainArgs),
    /// Look for mistakes: in the policies of a file, or in a cluster's policies, our rights and AWS
    Check(CheckArgs),
    /// Try a policy against a described cluster and timeline, on a virtual clock: no cluster, no cloud
    /// (docs/simulate.md)
    Simulate(SimulateArgs),
    /// Print a RepairPolicy that says what the `nodeRepairConfig` of an EKS managed node group says
    Import(ImportArgs),
    /// Print the CustomResourceDefinitions as YAML
    Crds,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Name of the EKS cluster
    #[arg(long, env = "NODEMEND_EKS_CLUSTER")]
    pub eks_cluster: String,
    /// Name of the managed node group
    pub node_group: String,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Name of the Node
    pub node: String,
    /// Kubeconfig file; without it the pod's service account is used
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// YAML with RepairPolicies, looked at alone, without a cluster; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Kubeconfig file; without it the pod's service account is used
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The YAML file; `-` is standard input
    pub file: PathBuf,
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Kubeconfig file; without it the pod's service account is used
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the lease that makes one replica the leader
    #[arg(long, env = "POD_NAMESPACE", default_value = "nodemend-system")]
    pub lease_namespace: String,
    /// Name of this replica in the lease, never that of another living one; in a pod, the pod's name
    /// [default: made up anew at each start]
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Name of the EKS cluster, for its node groups and zonal shifts
    /// [default: the one that the instances' tag eks:cluster-name says]
    #[arg(long, env = "NODEMEND_EKS_CLUSTER")]
    pub eks_cluster: Option<String>,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub retention: RetentionArgs,
    /// Address of /metrics and /healthz; empty for none
    #[arg(long, env = "NODEMEND_HTTP_ADDRESS", default_value = "127.0.0.1:9848")]
    pub http_address: HttpAddress,
    #[arg(long, env = "NODEMEND_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpAddress(pub Option<SocketAddr>);

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let address = text.parse();
        let address =
            address.map_err(|_| "write an address and a port, like 127.0.0.1:9848 or [::]:9848")?;
        Ok(Self(Some(address)))
    }
}

/// Above all policies.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// Start nothing and make no destructive call under any policy; what is under way is verified
    #[arg(long, env = "NODEMEND_PAUSED")]
    pub paused: bool,
    /// Repairs of all policies at a time
    #[arg(long, env = "NODEMEND_MAX_PARALLEL", default_value_t = Limits::MAX_PARALLEL)]
    pub max_parallel: u32,
    /// Nodes of all policies that may be destroyed within an hour
    #[arg(long, env = "NODEMEND_MAX_REPAIRS_PER_HOUR", default_value_t = Limits::MAX_REPAIRS_PER_HOUR)]
    pub max_repairs_per_hour: u32,
}

impl LimitArgs {
    pub fn limits(&self) -> Limits {
        Limits {
            paused: self.paused,
            max_parallel: self.max_parallel,
            max_repairs_per_hour: self.max_repairs_per_hour,
        }
    }
}

/// How long finished NodeRepairs are kept; what a policy still counts is kept in any case.
#[derive(Debug, Args)]
pub struct RetentionArgs {
    /// Finished NodeRepairs that are kept
    #[arg(long, env = "NODEMEND_KEEP_REPAIRS", default_value_t = 1000)]
    pub keep_repairs: usize,
    /// How long finished NodeRepairs are kept
    #[arg(long, env = "NODEMEND_KEEP_FOR", default_value = "720h")]
    pub keep_for: Wait,
}

impl RetentionArgs {
    pub fn retention(&self) -> Retention {
        Retention {
            count: self.keep_repairs,
            age: self.keep_for.0,
        }
    }
}

#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Kubeconfig file; without it the pod's service account is used
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the Deployment
    #[arg(long, env = "POD_NAMESPACE", default_value = "nodemend-system")]
    pub namespace: String,
    #[arg(long, env = "NODEMEND_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_http_address_is_a_socket_or_nothing() {
        assert_eq!("".parse(), Ok(HttpAddress(None)));
        assert!("[::]:9848".parse::<HttpAddress>().unwrap().0.is_some());
        assert!("9848".parse::<HttpAddress>().is_err());
    }
}
