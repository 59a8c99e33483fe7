//! The first process of a virtual machine: sets it up, starts two detectors, provokes one fault after
//! the other, and reports what they made of it on the second serial port. As another process it
//! sets up nothing, provokes what leaves a host as it was, and reports on its standard output.

mod cxl;
mod devices;
mod faults;
mod lockdown;
mod set_up;
mod stress;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::faults::boot_clock;
use nodemend_tests::vm::{Holes, KERNELS, LATE, RUNNING, Report, Seen, Way};
use nodemend_tests::watch::Watch;
use serde_json::{Value, json};

use crate::faults::{By, Fault, Mounted, Shows};

/// For a detector to see what it is to see. The machine is slow, and slower on a busy host.
const LIKELY: Duration = Duration::from_secs(40);
/// For one to see what no one has seen yet.
const UNLIKELY: Duration = Duration::from_secs(4);
/// A detector looks for new modules once a minute.
const MODULE: Duration = Duration::from_secs(100);
const SOON: Duration = Duration::from_millis(50);
/// By which the clock of the kernel log may be off (`set_up::let_clocks_drift`).
const CLOCKS: Duration = Duration::from_secs(1);

fn main() {
    let is_machine = std::process::id() == 1;
    if let Err(error) = run(is_machine) {
        eprintln!("nodemend-guest: {error:#}");
    }
    if !is_machine {
        return;
    }
    // What was written to the line must leave the machine first.
    std::thread::sleep(Duration::from_millis(500));
    if let Err(error) = set_up::run("busybox", &["poweroff", "-f"]) {
        eprintln!("nodemend-guest: {error:#}");
    }
}

fn run(is_machine: bool) -> anyhow::Result<()> {
    let line = if is_machine {
        set_up::set_up()?;
        "/dev/ttyS1"
    } else {
        "/dev/stdout"
    };
    let reports = OpenOptions::new().write(true).open(line);
    let mut guest = Guest {
        is_machine,
        reports: reports.with_context(|| format!("open {line}"))?,
        kernel: if is_machine { kernel()? } else { RUNNING },
        holes: Holes::read()?,
        late: None,
        ended_with_the_machine: None,
    };
    let end = match std::env::args().nth(1).as_deref() {
        Some("stress") if is_machine => stress::run(&mut guest),
        Some("lockdown") if is_machine => lockdown::run(&mut guest),
        _ => guest.faults(),
    };
    let end = end.map_or_else(
        |error| Report::Failed {
            why: format!("{error:#}"),
        },
        |()| Report::End,
    );
    guest.report(&end)
}

pub(crate) struct Guest {
    /// It has the whole machine, which ends with it.
    pub(crate) is_machine: bool,
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

        let folder = tempfile::tempdir().context("make a folder")?;
        let config = folder.path().join("hooks.yaml");
        fs::write(&config, "sources: {kernelLog: {enabled: false}}")
            .context("write a configuration")?;
        let config = config.display().to_string();
        let quick = ["--counter-interval", "2s", "--task-interval", "2s"];
        let mut by_hooks = Watch::start(&[&["--config", config.as_str()], &quick[..]].concat())?;
        if self.is_machine {
            ensure!(
                !fs::exists(format!("/sys/module/{LATE}")).unwrap_or(true),
                "the module {LATE} was to come late"
            );
            self.late = Some(Mounted::late()?);
        }
        let without: Vec<_> = hooks
            .iter()
            .flat_map(|hook| ["--disable-hook", hook.as_str()])
            .chain(quick)
            .collect();
        let mut by_log = Watch::start(&without)?;
        for fault in faults::ALL {
            if self.is_machine || fault.anywhere {
                self.show(fault, &mut by_hooks, &mut by_log)?;
            }
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
        let by = fault.by;
        if let Some(By {
            hook, late: true, ..
        }) = by
        {
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
                    let (detector, says) = match way {
                        Way::Hooks => (&mut *by_hooks, by.map_or("", |by| by.says)),
                        Way::Log => (&mut *by_log, ""),
                    };
                    *seen = look(detector, *shows, says, at)?;
                    waits |= seen.is_none();
                }
            }
            if !waits {
                break;
            }
        }
        for ((class, _), way, _, seen) in looks {
            self.report(&Report::Seen {
                class: class.to_owned(),
                hook: by.map(|by| by.hook.to_owned()),
                way,
                seen,
            })?;
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

/// What it has said of the fault in these words, or says soon.
pub(crate) fn look(
    watch: &mut Watch,
    (class, reasons): Shows,
    says: &str,
    at: Duration,
) -> anyhow::Result<Option<Seen>> {
    let of_it = |line: &Value| {
        ["opened", "repeated"]
            .iter()
            .any(|transition| line["transition"] == **transition)
            && reasons.iter().any(|reason| line["reason"] == **reason)
            && line["message"]
                .as_str()
                .is_some_and(|message| message.contains(says))
            && time(line, "foundNs") >= at
    };
    let Ok(line) = watch.line_within(SOON, class, of_it) else {
        return Ok(None);
    };
    let (fault, found) = (time(&line, "faultNs"), time(&line, "foundNs"));
    ensure!(
        fault + CLOCKS >= at && fault <= found,
        "{class} was provoked at {at:?}, and told at {found:?} as of {fault:?}"
    );
    let milliseconds = found.saturating_sub(at).as_millis();
    let subject = line["subject"].as_object();
    Ok(Some(Seen {
        reason: line["reason"].as_str().unwrap_or_default().to_owned(),
        milliseconds: u64::try_from(milliseconds).unwrap_or(u64::MAX),
        subject: subject
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, _)| name.clone())
            .collect(),
    }))
}

fn time(line: &Value, name: &str) -> Duration {
    Duration::from_nanos(line[name].as_u64().unwrap_or_default())
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
