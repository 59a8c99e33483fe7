//! The fault suite in virtual machines, a kernel each: whatever is not seen is on the list of
//! `tests/vm/holes.tsv`, and whatever is on the list is not seen.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness reads its environment and measures deadlines"
)]

use std::env;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nodemend_tests::vm::{Holes, KERNELS, Machine, Parts, Report, run};
use serde_json::Value;

/// The kernel in which the detector has it hard.
const STRESSED: &str = "6.12";

/// The kernel that forbids BPF programs.
const LOCKED_DOWN: &str = "6.12";

/// For one kernel: a machine that boots in half a minute and takes one more for the faults, four
/// times as long on a busy host.
const LIMIT: Duration = Duration::from_secs(360);

fn main() {
    let mut arguments = Arguments::from_args();
    // Each has as many CPUs as there are.
    arguments.test_threads = Some(1);
    let trials = KERNELS
        .iter()
        .map(|kernel| trial(kernel, "", faults))
        .chain([
            trial(STRESSED, "_under_stress", stress),
            trial(LOCKED_DOWN, "_in_lockdown", lockdown),
        ])
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(kernel: &'static str, what: &str, test: fn(&'static str) -> anyhow::Result<()>) -> Trial {
    Trial::ignorable_test(format!("linux_{kernel}{what}"), move || {
        if let Some(why) = env::var_os("NODEMEND_VM_MISSING") {
            return Ok(Completion::ignored_with(why.to_string_lossy()));
        }
        test(kernel)
            .map(|()| Completion::Completed)
            .map_err(|error| Failed::from(format!("{error:#}")))
    })
}

fn stress(kernel: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + 2 * LIMIT;
    let mut machine = Machine::boot(&Parts::of(kernel)?, "", "stress")?;
    let mut untold = Vec::new();
    loop {
        match machine.report(deadline)? {
            Report::End => break,
            report @ Report::Stressed { provoked, told, .. } => {
                println!("Linux {kernel}: {report}");
                if told < provoked {
                    untold.push(report.to_string());
                }
            }
            report => bail!("{report}"),
        }
    }
    ensure!(untold.is_empty(), "{}", untold.join("; "));
    Ok(())
}

/// What is lost is named with the remedy, and the rest works.
fn lockdown(kernel: &str) -> anyhow::Result<()> {
    const REMEDY: &str = "lockdown=integrity";
    /// Those that the kernel prints nothing about.
    const LOST: [&str; 3] = ["NVMe retry", "CXL error", "devlink health"];
    let deadline = Instant::now() + LIMIT;
    let parts = Parts::of(kernel)?;
    let mut machine = Machine::boot(&parts, "lockdown=confidentiality", "lockdown")?;
    let mut rows = Vec::new();
    let mut told = false;
    loop {
        let report = machine.report(deadline)?;
        println!("Linux {kernel}, locked down: {report}");
        match report {
            Report::Check { rows: checked } => rows = checked,
            Report::Seen { seen, .. } => told = seen.is_some(),
            Report::End => break,
            report => bail!("{report}"),
        }
    }
    ensure!(told, "the kernel log told of no crash");
    let of = |kind: &str| -> Vec<_> {
        let name = |row: &Value| Some(row["what"].as_str()?.strip_prefix(kind)?.to_owned());
        rows.iter()
            .filter_map(|row| Some((name(row)?, row)))
            .collect()
    };
    let names_it = |row: &Value| {
        row["missing"]
            .as_str()
            .is_some_and(|why| why.contains(REMEDY))
    };
    let hooks = of("hook ");
    ensure!(!hooks.is_empty(), "`check` names no hook: {rows:?}");
    for (hook, row) in hooks {
        ensure!(row["using"].is_null() && names_it(row), "{hook}: {row}");
    }
    for (class, row) in of("class ") {
        let lost = LOST.contains(&class.as_str());
        let as_it_is = if lost {
            row["using"].is_null() && names_it(row)
        } else {
            row["using"].is_string() || row["absent"] == true
        };
        ensure!(as_it_is, "{class}: {row}");
    }
    Ok(())
}

fn faults(kernel: &str) -> anyhow::Result<()> {
    let parts = Parts::of(kernel)?;
    println!("Linux {kernel}: {}", parts.package()?);
    let started = Instant::now();
    let shown = run(&parts, started + LIMIT, |report| {
        if let Report::Seen { .. } | Report::Missing { .. } | Report::Attached { .. } = report {
            println!("{:6.1} s {report}", started.elapsed().as_secs_f64());
        }
    })?;
    let differences = Holes::read()?.differences(kernel, &shown.outcomes);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}
