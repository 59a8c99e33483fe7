//! PURE. The cases: a log, what a peer makes of it, and how that log reaches `replay`.

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Severity {
    Info,
    Warning,
    Fatal,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Nothing,
    /// With a severity, where the peer's test tells one that is of our kind.
    Problem(Option<Severity>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Log(String),
    /// A counter, a command's output, a state: where the peer reads it.
    NoLog(String),
}

impl Input {
    /// Or of a program in a syslog file, which is read like it.
    pub(super) fn is_kernel_log(&self) -> bool {
        match self {
            Self::Log(log) => !log.starts_with('{'),
            Self::NoLog(_) => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Case {
    /// `peer_cases:12`: file and line.
    pub(super) id: String,
    /// Lines about the same part of a node.
    pub(super) class: String,
    /// The peer, and its own word for it.
    pub(super) reason: String,
    pub(super) expected: Expected,
    pub(super) input: Input,
    /// As the file has it.
    pub(super) line: String,
}

/// Rows of project, rule, `y` or `n`, line, origin.
pub(super) fn peers(text: &str) -> anyhow::Result<Vec<Case>> {
    rows(text, "project\trule_reason\tshould_trigger\tline\torigin")?
        .map(|(number, row)| {
            let show = || format!("line {number}");
            let [project, rule, triggers, line, _origin] = columns(row).with_context(show)?;
            let expected = match triggers {
                "y" => Expected::Problem(severity(rule)),
                "n" => Expected::Nothing,
                other => bail!("line {number}: `{other}` is neither y nor n"),
            };
            Ok(Case {
                id: format!("peer_cases:{number}"),
                class: class_of_rule(project, rule),
                reason: format!("{project} {rule}"),
                expected,
                input: Input::Log(log_of_rule(rule, &unescaped(line))),
                line: line.to_owned(),
            })
        })
        .collect()
}

/// Rows of reason, severity, source, sample.
pub(super) fn eks(text: &str) -> anyhow::Result<Vec<Case>> {
    rows(text, "reason\tseverity\tsource\tsample line")?
        .map(|(number, row)| {
            let show = || format!("line {number}");
            let [reason, wanted, source, sample] = columns(row).with_context(show)?;
            let expected = match wanted {
                "none" => Expected::Nothing,
                _ => Expected::Problem(Some(
                    severity(wanted)
                        .with_context(|| format!("line {number}: `{wanted}` is no severity"))?,
                )),
            };
            let (class, input) = of_source(source, &unescaped(sample));
            Ok(Case {
                id: format!("nma_cases:{number}"),
                class: class.to_owned(),
                reason: format!("{reason} {wanted}"),
                expected,
                input,
                line: sample.to_owned(),
            })
        })
        .collect()
}

/// With their numbers, from 1; comments and the header left out.
fn rows<'a>(text: &'a str, header: &str) -> anyhow::Result<impl Iterator<Item = (usize, &'a str)>> {
    let mut rows = (1..)
        .zip(text.lines())
        .filter(|(_, row)| !row.starts_with('#'));
    let first = rows.next().map(|(_, row)| row);
    ensure!(
        first == Some(header),
        "the first line is {first:?}, not {header:?}"
    );
    Ok(rows)
}

fn columns<const N: usize>(row: &str) -> anyhow::Result<[&str; N]> {
    let columns: Vec<_> = row.split('\t').collect();
    let found = columns.len();
    columns
        .try_into()
        .ok()
        .with_context(|| format!("{found} columns instead of {N}"))
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('\\')) => out.push('\\'),
            _ => {
                out.push(c);
                continue;
            }
        }
        chars.next();
    }
    out
}

fn severity(text: &str) -> Option<Severity> {
    text.split(' ').find_map(|word| match word {
        "Warning" => Some(Severity::Warning),
        "Fatal" => Some(Severity::Fatal),
        _ => None,
    })
}

fn class_of_rule(project: &str, rule: &str) -> String {
    match rule.split(['/', ' ']).next() {
        None | Some("none") => format!("{project}: lines without a rule"),
        Some(class) => format!("{project}: {class}"),
    }
}

/// Rules about other logs than the kernel's know their lines without what says where they are from.
fn log_of_rule(rule: &str, line: &str) -> String {
    if rule.starts_with("fabric-manager/") {
        return of_file("/var/log/fabricmanager.log", line);
    }
    if rule.starts_with("networking/IPAMD") {
        return of_file("/var/log/aws-routed-eni/ipamd.log", line);
    }
    if rule.starts_with("runtime/") || rule.ends_with("(Journal)") {
        let times = if rule.ends_with("(after repeats)") {
            6
        } else {
            1
        };
        return of_journal("kubelet", line).repeat(times);
    }
    format!("{line}\n")
}

