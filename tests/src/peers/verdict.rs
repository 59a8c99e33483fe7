//! PURE. Whether the detector and a peer agree about a case, and what explains it where they do not.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::case::{Case, Expected, Severity};

/// A finding that was opened.
#[derive(Debug, Deserialize)]
pub(super) struct Said {
    transition: String,
    pub(super) reason: String,
    pub(super) severity: Severity,
}

/// One JSON object a line, as `replay -o json` prints.
pub(super) fn said(text: &str) -> anyhow::Result<Vec<Said>> {
    let mut said = Vec::new();
    for line in text.lines() {
        let one: Said =
            serde_json::from_str(line).with_context(|| format!("understand `{line}`"))?;
        if one.transition == "opened" {
            said.push(one);
        }
    }
    Ok(said)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Both report it.
    Found,
    /// Neither does.
    Quiet,
    Missed,
    FalseAlarm,
    /// Both report it, at another severity.
    Severity,
}

impl Verdict {
    const NAMES: [(&'static str, Self); 3] = [
        ("missed", Self::Missed),
        ("false alarm", Self::FalseAlarm),
        ("severity", Self::Severity),
    ];

    fn of(expected: &Expected, said: &[Said]) -> Self {
        let worst = said.iter().map(|said| said.severity).max();
        match (expected, worst) {
            (Expected::Nothing, None) => Self::Quiet,
            (Expected::Nothing, Some(_)) => Self::FalseAlarm,
            (Expected::Problem(_), None) => Self::Missed,
            (Expected::Problem(Some(wanted)), Some(worst)) if *wanted != worst => Self::Severity,
            (Expected::Problem(_), Some(_)) => Self::Found,
        }
    }

    pub(super) fn agrees(self) -> bool {
        matches!(self, Self::Found | Self::Quiet)
    }

    fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, verdict)| *verdict == self)
            .map_or("agreement", |(name, _)| *name)
    }
}

pub(super) struct Compared {
    pub(super) case: Case,
    pub(super) said: Vec<Said>,
    /// Absent where there is no log to replay.
    pub(super) verdict: Option<Verdict>,
    pub(super) why: Option<Why>,
}

impl Compared {
    pub(super) fn new(case: Case, said: Option<Vec<Said>>) -> Self {
        let verdict = said.as_ref().map(|said| Verdict::of(&case.expected, said));
        Self {
            case,
            said: said.unwrap_or_default(),
            verdict,
            why: None,
        }
    }
}

/// Why a disagreement is one: its kind, and the case itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) cause: &'static Cause,
    pub(super) text: String,
}

/// A kind of disagreement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
}

pub(super) static CAUSES: [Cause; 8] = [
    Cause {
        name: "gap",
        meaning: "nodemend should see it and does not yet.",
    },
    Cause {
        name: "other log",
        meaning: "Of a log for which nodemend has no rule of its own. `logRules` can have one.",
    },
    Cause {
        name: "not printed",
        meaning: "No kernel or driver prints this line: a shortened or made-up wording, which a whole-line grammar refuses on purpose.",
    },
    Cause {
        name: "context",
        meaning: "The line stands beside a report, or is a part of one, and says nothing by itself; the line that is the report counts, or the line's repeats.",
    },
    Cause {
        name: "forged",
        meaning: "A process wrote it to /dev/kmsg. Any pod that may do so could have a node repaired.",
    },
    Cause {
        name: "no fault",
        meaning: "A healthy node says it too.",
    },
    Cause {
        name: "fault",
        meaning: "A true fault, for which that test of the peer does not look.",
    },
    Cause {
        name: "judgement",
        meaning: "Both report it, and differ in how bad it is.",
    },
];

/// By case; with the verdict that each explains.
pub(super) type Explanations = BTreeMap<String, (Verdict, Why)>;

