//! Both daemons against a real control plane, under the service accounts that `deploy/` ships.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, a panic is a failure with a place"
)]

mod detector;
mod harness;
mod repairer;
mod suite;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use libtest_mimic::Arguments;

use crate::suite::Suite;

fn main() -> ExitCode {
    if harness::is_holder() {
        return harness::hold_a_control_plane();
    }
    let mut args = Arguments::from_args();
    if args.test_threads.is_none() {
        // They wait more than they work.
        args.test_threads = thread::available_parallelism()
            .ok()
            .map(|cpus| 3 * cpus.get());
    }
    let suite = match Suite::new() {
        Ok(suite) => Arc::new(suite),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut trials = repairer::trials(&suite);
    trials.extend(harness::trials(&suite));
    trials.extend(detector::trials(&suite));
    // The control plane that the tests share is stopped when the last of them has let go of it.
    drop(suite);
    libtest_mimic::run(&args, trials).exit_code()
}
