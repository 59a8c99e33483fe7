//! The detector on a node with GPUs: the scripted `libnvidia-ml.so.1` of `tests/nvml`, a sysfs and a
//! kernel log of the test's own; no GPU is needed.

#[path = "gpu/agent.rs"]
mod agent;
#[path = "gpu/driver.rs"]
mod driver;
#[path = "gpu/fault.rs"]
mod fault;
#[path = "gpu/hang.rs"]
mod hang;
#[path = "gpu/kernel_log.rs"]
mod kernel_log;
#[path = "gpu/state.rs"]
mod state;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nodemend_tests::faults;

/// A sentence, and the test.
type Test = (&'static str, fn() -> anyhow::Result<Completion>);

fn main() {
    let mut arguments = Arguments::from_args();
    // Deadlines are measured.
    arguments.test_threads = Some(1);
    let tests = [
        fault::TESTS,
        state::TESTS,
        kernel_log::TESTS,
        hang::TESTS,
        driver::TESTS,
    ];
    let trials = tests
        .into_iter()
        .flatten()
        .map(|&(name, test)| trial(name, test))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: &str, test: fn() -> anyhow::Result<Completion>) -> Trial {
    Trial::ignorable_test(name, move || match faults::unavailable() {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => test().map_err(|error| Failed::from(format!("{error:#}"))),
    })
}
