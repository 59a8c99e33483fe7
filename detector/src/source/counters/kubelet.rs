//! Whether kubelet answers on its own node, and while it does not, what its process does: it can be silent
//! to the API server while this agent still speaks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use self::healthz::Answer;
use self::process::Process;
use super::asked::Asked;
use super::files::Files;
use super::netlink::NetworkOfHost;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, Task, What};

mod healthz;
mod process;

const FOLDER: &str = "root/var/lib/kubelet/";
const NAME: &str = "kubelet";
const LEAST_LOOKS: u32 = 3;

pub(super) struct Kubelet {
    proc: PathBuf,
    /// None where nobody wants it asked.
    address: Option<SocketAddr>,
    answers: Option<Asked<Result<Answer, String>>>,
    finder: process::Finder,
    judge: Judge,
}

struct Judge {
    patience: Duration,
    /// It has answered, so that whoever refuses is no kubelet of another port.
    answered: bool,
    ran: bool,
    /// Of the first look that was not good, and how many were not.
    silent: Option<(Duration, u32)>,
    /// From the start: an agent before this one may have told it.
    told: bool,
}

impl Kubelet {
    pub(super) fn new(proc: PathBuf, address: Option<SocketAddr>, patience: Duration) -> Self {
        Self {
            finder: process::Finder::new(proc.clone()),
            proc,
            address,
            answers: None,
            judge: Judge::new(patience),
        }
    }
}

impl Counter for Kubelet {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[FOLDER]
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.answers.as_ref())
    }

    fn look(&mut self, files: &Files, at: Duration) -> Vec<What> {
        let Some(address) = self.address.filter(|_| files.any()) else {
            return Vec::new();
        };
        let asked = Asked::started(&mut self.answers, "kubelet-healthz", || {
            let mut network = NetworkOfHost::new(&self.proc);
            move || {
                network.enter().map_err(|error| error.to_string())?;
                Ok(healthz::ask(address))
            }
        });
        let Some(answer) = asked.and_then(|asked| asked.take_well("kubelet's /healthz")) else {
            return Vec::new();
        };
        let process = if answer == Answer::Well {
            Process::Runs
        } else {
            self.finder.look()
        };
        self.judge.look(&answer, &process, at).into_iter().collect()
    }
}

impl Judge {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            answered: false,
            ran: false,
            silent: None,
            told: true,
        }
    }

    fn look(&mut self, answer: &Answer, process: &Process, at: Duration) -> Option<What> {
        if *answer == Answer::Well {
            self.answered = true;
            self.silent = None;
            let over = std::mem::take(&mut self.told);
            return over.then(|| told::over(fault("kubelet answers".to_owned(), process)));
        }
        self.ran |= *process != Process::Absent;
        let known = self.answered || self.ran;
        let elsewhere = !self.answered && *answer == Answer::Refused && *process == Process::Runs;
        if !known || elsewhere {
            self.silent = None;
            return None;
        }
        let (since, looks) = self.silent.unwrap_or((at, 0));
        let looks = looks.saturating_add(1);
        self.silent = Some((since, looks));
        if looks < LEAST_LOOKS || at.saturating_sub(since) < self.patience {
            return None;
        }
        self.told = true;
        let message = format!("kubelet {answer} on its own node, and {process}");
        Some(told::still(fault(message, process)))
    }
}

fn fault(message: String, process: &Process) -> LogFault {
    let task = match process {
        Process::Blocked(thread) => Some(Task {
            pid: thread.tid,
            comm: thread.comm.clone(),
            workload: None,
        }),
        Process::Absent | Process::Stopped | Process::Runs => None,
    };
    LogFault {
        task,
        ..told::fault(Reason::KubeletUnresponsive, NAME, message)
    }
}

#[cfg(test)]
mod tests {
    use super::process::Thread;
    use super::*;
    use crate::signal::Counted;

    fn judge() -> Judge {
        let mut judge = Judge::new(Duration::from_secs(60));
        judge.told = false;
        judge
    }

