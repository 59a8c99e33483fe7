//! Packets that are dropped because a socket's buffer is full.

use anyhow::ensure;
use nodemend_tests::faults::{PodCgroup, fill_socket_buffer, fill_socket_buffers};

use crate::Test;
use crate::support::Needs::Hook;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "drops_at_a_full_socket_buffer_name_the_socket",
        Hook("net-drop"),
        socket,
    ),
    (
        "drops_by_the_classic_tracepoint_name_the_reason",
        Hook("net-drop"),
        classic,
    ),
    (
        "drops_in_two_pods_at_once_name_both",
        Hook("net-drop"),
        two_pods,
    ),
    ("a_few_drops_are_no_finding", Hook("net-drop"), few),
];

fn socket() -> anyhow::Result<()> {
    let mut watch = Watch::start(&[])?;
    let drops = fill_socket_buffer(2000)?;
    let finding = watch.only_finding("PacketsDropped", "localPort", drops.port)?;
    ensure!(finding["subject"]["interface"] == "lo", "{finding}");
    ensure!(
        finding["message"]
            .as_str()
            .is_some_and(|message| message.ends_with(": SOCKET_RCVBUFF")),
        "{finding}"
    );
    ensure!(
        finding["severity"] == "Warning" && finding["condition"] == "NetworkingReady",
        "{finding}"
    );
    Ok(())
}

fn classic() -> anyhow::Result<()> {
    let mut watch = Watch::start(&["--disable-variant", "tp_btf kfree_skb"])?;
    fill_socket_buffer(2000)?;
    watch
        .line("drops of SOCKET_RCVBUFF", |line| {
            line["transition"] == "opened"
                && line["reason"] == "PacketsDropped"
                && line["message"]
                    .as_str()
                    .is_some_and(|message| message.ends_with(": SOCKET_RCVBUFF"))
        })
        .map(drop)
}

/// On one CPU, their packets in turn.
fn two_pods() -> anyhow::Result<()> {
    let uids = [
        "6c1f4c59-1b1e-4d0a-9d5e-3f0a5f1c7e01",
        "6c1f4c59-1b1e-4d0a-9d5e-3f0a5f1c7e02",
    ];
    let pods = [PodCgroup::systemd(uids[0])?, PodCgroup::systemd(uids[1])?];
    let mut watch = Watch::start(&[])?;
    let ports = fill_socket_buffers(&[&pods[0], &pods[1]], 2000)?;
    for (uid, port) in uids.iter().zip(ports) {
        let finding = watch.only_finding("PacketsDropped", "podUid", *uid)?;
        ensure!(
            finding["subject"]["localPort"] == port && finding["subject"]["interface"] == "lo",
            "{finding}"
        );
    }
    Ok(())
}

fn few() -> anyhow::Result<()> {
    let mut watch = Watch::start(&[])?;
    let few = fill_socket_buffer(50)?;
    // What was dropped later is reported: the few before it were seen.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let many = fill_socket_buffer(2000)?;
    watch.only_finding("PacketsDropped", "localPort", many.port)?;
    let of_it: Vec<_> = watch
        .findings()
        .into_iter()
        .filter(|line| line["subject"]["localPort"] == few.port)
        .collect();
    ensure!(of_it.is_empty(), "{of_it:#?}");
    Ok(())
}
