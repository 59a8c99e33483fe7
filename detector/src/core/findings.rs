//! PURE. The life of findings: opened at their threshold, counted, held while they flap, and
//! cleared by the rule of their row.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Output;
use super::repeated;
use super::settings::Settings;
use crate::finding::{Change, FLAPS, Finding, Now, Sighting, Subject, Transition};
use crate::reason::{Clears, Reason, Severity};

pub(super) type Key = (Reason, String);

/// A repeat is announced when its count has doubled, and not more often than this.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// Open findings of one reason; what comes on top shares one finding.
pub(super) const MOST_PER_REASON: usize = 256;
/// Entities that are remembered though they have no open finding.
const MOST_REMEMBERED: usize = 1024;
pub(super) const OTHERS: &str = "(others)";
const OTHERS_QUIET: Duration = Duration::from_secs(600);

/// In which openings are counted.
pub(super) const FLAP_WINDOW: Duration = Duration::from_secs(3600);
/// For how long a finding that flaps must have been well.
pub(super) const FLAP_HOLD: Duration = Duration::from_secs(600);
/// More openings than that are not told apart.
const MOST_OPENINGS: usize = 60;

#[derive(Default)]
pub(super) struct Findings {
    settings: Settings,
    open: BTreeMap<Key, Open>,
    /// Open findings of each reason, or family of reasons.
    per_reason: BTreeMap<&'static str, usize>,
    /// Faults that are not enough for a finding yet: when, and how many.
    below_threshold: BTreeMap<Key, VecDeque<(Duration, u64)>>,
    /// When findings were opened within the last hour.
    openings: BTreeMap<Key, VecDeque<Duration>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) finding: Finding,
    /// As the evidence has it, whatever the settings make of it.
    pub(super) seen: Severity,
    pub(super) announced: Duration,
    pub(super) announced_count: u64,
    /// Since when its rule for clearing has been fulfilled.
    pub(super) well_since: Option<Duration>,
}

