//! PURE. What the live view knows and how it looks: nothing in it ages, so nothing has to tick.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::row::{Row, Style};
use crate::core::{Condition, Output};
use crate::finding::{Change, Finding, Transition};
use crate::metrics::Source;
use crate::reason::{ConditionType, Reason, Severity};
use crate::signal::SourceName;
use crate::source::bpf::HookStatus;

pub(super) struct View {
    hooks: Vec<HookStatus>,
    /// Why a source is not watched.
    missing: BTreeMap<SourceName, String>,
    sources: BTreeMap<SourceName, Source>,
    /// When the past had been read.
    since: Option<Timestamp>,
    conditions: BTreeMap<ConditionType, Standing>,
    open: BTreeMap<(Reason, String), Finding>,
    /// The newest first.
    last: VecDeque<Transition>,
    log: VecDeque<String>,
}

enum Standing {
    Watched(Condition),
    AbsentSince(Timestamp),
}

/// More transitions than a window has rows.
const MOST_TRANSITIONS: usize = 100;
const MOST_LOG: usize = 2;
/// What findings and transitions have at least before other parts of the view go.
const LEAST: usize = 3;
/// From here on a finding and its message fit side by side.
const WIDE: usize = 110;
/// From here on there is room for dates and columns.
const MIDDLE: usize = 60;

impl View {
    pub(super) fn new(hooks: Vec<HookStatus>, missing: BTreeMap<SourceName, String>) -> Self {
        Self {
            hooks,
            missing,
            sources: BTreeMap::new(),
            since: None,
            conditions: BTreeMap::new(),
            open: BTreeMap::new(),
            last: VecDeque::new(),
            log: VecDeque::new(),
        }
    }

    pub(super) fn take(&mut self, output: Output) {
        match output {
            Output::Transition(transition) => self.transition(transition),
            Output::Conditions {
                conditions, found, ..
            } => {
                self.since.get_or_insert(found.wall);
                self.stand(conditions, found.wall);
            }
            Output::Open(findings) => {
                let key = |finding: Finding| ((finding.reason, finding.entity.clone()), finding);
                self.open = findings.into_iter().map(key).collect();
            }
            Output::Probe { .. }
            | Output::LookAtTask { .. }
            | Output::LookAtCpu { .. }
            | Output::State(_) => {}
        }
    }

    pub(super) fn count(&mut self, sources: BTreeMap<SourceName, Source>) {
        self.sources = sources;
    }

    pub(super) fn log(&mut self, line: String) {
        self.log.push_back(line);
        while self.log.len() > MOST_LOG {
            self.log.pop_front();
        }
    }

    fn transition(&mut self, transition: Transition) {
        let finding = &transition.finding;
        let key = (finding.reason, finding.entity.clone());
        match transition.change {
            Change::Opened | Change::Repeated => self.open.insert(key, finding.clone()),
            Change::Cleared => self.open.remove(&key),
        };
        if transition.change != Change::Repeated {
            self.last.push_front(transition);
            self.last.truncate(MOST_TRANSITIONS);
        }
    }

    fn stand(&mut self, conditions: Vec<Condition>, now: Timestamp) {
        for standing in self.conditions.values_mut() {
            if let Standing::Watched(old) = standing
                && conditions.iter().all(|new| new.kind != old.kind)
            {
                *standing = Standing::AbsentSince(now);
            }
        }
        for condition in conditions {
            self.conditions
                .insert(condition.kind, Standing::Watched(condition));
        }
    }

    /// At most `height` rows of at most `width` columns.
    pub(super) fn render(&self, width: usize, height: usize) -> Vec<Row> {
        let blank = Row::default;
        let mut rows = vec![self.title(), blank()];
        rows.extend(self.condition_rows(width));
        rows.push(blank());
        let log = self.log.iter().map(|line| faint(line.trim()));
        let mut room = height.saturating_sub(rows.len() + log.len());
        let least = 1 + self.open.len().clamp(1, LEAST);

        let mut sources = vec![blank()];
        sources.extend(self.source_rows());
        if room < least + sources.len() {
            sources.clear();
        }
        room = room.saturating_sub(sources.len());

        let mut for_last = match self.last.len() {
            0 => 0,
            some => 2 + some.min(LEAST),
        };
        if room < least + for_last {
            for_last = 0;
        }
        let findings = self.finding_rows(width, room - for_last);
        room = room.saturating_sub(findings.len());
        rows.extend(findings);
        rows.extend(sources);
        if for_last > 0 {
            rows.extend([blank(), heading("LAST TRANSITIONS")]);
            let last = self.last.iter().take(room.saturating_sub(2));
            rows.extend(last.map(|transition| transition_row(transition, width)));
        }
        rows.extend(log);
        rows.truncate(height);
        rows.into_iter().map(|row| row.cut(width)).collect()
    }

