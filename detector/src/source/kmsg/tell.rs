//! What a line of the kernel log says, however it was read.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::grammar;
use super::record::Record;
use crate::clock;
use crate::reason::Reason;
use crate::rules::LogRules;
use crate::signal::{Signal, Task, What, Workload};
use crate::source::bpf::Hook;
use crate::source::pci;

pub(super) struct Teller {
    proc: PathBuf,
    sys: PathBuf,
    opened: Duration,
    /// What was in the log then has been read: what comes now is newer.
    read_past: bool,
    told_else: Vec<Hook>,
    rules: Arc<LogRules>,
}

impl Teller {
    pub(super) fn new(proc: PathBuf, sys: PathBuf, told_else: Vec<Hook>) -> Self {
        Self {
            proc,
            sys,
            opened: clock::boot(),
            read_past: false,
            told_else,
            rules: Arc::default(),
        }
    }

    /// The log has been read to its end.
    pub(super) fn has_read_past(&mut self) {
        self.read_past = true;
    }

    pub(super) fn is_past_read(&self) -> bool {
        self.read_past
    }

    /// By the rules of the table and by the user's.
    pub(super) fn tell(
        &self,
        record: &Record<'_>,
        at: Duration,
        historic: bool,
        emit: &mut dyn FnMut(Signal),
    ) {
        let known = grammar::read(record)
            .filter(|what| !self.is_told_else(what, at))
            .filter(|what| self.is_of_its_driver(what));
        let known = known.map(|mut what| {
            match &mut what {
                What::Xid {
                    gpu,
                    driver,
                    process,
                    ..
                } => {
                    *driver = pci::driver(&self.sys, gpu);
                    if let Some(task) = process.as_mut().filter(|_| !historic) {
                        task.workload = self.workload(task);
                    }
                }
                What::Sxid { switch, driver, .. } => *driver = pci::driver(&self.sys, switch),
                What::FallenOff { gpu, nvidia, .. } => *nvidia = pci::is_nvidia(&self.sys, gpu),
                _other => {}
            }
            what
        });
        let ruled = grammar::by_rules(&self.rules, record);
        for what in known.into_iter().chain(ruled) {
            emit(Signal { at, historic, what });
        }
    }

    /// Whose the process is that a line names, while that still exists.
    fn workload(&self, task: &Task) -> Option<Workload> {
        let process = self.proc.join(task.pid.to_string());
        let read = |name| fs::read_to_string(process.join(name)).ok();
        let same = read("comm")?.trim_end() == task.comm;
        let cgroups = read("cgroup").filter(|_| same)?;
        Workload::from_cgroup_lines(&cgroups).filter(|workload| workload.pod_uid.is_some())
    }

    /// A line that only one driver prints means nothing where that driver is not.
    fn is_of_its_driver(&self, what: &What) -> bool {
        let What::Logged(fault) = what else {
            return true;
        };
        let driver = fault.reason.driver();
        driver.is_none_or(|driver| pci::has_driver(&self.sys, driver))
    }

    /// What a tracepoint has told, with more words. It could not before it was attached: of a line that
    /// was there already only its time says so, which is of another clock and some milliseconds off.
    fn is_told_else(&self, what: &What, at: Duration) -> bool {
        let hook = match what {
            What::OomKill { .. } => Hook::Oom,
            What::HungTask { .. } => Hook::HungTask,
            What::Logged(fault) if fault.reason == Reason::AppCrash => Hook::Crash,
            _other => return false,
        };
        (self.read_past || at >= self.opened) && self.told_else.contains(&hook)
    }

    pub(super) fn configure(&mut self, rules: &Arc<LogRules>) {
        self.rules = Arc::clone(rules);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_whose_line_says_an_earlier_time_than_the_opening_is_told_once() {
        let nowhere = PathBuf::from("/nowhere");
        let mut teller = Teller::new(nowhere.clone(), nowhere, vec![Hook::Crash]);
        let record = Record {
            facility: 0,
            level: Some(6),
            sequence: 0,
            at: Duration::ZERO,
            text: "x[7]: segfault at 0 ip 0 sp 0 error 4",
        };
        let told = |teller: &Teller| {
            let mut signals = 0;
            teller.tell(&record, record.at, false, &mut |_| signals += 1);
            signals
        };
        assert_eq!(told(&teller), 1, "from before the hook was attached");
        teller.has_read_past();
        assert_eq!(told(&teller), 0, "the hook has told of it");
    }
}
