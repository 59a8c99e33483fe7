//! What the host writes: log lines, cgroup paths, its mounts.

use crate::host_log;
use crate::mounts::{self, Situation};
use crate::reason::{ConditionType, Severity};
use crate::rules::{self, LogRule, LogRules, Origin};
use crate::signal::{OomLimit, Workload};
use crate::text;

/// The kernel gives no longer path.
const PATH_MAX: usize = 4096;

/// A log by its name, then lines of it.
pub(super) fn log(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let name = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let text = name.clone().into_owned();
    let origin = if name.starts_with('/') {
        Origin::File { path: text }
    } else {
        Origin::Journal { unit: text }
    };
    let told: Vec<_> = lines
        .filter_map(|line| host_log::read(&origin, line))
        .collect();
    let logs = host_log::UNITS.contains(&&*name) || host_log::FILES.contains(&&*name);
    assert!(logs || told.is_empty(), "of {origin:?}");
    for finding in super::tell(told) {
        assert_ne!(finding.severity, Severity::Fatal, "by a line: {finding:?}");
    }
}

/// A pattern, then lines.
pub(super) fn rules(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let pattern = String::from_utf8_lossy(lines.next().unwrap_or_default());
    if let Err(why) = rules::check_pattern(&pattern) {
        assert!(!why.contains('\n'), "{why}");
        return;
    }
    let rule = LogRule {
        name: "rule".to_owned(),
        origin: Origin::KernelLog,
        pattern: pattern.into_owned(),
        reason: "Custom",
        condition: ConditionType::KernelReady,
    };
    let rules = LogRules::new(vec![rule]).unwrap_or_else(|why| panic!("it was checked: {why}"));
    assert_eq!(rules.read(&Origin::KernelLog, b"").len(), 0);
    super::tell(lines.flat_map(|line| rules.read(&Origin::KernelLog, line)));
}

/// A path by line.
pub(super) fn cgroup(bytes: &[u8]) {
    for path in String::from_utf8_lossy(bytes).lines() {
        let path = path.rsplit(':').next().unwrap_or_default();
        let path = text::bounded(path, PATH_MAX);
        let path = path.as_str();
        let names: Vec<_> = path.rsplit('/').map(str::to_owned).collect();
        for level in 0..=names.len().min(16) {
            if let OomLimit::Cgroup(name) = OomLimit::of_cgroup(&names, level) {
                super::assert_plain(&name, 128);
            }
        }
        let Some(workload) = Workload::from_cgroup_path(path) else {
            continue;
        };
        super::assert_plain(&workload.cgroup, 129 * names.len());
        let is_id = |id: &str| id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        for id in [&workload.pod_uid, &workload.container_id] {
            assert!(id.as_deref().is_none_or(is_id), "{workload:?}");
        }
        // A container names no other pod from below.
        let nested = format!("{path}/kubepods/pod{}", "0".repeat(32));
        let below = Workload::from_cgroup_path(&nested);
        if workload.pod_uid.is_some() {
            assert_eq!(below.and_then(|below| below.pod_uid), workload.pod_uid);
        }
    }
}

/// The device of the first line is asked for.
pub(super) fn mountinfo(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let number = |word: &str| word.split_once(':').map(|(a, b)| (a.parse(), b.parse()));
    let device = match text.split(' ').nth(2).and_then(number) {
        Some((Ok(major), Ok(minor))) => (major, minor),
        _ => (8, 1),
    };
    let critical = ["/".to_owned(), "/var/lib/kubelet".to_owned()];
    let situation = mounts::situation(&text, device, &critical);
    let first = mounts::mount_point(&text, device);
    assert_eq!(first.is_none(), situation == Situation::NotMounted);
    if let Situation::ReadOnly { critical: path, .. }
    | Situation::SaysWritable { critical: path, .. } = situation
    {
        assert!(path.is_none_or(|path| critical.contains(&path)));
    }
}