const KERNEL_LOG: &str = "eks (nma_cases): kernel log";

fn of_source(source: &str, sample: &str) -> (&'static str, Input) {
    let (place, notes) = source.split_once(';').unwrap_or((source, ""));
    let no_log = || ("eks (nma_cases): no log", Input::NoLog(place.to_owned()));
    let (class, line) = match place.split_once(':') {
        None if matches!(place, "dmesg" | "kmsg-raw") => (KERNEL_LOG, format!("{sample}\n")),
        // That log's identifiers: what systemd says is of its own unit.
        Some(("journald", "systemd")) => {
            ("eks (nma_cases): journal", of_journal("init.scope", sample))
        }
        Some(("journald", unit)) => ("eks (nma_cases): journal", of_journal(unit, sample)),
        // `+ CRI`: a file and what the runtime says.
        Some(("file", path)) if !path.contains(" + ") => {
            ("eks (nma_cases): files", of_file(path, sample))
        }
        Some(("e2e", "/dev/kmsg")) => match written(sample) {
            // LOG_USER, and the level that the device gives where the writer names none.
            Some(text) => (KERNEL_LOG, format!("12,1,1,-;{text}\n")),
            None => return no_log(),
        },
        Some(("e2e", path)) if path.starts_with("/var/log/") => {
            let line = sample.strip_prefix("append: ").unwrap_or(sample);
            ("eks (nma_cases): files", of_file(path, line))
        }
        _ => return no_log(),
    };
    let times = notes
        .split([';', ' '])
        .find_map(|note| note.strip_prefix('x')?.parse().ok())
        .unwrap_or(1);
    (class, Input::Log(line.repeat(times)))
}

/// What `echo '...' | tee -a /dev/kmsg` writes.
fn written(command: &str) -> Option<&str> {
    let rest = command.strip_prefix("echo '")?;
    Some(rest.split_once("' | tee ")?.0)
}

fn of_journal(unit: &str, line: &str) -> String {
    format!(
        "{}\n",
        json!({"source": "journal", "unit": unit, "line": line})
    )
}

fn of_file(path: &str, line: &str) -> String {
    format!(
        "{}\n",
        json!({"source": "file", "path": path, "line": line})
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_once() {
        assert_eq!(unescaped(r"a\nb\tc\\nd\_e\"), "a\nb\tc\\nd\\_e\\");
    }

    #[test]
    fn a_row_becomes_a_log_with_its_verdict() {
        let text = "# source\nproject\trule_reason\tshould_trigger\tline\torigin\n\
            gpud\txid/79 Fatal\ty\tNVRM: x\\ny\tf.go\n";
        let case = &peers(text).unwrap()[0];
        assert_eq!(case.id, "peer_cases:3");
        assert_eq!(case.class, "gpud: xid");
        assert_eq!(case.expected, Expected::Problem(Some(Severity::Fatal)));
        assert_eq!(case.input, Input::Log("NVRM: x\ny\n".to_owned()));
    }

    #[test]
    fn a_source_says_how_the_line_reaches_the_agent() {
        for (source, sample, input) in [
            ("dmesg", "x", "x\n"),
            (
                "journald:kubelet;added;x2",
                "x",
                "{\"line\":\"x\",\"source\":\"journal\",\"unit\":\"kubelet\"}\n{\"line\":\"x\",\"source\":\"journal\",\"unit\":\"kubelet\"}\n",
            ),
            (
                "e2e:/dev/kmsg",
                "echo 'a b' | tee -a /host/dev/kmsg",
                "12,1,1,-;a b\n",
            ),
            (
                "e2e:/var/log/x.log",
                "append: a",
                "{\"line\":\"a\",\"path\":\"/var/log/x.log\",\"source\":\"file\"}\n",
            ),
        ] {
            let (_, found) = of_source(source, sample);
            assert_eq!(found, Input::Log(input.to_owned()), "{source}");
        }
        for source in ["poll:x", "file:/run/x.json + CRI;y", "e2e:dcgmi"] {
            let (_, found) = of_source(source, "x");
            assert!(matches!(found, Input::NoLog(_)), "{source}");
        }
    }

    #[test]
    fn a_row_that_is_not_understood_is_an_error() {
        let header = "reason\tseverity\tsource\tsample line\n";
        assert!(eks(&format!("{header}a\tLoud\tdmesg\tx\n")).is_err());
        assert!(eks(&format!("{header}a\tWarning\tdmesg\n")).is_err());
        assert!(eks("a\tWarning\tdmesg\tx\n").is_err());
    }
}
