//! Hosts that lack something: what is said, and what is left as it was.

#![expect(clippy::disallowed_methods, reason = "the harness runs the detector")]

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::daemon::{self, Daemon};
use serde_json::Value;

use crate::Test;
use crate::support::Needs::Root;

pub(crate) const TESTS: &[Test] = &[
    (
        "check_attaches_every_hook_that_the_kernel_has_and_leaves_no_mount",
        Root,
        every_hook,
    ),
    (
        "without_root_check_says_what_to_do_and_exits_3",
        Root,
        not_root,
    ),
    ("without_btf_check_names_the_kernel_option", Root, no_btf),
    (
        "an_unreadable_kubeconfig_is_named_and_the_exit_code_is_3",
        Root,
        no_kubeconfig,
    ),
    (
        "an_unreachable_api_server_is_tried_again_and_sigterm_ends_it",
        Root,
        no_api_server,
    ),
];

fn run(program: &str, args: &[&str]) -> anyhow::Result<Output> {
    Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("run {program}"))
}

fn detector() -> anyhow::Result<String> {
    daemon::binary("nodemend-detector")?
        .into_os_string()
        .into_string()
        .ok()
        .context("read the path of the detector")
}

fn every_hook() -> anyhow::Result<()> {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").context("read mountinfo");
    let before = mounts()?;
    let output = run(&detector()?, &["check", "-o", "json"])?;
    let rows: Vec<Value> =
        serde_json::from_slice(&output.stdout).context("parse the output of check")?;
    ensure!(output.status.code() == Some(0), "{output:?}");
    let hooks: Vec<_> = rows
        .iter()
        .filter(|row| {
            row["what"]
                .as_str()
                .is_some_and(|what| what.starts_with("hook "))
        })
        .collect();
    // What the kernel does not have is said to be absent; what it has is attached.
    let tells = |row: &&&Value| row["using"].is_string() || row["absent"] == true;
    let attached = hooks.iter().filter(|row| row["using"].is_string());
    ensure!(
        attached.count() >= 4 && hooks.iter().filter(tells).count() == hooks.len(),
        "{rows:#?}"
    );
    ensure!(before == mounts()?, "the mounts are not as they were");
    Ok(())
}

fn not_root() -> anyhow::Result<()> {
    // A copy that anybody may run.
    let folder = tempfile::tempdir().context("make a folder")?;
    let copy = folder.path().join("nodemend-detector");
    fs::copy(detector()?, &copy).context("copy the detector")?;
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), open_to_all).context("open a folder")?;
    let copy = copy.to_str().context("read the path of a copy")?;
    let output = run(
        "setpriv",
        &[
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            copy,
            "check",
        ],
    )?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(3), "{output:?}");
    ensure!(text.contains("root"), "{text}");
    ensure!(
        text.lines()
            .filter(|line| {
                // Counters need no right, so that some classes are found all the same.
                ["hook ", "source ", "condition "]
                    .iter()
                    .any(|kind| line.starts_with(kind))
            })
            .all(|line| line.contains("NOT WATCHED")),
        "{text}"
    );
    Ok(())
}

/// In a mount namespace of its own, with nothing where the kernel shows its types.
fn no_btf() -> anyhow::Result<()> {
    let script = format!(
        "mount -t tmpfs none /sys/kernel/btf && exec {} check",
        detector()?
    );
    let output = run("unshare", &["--mount", "sh", "-c", &script])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("CONFIG_DEBUG_INFO_BTF"), "{output:?}");
    ensure!(
        text.contains("/dev/kmsg"),
        "the kernel log can still be read: {text}"
    );
    Ok(())
}

fn no_kubeconfig() -> anyhow::Result<()> {
    let output = run(
        &detector()?,
        &[
            "run",
            "--node-name",
            "n",
            "--kubeconfig",
            "/nonexistent/kubeconfig",
        ],
    )?;
    ensure!(output.status.code() == Some(3), "{output:?}");
    ensure!(
        String::from_utf8_lossy(&output.stderr).contains("/nonexistent/kubeconfig"),
        "{output:?}"
    );
    Ok(())
}

fn no_api_server() -> anyhow::Result<()> {
    // Bound, so that nobody else answers there, and not listening: connections are refused.
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .context("find a port")?
        .port();
    let folder = tempfile::tempdir().context("make a folder")?;
    let path = folder.path().join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c,
          clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}],
          users: [{{name: c, user: {{}}}}], contexts: [{{name: c, context: {{cluster: c, user: c}}}}]}}"
    );
    fs::write(&path, text).context("write a kubeconfig")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start tokio")?;
    let kubeconfig = path.to_str().context("read the path of a kubeconfig")?;
    let args = [
        "run",
        "--node-name",
        "n",
        "--kubeconfig",
        kubeconfig,
        "--log-format",
        "json",
    ];
    let mut daemon = Daemon::start("nodemend-detector", &args, &[])?;
    for _ in 0..2 {
        let wait = daemon.wait_for_log(Duration::from_secs(20), |line| {
            line["retry_in_ms"].is_u64() && line["node"] == "n"
        });
        runtime.block_on(wait)?;
    }
    let status = daemon.terminate(Duration::from_secs(10))?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}
