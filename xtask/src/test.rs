//! `cargo xtask test`: sets up, runs every suite, and ends with one line of counts.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::build::Executable;
use crate::{bpf, build, containerd, control_plane, debian, nvml, python, vm};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Pure code, no set-up
    Unit,
    /// The repairer's program against the local AWS, and that against moto
    Cloud,
    /// What the repairer decides in the simulations of tests/scenarios, no set-up
    Scenarios,
    /// BPF and kernel log in the running kernel (root)
    Kernel,
    /// GPUs: NVML with the real ABI and a script, no GPU needed (root)
    Gpu,
    /// Both daemons against the real control plane and the local AWS endpoint
    Cluster,
    /// The chart and the images, with Helm against the real control plane
    Deploy,
    /// The whole story, short
    E2e,
    /// Faults in virtual machines, of every kernel; of one in a whole run without `--all`
    Vm,
}

impl Suite {
    /// An integration test is named for its suite; everything else is a unit test.
    fn of(executable: &Executable) -> Self {
        match (executable.package.as_str(), executable.target.as_str()) {
            ("tests", "kernel") => Self::Kernel,
            ("tests", "gpu") => Self::Gpu,
            ("tests", "cloud" | "contract") => Self::Cloud,
            ("tests", "cluster") => Self::Cluster,
            ("tests", "deploy") => Self::Deploy,
            ("tests", "e2e") => Self::E2e,
            ("tests", "vm") => Self::Vm,
            ("repairer", "scenarios") => Self::Scenarios,
            _ => Self::Unit,
        }
    }

    /// What it may take on two CPUs that have nothing else to do, one program of it.
    fn budget(self) -> Duration {
        Duration::from_secs(match self {
            Self::Unit => 90,
            Self::Cloud | Self::Scenarios => 30,
            Self::Kernel => 420,
            Self::Gpu => 120,
            Self::Deploy | Self::E2e => 90,
            Self::Cluster => 420,
            // One kernel, two minutes each.
            Self::Vm => 600,
        })
    }

    fn needs_cluster(self) -> bool {
        match self {
            Self::Unit | Self::Cloud | Self::Scenarios | Self::Kernel | Self::Gpu | Self::Vm => {
                false
            }
            Self::Cluster | Self::Deploy | Self::E2e => true,
        }
    }

    fn needs_helm(self) -> bool {
        match self {
            Self::Unit
            | Self::Cloud
            | Self::Scenarios
            | Self::Kernel
            | Self::Gpu
            | Self::Cluster
            | Self::E2e
            | Self::Vm => false,
            Self::Deploy => true,
        }
    }
}

/// What the closing line of a test program says.
#[derive(Default, Debug, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// What a test program came to.
#[derive(Default)]
struct Ran {
    counts: Counts,
    /// Tests with their reasons.
    skipped: Vec<String>,
    /// Tests that failed, and passed when they were run again.
    flaky: Vec<String>,
}

/// More than these that fail are no accident.
const RUN_AGAIN: usize = 3;

