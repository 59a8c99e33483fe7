//! Blocked tasks: who is Fatal and who never is, and that all that tells of one task is one finding.

use super::*;
use crate::signal::BlockedTask;

const LOCAL: &[&str] = &["jbd2_log_wait_commit", "ext4_sync_file", "do_fsync"];
const NFS: &[&str] = &[
    "rpc_wait_bit_killable [sunrpc]",
    "nfs4_proc_getattr [nfsv4]",
];
const LOCK: &[&str] = &["d_alloc_parallel", "__lookup_slow", "walk_component"];

fn outside_of_pods() -> Workload {
    Workload {
        cgroup: "system.slice/kubelet.service".to_owned(),
        pod_uid: None,
        container_id: None,
    }
}

/// A thread of kubelet.
fn blocked(seconds: u64, stack: &[&str]) -> BlockedTask {
    BlockedTask {
        task: Task {
            pid: 7,
            comm: "worker".to_owned(),
            workload: Some(outside_of_pods()),
        },
        process: "kubelet".to_owned(),
        blocked: Duration::from_secs(seconds),
        stack: Ok(stack.iter().map(|&frame| frame.to_owned()).collect()),
    }
}

fn told(core: &mut Core, task: BlockedTask, second: u64) -> Vec<Output> {
    core.step(signal(What::BlockedTask(task), at(second)), at(second))
}

fn finding(core: &Core) -> &Finding {
    let key = (Reason::AppBlocked, "pid 7".to_owned());
    &core.findings.get(&key).unwrap().finding
}

/// Of one task that is told once.
fn severity(task: BlockedTask) -> Severity {
    let mut core = started();
    told(&mut core, task, 200);
    finding(&core).severity
}

#[test]
fn only_what_the_node_needs_on_a_disk_for_long_is_fatal() {
    assert_eq!(severity(blocked(120, LOCAL)), Severity::Fatal);
    let task = |change: fn(&mut BlockedTask)| {
        let mut task = blocked(3600, LOCAL);
        change(&mut task);
        severity(task)
    };
    for process in ["kubelet", "containerd", "crio", "dockerd"] {
        let mut of = blocked(120, LOCAL);
        process.clone_into(&mut of.process);
        assert_eq!(severity(of), Severity::Fatal, "{process}");
    }
    for (why, milder) in [
        ("not for long", severity(blocked(119, LOCAL))),
        ("a network file system", severity(blocked(3600, NFS))),
        (
            "a lock, whose holder waits for who knows what",
            severity(blocked(3600, LOCK)),
        ),
        (
            "no stack",
            task(|task| task.stack = Err("hidden".to_owned())),
        ),
        (
            "a stack with a gap",
            severity(blocked(3600, &["ext4_file_read_iter", "?", "vfs_read"])),
        ),
        ("an empty stack", task(|task| task.stack = Ok(Vec::new()))),
        (
            "another process",
            task(|task| task.process = "dd".to_owned()),
        ),
        (
            "a thread that only calls itself so",
            task(|task| {
                task.task.comm = "kubelet".to_owned();
                task.process = "dd".to_owned();
            }),
        ),
        (
            "a process of a pod",
            task(|task| {
                let pod = Some("0f7a1c9e-3b7d-4c5e-9f00-1234567890ab".to_owned());
                task.task.workload.as_mut().unwrap().pod_uid = pod;
            }),
        ),
        ("nobody knows whose", task(|task| task.task.workload = None)),
    ] {
        assert_eq!(milder, Severity::Warning, "{why}");
    }
}

#[test]
fn a_configured_process_is_needed_too() {
    let mut core = started();
    let settings = Settings {
        critical_processes: ["chronyd".to_owned()].into(),
        ..Settings::default()
    };
    core.step(Input::Settings(settings), at(2));
    let mut task = blocked(120, LOCAL);
    "chronyd".clone_into(&mut task.process);
    told(&mut core, task, 200);
    assert_eq!(finding(&core).severity, Severity::Fatal);
}

#[test]
fn it_becomes_fatal_when_it_has_been_long_enough_and_that_is_told_once() {
    let mut core = started();
    let mut all = Vec::new();
    for seconds in [30, 60, 90, 120, 150] {
        let outputs = told(&mut core, blocked(seconds, LOCAL), 100 + seconds);
        all.extend(changes(&outputs));
        let unhealthy = conditions(&outputs).is_some_and(|conditions| {
            let kernel = |condition: &&Condition| condition.kind == ConditionType::KernelReady;
            !conditions.iter().find(kernel).unwrap().healthy
        });
        assert_eq!(unhealthy, seconds == 120, "{seconds}");
        if let Some(conditions) = conditions(&outputs).filter(|_| unhealthy) {
            // Not since the finding was opened as a Warning.
            let changed = |condition: &Condition| condition.transition == at(220).wall;
            assert!(conditions.iter().any(changed), "{conditions:?}");
        }
    }
    assert_eq!(
        all,
        [
            (Change::Opened, Reason::AppBlocked, Severity::Warning),
            (Change::Repeated, Reason::AppBlocked, Severity::Fatal),
        ]
    );
    assert_eq!(finding(&core).count, 1);
}