    fn look(judge: &mut Judge, answer: Answer, process: Process, at: u64) -> Option<Counted> {
        let what = judge.look(&answer, &process, Duration::from_secs(at))?;
        let What::Counted { counted, .. } = what else {
            panic!("{what:?}");
        };
        Some(counted)
    }

    fn unwell() -> Answer {
        Answer::Unwell("syncloop failed".to_owned())
    }

    fn blocked() -> Process {
        Process::Blocked(Thread {
            tid: 7,
            comm: "kubelet".to_owned(),
            waits_in: "a < b".to_owned(),
        })
    }

    /// Each answer that is not good, with each thing that the process can do, after it had answered.
    #[test]
    fn a_kubelet_that_has_answered_is_missed_whatever_keeps_it_from_it() {
        let answers = [Answer::Refused, Answer::Silent, unwell()];
        let processes = [Process::Absent, Process::Stopped, Process::Runs, blocked()];
        for answer in &answers {
            for process in &processes {
                let mut judge = judge();
                let mut step =
                    |answer: &Answer, at| look(&mut judge, answer.clone(), process.clone(), at);
                assert_eq!(step(&Answer::Well, 0), None);
                for at in [30, 60, 89] {
                    assert_eq!(step(answer, at), None, "{answer} {process} {at}");
                }
                assert_eq!(step(answer, 90), Some(Counted::Still), "{answer} {process}");
                assert_eq!(step(&Answer::Well, 120), Some(Counted::Over));
                assert_eq!(step(&Answer::Well, 150), None, "said once");
                assert_eq!(step(answer, 180), None, "the time begins anew");
            }
        }
    }

    #[test]
    fn two_looks_are_not_enough_however_far_apart() {
        let mut judge = judge();
        assert_eq!(look(&mut judge, Answer::Well, Process::Runs, 0), None);
        for at in [30, 3000] {
            assert_eq!(look(&mut judge, Answer::Silent, Process::Runs, at), None);
        }
        let third = look(&mut judge, Answer::Silent, Process::Runs, 3030);
        assert_eq!(third, Some(Counted::Still));
    }

    #[test]
    fn a_kubelet_that_nobody_has_started_or_that_answers_elsewhere_is_not_missed() {
        for process in [Process::Absent, Process::Runs] {
            let mut judge = judge();
            for at in [0, 30, 60, 90, 120] {
                assert_eq!(look(&mut judge, Answer::Refused, process.clone(), at), None);
            }
        }
    }

    #[test]
    fn a_kubelet_that_hung_before_the_agents_start_is_missed_too() {
        for (answer, process) in [
            (Answer::Silent, Process::Runs),
            (Answer::Refused, Process::Stopped),
            (Answer::Refused, blocked()),
        ] {
            let mut judge = judge();
            for at in [0, 30] {
                assert_eq!(look(&mut judge, answer.clone(), process.clone(), at), None);
            }
            let told = look(&mut judge, answer, process, 60);
            assert_eq!(told, Some(Counted::Still));
        }
    }

    #[test]
    fn what_an_agent_before_this_one_told_is_over_with_the_first_good_answer() {
        let mut judge = Judge::new(Duration::from_secs(60));
        let over = look(&mut judge, Answer::Well, Process::Runs, 0);
        assert_eq!(over, Some(Counted::Over));
    }

    #[test]
    fn the_message_says_why_and_names_the_thread() {
        let mut judge = judge();
        let mut told = None;
        for at in [0, 30, 60] {
            told = judge.look(&Answer::Silent, &blocked(), Duration::from_secs(at));
        }
        let Some(What::Counted { fault, .. }) = told else {
            panic!("{told:?}");
        };
        assert_eq!(
            fault.message,
            "kubelet does not answer within 5 s on its own node, and its thread kubelet[7] is in \
             uninterruptible sleep in a < b"
        );
        assert_eq!(fault.task.map(|task| task.pid), Some(7));
    }
}
