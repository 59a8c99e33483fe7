//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Print the CustomResourceDefinitions as YAML
    Crds,
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
    #[arg(long, env = "NODEMEND_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
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
}
