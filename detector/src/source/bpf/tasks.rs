//! The iterator over all tasks: those in uninterruptible sleep, each with its kernel stack.

use std::fs::{self, File};
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use aya::Ebpf;
use aya::programs::Iter;
use detector_ebpf::{BlockedRecord, STACK_FRAMES};
use zerocopy::FromBytes;

use super::btf::{Btf, BtfError};
use super::decode;
use crate::signal::Task;

/// Its name in the BPF object.
pub(super) const PROGRAM: &str = "blocked_tasks";

/// The inode of the first PID namespace (`PROC_PID_INIT_INO`), in every kernel.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// One read gets that many records at most; the kernel's own buffer is 32 KiB.
const BUFFER: usize = 24 * size_of::<BlockedRecord>();

/// What a task waits in, if the kernel could say: return addresses, the innermost first.
pub(crate) type Addresses = Result<Vec<u64>, String>;

/// A task that is in uninterruptible sleep.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sleeper {
    pub task: Task,
    /// Since boot: tells it from a later task of the same number.
    pub started: Duration,
    /// How often it has been switched out.
    pub switches: u64,
    /// The name of the process that it is a thread of.
    pub process: String,
    pub stack: Addresses,
}

pub(crate) struct Tasks(Arc<Mutex<Ebpf>>);

impl Tasks {
    pub(super) fn new(programs: Arc<Mutex<Ebpf>>) -> Self {
        Self(programs)
    }

    /// Goes over all tasks of the host once.
    pub(crate) fn scan(&self, mut each: impl FnMut(Sleeper)) -> anyhow::Result<()> {
        let mut records = {
            let mut programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let program = programs
                .program_mut(PROGRAM)
                .with_context(|| format!("find the program {PROGRAM} in the BPF object"))?;
            open(program.try_into().context("wrong program type")?)?
        };
        let mut buffer = vec![0; BUFFER];
        // A read may end inside a record.
        let mut filled = 0;
        loop {
            let read = records
                .read(&mut buffer[filled..])
                .context("read the iterator over tasks")?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            let whole = filled - filled % size_of::<BlockedRecord>();
            for record in buffer[..whole].chunks_exact(size_of::<BlockedRecord>()) {
                each(sleeper(record).context("read a record of a blocked task")?);
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
    }
}

/// A file that the kernel runs the program for, once, while it is read.
pub(super) fn open(program: &mut Iter) -> anyhow::Result<File> {
    let id = program.attach().context("attach")?;
    let link = program.take_link(id).context("take the link")?;
    link.into_file().context("create the iterator")
}

/// The iterator shows only the tasks of its reader's PID namespace.
pub(super) fn sees_the_host() -> Result<(), String> {
    let path = "/proc/self/ns/pid";
    let namespace = fs::read_link(path).map_err(|error| format!("read {path}: {error}"))?;
    if namespace.as_os_str() == FIRST_NAMESPACE {
        return Ok(());
    }
    Err(format!(
        "not in the host's PID namespace but in {}, so that the host's tasks cannot be seen: set hostPID: true",
        namespace.display()
    ))
}

pub(super) fn offsets(btf: &Btf<'_>) -> Result<Vec<(&'static str, u32)>, BtfError> {
    let of_task = |field| btf.offset("task_struct", &[field]);
    // Renamed in 5.14.
    let state = of_task("__state").or_else(|_| of_task("state"))?;
    // Renamed in 5.5.
    let started = of_task("start_boottime").or_else(|_| of_task("real_start_time"))?;
    Ok(vec![
        ("TASK_STATE", state),
        ("TASK_FLAGS", of_task("flags")?),
        ("TASK_LEADER", of_task("group_leader")?),
        ("TASK_STARTED", started),
        ("TASK_SWITCHES", of_task("nvcsw")?),
        ("TASK_FORCED_SWITCHES", of_task("nivcsw")?),
    ])
}

fn sleeper(bytes: &[u8]) -> Option<Sleeper> {
    let (record, _) = BlockedRecord::read_from_prefix(bytes).ok()?;
    Some(Sleeper {
        task: decode::task(&record.task, record.task.pid),
        started: Duration::from_nanos(record.started_ns),
        switches: record.switches,
        process: decode::c_string(&record.process, 64),
        stack: stack(&record),
    })
}

fn stack(record: &BlockedRecord) -> Addresses {
    match usize::try_from(record.stack_bytes) {
        Ok(0) => Err("the kernel found no frame".to_owned()),
        Ok(bytes) => {
            let frames = (bytes / size_of::<u64>()).min(STACK_FRAMES);
            Ok(record.stack[..frames].to_vec())
        }
        Err(_) => Err(format!(
            "the kernel could not walk it (error {})",
            record.stack_bytes
        )),
    }
}

#[cfg(test)]
mod tests {
    use detector_ebpf::{CGROUP_LEVELS, CGROUP_NAME, Header, Kind, TaskRecord};
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;

    fn record(stack_bytes: i64) -> BlockedRecord {
        let mut stack = [0; STACK_FRAMES];
        stack[..2].copy_from_slice(&[0xffff_ffff_8100_0010, 0xffff_ffff_8100_0020]);
        BlockedRecord {
            task: TaskRecord {
                header: Header {
                    kind: Kind::HungTask as u32,
                    cpu: 0,
                    boot_ns: 1,
                },
                pid: 8,
                tgid: 7,
                comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
                levels: 0,
                signal: 0,
                count: 1,
                limit_level: 0,
                reserved: 0,
                cgroup: [[0; CGROUP_NAME]; CGROUP_LEVELS],
            },
            started_ns: 5,
            switches: 9,
            process: *b"kubelet\0\0\0\0\0\0\0\0\0",
            stack_bytes,
            stack,
        }
    }

    #[test]
    fn a_thread_has_its_number_its_process_and_its_stack() {
        let found = sleeper(record(16).as_bytes()).unwrap();
        assert_eq!(
            found,
            Sleeper {
                task: Task {
                    pid: 8,
                    comm: "worker".to_owned(),
                    workload: None,
                },
                started: Duration::from_nanos(5),
                switches: 9,
                process: "kubelet".to_owned(),
                stack: Ok(vec![0xffff_ffff_8100_0010, 0xffff_ffff_8100_0020]),
            }
        );
    }

    #[test]
    fn a_stack_that_is_not_there_is_said_to_be_unknown() {
        let of = |bytes| sleeper(record(bytes).as_bytes()).unwrap().stack;
        assert!(of(-14).unwrap_err().contains("-14"));
        assert!(of(0).is_err());
        assert_eq!(of(i64::MAX).unwrap().len(), STACK_FRAMES);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_sleeper_or_none(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            let _ = sleeper(&bytes);
        }
    }
}
