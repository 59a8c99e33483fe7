//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::aside::Aside;
use crate::export::Coexistence;
use crate::source::bpf::Hook;

/// Finds sick Kubernetes nodes from inside the kernel and reports them as NodeConditions and Events.
///
/// Exit codes: 0 done or healthy, 1 failed or unhealthy, 2 wrong usage, 3 cannot run here.
#[derive(Debug, Parser)]
#[command(name = "nodemend-detector", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch this host and keep its Node's conditions and Events true (the DaemonSet)
    Run(RunArgs),
    /// Show findings and conditions of this host live; needs no cluster
    Watch {
        #[command(flatten)]
        sources: SourceArgs,
        /// One JSON object a line, or lines for people
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Say which hooks and sources this host supports and why not, then exit; with --config only say
    /// what is wrong with that file (exit code 1), on any machine
    Check {
        #[command(flatten)]
        sources: SourceArgs,
        /// Kubeconfig file, to ask the API server for its version; without it the pod's service account is used
        #[arg(long, env = "KUBECONFIG")]
        kubeconfig: Option<PathBuf>,
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Take this agent's conditions off every Node, when no agent runs any more (after an uninstall)
    Cleanup(CleanupArgs),
    /// Say what would have been reported for a saved log; needs no host and no cluster
    Replay(ReplayArgs),
    /// What an agent does in a process of its own
    #[command(hide = true)]
    Aside {
        #[command(subcommand)]
        aside: Aside,
    },
    /// Print the table of everything that can be reported
    Reasons {
        #[arg(short, long, value_enum, default_value_t = TableFormat::Text)]
        output: TableFormat,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Name of this host's Node object
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Kubeconfig file; without it the pod's service account is used
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub sources: SourceArgs,
    /// Folder of kubelet's pod logs; names of pods are read from its folders' names
    #[arg(long, env = "NODEMEND_POD_LOGS_DIR", default_value = "/var/log/pods")]
    pub pod_logs_dir: PathBuf,
    /// Folder for what must survive a restart of the agent, on a tmpfs of the host: it must not hang
    /// with the disk whose death it reports
    #[arg(long, env = "NODEMEND_STATE_DIR", default_value = "/run/nodemend")]
    pub state_dir: PathBuf,
    /// Folder on the host's disk for the list of its boots, by which those are told that nobody asked for
    #[arg(long, env = "NODEMEND_BOOTS_DIR", default_value = "/var/lib/nodemend")]
    pub boots_dir: PathBuf,
    /// Time between condition heartbeats (± 10 %), for example 5m
    #[arg(long, env = "NODEMEND_HEARTBEAT", default_value = "5m")]
    pub heartbeat: Interval,
    /// The same while a Fatal finding is open; repairers trust a condition only while it beats
    #[arg(long, env = "NODEMEND_FATAL_HEARTBEAT", default_value = "60s")]
    pub fatal_heartbeat: Interval,
    /// Status changes that are written at once before the limit of one per 30 s sets in
    #[arg(long, env = "NODEMEND_STATUS_BURST", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub status_burst: u32,
    /// What to do where another agent writes the same condition types on this node
    #[arg(long, env = "NODEMEND_COEXISTENCE", value_enum, default_value_t = Coexistence::Shadow)]
    pub coexistence: Coexistence,
    /// Address of /metrics, /healthz and /findings; empty for none
    #[arg(long, env = "NODEMEND_HTTP_ADDRESS", default_value = "127.0.0.1:9847")]
    pub http_address: HttpAddress,
    #[arg(long, env = "NODEMEND_LOG_FORMAT", value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The log: kernel log as `dmesg` or /dev/kmsg gives it, a syslog file, `journalctl -o short`,
    /// `export` or `json`, or lines of
    /// {"source":"kmsg|journal|file","unit":..,"path":..,"line":..,"at":SECONDS}; `-` is standard input
    pub file: PathBuf,
    /// Configuration whose thresholds, severities and log rules hold
    #[arg(long, env = "NODEMEND_CONFIG")]
    pub config: Option<PathBuf>,
    /// Take what only a live host can say to contradict the lines; else it confirms them
    #[arg(long)]
    pub no_evidence: bool,
    /// One JSON object a transition, or lines for people
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    /// Kubeconfig file; without it the pod's service account is used
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the DaemonSet
    #[arg(long, env = "POD_NAMESPACE", default_value = "nodemend-system")]
    pub namespace: String,
    #[arg(long, env = "NODEMEND_LOG_FORMAT", value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// Configuration file; what it says goes before what the flags say. Without this
    /// /etc/nodemend/detector.yaml, where there is one
    #[arg(long, env = "NODEMEND_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Path that the node cannot do without; may be repeated. A read-only file system under one of
    /// them is Fatal
    #[arg(
        long = "critical-mount",
        env = "NODEMEND_CRITICAL_MOUNTS",
        value_delimiter = ',',
        default_values = ["/", "/var/lib/kubelet", "/var/lib/containerd"]
    )]
    pub critical_mounts: Vec<String>,
    /// Where the host's /proc is mounted
    #[arg(long, env = "NODEMEND_HOST_PROC", default_value = "/proc")]
    pub host_proc: PathBuf,
    /// Where the host's /sys is mounted
    #[arg(long, env = "NODEMEND_HOST_SYS", default_value = "/sys")]
    pub host_sys: PathBuf,
    /// NVIDIA's management library; loaded only while the kernel module nvidia is
    #[arg(
        long,
        env = "NODEMEND_NVML_LIBRARY",
        default_value = "libnvidia-ml.so.1"
    )]
    pub nvml_library: PathBuf,
    /// Time between looks at the GPUs; their XIDs come at once
    #[arg(long, env = "NODEMEND_GPU_INTERVAL", default_value = "10s")]
    pub gpu_interval: Interval,
    /// Time between two looks at all tasks: a task that slept through it is blocked. For tests: the
    /// reason table and the messages speak of 30 s
    #[arg(
        long,
        env = "NODEMEND_TASK_INTERVAL",
        default_value = "30s",
        hide = true
    )]
    pub task_interval: Interval,
    /// Time between readings of what the kernel only counts (/proc, /sys, cgroups)
    #[arg(long, env = "NODEMEND_COUNTER_INTERVAL", default_value = "30s")]
    pub counter_interval: Interval,
    /// Address of kubelet's own /healthz (its `healthzBindAddress` and `healthzPort`); empty for none
    #[arg(
        long,
        env = "NODEMEND_KUBELET_HEALTHZ",
        default_value = "127.0.0.1:10248"
    )]
    pub kubelet_healthz: HttpAddress,
    /// A chain of the host's packet filters that may refuse packets, as `table/chain`; may be repeated
    #[arg(
        long = "allow-filter-chain",
        env = "NODEMEND_ALLOWED_FILTER_CHAINS",
        value_delimiter = ','
    )]
    pub allowed_filter_chains: Vec<String>,
    /// Do not use this hook; may be repeated
    #[arg(
        long = "disable-hook",
        env = "NODEMEND_DISABLE_HOOKS",
        value_delimiter = ',',
        value_enum
    )]
    pub disable_hooks: Vec<Hook>,
    /// Do not use this variant of a hook but the next one, for example `tp_btf mark_victim`; named
    /// as `check` names it; may be repeated
    #[arg(
        long = "disable-variant",
        env = "NODEMEND_DISABLE_VARIANTS",
        value_delimiter = ','
    )]
    pub disable_variants: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    Text,
    Json,
    Markdown,
}