impl Findings {
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Open)> + Clone {
        self.open.iter()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Open> {
        self.open.get(key)
    }

    pub(super) fn openings(&self) -> &BTreeMap<Key, VecDeque<Duration>> {
        &self.openings
    }

    pub(super) fn below_threshold(&self) -> &BTreeMap<Key, VecDeque<(Duration, u64)>> {
        &self.below_threshold
    }

    /// From before the first agent's start: told as a Warning, unless it is over by now.
    pub(super) fn see_past(&mut self, mut sighting: Sighting, now: Now, out: &mut Vec<Output>) {
        if self.is_past(&sighting, now) {
            return;
        }
        sighting.severity = sighting.severity.min(Severity::Warning);
        self.take(sighting, true, now, out);
    }

    /// Opens a finding once its threshold is reached, or counts a repeat of it.
    pub(super) fn see(&mut self, sighting: Sighting, now: Now, out: &mut Vec<Output>) {
        self.take(sighting, false, now, out);
    }

    fn take(&mut self, mut sighting: Sighting, historic: bool, now: Now, out: &mut Vec<Output>) {
        if !self.settings.is_enabled(sighting.reason) {
            return;
        }
        let mut key = (sighting.reason, sighting.entity.clone());
        if !self.open.contains_key(&key) && self.is_full(sighting.reason) {
            OTHERS.clone_into(&mut key.1);
            OTHERS.clone_into(&mut sighting.entity);
            sighting.subject = Subject::default();
        }
        // What is seen now is news, whatever happened before anybody watched.
        if !historic
            && self
                .open
                .get(&key)
                .is_some_and(|open| open.finding.historic)
        {
            self.remove(&key);
        }
        // It had cleared by then, if somebody had been awake: lines are read late after a restart.
        if self.clears_at(&key).is_some_and(|at| at <= sighting.at) {
            self.clear(&key, now, out);
        }
        if self.open.contains_key(&key) {
            self.repeat(&key, sighting, now, out);
        } else if let Some(count) = self.reaches_threshold(&key, &sighting) {
            sighting.count = count;
            self.open(key, sighting, historic, now, out);
        }
    }

    /// A finding of it would have been cleared by now.
    fn is_past(&self, sighting: &Sighting, now: Now) -> bool {
        match sighting.reason.row().clears {
            Clears::Quiet(quiet) => {
                let quiet = self
                    .settings
                    .of(sighting.reason)
                    .clear_after
                    .unwrap_or(quiet);
                sighting.at + quiet <= now.boot
            }
            Clears::Recovered { .. } | Clears::RecoveredOrReboot { .. } | Clears::Reboot => false,
        }
    }

    fn is_full(&self, reason: Reason) -> bool {
        let open = self.per_reason.get(family(reason)).copied();
        open.unwrap_or_default() >= MOST_PER_REASON
    }

    /// All faults within the window, if they are enough.
    fn reaches_threshold(&mut self, key: &Key, sighting: &Sighting) -> Option<u64> {
        let configured = self.settings.of(key.0).threshold;
        let Some(threshold) = configured.or_else(|| repeated::threshold(key.0)) else {
            return Some(sighting.count);
        };
        let mut key = key.clone();
        if !self.below_threshold.contains_key(&key) && self.below_threshold.len() >= MOST_REMEMBERED
        {
            OTHERS.clone_into(&mut key.1);
        }
        let faults = self.below_threshold.entry(key.clone()).or_default();
        faults.push_back((sighting.at, sighting.count));
        while faults
            .front()
            .is_some_and(|(at, _)| *at + threshold.window < sighting.at)
        {
            faults.pop_front();
        }
        let count = faults
            .iter()
            .fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
        if count < u64::from(threshold.count) {
            return None;
        }
        self.below_threshold.remove(&key);
        Some(count)
    }

    fn open(
        &mut self,
        key: Key,
        sighting: Sighting,
        historic: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let flaps = if historic {
            0
        } else {
            self.count_opening(&key, sighting.at)
        };
        let finding = Finding {
            severity: self.severity(sighting.reason, sighting.severity, historic),
            reason: sighting.reason,
            entity: sighting.entity,
            message: sighting.message,
            subject: sighting.subject,
            count: sighting.count,
            flaps,
            historic,
            opened: now,
            last_seen: sighting.at.min(now.boot),
        };
        out.push(Output::Transition(Transition {
            change: Change::Opened,
            finding: finding.clone(),
            fault: sighting.at,
            found: now,
        }));
        let announced_count = finding.count;
        self.adopt(
            key,
            Open {
                finding,
                seen: sighting.severity,
                announced: now.boot,
                announced_count,
                well_since: None,
            },
        );
    }

    /// A promoted reason is no more than a Warning either, while it is only history.
    fn severity(&self, reason: Reason, seen: Severity, historic: bool) -> Severity {
        let severity = self.settings.severity(reason, seen);
        if historic {
            severity.min(Severity::Warning)
        } else {
            severity
        }
    }

    /// Takes over a finding that has been told already.
    pub(super) fn adopt(&mut self, key: Key, open: Open) {
        let count = self.per_reason.entry(family(key.0)).or_default();
        if self.open.insert(key, open).is_none() {
            *count += 1;
        }
    }

    pub(super) fn remember(
        &mut self,
        openings: BTreeMap<Key, VecDeque<Duration>>,
        below_threshold: BTreeMap<Key, VecDeque<(Duration, u64)>>,
    ) {
        self.openings = openings;
        self.below_threshold = below_threshold;
    }

    /// Openings within the last hour, this one included.
    fn count_opening(&mut self, key: &Key, now: Duration) -> usize {
        let recent = |at: &Duration| *at + FLAP_WINDOW > now;
        if !self.openings.contains_key(key) && self.openings.len() >= MOST_REMEMBERED {
            self.openings
                .retain(|_, openings| openings.back().is_some_and(recent));
            if self.openings.len() >= MOST_REMEMBERED {
                return 1;
            }
        }
        let openings = self.openings.entry(key.clone()).or_default();
        openings.retain(recent);
        if openings.len() == MOST_OPENINGS {
            openings.pop_front();
        }
        openings.push_back(now);
        openings.len()
    }

    fn repeat(&mut self, key: &Key, sighting: Sighting, now: Now, out: &mut Vec<Output>) {
        self.broken_again(key, now, sighting.at, out);
        let historic = self.open.get(key).is_some_and(|open| open.finding.historic);
        let severity = self.severity(key.0, sighting.severity, historic);
        let Some(open) = self.open.get_mut(key) else {
            return;
        };
        open.finding.count = open.finding.count.saturating_add(sighting.count);
        open.finding.last_seen = open.finding.last_seen.max(sighting.at.min(now.boot));
        open.seen = sighting.severity;
        open.finding.severity = severity;
        let doubled = open.finding.count >= open.announced_count.saturating_mul(2);
        if doubled && now.boot.saturating_sub(open.announced) >= REPEAT_INTERVAL {
            open.finding.message = sighting.message;
            open.finding.subject = sighting.subject;
            open.announced = now.boot;
            open.announced_count = open.finding.count;
            out.push(Output::Transition(Transition {
                change: Change::Repeated,
                finding: open.finding.clone(),
                fault: sighting.at,
                found: now,
            }));
        }
    }

    /// It had been well, but not for long enough to be cleared: one flap more.
    fn broken_again(&mut self, key: &Key, now: Now, fault: Duration, out: &mut Vec<Output>) {
        let was_well = self.open.get_mut(key).is_some_and(|open| {
            open.well_since
                .take()
                .is_some_and(|since| since <= now.boot)
        });
        if !was_well {
            return;
        }
        let flaps = self.count_opening(key, fault);
        let Some(open) = self.open.get_mut(key) else {
            return;
        };
        open.finding.flaps = flaps;
        // Told when it begins, and whenever it has doubled.
        if flaps.is_multiple_of(FLAPS) && (flaps / FLAPS).is_power_of_two() {
            out.push(Output::Transition(Transition {
                change: Change::Repeated,
                finding: open.finding.clone(),
                fault,
                found: now,
            }));
        }
    }

    /// Opens a finding of a state, or renews the text of the one that is open: being told of a state
    /// again is no repeat of it, but that it has become worse is told.
    pub(super) fn is_so(&mut self, sighting: Sighting, now: Now, out: &mut Vec<Output>) {
        let key = (sighting.reason, sighting.entity.clone());
        if self.open.contains_key(&key) {
            self.confirm(&key, sighting.severity, sighting.message, now, out);
        } else {
            self.see(sighting, now, out);
        }
    }

    /// The evidence was read again and still says so: the same fault, not a repeat of it.
    fn confirm(
        &mut self,
        key: &Key,
        seen: Severity,
        message: String,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        self.broken_again(key, now, now.boot, out);
        let severity = self.settings.severity(key.0, seen);
        if let Some(open) = self.open.get_mut(key) {
            let worse = severity > open.finding.severity;
            open.finding.last_seen = now.boot;
            open.finding.message = message;
            open.seen = seen;
            open.finding.severity = severity;
            if worse {
                if severity == Severity::Fatal {
                    // The condition was healthy until now, and others count from its change.
                    open.finding.opened = now;
                }
                out.push(Output::Transition(Transition {
                    change: Change::Repeated,
                    finding: open.finding.clone(),
                    fault: now.boot,
                    found: now,
                }));
            }
        }
    }

    /// It is not well (any more), as if it had never been.
    pub(super) fn unwell(&mut self, key: &Key, now: Now, out: &mut Vec<Output>) {
        self.broken_again(key, now, now.boot, out);
    }

    /// New knowledge about how bad it is.
    pub(super) fn set_seen(&mut self, key: &Key, seen: Severity) {
        let severity = self.settings.severity(key.0, seen);
        if let Some(open) = self.open.get_mut(key) {
            open.seen = seen;
            open.finding.severity = severity;
        }
    }

    /// Two sources saw one fault: the one that says more gives the words.
    pub(super) fn enrich(&mut self, key: &Key, message: Option<String>, now: Now) {
        if let Some(open) = self.open.get_mut(key) {
            if let Some(message) = message {
                open.finding.message = message;
            }
            open.finding.last_seen = now.boot;
        }
    }

    /// Adds to its text, once.
    pub(super) fn note(&mut self, key: &Key, note: &str, now: Now) {
        if let Some(open) = self.open.get_mut(key) {
            let message = &mut open.finding.message;
            if !message.ends_with(note) && !message.contains(&format!("{note},")) {
                message.push_str(", ");
                message.push_str(note);
            }
            open.finding.last_seen = now.boot;
        }
    }

    pub(super) fn set_opened(&mut self, key: &Key, opened: Now) {
        if let Some(open) = self.open.get_mut(key) {
            open.finding.opened = opened;
        }
    }

    /// What its rule asks for is so: it clears, or waits until it has been so for long enough.
    pub(super) fn well(&mut self, key: &Key, now: Now, out: &mut Vec<Output>) {
        if let Some(open) = self.open.get_mut(key) {
            let since = open.well_since.get_or_insert(now.boot);
            *since = now.boot.min(*since);
            self.clear_if_due(key, now, out);
        }
    }

    /// Unless somebody says by then that it is not.
    pub(super) fn well_from(&mut self, key: &Key, since: Duration) {
        if let Some(open) = self.open.get_mut(key) {
            open.well_since = Some(since);
        }
    }

    fn clear_if_due(&mut self, key: &Key, now: Now, out: &mut Vec<Output>) {
        if self
            .clears_at(key)
            .is_some_and(|clears_at| clears_at <= now.boot)
        {
            self.clear(key, now, out);
        }
    }

    /// If nothing happens until then.
    fn clears_at(&self, key: &Key) -> Option<Duration> {
        let open = self.open.get(key)?;
        let changed = self.settings.of(key.0).clear_after;
        let (well, settle) = match key.0.row().clears {
            Clears::Quiet(quiet) => (
                Some(open.finding.last_seen + changed.unwrap_or(quiet)),
                Duration::ZERO,
            ),
            // Many entities: no evidence of any one says that all are well.
            Clears::Recovered { .. } | Clears::RecoveredOrReboot { .. } if key.1 == OTHERS => {
                let quiet = changed.unwrap_or(OTHERS_QUIET);
                (Some(open.finding.last_seen + quiet), Duration::ZERO)
            }
            Clears::Recovered { settle } | Clears::RecoveredOrReboot { settle } => {
                (open.well_since, changed.unwrap_or(settle))
            }
            Clears::Reboot => return None,
        };
        let hold = if open.finding.flaps >= FLAPS {
            settle.max(FLAP_HOLD)
        } else {
            settle
        };
        Some(well? + hold)
    }

    fn remove(&mut self, key: &Key) -> Option<Open> {
        let open = self.open.remove(key)?;
        if let Some(count) = self.per_reason.get_mut(family(key.0)) {
            *count -= 1;
        }
        Some(open)
    }

    fn clear(&mut self, key: &Key, now: Now, out: &mut Vec<Output>) {
        if let Some(open) = self.remove(key) {
            out.push(Output::Transition(Transition {
                change: Change::Cleared,
                fault: open.finding.last_seen,
                finding: open.finding,
                found: now,
            }));
        }
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.open.keys().filter_map(|key| self.clears_at(key)).min()
    }

    pub(super) fn wake(&mut self, now: Now, out: &mut Vec<Output>) {
        let due: Vec<_> = self
            .open
            .keys()
            .filter(|key| self.clears_at(key).is_some_and(|at| at <= now.boot))
            .cloned()
            .collect();
        for key in due {
            self.clear(&key, now, out);
        }
    }

    /// What is open keeps its past; what is not wanted any more is cleared.
    pub(super) fn configure(&mut self, settings: Settings, now: Now, out: &mut Vec<Output>) {
        self.settings = settings;
        let keys: Vec<_> = self.open.keys().cloned().collect();
        for key in keys {
            if !self.settings.is_enabled(key.0) {
                self.clear(&key, now, out);
                continue;
            }
            let Some(open) = self.open.get(&key) else {
                continue;
            };
            let severity = self.severity(key.0, open.seen, open.finding.historic);
            if let Some(open) = self.open.get_mut(&key) {
                open.finding.severity = severity;
            }
        }
        self.below_threshold
            .retain(|(reason, _), _| self.settings.of(*reason).threshold.is_some());
    }
}

/// What the limit of open findings is for.
fn family(reason: Reason) -> &'static str {
    if let Reason::Custom { name, .. } = reason {
        name
    } else {
        reason.row().name
    }
}
