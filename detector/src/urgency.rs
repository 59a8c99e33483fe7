//! Keeps the agent able to speak on a node that has neither CPU time nor memory left: each by the
//! best means that the host allows, and what it was is said.

use std::fs;
use std::io;

use tracing::{info, warn};

/// One means: what is in use, or why there is none.
pub(crate) struct Means {
    pub name: &'static str,
    pub using: Result<String, String>,
}

impl Means {
    pub(crate) fn log(&self) {
        match &self.using {
            Ok(using) => info!(using, "own {}", self.name),
            Err(missing) => warn!(missing, "own {}", self.name),
        }
    }
}

/// Sick nodes are busy nodes: at load 9 on two CPUs a normal reader woke 10 ms after the event, a
/// real-time one 71 µs (Linux 6.18). For the calling thread.
pub(crate) fn scheduling() -> Means {
    const NICE: i32 = -10;
    let using = if real_time().is_ok() {
        Ok("SCHED_RR, priority 5".to_owned())
    } else if let Err(error) = rustix::process::nice(NICE) {
        Err(format!(
            "neither SCHED_RR (CAP_SYS_NICE) nor a nice value of {NICE} is allowed: {error}"
        ))
    } else {
        // EPERM where RT_GROUP_SCHED is on and the process is not in the root cgroup.
        Ok(format!("nice {NICE}: SCHED_RR is not allowed here"))
    };
    Means {
        name: "scheduling",
        using,
    }
}

/// For the calling thread.
pub(crate) fn real_time() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 5 };
    // Not for the threads that this one starts: a probe may be slow.
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    #[expect(unsafe_code, reason = "sched_setscheduler is a C function")]
    // SAFETY: 0 is the calling thread, and `parameters` outlives the call.
    let set = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What the process has touched stays in memory: reading its own code back from a disk that does not
/// answer, or from a page cache that is being reclaimed, would stop it when it is needed.
pub(crate) fn memory() -> Means {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    #[expect(unsafe_code, reason = "mlockall is a C function")]
    // SAFETY: mlockall has no preconditions.
    let locked = unsafe { libc::mlockall(flags) } == 0;
    let using = if locked {
        Ok("locked once touched".to_owned())
    } else {
        let error = io::Error::last_os_error();
        Err(format!(
            "mlockall: {error}; it needs CAP_IPC_LOCK, or a high RLIMIT_MEMLOCK"
        ))
    };
    Means {
        name: "memory",
        using,
    }
}

/// Others are killed first: it is small, and says why they were.
pub(crate) fn oom_score() -> Means {
    const PATH: &str = "/proc/self/oom_score_adj";
    /// Below what kubelet gives to critical pods (-997), above what is never killed (-1000).
    const WANTED: i32 = -999;
    let lower = || -> io::Result<i32> {
        let now = fs::read_to_string(PATH)?;
        let now = now.trim().parse().map_err(io::Error::other)?;
        if now <= WANTED {
            return Ok(now);
        }
        fs::write(PATH, WANTED.to_string())?;
        Ok(WANTED)
    };
    Means {
        name: "OOM score",
        using: lower()
            .map(|score| format!("oom_score_adj {score}"))
            .map_err(|error| format!("{PATH}: {error}; lowering it needs CAP_SYS_RESOURCE")),
    }
}
