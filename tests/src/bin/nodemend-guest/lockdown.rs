//! A kernel that is locked down: what `check` says, and whether the kernel log alone tells of a fault.

use std::thread;
use std::time::Duration;

use anyhow::ensure;
use nodemend_tests::faults::{boot_clock, crash};
use nodemend_tests::vm::{Report, Way};
use nodemend_tests::watch::Watch;

use crate::{Guest, LIKELY, check, look};

/// In which nothing happens, and nothing is to be told.
const QUIET: Duration = Duration::from_secs(3);
const CLASS: &str = "process crash";

pub(crate) fn run(guest: &mut Guest) -> anyhow::Result<()> {
    guest.report(&Report::Check { rows: check()? })?;
    let mut watch = Watch::start(&["--counter-interval", "2s"])?;
    thread::sleep(QUIET);
    let told = watch.findings();
    ensure!(told.is_empty(), "nothing has happened yet: {told:?}");
    let at = boot_clock();
    let _crashed = crash("crasher")?;
    let mut seen = None;
    while seen.is_none() && boot_clock() < at + LIKELY {
        seen = look(&mut watch, (CLASS, &["AppCrash"]), "", at)?;
    }
    guest.report(&Report::Seen {
        class: CLASS.to_owned(),
        hook: None,
        way: Way::Log,
        seen,
    })
}
