//! PURE. Limits of the whole host that are nearly reached.

use std::time::Duration;

use super::files::Files;
use super::text::{is_share, number, numbers};
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{HOST, LogFault, What};

const APPROACHED: u32 = 70;
const NEARLY: u32 = 95;

const LOAD: &str = "proc/loadavg";
const PID_MAX: &str = "proc/sys/kernel/pid_max";
const THREADS_MAX: &str = "proc/sys/kernel/threads-max";

/// Threads against the smaller of their two limits.
pub(super) struct Processes;

impl Counter for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[LOAD, PID_MAX, THREADS_MAX]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        // `0.00 0.01 0.05 1/234 5678`
        let threads = || {
            let tasks = files.one(LOAD)?.split_ascii_whitespace().nth(3)?;
            number(tasks.split_once('/')?.1)
        };
        let limit = |path, name| Some((files.one(path).and_then(number)?, name));
        let limits = [limit(PID_MAX, "pid_max"), limit(THREADS_MAX, "threads-max")];
        let (Some(threads), Some((limit, name))) = (threads(), limits.into_iter().flatten().min())
        else {
            return Vec::new();
        };
        let message = format!(
            "the host has {threads} threads, of {limit} that kernel.{name} allows: soon no process can be started"
        );
        let reached = told::fault(Reason::PidsLimitReached, HOST, message);
        let message =
            format!("the host has {threads} threads, of {limit} that kernel.{name} allows");
        let approached = told::fault(Reason::ApproachingKernelPidMax, HOST, message);
        nearing(threads, limit, approached, reached)
    }
}

/// Both, where the limit is nearly reached: the one goes on when the other is over.
fn nearing(used: u64, limit: u64, approached: LogFault, reached: LogFault) -> Vec<What> {
    let levels = [(APPROACHED, approached), (NEARLY, reached)];
    let so = levels
        .into_iter()
        .filter(|(percent, _)| is_share(used, limit, *percent));
    so.map(|(_, fault)| told::still(fault)).collect()
}

const FILES: &str = "proc/sys/fs/file-nr";

pub(super) struct OpenFiles;

impl Counter for OpenFiles {
    fn name(&self) -> &'static str {
        "open-files"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[FILES]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        // Allocated, unused (0 since 2.6), and fs.file-max.
        let values = numbers(files.one(FILES).unwrap_or_default());
        let &[open, _, limit] = values.as_slice() else {
            return Vec::new();
        };
        let message = format!("{open} files are open, of {limit} that fs.file-max allows");
        let reached = told::fault(Reason::FileMaxReached, HOST, message.clone());
        let approached = told::fault(Reason::ApproachingMaxOpenFiles, HOST, message);
        nearing(open, limit, approached, reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    fn processes(load: &str, pid_max: &str, threads_max: &str) -> Vec<What> {
        let files = Files::of(&[
            (LOAD, &[], load),
            (PID_MAX, &[], pid_max),
            (THREADS_MAX, &[], threads_max),
        ]);
        Processes.look(&files, Duration::ZERO)
    }

    fn reasons(found: &[What]) -> Vec<Reason> {
        let found = summary(found).into_iter();
        found
            .map(|(reason, entity, count)| {
                assert_eq!((entity.as_str(), count), (HOST, 0));
                reason
            })
            .collect()
    }

    #[test]
    fn threads_are_held_against_the_smaller_limit() {
        let (approached, reached) = (Reason::ApproachingKernelPidMax, Reason::PidsLimitReached);
        let load = "9.99 5.00 1.00 3/9500 12345\n";
        for (pid_max, threads_max, told) in [
            ("10000\n", "99999\n", &[approached, reached][..]),
            ("4194304\n", "10000\n", &[approached, reached]),
            ("4194304\n", "10001\n", &[approached]),
            ("13571\n", "99999\n", &[approached]),
            ("13572\n", "99999\n", &[]),
            ("0\n", "10\n", &[]),
        ] {
            let found = processes(load, pid_max, threads_max);
            assert_eq!(reasons(&found), told, "{pid_max} {threads_max}");
        }
    }

    #[test]
    fn open_files_are_told_before_there_are_too_many() {
        let (approached, reached) = (Reason::ApproachingMaxOpenFiles, Reason::FileMaxReached);
        for (text, told) in [
            ("9500\t0\t10000\n", &[approached, reached][..]),
            ("9499\t0\t10000\n", &[approached]),
            ("6999\t0\t10000\n", &[]),
            ("1056\t0\t9223372036854775807\n", &[]),
        ] {
            let files = Files::of(&[(FILES, &[], text)]);
            let found = OpenFiles.look(&files, Duration::ZERO);
            assert_eq!(reasons(&found), told, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for text in [
            "",
            "1",
            "x y z",
            "1 2 3 4",
            "-1 0 1",
            "99999999999999999999 0 1",
        ] {
            let files = Files::of(&[(FILES, &[], text)]);
            assert!(OpenFiles.look(&files, Duration::ZERO).is_empty(), "{text}");
            assert!(processes(text, "1", "1").is_empty(), "{text}");
        }
        assert!(processes("0 0 0 1/9999 1", "", "x").is_empty());
    }
}