/// Rows of case, verdict, cause, why.
pub(super) fn explanations(text: &str) -> anyhow::Result<Explanations> {
    let mut explained = BTreeMap::new();
    for (number, row) in (1..).zip(text.lines()) {
        if row.starts_with('#') || row.is_empty() {
            continue;
        }
        let columns: Vec<_> = row.split('\t').collect();
        let [case, verdict, cause, why] = columns[..] else {
            bail!("line {number}: {} columns instead of 4", columns.len());
        };
        let verdict = Verdict::NAMES
            .iter()
            .find(|(name, _)| *name == verdict)
            .with_context(|| format!("line {number}: `{verdict}` is no disagreement"))?
            .1;
        let cause = CAUSES
            .iter()
            .find(|known| known.name == cause)
            .with_context(|| format!("line {number}: `{cause}` is no cause"))?;
        ensure!(!why.trim().is_empty(), "line {number}: it says nothing");
        let why = Why {
            cause,
            text: why.to_owned(),
        };
        let twice = explained.insert(case.to_owned(), (verdict, why)).is_some();
        ensure!(!twice, "line {number}: {case} is explained twice");
    }
    Ok(explained)
}

/// Gives each disagreement its explanation; what is left over on either side is returned as complaints.
pub(super) fn explain(compared: &mut [Compared], mut explained: Explanations) -> Vec<String> {
    let mut complaints = Vec::new();
    for one in compared {
        let id = &one.case.id;
        let Some(verdict) = one.verdict.filter(|verdict| !verdict.agrees()) else {
            continue;
        };
        match explained.remove(id) {
            Some((of, why)) if of == verdict => one.why = Some(why),
            Some((of, _)) => complaints.push(format!(
                "{id}: explained as `{}`, but it is `{}`",
                of.name(),
                verdict.name()
            )),
            None => complaints.push(format!(
                "{id}: `{}` without an explanation: {} | {} | {:?}",
                verdict.name(),
                one.case.reason,
                one.case.line,
                one.said
            )),
        }
    }
    let left = explained.into_keys();
    complaints.extend(left.map(|id| format!("{id}: explained, but it agrees or does not exist")));
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::case::Input;
    use super::*;

    fn compared(expected: Expected, severity: Option<&str>) -> Compared {
        let case = Case {
            id: "x:1".to_owned(),
            class: String::new(),
            reason: String::new(),
            expected,
            input: Input::Log(String::new()),
            line: String::new(),
        };
        let text = severity
            .map(|severity| {
                format!(r#"{{"transition":"opened","reason":"R","severity":"{severity}"}}"#)
            })
            .unwrap_or_default();
        Compared::new(case, Some(said(&text).unwrap()))
    }

    const FATAL: Expected = Expected::Problem(Some(Severity::Fatal));

    #[test]
    fn a_case_is_found_missed_quiet_or_alarm() {
        for (expected, severity, verdict) in [
            (FATAL, Some("Fatal"), Verdict::Found),
            (FATAL, Some("Warning"), Verdict::Severity),
            (Expected::Problem(None), Some("Info"), Verdict::Found),
            (FATAL, None, Verdict::Missed),
            (Expected::Nothing, None, Verdict::Quiet),
            (Expected::Nothing, Some("Info"), Verdict::FalseAlarm),
        ] {
            assert_eq!(compared(expected, severity).verdict, Some(verdict));
        }
    }

    #[test]
    fn only_what_is_opened_counts() {
        let cleared = r#"{"transition":"cleared","reason":"R","severity":"Fatal"}"#;
        assert!(said(cleared).unwrap().is_empty());
    }

    #[test]
    fn every_disagreement_has_its_explanation_and_no_agreement_has_one() {
        let explain = |expected, severity, text: &str| {
            let mut all = [compared(expected, severity)];
            let complaints = explain(&mut all, explanations(text).unwrap());
            (complaints.len(), all[0].why.is_some())
        };
        let why = "x:1\tmissed\tgap\tso\n";
        assert_eq!(explain(FATAL, None, why), (0, true));
        assert_eq!(explain(FATAL, None, ""), (1, false));
        assert_eq!(explain(FATAL, Some("Fatal"), why), (1, false));
        assert_eq!(explain(FATAL, Some("Warning"), why), (1, false));
        assert_eq!(explain(FATAL, Some("Fatal"), ""), (0, false));
    }

    #[test]
    fn an_explanation_that_is_not_understood_is_an_error() {
        for row in [
            "x:1\tmissed\tgap",
            "x:1\tfound\tgap\tso",
            "x:1\tmissed\twhim\tso",
            "x:1\tmissed\tgap\t ",
            "x:1\tmissed\tgap\tso\nx:1\tmissed\tgap\tso",
        ] {
            assert!(explanations(row).is_err(), "{row}");
        }
    }
}