/// Where to listen, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HttpAddress(pub Option<SocketAddr>);

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let address = text.parse();
        let address = address
            .map_err(|_| "write an address and a port, like 127.0.0.1:9847 or [::1]:9847")?;
        Ok(Self(Some(address)))
    }
}

/// A duration as people and Kubernetes write it: `90s`, `5m`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval(pub Duration);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let signed: jiff::SignedDuration = text
            .parse()
            .map_err(|error| format!("{error}; write a duration like 90s, 5m or 1h30m"))?;
        let duration =
            Duration::try_from(signed).map_err(|_| "a duration cannot be negative".to_owned())?;
        if duration < Duration::from_secs(1) {
            return Err("at least 1s".to_owned());
        }
        Ok(Self(duration))
    }
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
        assert!("[::1]:9847".parse::<HttpAddress>().unwrap().0.is_some());
        assert!("9847".parse::<HttpAddress>().is_err());
    }

    #[test]
    fn an_interval_is_a_positive_duration() {
        assert_eq!("1h30m".parse(), Ok(Interval(Duration::from_secs(5400))));
        assert!("0s".parse::<Interval>().is_err());
        assert!("-5m".parse::<Interval>().is_err());
        assert!(
            "five"
                .parse::<Interval>()
                .unwrap_err()
                .contains("write a duration like")
        );
    }
}
