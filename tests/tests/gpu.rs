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
use nodemend_tests::{company, faults};

/// A sentence, and the test.
type Test = (&'static str, fn() -> anyhow::Result<Completion>);

fn main() {
    let mut arguments = Arguments::from_args();
    // Each has a node of its own, and mostly waits.
    arguments.test_threads = Some(4);
    let side_by_side = [fault::TESTS, state::TESTS, kernel_log::TESTS].into_iter();
    // These hang or take the driver away, and measure deadlines.
    let alone = [hang::TESTS, driver::TESTS].into_iter();
    let trials = side_by_side
        .flatten()
        .map(|&(name, test)| trial(name, false, test))
        .chain(alone.flatten().map(|&(name, test)| trial(name, true, test)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: &str, alone: bool, test: fn() -> anyhow::Result<Completion>) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Some(reason) = faults::unavailable() {
            return Ok(Completion::ignored_with(reason));
        }
        let result = if alone {
            company::alone(test)
        } else {
            company::beside_others(test)
        };
        result.map_err(|error| Failed::from(format!("{error:#}")))
    })
}
