//! The first process of a virtual machine: sets it up, starts two detectors, provokes one fault after
//! the other, and reports what they made of it on the second serial port.

mod cxl;
mod devices;
mod faults;
mod lockdown;
mod set_up;
mod stress;

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::faults::boot_clock;
use nodemend_tests::vm::{Holes, KERNELS, LATE, Report, Seen, Way};
use nodemend_tests::watch::Watch;
use serde_json::{Value, json};

use crate::faults::{Fault, Mounted, Shows};

/// For a detector to see what it is to see. The machine is slow, and slower on a busy host.
const LIKELY: Duration = Duration::from_secs(40);
/// For one to see what no one has seen yet.
const UNLIKELY: Duration = Duration::from_secs(4);
/// A detector looks for new modules once a minute.
const MODULE: Duration = Duration::from_secs(100);
const SOON: Duration = Duration::from_millis(50);

fn main() {
    let result = set_up::set_up().and_then(|()| {
        let mut guest = Guest {
            reports: File::create("/dev/ttyS1").context("open the line to the host")?,
            kernel: kernel()?,
            holes: Holes::read()?,
            late: None,
            ended_with_the_machine: None,
        };
        let end = match std::env::args().nth(1).as_deref() {
            Some("stress") => stress::run(&mut guest),
            Some("lockdown") => lockdown::run(&mut guest),
            _ => guest.faults(),
        };
        let end = end.map_or_else(
            |error| Report::Failed {
                why: format!("{error:#}"),
            },
            |()| Report::End,
        );
        guest.report(&end)
    });
    if let Err(error) = result {
        eprintln!("nodemend-guest: {error:#}");
    }
    // What was written to the line must leave the machine first.
    std::thread::sleep(Duration::from_millis(500));
    if let Err(error) = set_up::run("busybox", &["poweroff", "-f"]) {
        eprintln!("nodemend-guest: {error:#}");
    }
}

pub(crate) struct Guest {
    reports: File,
    /// As the list of holes calls it.
    kernel: &'static str,
    holes: Holes,
    /// Until its fault is provoked.
    late: Option<Mounted>,
    /// A detector that ends may have to wait for the disk that stays slow.
    ended_with_the_machine: Option<[Watch; 2]>,
}

impl Guest {
    fn faults(&mut self) -> anyhow::Result<()> {
        let rows = check()?;
        let hooks: Vec<_> = rows
            .iter()
            .filter_map(|row| row["what"].as_str()?.strip_prefix("hook "))
            .map(str::to_owned)
            .collect();
        ensure!(!hooks.is_empty(), "`check` names no hook: {rows:?}");
        self.report(&Report::Check { rows: rows.clone() })?;

        fs::write("/etc/hooks.yaml", "sources: {kernelLog: {enabled: false}}")
            .context("write a configuration")?;
        let quick = ["--counter-interval", "2s", "--task-interval", "2s"];
        let mut by_hooks = Watch::start(&[&["--config", "/etc/hooks.yaml"], &quick[..]].concat())?;
        ensure!(
            !fs::exists(format!("/sys/module/{LATE}")).unwrap_or(true),
            "the module {LATE} was to come late"
        );
        self.late = Some(Mounted::late()?);
        let without: Vec<_> = hooks
            .iter()
            .flat_map(|hook| ["--disable-hook", hook.as_str()])
            .chain(quick)
            .collect();
        let mut by_log = Watch::start(&without)?;
        for fault in faults::ALL {
            self.show(fault, &mut by_hooks, &mut by_log)?;
        }
        self.ended_with_the_machine = Some([by_hooks, by_log]);
        Ok(())
    }

