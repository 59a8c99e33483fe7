//! `nodemend-detector check`: what this host supports, and the remedy for what it does not.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::args::{Format, SourceArgs};
use crate::config::Config;
use crate::host::Host;
use crate::reason::ConditionType;
use crate::reload::{self, ConfigFile};
use crate::rules::Live;
use crate::signal::{Nvml, SourceName, What};
use crate::source::Source;

/// More than the deadline of a call to NVML.
const NVML_PATIENCE: Duration = Duration::from_secs(6);

/// Prints the table; false when nothing at all can be watched here.
pub(crate) fn check(args: &SourceArgs, format: Format) -> bool {
    let configuration = ConfigFile::open(args);
    let config = configuration
        .as_ref()
        .map_or_else(|_| Config::default(), |(_, config)| config.clone());
    let mut host = Host::open(args, &config);
    let mut monitored = host.monitored();
    let live = host.live();
    let runtime = ConditionType::ContainerRuntimeReady;
    if config.rules.conditions(live).contains(&runtime) {
        monitored.push(runtime);
    }
    let journal = host.find_journal();
    let nvml = match &host.nvml {
        Ok(()) => nvml(&mut host.sources),
        Err(why) => Err(why.clone()),
    };
    let accelerated = ConditionType::AcceleratedHardwareReady;
    if nvml.is_ok() && !monitored.contains(&accelerated) {
        monitored.push(accelerated);
    }
    let mut rows: Vec<(String, Option<String>, Option<String>)> = host
        .hooks
        .iter()
        .map(|status| {
            (
                format!("hook {}", status.hook.name()),
                status.using.clone(),
                status.missing.clone(),
            )
        })
        .collect();
    rows.push((
        "source kernel log".to_owned(),
        host.kernel_log.is_ok().then(|| "/dev/kmsg".to_owned()),
        host.kernel_log.err(),
    ));
    let (using, missing) = match nvml {
        Ok(using) => (Some(using), None),
        Err(missing) => (None, Some(missing)),
    };
    rows.push(("source NVML".to_owned(), using, missing));
    let (using, missing) = match journal {
        Ok(using) => (Some(using), None),
        Err(missing) => (None, Some(missing)),
    };
    rows.push(("source journal".to_owned(), using, missing));
    rows.extend(ConditionType::ALL.into_iter().map(|condition| {
        let watched = monitored.contains(&condition);
        let absent = || "not published: what it needs above is missing".to_owned();
        (
            format!("condition {}", condition.name()),
            watched.then(|| "published".to_owned()),
            (!watched).then(absent),
        )
    }));
    let usable = rows.iter().any(|(_, using, _)| using.is_some());
    let (using, missing) = match configuration {
        Ok((file, _)) => (Some(file.describe()), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    rows.push(("configuration".to_owned(), using, missing));
    rows.extend(config.rules.iter().map(|rule| {
        let why = rule.unwatched(live).map(str::to_owned);
        let using = why.is_none().then(|| rule.reason.to_owned());
        (format!("log rule {}", rule.name), using, why)
    }));
    match format {
        Format::Json => {
            let rows: Vec<Value> = rows
                .into_iter()
                .map(|(what, using, missing)| json!({"what": what, "using": using, "missing": missing}))
                .collect();
            println!("{}", Value::from(rows));
        }
        Format::Text => {
            for (what, using, missing) in rows {
                let using = using.unwrap_or_else(|| "NOT WATCHED".to_owned());
                let missing = missing
                    .map(|missing| format!("  ({missing})"))
                    .unwrap_or_default();
                println!("{what:<27} {using}{missing}");
            }
        }
    }
    usable
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
                    Nvml::Watching { gpus } => Some(Ok(format!("{gpus} GPUs"))),
                    Nvml::Unavailable { why, .. } => Some(Err(why)),
                    Nvml::Hung { call, .. } => Some(Err(format!("{call} does not return"))),
                    Nvml::Answered => None,
                });
            }
        });
        read.map_err(|error| format!("{error:#}"))?;
        if let Some(word) = word {
            return word;
        }
    }
}
