//! What an init does before anything else, as on a node with cgroup v2.

#![expect(clippy::disallowed_methods, reason = "the harness runs other programs")]

use std::ffi::CStr;
use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};
use nodemend_tests::vm::{LATE, MODULES};
use rustix::mount::{MountFlags, mount};

/// What the kernel waits for minutes for otherwise.
const IMPATIENCE: [(&str, &str); 3] = [
    (
        "/sys/devices/system/machinecheck/machinecheck0/check_interval",
        "1",
    ),
    ("/proc/sys/kernel/watchdog_thresh", "2"),
    ("/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout", "5"),
];

pub(crate) fn set_up() -> anyhow::Result<()> {
    mounts()?;
    let_clocks_drift()?;
    modules();
    run("ip", &["link", "set", "lo", "up"])?;
    for (path, value) in IMPATIENCE {
        if fs::exists(path).unwrap_or(false) {
            fs::write(path, value).with_context(|| format!("write {path}"))?;
        }
    }
    Ok(())
}

/// The clock that says when something was, and that of the kernel log: in a minute as far as on a
/// node in months.
fn let_clocks_drift() -> anyhow::Result<()> {
    /// Microseconds in a hundredth of a second, as fast as the kernel lets a clock go (adjtimex(2)).
    const FAST: libc::c_long = 11_000;
    #[expect(unsafe_code, reason = "adjtimex is a C function")]
    // SAFETY: all zeroes is a timex, of which the kernel reads what `modes` names.
    let answer = unsafe {
        let mut state = std::mem::zeroed::<libc::timex>();
        state.modes = libc::ADJ_TICK;
        state.tick = FAST;
        libc::adjtimex(&raw mut state)
    };
    if answer < 0 {
        return Err(std::io::Error::last_os_error()).context("let the clock go fast");
    }
    Ok(())
}

fn mounts() -> anyhow::Result<()> {
    const CGROUP_OPTIONS: &CStr = c"";
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
        ("securityfs", "/sys/kernel/security"),
    ] {
        mount(kind, place, kind, MountFlags::empty(), Some(CGROUP_OPTIONS))
            .with_context(|| format!("mount {place}"))?;
    }
    Ok(())
}

/// Those that this kernel has: a fault that needs another one says so itself.
fn modules() {
    for module in MODULES.iter().filter(|module| **module != LATE) {
        let mut modprobe = Command::new("/usr/sbin/modprobe");
        modprobe.args(["-q", module]);
        match *module {
            // Sector 4660 cannot be read. Two adapters, with a disk each.
            "scsi_debug" => modprobe.args(["opts=2", "dev_size_mb=8", "add_host=2"]),
            "nvme" => {
                let mut core = Command::new("/usr/sbin/modprobe");
                core.args(["-q", "nvme-core", "io_timeout=5", "admin_timeout=10"]);
                let _built_in = core.status();
                &mut modprobe
            }
            _ => &mut modprobe,
        };
        let _built_in = modprobe.status();
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
