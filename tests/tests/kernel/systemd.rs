//! Services of a real systemd, asked at its own socket.

use anyhow::ensure;
use nodemend_tests::faults::HostSystemd;

use crate::Test;
use crate::support::Needs;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[(
    "a_service_that_systemd_starts_again_and_again_and_one_that_failed_are_told",
    Needs::Systemd,
    services,
)];

fn services() -> anyhow::Result<()> {
    let systemd = HostSystemd::start(&[
        (
            "flappy.service",
            "ExecStart=/bin/false\nRestart=always\nRestartSec=300ms\n",
        ),
        (
            "steady.service",
            "ExecStart=/bin/sleep 60\nRestart=always\n",
        ),
        ("broken.service", "Type=oneshot\nExecStart=/bin/false\n"),
    ])?;
    let mut watch = Watch::start(&["--counter-interval", "1s", "--host-proc", &systemd.proc()])?;
    let finding = watch.line("a service that failed", |line| {
        line["transition"] == "opened" && line["reason"] == "ServiceFailedToStart"
    })?;
    let message = finding["message"].as_str().unwrap_or_default();
    ensure!(
        message == "broken.service has failed: exit-code",
        "{finding}"
    );
    let finding = watch.line("a service that is started again and again", |line| {
        line["transition"] == "opened"
            && line["reason"]
                .as_str()
                .is_some_and(|reason| reason.ends_with("RepeatedRestart"))
    })?;
    let message = finding["message"].as_str().unwrap_or_default();
    ensure!(
        finding["reason"] == "FlappyRepeatedRestart"
            && finding["severity"] == "Warning"
            && message.starts_with("systemd has started flappy.service again"),
        "{finding}"
    );
    Ok(())
}
