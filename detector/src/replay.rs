//! `nodemend-detector replay`: what a node would have said for a saved log, by the same core, on the
//! log's own clock.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::args::{Format, ReplayArgs};
use crate::config::Config;
use crate::core::{Core, Evidence, Input, Output};
use crate::finding::{Now, Transition};
use crate::probe::CpuState;
use crate::reason::ConditionType;
use crate::reload;
use crate::rules::Origin;
use crate::signal::{Signal, What};
use crate::source::kmsg::{grammar, record::Record};

mod console;
mod export;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod json;
mod saved;

#[cfg(any(test, fuzzing))]
pub(crate) use self::fuzz::saved as fuzz_saved;
use self::saved::{Saved, SavedLine};

/// Prints every transition. An error names what cannot be read.
pub(crate) fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    let config = match &args.config {
        Some(path) => match reload::validate(path) {
            Ok(config) => config,
            Err(errors) => bail!("{}", reload::lines(path, &errors).join("\n")),
        },
        None => Config::default(),
    };
    let input: Box<dyn Read> = if args.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let show = || format!("open {}", args.file.display());
        Box::new(File::open(&args.file).with_context(show)?)
    };
    let mut out = io::stdout().lock();
    let mut replay = Replay::new(&config, !args.no_evidence);
    for line in Saved::new(input) {
        let line = line.with_context(|| format!("read {}", display(&args.file)))?;
        for said in replay.read(&line) {
            let line = match args.output {
                Format::Json => said.json().to_string(),
                Format::Text => said.text(),
            };
            match writeln!(out, "{line}") {
                // `replay ... | head`
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.context("write to standard output")?,
            }
        }
    }
    Ok(())
}

fn display(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    }
}

struct Replay<'a> {
    config: &'a Config,
    core: Core,
    /// What only a live host can say is taken to confirm what the lines say.
    evidence: bool,
    now: Duration,
}

/// One transition, and the line that caused it.
struct Said {
    transition: Transition,
    input: Option<u64>,
}

impl<'a> Replay<'a> {
    fn new(config: &'a Config, evidence: bool) -> Self {
        let mut replay = Self {
            config,
            core: Core::new(ConditionType::ALL.to_vec()),
            evidence,
            now: Duration::ZERO,
        };
        for input in [
            Input::Settings(config.settings.clone()),
            Input::HistoryRead,
            Input::Existing(Vec::new()),
        ] {
            replay.step(input, None);
        }
        replay
    }

    fn read(&mut self, line: &SavedLine) -> Vec<Said> {
        // Clocks in saved logs may stand still or go back; ours does not.
        let at = line.at.unwrap_or(self.now).max(self.now);
        let mut said = self.pass(at);
        for what in self.signals(line) {
            if !self.config.scope.admits(&what) {
                continue;
            }
            let signal = Signal {
                at,
                historic: false,
                what,
            };
            said.extend(self.step(Input::Signal(signal), Some(line.number)));
        }
        said
    }

    /// What clears until then. Evidence that a live agent reads again and again does not change in a
    /// saved log.
    fn pass(&mut self, until: Duration) -> Vec<Said> {
        let mut said = Vec::new();
        while let Some(due) = self.core.clears_at().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            said.extend(self.step(Input::Wake, None));
        }
        self.now = until;
        said
    }

    fn signals(&self, line: &SavedLine) -> Vec<What> {
        let text = line.text.as_str();
        let mut signals = Vec::new();
        if line.origin == Origin::KernelLog {
            if line.facility != 0 {
                return signals;
            }
            let record = Record {
                facility: 0,
                level: line.level,
                sequence: 0,
                at: self.now,
                text,
            };
            signals.extend(grammar::read(&record).and_then(|what| self.confirm(what)));
        }
        for origin in [&line.origin].into_iter().chain(&line.also) {
            signals.extend(self.config.rules.read(origin, text.as_bytes()));
        }
        signals
    }

    /// Nothing where a live host would not believe the line.
    fn confirm(&self, mut what: What) -> Option<What> {
        match &mut what {
            What::Xid { driver, .. } if self.evidence => *driver = Some("nvidia".to_owned()),
            What::Sxid { driver, .. } if self.evidence => {
                *driver = Some("nvidia-nvswitch".to_owned());
            }
            What::FallenOff { nvidia, .. } => *nvidia = self.evidence,
            What::Logged(fault) if fault.reason.driver().is_some() && !self.evidence => {
                return None;
            }
            _other => {}
        }
        Some(what)
    }

    fn step(&mut self, input: Input, line: Option<u64>) -> Vec<Said> {
        let now = Now {
            boot: self.now,
            wall: Timestamp::UNIX_EPOCH + self.now,
        };
        let mut said = Vec::new();
        for output in self.core.step(input, now) {
            match output {
                Output::Transition(transition) => said.push(Said {
                    transition,
                    input: line,
                }),
                Output::Probe { device } => {
                    let evidence = if self.evidence {
                        Evidence::ReadOnly {
                            mount_point: "(not known from a log)".to_owned(),
                            // The worst: that the node needs it.
                            critical: Some("/".to_owned()),
                        }
                    } else {
                        Evidence::Writable
                    };
                    said.extend(self.step(Input::Evidence { device, evidence }, line));
                }
                Output::LookAtCpu { cpu } => {
                    let state = if self.evidence {
                        CpuState::InKernel
                    } else {
                        CpuState::Runs
                    };
                    said.extend(self.step(Input::Cpu { cpu, state }, line));
                }
                Output::Conditions { .. }
                // A saved log has no tasks.
                | Output::LookAtTask { .. }
                | Output::Open(_) | Output::State(_) => {}
            }
        }
        said
    }
}

impl Said {
    fn json(&self) -> Value {
        let Transition {
            change, finding, ..
        } = &self.transition;
        let mut json = json!({
            "at": self.transition.found.boot.as_secs_f64(),
            "transition": change.name(),
            "reason": finding.reason.name(),
            "condition": finding.reason.row().condition.name(),
            "severity": finding.severity.to_string(),
            "message": finding.text(),
            "count": finding.count,
        });
        if let (Some(input), Some(object)) = (self.input, json.as_object_mut()) {
            object.insert("input".to_owned(), input.into());
        }
        json
    }

    fn text(&self) -> String {
        let Transition {
            change, finding, ..
        } = &self.transition;
        let count = if finding.count > 1 {
            format!(" ({} times)", finding.count)
        } else {
            String::new()
        };
        format!(
            "[{:12.6}] {:<8} {:<7} {} ({}): {}{count}",
            self.transition.found.boot.as_secs_f64(),
            change.name(),
            finding.severity.to_string(),
            finding.reason.name(),
            finding.reason.row().condition.name(),
            finding.text(),
        )
    }
}

#[cfg(test)]
mod tests;
