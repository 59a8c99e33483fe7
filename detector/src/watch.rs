//! `nodemend-detector watch`: findings and conditions of this host, live, without a cluster.

use std::io::Write;
use std::sync::{Arc, mpsc};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::args::{Format, SourceArgs};
use crate::clock;
use crate::core::{Condition, Core, Output};
use crate::finding::Transition;
use crate::host::Host;
use crate::probe::Prober;
use crate::reader::{self, Memory, Message};
use crate::reload::{self, ConfigFile};
use crate::state::file::Left;

pub(crate) fn watch(args: &SourceArgs, format: Format) -> anyhow::Result<()> {
    let (file, mut config) = ConfigFile::open(args).context("use the configuration")?;
    let host = Host::open(args, &config);
    let live = host.live();
    config.feed(live);
    reload::warn_of_unwatched(&config, live);
    if host.watches_nothing(&config) {
        bail!("nothing can be watched on this host; `nodemend-detector check` says why");
    }
    let (sender, outputs) = mpsc::channel();
    let core = Core::new(host.monitored());
    let prober = Prober::new(args.host_proc.clone(), args.critical_mounts.clone());
    let hooks = hooks(&host);
    // What a look at the host shows is nobody's memory.
    let memory = Memory {
        boot_id: clock::boot_id()?,
        left: Left::Nothing,
    };
    let config = Arc::new(config);
    let output = move |output| {
        // The receiver lives as long as the process.
        drop(sender.send(output));
    };
    let (mailbox, thread) = reader::start(
        host.sources,
        core,
        prober,
        Arc::clone(&config),
        memory,
        output,
    )?;
    let changes = mailbox.clone();
    file.watch(&config, live, move |message| changes.send(message))?;
    // There is no Node whose conditions could stand already.
    mailbox.send(Message::Existing(Vec::new()));

    let mut shown: Vec<Condition> = Vec::new();
    for output in outputs {
        match output {
            Output::Transition(transition) => {
                print(format, &transition_json(&transition), || text(&transition))?
            }
            Output::Conditions { conditions, .. } => {
                // The first conditions come when the past is read: from here on everything is new.
                if shown.is_empty() {
                    print(format, &json!({"ready": true, "hooks": hooks}), || {
                        "watching".to_owned()
                    })?;
                }
                for condition in &conditions {
                    let before = shown.iter().find(|shown| shown.kind == condition.kind);
                    if before.map(|shown| (shown.healthy, &shown.message))
                        != Some((condition.healthy, &condition.message))
                    {
                        print(format, &condition_json(condition), || {
                            condition_text(condition)
                        })?;
                    }
                }
                for gone in shown
                    .iter()
                    .filter(|old| conditions.iter().all(|new| new.kind != old.kind))
                {
                    let name = gone.kind.name();
                    print(
                        format,
                        &json!({"condition": name, "status": "absent"}),
                        || format!("{name} is not watched any more"),
                    )?;
                }
                shown = conditions;
            }
            // Answered by the reader itself, and kept by nobody.
            Output::Probe { .. } | Output::Open(_) | Output::State(_) => {}
        }
    }
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("the reader thread panicked"),
    }
}

fn print(format: Format, json: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{json}"),
        Format::Text => writeln!(out, "{}", text()),
    }
    .and_then(|()| out.flush())
    .context("write to standard output")
}

fn hooks(host: &Host) -> Value {
    host.hooks
        .iter()
        .map(|status| (status.hook.name().to_owned(), json!(status.using)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn transition_json(transition: &Transition) -> Value {
    let finding = &transition.finding;
    let nanoseconds =
        |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut value = json!({
        "at": transition.found.wall.to_string(),
        "transition": transition.change.name(),
        "reason": finding.reason.name(),
        "condition": finding.reason.row().condition.name(),
        "severity": finding.severity.to_string(),
        "message": finding.text(),
        "historic": finding.historic,
        "entity": finding.entity,
        "count": finding.count,
        "subject": finding.subject,
        "faultNs": nanoseconds(transition.fault),
        "foundNs": nanoseconds(transition.found.boot),
    });
    if let Some(workload) = &finding.subject.workload {
        value["subject"]["cgroup"] = json!(workload.cgroup);
        value["subject"]["podUid"] = json!(workload.pod_uid);
        value["subject"]["containerId"] = json!(workload.container_id);
    }
    value
}

fn text(transition: &Transition) -> String {
    let finding = &transition.finding;
    let pod = finding
        .subject
        .workload
        .as_ref()
        .map(|workload| format!(" [{}]", workload.cgroup))
        .unwrap_or_default();
    format!(
        "{} {:<8} {:<7} {}: {}{pod}",
        transition.found.wall.strftime("%H:%M:%S"),
        transition.change.name(),
        finding.severity,
        finding.reason,
        finding.message
    )
}

fn condition_json(condition: &Condition) -> Value {
    json!({
        "condition": condition.kind.name(),
        "status": if condition.healthy { "True" } else { "False" },
        "reason": condition.reason,
        "message": condition.message,
        "transitionTime": condition.transition.to_string(),
    })
}

fn condition_text(condition: &Condition) -> String {
    format!(
        "{}={} {}: {}",
        condition.kind.name(),
        condition.healthy,
        condition.reason,
        condition.message
    )
}
