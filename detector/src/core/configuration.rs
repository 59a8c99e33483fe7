//! PURE. What the configuration file does to findings and conditions.

use super::{Core, Output};
use crate::finding::{Finding, Now, Sighting, Subject};
use crate::reason::{ConditionType, Reason, Severity};

use super::settings::Settings;

pub(super) struct ConfigState {
    pub(super) file: String,
    pub(super) invalid: Option<String>,
    pub(super) pending: Option<String>,
}

/// Log rules alone make the container runtime watched; elsewhere one rule is no reason to call
/// healthy what nothing else looks at, so such a condition is there only while it is False.
pub(super) fn published<'a>(
    mut monitored: Vec<ConditionType>,
    settings: &Settings,
    findings: impl Iterator<Item = &'a Finding>,
) -> Vec<ConditionType> {
    let runtime = ConditionType::ContainerRuntimeReady;
    if settings.fed_by_rules.contains(&runtime) && !monitored.contains(&runtime) {
        monitored.push(runtime);
    }
    for finding in findings.filter(|finding| finding.severity == Severity::Fatal) {
        let condition = finding.reason.row().condition;
        let custom = matches!(finding.reason, Reason::Custom { .. });
        if (custom || condition == runtime) && !monitored.contains(&condition) {
            monitored.push(condition);
        }
    }
    monitored
}

impl Core {
    pub(super) fn configuration(&mut self, state: ConfigState, now: Now, out: &mut Vec<Output>) {
        let ConfigState {
            file,
            invalid,
            pending,
        } = state;
        let good = invalid.is_none();
        let invalid = invalid
            .map(|why| format!("{file} cannot be used, so what it said before is in force: {why}"));
        self.hold(Reason::ConfigInvalid, &file, invalid, now, out);
        // A file that cannot be used says nothing about what waits.
        if good {
            let pending =
                pending.map(|keys| format!("{file}: waiting for the agent's next start: {keys}"));
            self.hold(Reason::ConfigPending, &file, pending, now, out);
        }
    }

    /// A finding while there is a message, none without; a new text is no repeat.
    fn hold(
        &mut self,
        reason: Reason,
        entity: &str,
        message: Option<String>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let key = (reason, entity.to_owned());
        let Some(message) = message else {
            return self.findings.well(&key, now, out);
        };
        let sighting = Sighting {
            reason,
            entity: key.1,
            severity: reason.row().severity,
            message,
            subject: Subject::default(),
            count: 1,
            at: now.boot,
        };
        self.findings.is_so(sighting, now, out);
    }
}
