//! Lines of the kernel log that are a fault by themselves.

use super::*;
use crate::signal::LogFault;

fn line(reason: Reason, entity: &str, task: Option<Task>) -> What {
    What::Logged(LogFault {
        reason,
        entity: entity.to_owned(),
        message: "m".to_owned(),
        device: None,
        interface: None,
        task,
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
