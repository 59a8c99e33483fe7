//! The targets of the repairer: which one is in `NODEMEND_FUZZ_TARGET`.

#![no_main]

use std::env;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nodemend_repairer::fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = env::var("NODEMEND_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    found
        .unwrap_or_else(|| panic!("no target {wanted:?}; NODEMEND_FUZZ_TARGET is one of {names:?}"))
        .1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