    fn title(&self) -> Row {
        match self.since {
            Some(since) => Row::default()
                .text(
                    Style::Heading,
                    &since
                        .strftime("watching since %Y-%m-%d %H:%M:%S UTC")
                        .to_string(),
                )
                .text(Style::Faint, "  (Ctrl-C ends)"),
            None => heading("reading what was there before"),
        }
    }

    fn condition_rows(&self, width: usize) -> Vec<Row> {
        let columns = |(status, style), plain, name: &str, since: &str, reason: &str| {
            let row = Row::default().column(style, status, 6);
            if width < MIDDLE {
                // The findings say since when.
                return row.column(plain, name, 0).text(plain, reason);
            }
            row.column(plain, name, 24)
                .column(plain, since, 14)
                .text(plain, reason)
        };
        let heading = Style::Heading;
        let heading = columns(
            ("STATUS", heading),
            heading,
            "CONDITION",
            "SINCE (UTC)",
            "REASON",
        );
        let rows = ConditionType::ALL.into_iter().map(|kind| {
            let (status, since, reason) = match self.conditions.get(&kind) {
                Some(Standing::Watched(condition)) => {
                    let status = if condition.healthy {
                        ("True", Style::Good)
                    } else {
                        ("False", Style::Bad)
                    };
                    (status, Some(condition.transition), &*condition.reason)
                }
                Some(&Standing::AbsentSince(since)) => (
                    ("absent", Style::Caution),
                    Some(since),
                    "not watched any more",
                ),
                None if self.since.is_some() => (("absent", Style::Faint), None, "not watched"),
                None => (("-", Style::Faint), None, ""),
            };
            let since = since.map(|since| time(since, width)).unwrap_or_default();
            columns(status, Style::Plain, kind.name(), &since, reason)
        });
        std::iter::once(heading).chain(rows).collect()
    }

    /// At most `room` of them, as detailed as they fit.
    fn finding_rows(&self, width: usize, room: usize) -> Vec<Row> {
        let mut open: Vec<_> = self.open.values().collect();
        open.sort_by_key(|finding| (Reverse(finding.severity), finding.opened.boot));
        let mut rows = vec![findings_heading(&open)];
        let room = room.saturating_sub(1);
        let shown = if open.len() <= room {
            open.len()
        } else {
            // The last row says how many there are.
            room.saturating_sub(1)
        };
        let one_row_each = width >= WIDE || open.len() * 2 > room;
        let more = open.split_off(shown).len();
        let longest = |length: fn(&Finding) -> usize| {
            let lengths = open.iter().map(|&finding| length(finding));
            lengths.max().filter(|_| width >= MIDDLE).unwrap_or(0)
        };
        let reason = longest(|finding| finding.reason.name().len());
        let count = longest(|finding| times(finding).len());
        for finding in open {
            let style = severity(finding.severity);
            let row = Row::default()
                .column(style, &finding.severity.to_string(), 7)
                .column(Style::Plain, &finding.reason.name(), reason)
                .column(Style::Plain, &format!("{:>count$}", times(finding)), 0)
                .column(Style::Faint, &time(finding.opened.wall, width), 0);
            let (text, place) = (finding.text(), place(finding));
            if one_row_each {
                rows.push(row.text(Style::Plain, &format!("{text}{place}")));
            } else if width < MIDDLE {
                let below = format!("  {text}{place}");
                rows.extend([row, Row::default().text(Style::Plain, &below)]);
            } else {
                let below = Row::default().column(Style::Plain, "", 7);
                rows.push(row.text(Style::Plain, place.trim_start()));
                rows.push(below.text(Style::Plain, &text));
            }
        }
        if more > 0 && room > 0 {
            rows.push(faint(&format!("and {more} more")));
        }
        rows
    }

