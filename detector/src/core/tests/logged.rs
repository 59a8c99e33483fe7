//! Lines of the kernel log that are a fault by themselves.

use super::*;
use crate::signal::{Counted, HOST, LogFault};

fn line(reason: Reason, entity: &str, task: Option<Task>) -> What {
    What::Logged(LogFault {
        reason,
        entity: entity.to_owned(),
        message: "m".to_owned(),
        device: None,
        interface: None,
        task,
        mild: false,
    })
}

#[test]
fn one_that_tells_only_a_cgroup_names_the_pod_and_no_process() {
    let workload = Workload {
        cgroup: "kubepods/x".to_owned(),
        pod_uid: Some("uid".to_owned()),
        container_id: None,
    };
    let task = Task {
        workload: Some(workload.clone()),
        ..Task::default()
    };
    let mut core = started();
    let what = line(Reason::PidsLimitReached, "pod uid", Some(task));
    core.step(signal(what, at(10)), at(10));
    let subject = core.open_findings().remove(0).subject;
    assert_eq!((subject.pid, subject.comm), (None, None));
    assert_eq!(subject.workload, Some(workload));
}

#[test]
fn repeats_about_one_entity_count_up_and_another_entity_opens() {
    let mut core = started();
    for entity in ["nvme0", "nvme0", "nvme1"] {
        core.step(
            signal(line(Reason::NvmeTimeout, entity, None), at(10)),
            at(10),
        );
    }
    let counts: Vec<_> = core.open_findings().iter().map(|open| open.count).collect();
    assert_eq!(counts, [2, 1]);
}

fn fork_failure() -> What {
    let (entity, message) = ("kubelet.service".to_owned(), "m".to_owned());
    What::Logged(LogFault::new(Reason::ForkFailedOutOfPids, entity, message))
}

fn severity_of_fork_failure(core: &mut Core, now: Now) -> Severity {
    let outputs = core.step(signal(fork_failure(), now), now);
    let transitions = outputs.into_iter().filter_map(|output| match output {
        Output::Transition(transition) => Some(transition.finding),
        _ => None,
    });
    let mut ours = transitions.filter(|finding| finding.reason == Reason::ForkFailedOutOfPids);
    ours.next().unwrap().severity
}

#[test]
fn a_failed_fork_is_fatal_only_while_the_kernel_counts_the_host_full() {
    assert_eq!(
        severity_of_fork_failure(&mut started(), at(100)),
        Severity::Warning,
        "any container's limit makes kubelet print it"
    );
    let mut core = started();
    let fault = LogFault::new(Reason::PidsLimitReached, HOST.to_owned(), "m".to_owned());
    let counted = Counted::Still;
    let full = What::Counted { fault, counted };
    core.step(signal(full, at(90)), at(90));
    assert_eq!(
        severity_of_fork_failure(&mut core, at(100)),
        Severity::Fatal
    );
}

#[test]
fn evidence_that_makes_a_fault_mild_makes_it_a_warning() {
    let mut core = started();
    let mut fault = LogFault::new(Reason::InterfaceNotUp, "eth1".to_owned(), "m".to_owned());
    fault.mild = true;
    let counted = Counted::Still;
    core.step(signal(What::Counted { fault, counted }, at(100)), at(100));
    let open = core.open_findings();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].severity, Severity::Warning);
}