#[test]
fn the_message_names_thread_process_place_and_stack_and_does_not_change_with_each_look() {
    let mut core = started();
    told(&mut core, blocked(30, NFS), 100);
    let message = finding(&core).message.clone();
    assert_eq!(
        message,
        "process worker (pid 7) of kubelet, which the node needs, has been blocked on NFS (remote) \
         for more than 30 s (kernel stack: rpc_wait_bit_killable [sunrpc] < nfs4_proc_getattr [nfsv4])"
    );
    told(&mut core, blocked(60, NFS), 130);
    assert_eq!(finding(&core).message, message);
    let deep: Vec<_> = (0..32).map(|frame| format!("f{frame}")).collect();
    let deep: Vec<_> = deep.iter().map(String::as_str).collect();
    told(&mut core, blocked(700, &deep), 800);
    let message = &finding(&core).message;
    assert!(message.contains("more than 10 min"), "{message}");
    assert!(message.ends_with("f6 < f7)"), "{message}");
}

#[test]
fn khungtaskd_and_the_scan_tell_of_one_fault() {
    let hung = || What::HungTask {
        task: blocked(120, LOCAL).task,
    };
    let mut core = started();
    told(&mut core, blocked(120, LOCAL), 200);
    let message = finding(&core).message.clone();
    assert_eq!(changes(&core.step(signal(hung(), at(201)), at(201))), []);
    core.step(signal(hung(), at(300)), at(300));
    core.step(signal(hung(), at(400)), at(400));
    // It counts, and knows no better.
    let known = finding(&core);
    assert_eq!((known.severity, known.count), (Severity::Fatal, 4));
    assert_eq!(known.message, message);

    let mut core = started();
    core.step(signal(hung(), at(200)), at(200));
    assert_eq!(finding(&core).severity, Severity::Warning);
    assert_eq!(changes(&told(&mut core, blocked(30, LOCK), 201)), []);
    assert!(finding(&core).message.contains("__lookup_slow"));
}

#[test]
fn khungtaskd_alone_is_never_fatal() {
    let mut core = started();
    let task = Task {
        comm: "kubelet".to_owned(),
        ..blocked(0, LOCAL).task
    };
    core.step(signal(What::HungTask { task }, at(200)), at(200));
    assert_eq!(finding(&core).severity, Severity::Warning);
    assert!(finding(&core).message.contains("which the node needs"));
}

#[test]
fn it_is_looked_at_and_clears_when_it_is_free() {
    let mut core = started();
    let outputs = told(&mut core, blocked(120, LOCAL), 200);
    assert!(outputs.contains(&Output::LookAtTask { pid: 7 }));
    let state = TaskState::Free;
    core.step(Input::Task { pid: 7, state }, at(210));
    let outputs = core.step(Input::Wake, at(225));
    assert_eq!(
        changes(&outputs),
        [(Change::Cleared, Reason::AppBlocked, Severity::Fatal)]
    );
}

#[test]
fn a_restarted_agent_does_not_call_a_fatal_task_milder() {
    let mut core = started();
    told(&mut core, blocked(120, LOCAL), 200);
    let mut state = State::new(String::new(), at(201), at(1).boot);
    core.save(&mut state);
    let mut core = started();
    core.restore(&state, at(202));
    told(&mut core, blocked(30, LOCAL), 232);
    assert_eq!(finding(&core).severity, Severity::Fatal);
    // Unless it is another wait.
    told(&mut core, blocked(60, NFS), 262);
    assert_eq!(finding(&core).severity, Severity::Warning);
}

#[test]
fn who_waits_for_its_own_child_is_no_finding() {
    let mut core = started();
    let outputs = told(
        &mut core,
        blocked(3600, &["kernel_clone", "__do_sys_vfork"]),
        200,
    );
    assert_eq!(changes(&outputs), []);
    assert_eq!(core.findings.iter().count(), 0);
}

#[test]
fn what_is_blocked_now_is_news_though_the_log_told_of_it_before() {
    let mut core = Core::new(vec![ConditionType::KernelReady]);
    let what = What::HungTask {
        task: blocked(0, LOCAL).task,
    };
    let past = Signal {
        at: at(1).boot,
        historic: true,
        what,
    };
    core.step(Input::Signal(past), at(10));
    assert!(finding(&core).historic);
    told(&mut core, blocked(30, LOCAL), 40);
    assert!(!finding(&core).historic);
}
