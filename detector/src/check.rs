//! `nodemend-detector check`: what this host supports, and the remedy for what it does not.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::args::{Format, SourceArgs};
use crate::capabilities;
use crate::config::Config;
use crate::host::Host;
use crate::reason::ConditionType;
use crate::reload::{self, ConfigFile};
use crate::rules::Live;
use crate::signal::{Nvml, SourceName, What};
use crate::source::Source;
use crate::source::bpf::HookStatus;
use crate::source::counters::CounterStatus;
use crate::source::kmsg::KernelLog;
use crate::urgency;

mod classes;

/// More than the deadline of a call to NVML.
const NVML_PATIENCE: Duration = Duration::from_secs(6);

const KUBERNETES: &str = "Kubernetes";

/// Prints the table; false when nothing at all can be watched here. `kubernetes` is the version of
/// the API server, or why nothing can be reported to it.
pub(crate) fn check(args: &SourceArgs, kubernetes: Result<String, String>, format: Format) -> bool {
    let configuration = ConfigFile::open(args);
    let config = configuration
        .as_ref()
        .map_or_else(|_| Config::default(), |(_, config)| config.clone());
    let mut host = Host::open(args, &config);
    let mut monitored = host.monitored();
    let logs = host.logs();
    let journal = logs.find_journal();
    let live = logs.live(&journal);
    let runtime = ConditionType::ContainerRuntimeReady;
    if config.rules.conditions(live).contains(&runtime) {
        monitored.push(runtime);
    }
    let nvml = match &host.nvml {
        Ok(()) => nvml(&mut host.sources),
        Err(why) => Err(why.clone()),
    };
    let accelerated = ConditionType::AcceleratedHardwareReady;
    if nvml.is_ok() && !monitored.contains(&accelerated) {
        monitored.push(accelerated);
    }
    let mut rows: Vec<Row> = host.hooks.iter().map(Row::of_hook).collect();
    let classes = classes::found(&host.hooks, host.kernel_log.is_ok(), &host.counters);
    rows.push(Row::of_kernel_log(&host.kernel_log));
    rows.push(Row::new("source NVML".to_owned(), nvml));
    rows.push(Row::new("source journal".to_owned(), journal));
    rows.extend(ConditionType::ALL.into_iter().map(|condition| {
        let watched = if monitored.contains(&condition) {
            Ok("published".to_owned())
        } else {
            Err("not published: what it needs above is missing".to_owned())
        };
        Row::new(format!("condition {}", condition.name()), watched)
    }));
    let usable = rows.iter().any(|row| row.using.is_some());
    rows.extend(classes.into_iter().map(Row::of_class));
    let configuration = configuration
        .map(|(file, _)| file.describe())
        .map_err(|error| format!("{error:#}"));
    rows.extend(host.counters.iter().map(Row::of_counter));
    rows.push(Row::new("configuration".to_owned(), configuration));
    rows.extend(config.rules.iter().map(|rule| {
        let using = match rule.unwatched(live) {
            None => Ok(rule.reason.to_owned()),
            Some(why) => Err(why.to_owned()),
        };
        Row::new(format!("log rule {}", rule.name), using)
    }));
    let own = [
        urgency::scheduling(),
        urgency::memory(),
        urgency::oom_score(),
    ];
    rows.extend(own.map(|means| Row::new(format!("own {}", means.name), means.using)));
    rows.extend(capabilities::useful(&args.host_sys).map(|kept| {
        let what = format!("capability {}", kept.name);
        Row::new(what, capabilities::held(kept))
    }));
    rows.push(Row::new(KUBERNETES.to_owned(), kubernetes));
    match format {
        Format::Json => {
            let rows: Vec<Value> = rows.iter().map(Row::json).collect();
            println!("{}", Value::from(rows));
        }
        Format::Text => rows.iter().for_each(|row| println!("{row}")),
    }
    usable
}

/// What of one thing is in use, and what is missing.
struct Row {
    what: String,
    using: Option<String>,
    /// What finds the same where the first is not to be had.
    fallback: Option<String>,
    missing: Option<String>,
    /// The kernel does not have it: nothing is wrong with the host.
    absent: bool,
}

impl Row {
    fn new(what: String, using: Result<String, String>) -> Self {
        let (using, missing) = match using {
            Ok(using) => (Some(using), None),
            Err(missing) => (None, Some(missing)),
        };
        Self {
            what,
            using,
            fallback: None,
            missing,
            absent: false,
        }
    }

    fn of_hook(status: &HookStatus) -> Self {
        Self {
            what: format!("hook {}", status.hook.name()),
            using: status.using.clone(),
            fallback: None,
            missing: status.missing.clone(),
            absent: status.absent,
        }
    }

