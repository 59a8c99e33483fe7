//! Loading the library, tried in a process of its own: what hangs there hangs nothing here.
//!
//! dlopen(3) holds the lock of the dynamic loader while it runs the library's constructors, and
//! each thread of this program takes that lock when it first uses a thread-local value that has a
//! destructor (glibc's `__cxa_thread_atexit_impl`). A deadline is of no help: it would be told by
//! a thread that waits for the same lock.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal};

/// Begins to load it; the child has ended once that is over, well or not: what is wrong with the
/// library is said by loading it here.
pub(super) fn begin(library: &Path) -> io::Result<Child> {
    #[expect(
        clippy::disallowed_methods,
        reason = "it runs this program: the loader loads the library before main"
    )]
    let mut command = Command::new("/proc/self/exe");
    // Ends by _exit(2): destructors are not run.
    command
        .arg("reasons")
        .env("LD_PRELOAD", library)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    #[expect(unsafe_code, reason = "it must not outlive this process")]
    // SAFETY: one system call, which may be made between fork(2) and execve(2).
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command.spawn()
}