/// Whether all went well. The counts are the last line in either case.
pub(crate) fn run(
    repo: &Path,
    suite: Option<Suite>,
    filter: Option<&str>,
    all_machines: bool,
) -> anyhow::Result<bool> {
    bpf::build(repo)?;
    let control_plane = match suite {
        Some(suite) if !suite.needs_cluster() => None,
        Some(_) | None => Some(control_plane::ensure(repo)?),
    };
    let (helm, floor, kubelet) = match suite {
        Some(suite) if !suite.needs_helm() => (None, None, None),
        Some(_) | None => (
            Some(control_plane::helm(repo)?),
            Some(control_plane::floor(repo)?),
            Some(control_plane::kubelet(repo)?),
        ),
    };
    let (runc, containerd, promtool, validate) = match suite {
        Some(suite) if !suite.needs_helm() => (None, None, None, None),
        Some(_) | None => (
            debian::program("runc", "usr/sbin/runc"),
            debian::program("containerd", "usr/bin/containerd")
                .and_then(|program| program.parent().map(Path::to_owned)),
            debian::program("prometheus", "usr/bin/promtool"),
            python::ensure(&python::KUBERNETES_VALIDATE)?,
        ),
    };
    let moto = match suite {
        Some(Suite::Cloud) | None => python::ensure(&python::MOTO)?,
        Some(_) => None,
    };
    let machines = match (suite, all_machines) {
        (Some(Suite::Vm), _) | (None, true) => Some(vm::ensure(repo, &vm::Kernel::ALL, false)),
        (None, false) => Some(vm::ensure(repo, &[vm::Kernel::SHORT], false)),
        (Some(_), _) => None,
    };
    let nvml = match suite {
        Some(Suite::Gpu) | None => Some(nvml::ensure()),
        Some(_) => None,
    };
    let new_containerd = match suite {
        Some(Suite::Kernel) | None => Some(containerd::ensure()),
        Some(_) => None,
    };
    let executables = build::workspace(repo)?;
    let bin_dir = build::bin_dir(&executables)?;

    let traffic = fresh_folder(&repo.join("target/api-traffic"))?;
    let mut tests: Vec<_> = executables
        .iter()
        .filter(|e| e.is_test && suite.is_none_or(|suite| suite == Suite::of(e)))
        .collect();
    tests.sort_by_key(|e| (Suite::of(e) as u8, e.package.clone(), e.target.clone()));
    let program = |executable: &Executable| {
        let mut command = Command::new(&executable.path);
        command
            .current_dir(&executable.package_dir)
            .env("NODEMEND_REPO", repo)
            .env("NODEMEND_BIN_DIR", &bin_dir)
            .env("INSTA_UPDATE", "no")
            .env("NODEMEND_API_TRAFFIC", &traffic)
            .stdout(Stdio::piped());
        if suite.is_none() && filter.is_none() {
            command.env("NODEMEND_WHOLE_RUN", "1");
        }
        for (name, path) in [
            ("NODEMEND_CONTROL_PLANE_BIN", &control_plane),
            ("NODEMEND_FLOOR_BIN", &floor),
            ("NODEMEND_HELM_BIN", &helm),
            ("NODEMEND_KUBELET_BIN", &kubelet),
            ("NODEMEND_CONTAINERD", &containerd),
            ("NODEMEND_MOTO_PYTHON", &moto),
            ("NODEMEND_RUNC", &runc),
            ("NODEMEND_PROMTOOL", &promtool),
            ("NODEMEND_VALIDATE_PYTHON", &validate),
        ] {
            if let Some(path) = path {
                command.env(name, path);
            }
        }
        // Not everybody has Debian's tools.
        for (found, name, missing) in [
            (&machines, vm::FOLDER, "NODEMEND_VM_MISSING"),
            (&nvml, nvml::LIBRARY, nvml::MISSING),
            (&new_containerd, containerd::PROGRAM, containerd::MISSING),
        ] {
            match found {
                Some(Ok(path)) => {
                    command.env(name, path);
                }
                Some(Err(error)) => {
                    command.env(missing, format!("{error:#}"));
                }
                None => {}
            }
        }
        command
    };
    // Where all suites run, the virtual machines are beside the kernel suite: that mostly waits.
    let one_machine = vm::Kernel::SHORT.test();
    let which: &[&str] = if all_machines {
        &[]
    } else {
        &["--exact", &one_machine]
    };
    let (machine, tests): (Vec<_>, Vec<_>) = tests
        .into_iter()
        .partition(|executable| suite.is_none() && Suite::of(executable) == Suite::Vm);
    let machine = machine.first().filter(|_| filter.is_none());
    let filter: Vec<_> = filter.into_iter().collect();
    let ran = thread::scope(|scope| {
        let mut beside = None;
        let mut ran = Vec::new();
        for executable in tests {
            if Suite::of(executable) == Suite::Kernel {
                beside = machine.map(|machine| scope.spawn(|| run_one(machine, &program, which)));
            }
            ran.push(run_one(executable, &program, &filter)?);
        }
        if let Some(thread) = beside {
            match thread.join() {
                Ok(result) => ran.push(result?),
                Err(_) => bail!("the thread beside the kernel suite panicked"),
            }
        }
        Ok(ran)
    })?;

    let mut total = Counts::default();
    let mut flaky = 0;
    for ran in &ran {
        for line in &ran.skipped {
            println!("SKIPPED {line}");
        }
        for line in &ran.flaky {
            println!(
                "FLAKY {line}: failed, and passed when it was run again: a defect, here or there"
            );
        }
        flaky += ran.flaky.len();
        total.passed += ran.counts.passed;
        total.failed += ran.counts.failed;
        total.skipped += ran.counts.skipped;
    }
    if total == Counts::default() {
        bail!("no test ran");
    }
    println!(
        "{} passed ({flaky} flaky), {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    Ok(total.failed == 0)
}

/// What the API servers of this run have been asked, for the last test of all.
fn fresh_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder.to_owned())
}

