//! `cargo xtask vm`: boots kernels in virtual machines and shows what the detector sees of faults there.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Parser;
use nodemend_tests::vm::{Machine, Parts, Report};

#[derive(Parser)]
struct Args {
    /// Kernels, as `cargo xtask vm` names them
    #[arg(required = true)]
    kernels: Vec<String>,
}

/// For all faults of one kernel.
const TIMEOUT: Duration = Duration::from_secs(900);

#[expect(clippy::disallowed_methods, reason = "the harness measures deadlines")]
fn main() -> anyhow::Result<()> {
    for kernel in Args::parse().kernels {
        let parts = Parts::of(&kernel)?;
        println!("{kernel}: {}", parts.package()?);
        let started = Instant::now();
        let mut machine = Machine::boot(&parts, "")?;
        loop {
            match machine.report(started + TIMEOUT)? {
                Report::End => break,
                Report::Failed { why } => bail!("{why}"),
                Report::Check { rows } => {
                    for row in rows {
                        println!("{} {} {}", row["what"], row["using"], row["missing"]);
                    }
                }
                report => println!("{:6.1} s {report:?}", started.elapsed().as_secs_f64()),
            }
        }
    }
    Ok(())
}
