//! Why kubelet is silent, joined of all that is known.

use super::*;
use crate::signal::{BlockedTask, Counted, LogFault};

const THREAD: u32 = 77;

fn silent(thread: Option<u32>) -> What {
    let reason = Reason::KubeletUnresponsive;
    let fault = LogFault {
        task: thread.map(task),
        ..LogFault::new(reason, "kubelet".to_owned(), "it is silent".to_owned())
    };
    What::Counted {
        fault,
        counted: Counted::Still,
    }
}

fn task(pid: u32) -> Task {
    Task {
        pid,
        comm: "kubelet".to_owned(),
        workload: Some(Workload {
            cgroup: "kubelet.service/system.slice".to_owned(),
            ..Workload::default()
        }),
    }
}

/// As long as makes it Fatal where it waits for a disk of its own.
fn hangs(pid: u32, frames: &[&str]) -> What {
    What::BlockedTask(BlockedTask {
        task: task(pid),
        process: "kubelet".to_owned(),
        blocked: Duration::from_secs(121),
        stack: Ok(frames.iter().map(|&frame| frame.to_owned()).collect()),
    })
}

const DISK: &[&str] = &["io_schedule", "ext4_sync_file", "do_fsync"];
const MOUNT: &[&str] = &["rpc_wait_bit_killable", "nfs4_proc_getattr"];

fn open(core: &Core) -> Finding {
    let mut open = core.open_findings().into_iter();
    let found = open.find(|finding| finding.reason == Reason::KubeletUnresponsive);
    found.unwrap()
}

fn runtime(core: &Core) -> Option<&Condition> {
    let conditions = core.published.as_ref()?;
    let kind = ConditionType::ContainerRuntimeReady;
    conditions.iter().find(|condition| condition.kind == kind)
}

/// What is known beside it, and whether it makes the node unhealthy.
#[test]
fn only_a_thread_that_is_proven_to_hang_on_a_disk_of_the_node_is_fatal() {
    for (beside, thread, severity) in [
        (Some(hangs(THREAD, DISK)), Some(THREAD), Severity::Fatal),
        (Some(hangs(THREAD, MOUNT)), Some(THREAD), Severity::Warning),
        (Some(hangs(8, DISK)), Some(THREAD), Severity::Warning),
        (Some(hangs(THREAD, DISK)), None, Severity::Warning),
        (None, Some(THREAD), Severity::Warning),
        (None, None, Severity::Warning),
    ] {
        let mut core = started();
        if let Some(what) = beside.clone() {
            core.step(signal(what, at(90)), at(90));
        }
        core.step(signal(silent(thread), at(100)), at(100));
        let found = open(&core);
        assert_eq!(found.severity, severity, "{beside:?} {thread:?}");
    }
}

#[test]
fn a_thread_that_is_proven_to_hang_later_makes_it_fatal_then() {
    let mut core = Core::new(Vec::new());
    core.step(Input::Existing(Vec::new()), at(1));
    core.step(Input::HistoryRead, at(1));
    core.step(signal(silent(Some(THREAD)), at(100)), at(100));
    assert_eq!(runtime(&core), None, "a Warning publishes nothing");
    core.step(signal(hangs(THREAD, DISK), at(110)), at(110));
    core.step(signal(silent(Some(THREAD)), at(130)), at(130));
    let condition = runtime(&core).unwrap();
    assert!(!condition.healthy && condition.reason == "KubeletUnresponsive");
    assert!(condition.message.contains("it is silent"), "{condition:?}");
}

#[test]
fn the_message_joins_what_is_open_about_kubelet_and_what_the_node_says() {
    let mut core = started();
    let killed = What::OomKill {
        victim: task(5),
        limit: crate::signal::OomLimit::Node,
    };
    let failed = LogFault::new(
        Reason::KubeletFailed,
        "kubelet.service".to_owned(),
        "kubelet.service: Failed with result 'oom-kill'.".to_owned(),
    );
    core.step(signal(killed, at(90)), at(90));
    core.step(signal(oom(6), at(90)), at(90));
    core.step(signal(What::Logged(failed), at(91)), at(91));
    let says = NodeSays {
        memory_pressure: Some("MemoryPressure=True (x)".to_owned()),
        ready: Some("Ready=False (y)".to_owned()),
        ..NodeSays::default()
    };
    core.step(Input::Node(says), at(92));
    core.step(signal(silent(None), at(100)), at(100));
    let message = open(&core).message;
    let parts: Vec<&str> = message.split(" | ").collect();
    assert_eq!(
        parts,
        [
            "it is silent",
            "OOMKilling: process kubelet (pid 5) was killed by the OOM killer: the node has run out of memory",
            "KubeletFailed: kubelet.service: Failed with result 'oom-kill'.",
            "Ready=False (y)",
            "MemoryPressure=True (x)",
        ]
    );
}

#[test]
fn a_process_of_a_pod_that_calls_itself_kubelet_is_not_it() {
    let mut core = started();
    let mut victim = task(5);
    victim.workload = Some(Workload {
        pod_uid: Some("u".to_owned()),
        ..Workload::default()
    });
    let limit = crate::signal::OomLimit::Container;
    core.step(signal(What::OomKill { victim, limit }, at(90)), at(90));
    core.step(signal(silent(None), at(100)), at(100));
    assert_eq!(open(&core).message, "it is silent");
}

#[test]
fn memory_that_is_short_is_joined_with_kubelets_own_word() {
    let mut core = started();
    let says = NodeSays {
        memory_pressure: Some("MemoryPressure=True (x)".to_owned()),
        ..NodeSays::default()
    };
    core.step(Input::Node(says), at(92));
    let fault = LogFault::new(Reason::MemoryStall, "host".to_owned(), "m".to_owned());
    let counted = Counted::Still;
    core.step(signal(What::Counted { fault, counted }, at(100)), at(100));
    let open = core.open_findings();
    assert_eq!(open[0].message, "m | MemoryPressure=True (x)");
}

#[test]
fn a_node_of_which_nothing_is_heard_but_the_agent_is_told_and_clears_when_kubelet_speaks() {
    let mut core = started();
    let says = NodeSays {
        silent: true,
        ready: Some("Ready=Unknown (NodeStatusUnknown)".to_owned()),
        ..NodeSays::default()
    };
    let told = core.step(Input::Node(says.clone()), at(50));
    let expected = [(
        Change::Opened,
        Reason::KubeletUnresponsive,
        Severity::Warning,
    )];
    assert_eq!(changes(&told), expected);
    let message = open(&core).message;
    assert!(
        message.ends_with(" | Ready=Unknown (NodeStatusUnknown)"),
        "{message}"
    );
    assert_eq!(changes(&core.step(Input::Node(says), at(60))), []);
    core.step(Input::Node(NodeSays::default()), at(100));
    let cleared = core.step(Input::Wake, at(130));
    let expected = [(
        Change::Cleared,
        Reason::KubeletUnresponsive,
        Severity::Warning,
    )];
    assert_eq!(changes(&cleared), expected);
}