    fn of_kernel_log(log: &Result<KernelLog, String>) -> Self {
        let row = Self::new(
            "source kernel log".to_owned(),
            log.clone().map(|log| log.using.to_owned()),
        );
        match log {
            Ok(log) => Self {
                missing: log.missing.clone(),
                ..row
            },
            Err(_) => row,
        }
    }

    fn of_class(found: classes::Found) -> Self {
        Self {
            what: format!("class {}", found.class),
            using: found.using,
            fallback: found.fallback,
            missing: found.missing,
            absent: found.absent,
        }
    }

    fn of_counter(status: &CounterStatus) -> Self {
        Self {
            what: format!("counter {}", status.name),
            using: status.using.clone(),
            fallback: None,
            missing: status.missing.clone(),
            absent: status.absent,
        }
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "using": self.using,
            "fallback": self.fallback,
            "missing": self.missing,
            "absent": self.absent,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let using = match &self.using {
            Some(using) => using,
            None if self.absent => "absent",
            None if self.what.starts_with("own ") => "as it was",
            None if self.what.starts_with("capability ") => "MISSING",
            None if self.what == KUBERNETES => "NOT REPORTED TO",
            None => "NOT WATCHED",
        };
        write!(f, "{:<27} {using}", self.what)?;
        if let Some(fallback) = &self.fallback {
            write!(f, "; fallback: {fallback}")?;
        }
        match &self.missing {
            Some(missing) => write!(f, "  ({missing})"),
            None => Ok(()),
        }
    }
}

/// Prints what is wrong with a configuration file, from that file alone; false when it is not valid.
pub(crate) fn config(path: &Path, format: Format) -> anyhow::Result<bool> {
    let result = reload::validate(path);
    let live = Live {
        kernel_log: true,
        files: true,
        journal: true,
    };
    let rules = result.iter().flat_map(|config| config.rules.iter());
    let unwatched: Vec<_> = rules
        .filter_map(|rule| Some((rule.name.clone(), rule.unwatched(live)?)))
        .collect();
    let errors = result.as_ref().err().map_or(&[][..], Vec::as_slice);
    let text = match format {
        Format::Json => {
            let errors: Vec<Value> = errors
                .iter()
                .map(|error| {
                    let known = error.place.line > 0;
                    json!({
                        "path": error.path,
                        "line": known.then_some(error.place.line),
                        "column": known.then_some(error.place.column),
                        "message": error.message,
                    })
                })
                .collect();
            let unwatched: Vec<Value> = unwatched
                .iter()
                .map(|(rule, why)| json!({"rule": rule, "why": why}))
                .collect();
            let file = path.display().to_string();
            let valid = result.is_ok();
            json!({"file": file, "valid": valid, "errors": errors, "unwatchedRules": unwatched})
                .to_string()
        }
        Format::Text => {
            let file = path.display();
            let mut lines = reload::lines(path, errors);
            lines.extend(
                unwatched
                    .iter()
                    .map(|(rule, why)| format!("{file}: LOG RULE NOT WATCHED: {rule}: {why}")),
            );
            if result.is_ok() {
                lines.push(format!("{file}: valid"));
            }
            lines.join("\n")
        }
    };
    writeln!(std::io::stdout(), "{text}").context("write to standard output")?;
    Ok(result.is_ok())
}

/// Its first word, or that it hangs.
fn nvml(sources: &mut [Box<dyn Source + Send>]) -> Result<String, String> {
    let mut sources = sources.iter_mut();
    let Some(source) = sources.find(|source| source.name() == SourceName::Nvml) else {
        return Err("not opened".to_owned());
    };
    loop {
        let mut word = None;
        let fds = source.fds();
        let mut fds: Vec<_> = fds
            .iter()
            .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
            .collect();
        let patience = Timespec::try_from(NVML_PATIENCE).unwrap_or_default();
        match poll(&mut fds, Some(&patience)) {
            Ok(0) => return Err("no answer".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("wait for NVML: {error}")),
        }
        let read = source.drain(&mut |signal| {
            if let What::Nvml(nvml) = signal.what {
                word = word.take().or(match nvml {
                    Nvml::Watching { gpus, untold } => Some(Ok(watched(gpus, &untold))),
                    Nvml::Unavailable { why, .. } => Some(Err(why)),
                    Nvml::Hung { call, .. } => Some(Err(format!("{call} does not return"))),
                    Nvml::Answered | Nvml::Present { .. } => None,
                });
            }
        });
        read.map_err(|error| format!("{error:#}"))?;
        if let Some(word) = word {
            return word;
        }
    }
}

fn watched(gpus: usize, untold: &[&str]) -> String {
    if gpus == 0 || untold.is_empty() {
        return format!("{gpus} GPUs");
    }
    format!("{gpus} GPUs, which do not tell: {}", untold.join(", "))
}
