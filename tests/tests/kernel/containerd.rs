//! A real containerd, asked at its own socket.

use anyhow::ensure;
use nodemend_tests::faults::HostContainerd;
use serde_json::Value;

use crate::Test;
use crate::support::Needs;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[(
    "what_containerd_calls_deprecated_is_told_and_a_containerd_that_hangs_is_given_up_until_it_answers",
    Needs::Containerd,
    containerd,
)];

fn containerd() -> anyhow::Result<()> {
    let containerd = HostContainerd::start()?;
    let mut watch = Watch::start(&[
        "--counter-interval",
        "1s",
        "--host-proc",
        &containerd.proc(),
    ])?;
    let finding = watch.line("what is deprecated", |line| {
        line["transition"] == "opened" && line["reason"] == "DeprecatedContainerdConfiguration"
    })?;
    let id = "io.containerd.deprecation/cri-registry-mirrors";
    let message = finding["message"].as_str().unwrap_or_default();
    ensure!(finding["entity"] == id, "{finding}");
    ensure!(
        message.starts_with(&format!("{id}: The `mirrors` property")),
        "{finding}"
    );
    ensure!(finding["severity"] == "Warning", "{finding}");

    let is = |line: &Value, words| line["message"] == words;
    let not_read = |line: &Value| is(line, "the runtime's pods could not be read");
    containerd.pause()?;
    let warning = watch.line("that it does not answer", not_read)?;
    ensure!(warning["error"] == "no answer within 5s", "{warning}");
    containerd.resume()?;
    watch.line("that it answers for its pods again", |line| {
        is(line, "the runtime's pods can be read again")
    })?;
    let told = watch.lines().iter().filter(|line| not_read(line)).count();
    ensure!(told == 1, "told {told} times");
    let hung =
        watch.line_so_far(|line| line["reason"] == "CheckHung" && line["entity"] == "ipam-state");
    ensure!(hung.is_none(), "{hung:?}");
    Ok(())
}