    /// Provokes a fault, and reports what each detector said of it.
    fn show(
        &mut self,
        fault: &Fault,
        by_hooks: &mut Watch,
        by_log: &mut Watch,
    ) -> anyhow::Result<()> {
        if let Some(hook) = fault.late {
            self.wait_for_module(fault, hook, by_hooks)?;
        }
        let at = boot_clock();
        let classes = || fault.shows.into_iter().flatten();
        // It lasts until both had their time.
        let _fault = match (fault.provoke)(self) {
            Ok(fault) => fault,
            Err(error) => {
                for (class, _) in classes() {
                    let (class, why) = (class.to_owned(), format!("{error:#}"));
                    self.report(&Report::Missing { class, why })?;
                }
                return Ok(());
            }
        };
        let end = |class, way| {
            let known = self.holes.of(self.kernel, class, way).is_some();
            at + if known { UNLIKELY } else { LIKELY }
        };
        let mut looks: Vec<_> = classes()
            .flat_map(|shows| [Way::Hooks, Way::Log].map(|way| (shows, way)))
            .map(|(shows, way)| (shows, way, end(shows.0, way), None))
            .collect();
        loop {
            let mut waits = false;
            for (shows, way, end, seen) in &mut looks {
                if seen.is_none() && boot_clock() < *end {
                    let detector = match way {
                        Way::Hooks => &mut *by_hooks,
                        Way::Log => &mut *by_log,
                    };
                    *seen = look(detector, *shows, at);
                    waits |= seen.is_none();
                }
            }
            if !waits {
                break;
            }
        }
        for ((class, _), way, _, seen) in looks {
            let class = class.to_owned();
            self.report(&Report::Seen { class, way, seen })?;
        }
        Ok(())
    }

    /// The detector's word on the hook that came with the module: it attached it, or why not.
    fn wait_for_module(
        &mut self,
        fault: &Fault,
        hook: &str,
        by_hooks: &mut Watch,
    ) -> anyhow::Result<()> {
        let line = by_hooks.line_within(MODULE, hook, |line| {
            line["hook"] == hook
                && ["attached", "not watched"].contains(&line["message"].as_str().unwrap_or(""))
        })?;
        let Some(using) = line["using"].as_str() else {
            return Ok(());
        };
        for (class, _) in fault.shows.into_iter().flatten() {
            self.report(&Report::Attached {
                class: class.to_owned(),
                hook: hook.to_owned(),
                using: using.to_owned(),
            })?;
        }
        Ok(())
    }

    pub(crate) fn report(&mut self, report: &Report) -> anyhow::Result<()> {
        let line = serde_json::to_string(report).context("write a report")?;
        writeln!(self.reports, "{line}").context("reach the host")
    }

    /// Of QEMU's monitor for programs.
    pub(crate) fn ask(&mut self, command: Value) -> anyhow::Result<()> {
        self.report(&Report::Ask { command })
    }

    /// Of the one for people: not all of its commands are there for programs.
    pub(crate) fn ask_in_words(&mut self, command: &str) -> anyhow::Result<()> {
        self.ask(json!({
            "execute": "human-monitor-command",
            "arguments": {"command-line": command},
        }))
    }
}

/// What it has said of the fault, or says soon.
pub(crate) fn look(watch: &mut Watch, (class, reasons): Shows, at: Duration) -> Option<Seen> {
    let of_it = |line: &Value| {
        ["opened", "repeated"]
            .iter()
            .any(|transition| line["transition"] == **transition)
            && reasons.iter().any(|reason| line["reason"] == **reason)
            && found(line).is_some_and(|found| found >= at)
    };
    let line = watch.line_within(SOON, class, of_it).ok()?;
    let milliseconds = found(&line)?.saturating_sub(at).as_millis();
    let subject = line["subject"].as_object();
    Some(Seen {
        reason: line["reason"].as_str()?.to_owned(),
        milliseconds: u64::try_from(milliseconds).unwrap_or(u64::MAX),
        subject: subject
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, _)| name.clone())
            .collect(),
    })
}

fn found(line: &Value) -> Option<Duration> {
    line["foundNs"].as_u64().map(Duration::from_nanos)
}

fn kernel() -> anyhow::Result<&'static str> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the release")?;
    let kernel = KERNELS
        .into_iter()
        .find(|kernel| release.starts_with(&format!("{kernel}.")));
    kernel.with_context(|| format!("Linux {release} is none of those known"))
}

pub(crate) fn check() -> anyhow::Result<Vec<Value>> {
    let detector = nodemend_tests::daemon::binary("nodemend-detector")?;
    #[expect(clippy::disallowed_methods, reason = "the harness runs the detector")]
    let output = Command::new(detector)
        .args(["check", "-o", "json"])
        .output()
        .context("run the detector")?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "read what `check` says: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
