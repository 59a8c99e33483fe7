//! PURE. What can go wrong between a caller and AWS.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Fault {
    /// None is any action.
    pub action: Option<String>,
    /// How many calls it hits.
    pub times: u32,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// The service's own throttling error.
    Throttle,
    /// An HTTP status with an empty body.
    Status(u16),
    /// AWS acts, the answer is lost.
    LostReply,
    /// Nothing happens for this long; then AWS acts and answers.
    Hang(Duration),
    /// The connection is closed before AWS acts.
    Reset,
    /// What the account's policies do not allow, in the service's own words.
    Deny,
    /// A client error.
    Refuse { code: String, message: String },
}

/// The kind that hits a call of `action`, if any; used up by this.
pub(super) fn take(faults: &mut Vec<Fault>, action: &str) -> Option<Kind> {
    let index = faults
        .iter()
        .position(|fault| fault.action.as_deref().is_none_or(|a| a == action))?;
    let fault = faults.get_mut(index)?;
    let kind = fault.kind.clone();
    fault.times = fault.times.saturating_sub(1);
    if fault.times == 0 {
        faults.remove(index);
    }
    Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_as_often_as_told_and_only_its_action() {
        let mut faults = vec![Fault {
            action: Some("Reboot".into()),
            times: 2,
            kind: Kind::Throttle,
        }];
        let hits: Vec<_> = ["Describe", "Reboot", "Reboot", "Reboot"]
            .iter()
            .map(|a| take(&mut faults, a).is_some())
            .collect();
        assert_eq!(hits, [false, true, true, false]);
    }
}
