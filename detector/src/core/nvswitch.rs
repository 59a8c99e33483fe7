//! PURE. NVSwitches: one error is three lines.

use std::time::Duration;

use super::assess::{Assessed, of_device};
use super::findings::Key;
use super::{Core, Output};
use crate::finding::{Now, Sighting};
use crate::judgement::{self, Action};
use crate::reason::{Reason, Severity};

/// How bad it is says the line; where it does not, the table.
pub(super) fn assess(switch: &str, sxid: u32, detail: &str, at: Duration) -> Assessed {
    let known = judgement::sxid(sxid);
    let word = detail.split(',').next().unwrap_or_default();
    let severity = match word {
        "Fatal" => Severity::Fatal,
        "Non-fatal" => Severity::Warning,
        _ => known.map_or(Severity::Warning, |row| row.severity),
    };
    let more = detail.starts_with("Severity ") || detail.starts_with("Data {");
    let (reason, least) = match severity {
        Severity::Fatal => (Reason::NvidiaSxidError(sxid), Action::Reboot),
        _ => (Reason::NvidiaSxidWarning(sxid), Action::None),
    };
    let action = known.map_or(Action::Inspect, |row| row.action).max(least);
    let meaning = known.map_or("not in the catalogue", |row| row.meaning);
    let advice = action.advice();
    Assessed::Sxid {
        sighting: Sighting {
            reason,
            entity: switch.to_owned(),
            severity,
            message: format!(
                "NVSwitch {switch} reported SXid {sxid} ({meaning}, advice: {advice}): {detail}"
            ),
            subject: of_device(switch),
            count: 1,
            at,
        },
        more,
    }
}

impl Core {
    /// `more`: of the error before it, if that has been told.
    pub(super) fn sxid(
        &mut self,
        sighting: Sighting,
        more: bool,
        historic: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if more && let Some(key) = self.open_sxid(&sighting) {
            self.findings.enrich(&key, None, now);
        } else if historic {
            self.findings.see_past(sighting, now, out);
        } else {
            self.findings.see(sighting, now, out);
        }
    }

    fn open_sxid(&self, sighting: &Sighting) -> Option<Key> {
        let (Reason::NvidiaSxidError(sxid) | Reason::NvidiaSxidWarning(sxid)) = sighting.reason
        else {
            return None;
        };
        let both = [
            Reason::NvidiaSxidError(sxid),
            Reason::NvidiaSxidWarning(sxid),
        ];
        both.into_iter()
            .map(|reason| (reason, sighting.entity.clone()))
            .find(|key| self.findings.get(key).is_some())
    }
}