    fn source_rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for source in SourceName::ALL {
            let row = Row::default().column(Style::Plain, source.name(), 9);
            if let Some(why) = self.missing.get(&source) {
                // Most nodes have no GPU.
                let style = if source == SourceName::Nvml {
                    Style::Faint
                } else {
                    Style::Caution
                };
                rows.push(row.text(style, &format!("not watched: {why}")));
                continue;
            }
            let (signals, lost) = self
                .sources
                .get(&source)
                .map_or((0, 0), |source| (source.signals, source.lost));
            let style = if lost == 0 { Style::Faint } else { Style::Bad };
            let row = row
                .column(Style::Plain, &format!("{signals} signals"), 11)
                .column(style, &format!("{lost} lost"), 7);
            rows.push(match source {
                SourceName::Bpf => row.text(Style::Faint, &self.attached()),
                SourceName::Kmsg
                | SourceName::Nvml
                | SourceName::File
                | SourceName::Journal
                | SourceName::Counters => row,
            });
            if source == SourceName::Bpf {
                rows.extend(self.detached());
            }
        }
        rows
    }

    fn attached(&self) -> String {
        let attached = self.hooks.iter().filter(|status| status.using.is_some());
        let names: Vec<_> = attached.map(|status| status.hook.name()).collect();
        names.join(", ")
    }

    fn detached(&self) -> impl Iterator<Item = Row> {
        let missing = |status: &&HookStatus| status.using.is_none() && !status.absent;
        let detached = self.hooks.iter().filter(missing);
        detached.map(|status| {
            let why = status.missing.as_deref().unwrap_or("unknown why");
            Row::default()
                .column(Style::Plain, "", 9)
                .column(Style::Caution, status.hook.name(), 0)
                .text(Style::Caution, &format!("is not attached: {why}"))
        })
    }
}

fn findings_heading(open: &[&Finding]) -> Row {
    let counts = [Severity::Fatal, Severity::Warning, Severity::Info].map(|severity| {
        let count = open.iter().filter(|finding| finding.severity == severity);
        (count.count(), severity)
    });
    let counts: Vec<_> = counts
        .into_iter()
        .filter(|&(count, _)| count > 0)
        .map(|(count, severity)| format!("{count} {severity}"))
        .collect();
    let row = heading("OPEN FINDINGS");
    if counts.is_empty() {
        return row.text(Style::Good, "  none");
    }
    row.text(Style::Plain, &format!("  {}", counts.join(", ")))
}

fn transition_row(transition: &Transition, width: usize) -> Row {
    let finding = &transition.finding;
    let change = match transition.change {
        Change::Cleared => Style::Good,
        Change::Opened | Change::Repeated => severity(finding.severity),
    };
    Row::default()
        .column(Style::Faint, &time(transition.found.wall, width), 0)
        .column(change, transition.change.name(), 7)
        .column(Style::Plain, &finding.severity.to_string(), 7)
        .text(
            Style::Plain,
            &format!("{}: {}{}", finding.reason, finding.text(), place(finding)),
        )
}

fn times(finding: &Finding) -> String {
    format!("x{}", finding.count)
}

fn place(finding: &Finding) -> Cow<'static, str> {
    let Some(workload) = &finding.subject.workload else {
        return Cow::Borrowed("");
    };
    Cow::Owned(match &workload.pod_uid {
        Some(uid) => format!(" [pod {uid}]"),
        None => format!(" [{}]", workload.cgroup),
    })
}

fn time(at: Timestamp, width: usize) -> String {
    let format = if width < MIDDLE {
        "%H:%M:%S"
    } else {
        "%m-%d %H:%M:%S"
    };
    at.strftime(format).to_string()
}

fn severity(severity: Severity) -> Style {
    match severity {
        Severity::Fatal => Style::Bad,
        Severity::Warning => Style::Caution,
        Severity::Info => Style::Plain,
    }
}

fn heading(text: &str) -> Row {
    Row::default().text(Style::Heading, text)
}

fn faint(text: &str) -> Row {
    Row::default().text(Style::Faint, text)
}

#[cfg(test)]
mod tests;
