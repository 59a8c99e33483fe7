//! Limits of the host that are reached for real: by the kernel log with the counters at rest, and by the
//! counters without the log.

use std::fs;

use anyhow::{Context, ensure};
use nodemend_tests::faults::{
    AllNetworkLines, NearlyAllFiles, Orphans, TcpMemory, flood_with_syns, overflow_neighbours,
};
use serde_json::Value;

use crate::Test;
use crate::support::Needs::Root;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_full_neighbour_table_is_found_in_the_log_and_by_its_counter",
        Root,
        neighbours,
    ),
    ("a_flood_of_syns_names_the_port", Root, syns),
    (
        "too_many_orphans_are_found_in_the_log_and_by_their_counter",
        Root,
        orphans,
    ),
    (
        "tcps_memory_that_is_used_up_is_found_in_the_log_and_by_its_counter",
        Root,
        tcp_memory,
    ),
    (
        "nearly_as_many_files_as_allowed_are_found_by_their_counter",
        Root,
        open_files,
    ),
];

fn neighbours() -> anyhow::Result<()> {
    let reason = "NeighbourTableFull";
    by_log(reason, "neighbour table", overflow_neighbours)?;
    by_counter(reason, "arp_cache is full: ", overflow_neighbours)
}

fn syns() -> anyhow::Result<()> {
    let _lines = AllNetworkLines::allow()?;
    let mut watch = Watch::start(&[])?;
    let port = flood_with_syns()?;
    let finding = watch.line("a flood of SYNs", |line| {
        opened("SynFlood", line)
            && line["message"]
                .as_str()
                .is_some_and(|message| message.contains(&format!("127.0.0.1:{port} ")))
    })?;
    ensure!(finding["condition"] == "NetworkingReady", "{finding}");
    Ok(())
}

fn orphans() -> anyhow::Result<()> {
    let reason = "OrphanSocketsExceeded";
    by_log(reason, "more TCP sockets", Orphans::too_many)?;
    by_counter(reason, " have no process", Orphans::as_many_as_allowed)
}

fn tcp_memory() -> anyhow::Result<()> {
    let reason = "TCPMemoryExhausted";
    by_log(reason, "more memory than", TcpMemory::exhausted)?;
    by_counter(reason, " pages of memory", TcpMemory::nearly_all)
}

/// The kernel logs it once for each new record in a boot: that is replayed.
fn open_files() -> anyhow::Result<()> {
    by_counter("FileMaxReached", " files", NearlyAllFiles::open)
}

fn opened(reason: &str, line: &Value) -> bool {
    line["transition"] == "opened" && line["reason"] == reason && line["historic"] == false
}

/// Counters are read every 30 s by default: not before this is over.
fn by_log<T>(
    reason: &str,
    message: &str,
    fault: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    let _lines = AllNetworkLines::allow()?;
    found(&[], reason, message, fault)
}

fn by_counter<T>(
    reason: &str,
    message: &str,
    fault: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    let config = tempfile::NamedTempFile::new().context("make a file")?;
    fs::write(config.path(), "sources: {kernelLog: {enabled: false}}")
        .context("write a configuration")?;
    let path = config.path().to_str().context("read the path of a file")?;
    let args = ["--counter-interval", "1s", "--config", path];
    found(&args, reason, message, fault)
}

fn found<T>(
    args: &[&str],
    reason: &str,
    message: &str,
    fault: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    let mut watch = Watch::start(args)?;
    let _fault = fault()?;
    let finding = watch.line(reason, |line| opened(reason, line))?;
    let told = finding["message"].as_str().unwrap_or_default();
    ensure!(told.contains(message), "not by {message:?}: {finding}");
    ensure!(finding["severity"] == "Warning", "{finding}");
    Ok(())
}