/// Runs one test program. Unit tests stay silent while they pass; the other suites are slow, so each of
/// their tests is shown as it ends. What fails there is run once more: they share a host with
/// others' work, and one of a thousand that could not keep its deadline must not hide what the
/// rest says. It is told and counted.
fn run_one(
    executable: &Executable,
    program: &impl Fn(&Executable) -> Command,
    filter: &[&str],
) -> anyhow::Result<Ran> {
    let name = format!("{}/{}", executable.package, executable.target);
    let suite = Suite::of(executable);
    let live = suite != Suite::Unit;
    let started = Instant::now();
    let output = output(&name, program(executable).args(filter), live)?;
    let lines = output.lines.iter();
    let skipped = lines.clone().filter_map(|line| skip(line));
    let skipped = skipped.map(|skip| format!("{name}: {skip}")).collect();
    let mut counts = output.counts();
    let mut flaky = Vec::new();
    if counts.failed > 0 {
        println!("{}", output.lines.join("\n"));
        let failed: Vec<_> = lines.filter_map(|line| failed(line)).collect();
        let of_real_parts = live && suite != Suite::Scenarios;
        if of_real_parts && failed.len() <= RUN_AGAIN {
            for test in failed {
                println!("{name}: {test} is run again");
                let mut command = program(executable);
                let again = self::output(&name, command.args(["--exact", &test]), live)?;
                let Counts { passed, failed, .. } = again.counts();
                if (passed, failed) == (1, 0) {
                    counts.failed -= 1;
                    counts.passed += 1;
                    flaky.push(format!("{name}: {test}"));
                } else {
                    println!("{}", again.lines.join("\n"));
                }
            }
        }
    }
    if counts != Counts::default() {
        let (took, budget) = (started.elapsed(), suite.budget());
        let over = if took > budget { ", OVER BUDGET" } else { "" };
        println!(
            "{name}: {} passed, {} failed, {} skipped in {:.1} s of {} s{over}",
            counts.passed,
            counts.failed,
            counts.skipped,
            took.as_secs_f64(),
            budget.as_secs()
        );
    }
    Ok(Ran {
        counts,
        skipped,
        flaky,
    })
}

struct Output {
    lines: Vec<String>,
    success: bool,
}

impl Output {
    fn counts(&self) -> Counts {
        let mut lines = self.lines.iter().rev();
        let mut counts = lines
            .find_map(|line| closing_line(line))
            .unwrap_or_default();
        if !self.success && counts.failed == 0 {
            // It crashed before it could count.
            counts.failed = 1;
        }
        counts
    }
}

fn output(name: &str, command: &mut Command, live: bool) -> anyhow::Result<Output> {
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    let stdout = child
        .stdout
        .take()
        .with_context(|| format!("read the output of {name}"))?;
    let mut lines = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.with_context(|| format!("read the output of {name}"))?;
        if live && line.starts_with("test ") {
            println!("  {line}");
        }
        lines.push(line);
    }
    let status = child.wait().with_context(|| format!("wait for {name}"))?;
    let success = status.success();
    Ok(Output { lines, success })
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; ...`
fn closing_line(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        rest.split(['.', ';'])
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
    })
}

/// `test NAME ... ignored, REASON` of the standard harness, `... ignored (REASON)` of libtest-mimic.
fn skip(line: &str) -> Option<String> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let reason = outcome
        .strip_prefix("ignored")?
        .trim_start_matches([',', ' ', '('])
        .trim_end_matches(')');
    Some(format!("{}: {reason}", name.trim()))
}

/// `test NAME ... FAILED`.
fn failed(line: &str) -> Option<String> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    (outcome == "FAILED").then(|| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_closing_line_of_a_test_program() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(
            closing_line(line),
            Some(Counts {
                passed: 12,
                failed: 3,
                skipped: 1
            })
        );
        assert_eq!(closing_line("test result of something else"), None);
    }

    #[test]
    fn names_a_skipped_test_with_its_reason() {
        assert_eq!(
            skip("test oom ... ignored, needs root"),
            Some("oom: needs root".to_owned())
        );
        assert_eq!(
            skip("test oom   ... ignored (needs root)"),
            Some("oom: needs root".to_owned())
        );
        assert_eq!(skip("test oom ... ok"), None);
    }

    #[test]
    fn names_a_failed_test() {
        assert_eq!(
            failed("test detector::oom   ... FAILED"),
            Some("detector::oom".to_owned())
        );
        assert_eq!(failed("test oom ... ok"), None);
    }
}
