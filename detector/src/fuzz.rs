//! Every parser of bytes that a stranger may have chosen, with what must hold whatever they are: each
//! target panics where it does not. `cargo xtask fuzz` searches for such bytes; the unit tests try the
//! seeds and what is near them.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;

use crate::core::{Core, Input, Output, Override, Settings};
use crate::finding::{Finding, Now};
use crate::reason::{ConditionType, Reason, Severity};
use crate::signal::{Signal, What};
use crate::source::{blocked, bpf, counters, file, journal, kmsg, nvml};
use crate::state::State;
use crate::{boots, replay, text};

mod host;
mod own;
#[cfg(test)]
mod tests;

pub type Target = fn(&[u8]);

/// By the name of the folder with their seeds, `tests/fuzz/seeds/<name>`.
pub const TARGETS: &[(&str, Target)] = &[
    ("boots", own::boots),
    ("btf", bpf::fuzz::btf),
    ("cgroup", host::cgroup),
    ("config", own::config),
    ("counters", counters::fuzz::counters),
    ("files", file::fuzz::lines),
    ("gpus", nvml::fuzz::states),
    ("host-log", host::log),
    ("journal", journal::fuzz::journal),
    ("journal-field", journal::fuzz::field),
    ("kallsyms", blocked::fuzz),
    ("kernel-log", kmsg::fuzz::device),
    ("log-rules", host::rules),
    ("mountinfo", host::mountinfo),
    ("netlink", counters::fuzz::netlink),
    ("pstore", boots::fuzz_pstore),
    ("ring", bpf::fuzz::ring),
    ("saved-log", replay::fuzz_saved),
    ("state", own::state),
    ("syslog", kmsg::fuzz::syslog),
    ("tables", counters::fuzz::tables),
    ("tracepoint", bpf::fuzz::tracepoint),
];

/// Of the message of a finding; what a stranger chose in it is shorter.
const MESSAGE_LIMIT: usize = 1024;
const ENTITY_LIMIT: usize = 1024;
/// Of a pod's cgroup path: eight levels of 128 bytes each.
const CGROUP_LIMIT: usize = 8 * 129;

/// Plain text of one line.
pub(crate) fn assert_plain(text: &str, limit: usize) {
    assert!(text.len() <= limit, "{} bytes: {text:?}", text.len());
    let printable = text::printable(text.as_bytes(), usize::MAX);
    assert_eq!(text, printable, "it would not be shown as it is");
}

fn assert_finding(finding: &Finding) {
    assert_plain(&finding.message, MESSAGE_LIMIT);
    assert_plain(&finding.entity, ENTITY_LIMIT);
    let subject = &finding.subject;
    for name in [&subject.comm, &subject.device, &subject.interface] {
        assert_plain(name.as_deref().unwrap_or_default(), 128);
    }
    if let Some(workload) = &subject.workload {
        assert_plain(&workload.cgroup, CGROUP_LIMIT);
    }
}

/// Told one after the other, a second apart; returns the findings.
pub(crate) fn tell(whats: impl IntoIterator<Item = What>) -> Vec<Finding> {
    let whats: Vec<_> = whats.into_iter().collect();
    if whats.is_empty() {
        return Vec::new();
    }
    // Conditions are made of fatal findings only.
    step(&FATAL, whats.clone());
    step(&Settings::default(), whats)
}

/// As if the user had said of every reason that it is Fatal.
static FATAL: LazyLock<Settings> = LazyLock::new(|| {
    let fatal = Override {
        severity: Some(Severity::Fatal),
        ..Override::default()
    };
    let reasons = Reason::ALL.iter().map(|reason| reason.name().into_owned());
    Settings {
        overrides: reasons.map(|name| (name, fatal.clone())).collect(),
        ..Settings::default()
    }
});

fn step(settings: &Settings, whats: Vec<What>) -> Vec<Finding> {
    let mut core = Core::new(ConditionType::ALL.to_vec());
    let mut findings = Vec::new();
    let settled = [
        Input::Settings(settings.clone()),
        Input::HistoryRead,
        Input::Existing(Vec::new()),
    ];
    for input in settled {
        check(core.step(input, now(1)), &mut findings);
    }
    for (second, what) in (2..).zip(whats) {
        let signal = Signal {
            at: Duration::from_secs(second),
            historic: false,
            what,
        };
        check(core.step(Input::Signal(signal), now(second)), &mut findings);
    }
    let mut state = State::new(BOOT.to_owned(), now(1), Duration::ZERO);
    core.save(&mut state);
    own::assert_same_when_read_back(&state);
    findings
}

fn check(outputs: Vec<Output>, findings: &mut Vec<Finding>) {
    for output in outputs {
        match output {
            Output::Transition(transition) => {
                assert_finding(&transition.finding);
                findings.push(transition.finding);
            }
            Output::Conditions { conditions, .. } => {
                for condition in conditions {
                    assert_plain(&condition.message, MESSAGE_LIMIT);
                    // The next agent reads its parts; the last one may be cut.
                    let mut parts: Vec<_> = condition.message.split("; ").collect();
                    parts.pop();
                    let is_part = |part: &&str| {
                        part.split_once(": ")
                            .is_some_and(|(name, _)| FATAL.reason(name).is_some())
                    };
                    assert!(
                        condition.healthy || parts.iter().all(is_part),
                        "{}",
                        condition.message
                    );
                }
            }
            Output::Probe { .. }
            | Output::LookAtTask { .. }
            | Output::LookAtCpu { .. }
            | Output::Open(_)
            | Output::State(_) => {}
        }
    }
}

const BOOT: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";

fn now(second: u64) -> Now {
    let boot = Duration::from_secs(second);
    Now {
        boot,
        wall: Timestamp::UNIX_EPOCH + boot,
    }
}
