//! PURE. `logRules`: the user's own lines that mean a fault.

use std::collections::BTreeMap;

use super::error::Errors;
use super::item::{Item, Object};
use super::reasons;
use crate::core::{Override, Settings};
use crate::reason::{ConditionType, LONGEST_NAME, Severity, intern, is_reason_name};
use crate::rules::{LogRule, LogRules, Origin, unit_name};

const KEYS: &[&str] = &[
    "name",
    "source",
    "unit",
    "path",
    "pattern",
    "reason",
    "condition",
    "severity",
    "threshold",
    "clearAfter",
];
const MOST_RULES: usize = 128;
const MOST_FILES: usize = 32;
/// `UNIT_NAME_MAX` of systemd, with room for a type.
const LONGEST_UNIT: usize = 240;
const LONGEST_PATTERN: usize = 1024;

#[derive(Clone, Copy)]
enum SourceKind {
    Kmsg,
    Journal,
    File,
}

/// Severity, threshold and clear rule go into the settings, under the reason's name.
pub(super) fn read(item: &Item<'_>, settings: &mut Settings, errors: &mut Errors) -> LogRules {
    let mut rules: Vec<LogRule> = Vec::new();
    let mut meanings: BTreeMap<&'static str, (ConditionType, Override)> = BTreeMap::new();
    for item in item.list(MOST_RULES, errors) {
        let object = item.object(KEYS, errors);
        let (rule, over) = (rule(&object, errors), reasons::common(&object, errors));
        if over.severity == Some(Severity::Fatal)
            && !settings.own_fatal_reasons
            && let Some(severity) = object.get("severity")
        {
            severity.error(errors, "has no effect: ownFatalReasons is false");
        }
        let Some(rule) = rule else { continue };
        if rules.iter().any(|other| other.name == rule.name) {
            object.error(errors, format!("a second rule with the name {}", rule.name));
        }
        match meanings.get(rule.reason) {
            Some(first) if *first != (rule.condition, over.clone()) => object.error(
                errors,
                format!("another rule gives {} a different condition, severity, threshold or clearAfter", rule.reason),
            ),
            Some(_) => {}
            None => {
                meanings.insert(rule.reason, (rule.condition, over.clone()));
                settings.overrides.insert(rule.reason.to_owned(), over);
            }
        }
        rules.push(rule);
    }
    let rules = LogRules::new(rules).unwrap_or_else(|error| {
        item.error(errors, error);
        LogRules::default()
    });
    if rules.asked_files().count() > MOST_FILES {
        item.error(errors, format!("more than {MOST_FILES} different files"));
    }
    rules
}

fn rule(object: &Object<'_>, errors: &mut Errors) -> Option<LogRule> {
    let name = object.required("name", errors).cloned();
    let source = object.required("source", errors).cloned();
    let pattern = object.required("pattern", errors).cloned();
    let reason = object.required("reason", errors).cloned();
    let condition = object.required("condition", errors).cloned();
    // Each is read before the first missing one ends it: all errors at once.
    let name = name.and_then(|item| rule_name(&item, errors));
    let kinds = [
        ("kmsg", SourceKind::Kmsg),
        ("journal", SourceKind::Journal),
        ("file", SourceKind::File),
    ];
    let origin = source
        .and_then(|item| item.choice("source", &kinds, errors))
        .and_then(|kind| origin(kind, object, errors));
    let pattern = pattern.and_then(|item| pattern_of(&item, errors));
    let reason = reason.and_then(|item| reason_of(&item, errors));
    let conditions = ConditionType::ALL.map(|condition| (condition.name(), condition));
    let condition = condition.and_then(|item| item.choice("condition", &conditions, errors));
    Some(LogRule {
        name: name?,
        origin: origin?,
        pattern: pattern?,
        reason: reason?,
        condition: condition?,
    })
}

fn rule_name(item: &Item<'_>, errors: &mut Errors) -> Option<String> {
    let name = item.text(errors)?;
    let fits = name.len() <= LONGEST_NAME
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !fits {
        item.error(
            errors,
            format!("up to {LONGEST_NAME} letters, digits, `-`, `_` and `.`"),
        );
    }
    fits.then(|| name.to_owned())
}

fn origin(kind: SourceKind, object: &Object<'_>, errors: &mut Errors) -> Option<Origin> {
    let (unit, path) = (object.get("unit"), object.get("path"));
    let refuse = |item: Option<&Item<'_>>, only: &str, errors: &mut Errors| {
        if let Some(item) = item {
            item.error(errors, format!("only for source {only}"));
        }
    };
    match kind {
        SourceKind::Kmsg => {
            refuse(unit, "journal", errors);
            refuse(path, "file", errors);
            Some(Origin::KernelLog)
        }
        SourceKind::Journal => {
            refuse(path, "file", errors);
            let item = object.required("unit", errors)?;
            let unit = item.text(errors)?;
            let fits = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
            if unit.len() > LONGEST_UNIT || !unit.bytes().all(fits) {
                item.error(errors, "one unit as `systemctl` names it: no wildcards");
                return None;
            }
            let unit = unit_name(unit);
            Some(Origin::Journal { unit })
        }
        SourceKind::File => {
            refuse(unit, "journal", errors);
            let item = object.required("path", errors)?;
            let path = item.path(errors)?;
            if path.contains(['*', '?']) || path.split('/').any(|part| part == "..") {
                item.error(errors, "one file: no wildcards, no `..`");
                return None;
            }
            Some(Origin::File { path })
        }
    }
}

fn pattern_of(item: &Item<'_>, errors: &mut Errors) -> Option<String> {
    let pattern = item.text(errors)?;
    if pattern.len() > LONGEST_PATTERN {
        item.error(errors, format!("longer than {LONGEST_PATTERN} bytes"));
        return None;
    }
    match crate::rules::check_pattern(pattern) {
        Ok(()) => Some(pattern.to_owned()),
        Err(error) => {
            item.error(errors, error);
            None
        }
    }
}

fn reason_of(item: &Item<'_>, errors: &mut Errors) -> Option<&'static str> {
    let name = item.text(errors)?;
    if !is_reason_name(name) {
        item.error(
            errors,
            format!(
                "a reason is CamelCase: a capital, then letters and digits, at most {LONGEST_NAME}"
            ),
        );
        return None;
    }
    if reasons::is_taken(name) {
        item.error(
            errors,
            format!("{name} is a reason of the table: choose another name"),
        );
        return None;
    }
    let reason = intern(name);
    if reason.is_none() {
        item.error(
            errors,
            "too many different names since this agent's start: restart it",
        );
    }
    reason
}
