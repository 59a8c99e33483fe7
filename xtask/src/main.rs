//! Builds, tests, demonstrates and measures nodemend: `cargo xtask --help`.

#![expect(
    clippy::disallowed_methods,
    reason = "a build tool runs other programs, reads the environment and measures time"
)]

mod audit;
mod bpf;
mod build;
mod cache;
mod cargo;
mod chart;
mod containerd;
mod control_plane;
mod crates;
mod cross;
mod debian;
mod fuzz;
mod r#gen;
mod image;
mod lint;
mod nvml;
mod progress;
mod python;
mod run;
mod rustc;
mod test;
#[cfg(test)]
mod tidy;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Tasks of the nodemend project. Everything they need is installed or built on
/// first use into the user's cache folder.
#[derive(Parser)]
enum Task {
    /// Build the BPF object that the detector embeds
    Bpf,
    /// Build the control plane that tests and demo run on, and print its folder
    ControlPlane,
    /// Show the whole story on this machine: fault, condition, cordon, drain, replacement
    Demo {
        /// Arguments of the demo itself; `cargo xtask demo -- --help` lists them
        #[arg(last = true)]
        args: Vec<String>,
        /// Use the cluster of this kubeconfig; its API server must be on loopback (kind, minikube)
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
        /// Also lose a GPU, as a scripted libnvidia-ml tells it (no GPU needed)
        #[arg(long)]
        gpu: bool,
    },
    /// Set up and run all tests, or one suite
    Test {
        #[arg(value_enum)]
        suite: Option<test::Suite>,
        /// Run only tests whose name contains this
        #[arg(long)]
        filter: Option<String>,
        /// In a whole run: every virtual machine, not that of one kernel alone
        #[arg(long, conflicts_with = "filter")]
        all: bool,
    },
    /// Measure latencies and costs; prints a table, or JSON
    Bench {
        /// Measure this instead of one detector's latencies and costs
        #[arg(value_enum)]
        what: Option<Benchmark>,
        /// Arguments of the benchmarks; `cargo xtask bench -- --help` lists them
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Write the generated files: CRDs, what the chart takes from deploy/, and docs/reasons.md
    Gen {
        /// Only compare, and fail when a file is out of date
        #[arg(long)]
        check: bool,
    },
    /// Replay the test cases of other node agents and write docs/peers.md
    Peers {
        /// Only compare, and fail when the page is out of date
        #[arg(long)]
        check: bool,
    },
    /// Search for bytes that break a parser of a daemon, from the seeds in tests/fuzz/seeds
    Fuzz {
        /// Of each target
        #[arg(long, default_value_t = 30)]
        seconds: u32,
        /// Whose parsers
        #[arg(long, value_enum, default_value_t = fuzz::Daemon::Detector)]
        daemon: fuzz::Daemon,
        /// Only these, by the names of their seeds' folders; without: all of the daemon
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Run the fault suite in virtual machines with Debian's kernels, and write what they showed
    /// into docs/kernels.md
    Vm {
        /// Only this kernel; may be repeated
        #[arg(long, value_enum, value_name = "VERSION")]
        kernel: Vec<vm::Kernel>,
    },
    /// Build both images as OCI layouts, and put them into buildah's or podman's storage where there is one
    Image {
        /// Of another architecture: cross-built, and the detector is run once on an emulated machine
        #[arg(long, value_enum)]
        platform: Option<image::Foreign>,
    },
    /// Check formatting, lints (host and BPF), licences and sources
    Lint,
}

#[derive(Clone, Copy, ValueEnum)]
enum Benchmark {
    /// What a fleet of exporters asks of the API server: in peace, after an outage, in a rolling restart
    Export,
    /// What one sweep of all host checks costs beside 250 pods, and that no program is started in ten minutes
    Host,
    /// What the programs in the kernel cost, how soon a fault is a finding, and what a burst of log lines does
    Kernel,
    /// What many failures at once ask of the repairer, among many nodes
    Repairer,
}

fn main() -> ExitCode {
    let result = match rustc::asked_by_cargo() {
        Some(line) => rustc::run(&line).map(|()| true),
        None => run(Task::parse()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False where tests failed, which they have said themselves.
fn run(task: Task) -> anyhow::Result<bool> {
    let repo = repo();
    match task {
        Task::Bpf => println!("{}", bpf::build(&repo)?.display()),
        Task::ControlPlane => println!("{}", control_plane::ensure(&repo)?.display()),
        Task::Demo {
            mut args,
            kubeconfig,
            gpu,
        } => {
            if let Some(path) = kubeconfig {
                args.extend(["--kubeconfig".to_owned(), path.display().to_string()]);
            }
            if gpu {
                args.push("--gpu".to_owned());
            }
            run::harness(&repo, "nodemend-demo", &args)?;
        }
        Task::Test { suite, filter, all } => {
            return test::run(&repo, suite, filter.as_deref(), all);
        }
        Task::Bench { what, mut args } => {
            if let Some(what) = what {
                let name = match what {
                    Benchmark::Export => "export",
                    Benchmark::Host => "host",
                    Benchmark::Kernel => "kernel",
                    Benchmark::Repairer => "repairer",
                };
                args.insert(0, name.to_owned());
            }
            run::harness(&repo, "nodemend-bench", &args)?;
        }
        Task::Gen { check } => r#gen::run(&repo, check)?,
        Task::Peers { check } => {
            let args = check.then(|| "--check".to_owned());
            run::alone(&repo, "nodemend-peers", args.as_slice())?;
        }
        Task::Fuzz {
            seconds,
            daemon,
            targets,
        } => fuzz::run(&repo, daemon, seconds, &targets)?,
        Task::Vm { kernel } => {
            let kernels = if kernel.is_empty() {
                vm::Kernel::ALL.to_vec()
            } else {
                kernel
            };
            run::machines(&repo, &kernels)?;
        }
        Task::Image { platform: None } => image::run(&repo)?,
        Task::Image {
            platform: Some(platform),
        } => image::run_foreign(&repo, platform)?,
        Task::Lint => lint::run(&repo)?,
    }
    Ok(true)
}

/// Of the checkout where `cargo xtask` was called: checkouts that share a target folder share this
/// program too, so where it was compiled says little.
fn repo() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().unwrap_or(&manifest).to_owned()
}
