//! What one kernel showed: for each class of fault, by which ways it was seen.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, bail};

use super::{Machine, Parts, Report, Seen, Way};

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What the detector uses for it, as `check` says; empty where there is nothing.
    pub using: String,
    pub seen: BTreeMap<Way, Seen>,
    /// Why the fault could not be provoked, if so.
    pub missing: Option<String>,
}

/// What is said of a hook that came with its module.
const LATE: &str = " (attached when its module was loaded)";

pub struct Shown {
    /// By class; `CLASS: FAULT` where several faults of a class are told apart.
    pub outcomes: BTreeMap<String, Outcome>,
    /// How each hook was attached, if it was.
    pub hooks: BTreeMap<String, Option<String>>,
}

/// Boots a kernel and provokes every fault. `tell` hears of each report.
pub fn run(parts: &Parts, deadline: Instant, tell: impl FnMut(&Report)) -> anyhow::Result<Shown> {
    let mut machine = Machine::boot(parts, "", "faults")?;
    shown(|| machine.report(deadline), tell)
}

/// What the reports up to the last one come to.
pub(super) fn shown(
    mut next: impl FnMut() -> anyhow::Result<Report>,
    mut tell: impl FnMut(&Report),
) -> anyhow::Result<Shown> {
    let mut using = BTreeMap::new();
    let mut hooks = BTreeMap::new();
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    loop {
        let report = next()?;
        tell(&report);
        match report {
            Report::Check { rows } => {
                using.extend(rows.iter().filter_map(|row| {
                    let class = row["what"].as_str()?.strip_prefix("class ")?;
                    let using = row["using"].as_str().unwrap_or_default();
                    Some((class.to_owned(), using.to_owned()))
                }));
                hooks.extend(rows.iter().filter_map(|row| {
                    let hook = row["what"].as_str()?.strip_prefix("hook ")?;
                    Some((hook.to_owned(), row["using"].as_str().map(str::to_owned)))
                }));
            }
            Report::Attached {
                class,
                hook,
                using: attached,
            } => {
                using.insert(class, format!("{attached}{LATE}"));
                hooks.insert(hook, Some(attached));
            }
            Report::Seen {
                class,
                hook,
                way,
                seen,
            } => {
                if let Some(hook) = hook {
                    let attached = hooks
                        .get(&hook)
                        .with_context(|| format!("`check` knows no hook {hook}"))?;
                    let attached = attached.clone().unwrap_or_default();
                    using.entry(class.clone()).or_insert(attached);
                }
                outcomes
                    .entry(class)
                    .or_default()
                    .seen
                    .extend(seen.map(|seen| (way, seen)));
            }
            Report::Missing { class, why } => {
                outcomes.entry(class).or_default().missing = Some(why);
            }
            report @ (Report::Ask { .. } | Report::Stressed { .. }) => {
                bail!("the guest was to provoke faults: {report}")
            }
            Report::End => break,
            Report::Failed { why } => bail!("the guest could not go on: {why}"),
        }
    }
    for (class, outcome) in &mut outcomes {
        // What `check` knows.
        let whole = class.split(": ").next().unwrap_or(class);
        outcome.using = using
            .get(class)
            .or_else(|| using.get(whole))
            .cloned()
            .with_context(|| format!("`check` knows no class {class}"))?;
    }
    Ok(Shown { outcomes, hooks })
}
