//! What is new, line by line: for people where there is no terminal, and for programs.

use std::io::Write;

use anyhow::Context;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::json;
use crate::args::Format;
use crate::core::{Condition, Output};
use crate::finding::Transition;
use crate::source::bpf::HookStatus;
use crate::text;

/// More than any finding or condition says.
const LONGEST: usize = 4096;

/// Until the reader ends.
pub(super) fn show(
    format: Format,
    hooks: &[HookStatus],
    mut outputs: UnboundedReceiver<Output>,
) -> anyhow::Result<()> {
    let mut shown: Option<Vec<Condition>> = None;
    while let Some(output) = outputs.blocking_recv() {
        match output {
            Output::Transition(transition) => {
                print(format, &json::transition(&transition), || {
                    transition_text(&transition)
                })?
            }
            Output::Conditions { conditions, .. } => {
                // The first conditions come when the past is read.
                if shown.is_none() {
                    print(format, &json::ready(hooks), || "watching".to_owned())?;
                }
                changes(format, &shown.unwrap_or_default(), &conditions)?;
                shown = Some(conditions);
            }
            // Answered by the reader itself, and kept by nobody.
            Output::Probe { .. }
            | Output::LookAtTask { .. }
            | Output::LookAtCpu { .. }
            | Output::Open(_)
            | Output::State(_) => {}
        }
    }
    Ok(())
}

fn changes(format: Format, old: &[Condition], new: &[Condition]) -> anyhow::Result<()> {
    for condition in new {
        let before = old.iter().find(|old| old.kind == condition.kind);
        if before.map(|before| (before.healthy, &before.message))
            != Some((condition.healthy, &condition.message))
        {
            print(format, &json::condition(condition), || {
                condition_text(condition)
            })?;
        }
    }
    let gone = old
        .iter()
        .filter(|old| new.iter().all(|new| new.kind != old.kind));
    for gone in gone {
        print(format, &json::absent(gone.kind), || {
            format!("{} is not watched any more", gone.kind.name())
        })?;
    }
    Ok(())
}

fn print(format: Format, json: &Value, say: impl FnOnce() -> String) -> anyhow::Result<()> {
    let mut line = match format {
        Format::Json => json.to_string(),
        Format::Text => text::printable(say().as_bytes(), LONGEST),
    };
    line.push('\n');
    let mut out = std::io::stdout().lock();
    // At once: where the log goes to the same place its lines must not come between.
    out.write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .context("write to standard output")
}

fn transition_text(transition: &Transition) -> String {
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
        finding.text()
    )
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
