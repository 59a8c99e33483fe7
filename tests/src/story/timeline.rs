//! A repair step by step, as its NodeRepair tells it; and pod by pod, from the repairer's log.

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::screen::{Screen, printable};
use super::stage::Stage;

/// What an entry begins with, or has in it, and what the step is called.
const STEPS: [(&str, &str); 9] = [
    ("unhealthy: ", "seen"),
    ("cordoned", "cordoned"),
    ("drain started", "admitted"),
    ("evicted ", "drained pod by pod"),
    ("drained", "drained"),
    ("replacing ", "point of no return"),
    ("AWS accepted the call", "call"),
    (" is Ready", "replacement Ready"),
    ("Succeeded: ", "outcome"),
];
const EVICTED: &str = "drained pod by pod";

/// Each step must be there, in this order.
pub(super) async fn show(
    stage: &Stage,
    node: &str,
    has_pods: bool,
    screen: &Screen,
) -> anyhow::Result<()> {
    let repair = stage.records.repair(node).await?;
    let repair = repair.with_context(|| format!("{node} has no NodeRepair"))?;
    let entries = repair.timeline.into_iter();
    let mut entries: Vec<_> = entries.map(|entry| (entry.at, entry.event)).collect();
    let lines = stage.repairer.log_lines();
    entries.extend(lines.iter().filter_map(|line| evicted(line, node)));
    entries.sort();
    let began = entries.first().context("its timeline is empty")?.0;
    let mut wanted = STEPS
        .iter()
        .filter(|(_, step)| has_pods || *step != EVICTED);
    let mut next = wanted.next();
    for (at, event) in &entries {
        let step = named(event);
        if next.is_some_and(|(_, name)| Some(*name) == step) {
            next = wanted.next();
        }
        let since = at.duration_since(began).as_secs_f64();
        let step = step.unwrap_or_default();
        screen.note(&format!("{since:>6.1} s  {step:<20}{}", printable(event)));
    }
    ensure!(next.is_none(), "{node}: no step is {next:?}: {entries:?}");
    Ok(())
}

fn named(event: &str) -> Option<&'static str> {
    let is = |text: &str| {
        if text.starts_with(' ') {
            event.contains(text)
        } else {
            event.starts_with(text)
        }
    };
    let step = STEPS.iter().find(|(text, _)| is(text));
    step.map(|(_, name)| *name)
}

fn evicted(line: &str, node: &str) -> Option<(Timestamp, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let of_node = line["repair"].as_str()?.starts_with(&format!("{node}-"));
    (of_node && line["what"] == "evicted").then_some(())?;
    let at = line["timestamp"].as_str()?.parse().ok()?;
    Some((at, format!("evicted {}", line["pod"].as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_the_step_that_it_begins_with() {
        let cases = [
            ("unhealthy: StorageReady (FilesystemReadOnly)", Some("seen")),
            ("drained; left where they are: a/b", Some("drained")),
            ("new-1 (i-1) is Ready", Some("replacement Ready")),
            ("Succeeded: new-1 has been healthy", Some("outcome")),
            ("not called: held", None),
        ];
        for (event, step) in cases {
            assert_eq!(named(event), step, "{event}");
        }
    }

    #[test]
    fn only_the_evictions_of_the_node_are_told() {
        let line = r#"{"timestamp":"2026-01-01T00:00:00.5Z","what":"evicted","repair":"node-1-ab-cd","pod":"default/web"}"#;
        assert_eq!(evicted(line, "node-1").unwrap().1, "evicted default/web");
        assert!(evicted(line, "node-2").is_none());
    }
}
