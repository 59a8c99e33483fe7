//! `cargo xtask vm`: the fault suite in virtual machines, and the pages that say what it showed.

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use nodemend_tests::vm::{Holes, Page, Parts, RUNNING, Report, run, run_here};

/// Run the fault suite on these kernels, and write tests/vm/seen.tsv and docs/kernels.md
#[derive(Parser)]
struct Args {
    /// Kernels, as `cargo xtask vm` names them, or `running`
    #[arg(required = true)]
    kernels: Vec<String>,
}

/// For all faults of one kernel.
const LIMIT: Duration = Duration::from_secs(900);

#[expect(clippy::disallowed_methods, reason = "the harness measures deadlines")]
fn main() -> anyhow::Result<()> {
    let mut page = Page::read()?;
    let mut differences = Vec::new();
    let holes = Holes::read()?;
    for kernel in Args::parse().kernels {
        let started = Instant::now();
        let tell = |report: &Report| {
            if let Report::Seen { .. } | Report::Missing { .. } | Report::Attached { .. } = report {
                println!("{:6.1} s {report}", started.elapsed().as_secs_f64());
            }
        };
        let (package, shown) = if kernel == RUNNING {
            println!("the kernel that runs here");
            run_here(tell)?
        } else {
            let parts = Parts::of(&kernel)?;
            let package = parts.package()?;
            println!("Linux {kernel}: {package}");
            (package, run(&parts, started + LIMIT, tell)?)
        };
        differences.extend(holes.differences(&kernel, &shown.outcomes));
        page.put(&kernel, &package, &shown)?;
    }
    page.write()?;
    ensure!(
        differences.is_empty(),
        "tests/vm/holes.tsv is out of date:\n{}",
        differences.join("\n")
    );
    Ok(())
}
