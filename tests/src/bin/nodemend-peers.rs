//! `nodemend-peers`: the detector against the test cases of other agents; `cargo xtask peers` builds
//! and starts it.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use nodemend_tests::{peers, repo};

/// Replays the test cases of other node agents and writes docs/peers.md.
#[derive(Parser)]
#[command(name = "nodemend-peers", version)]
struct Args {
    /// Only compare, and fail when the page is out of date
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let repo = repo();
    let page = peers::page(&repo)?;
    print!("{}", peers::tables(&page));
    if !args.check {
        return fs::write(repo.join(peers::PAGE), page)
            .with_context(|| format!("write {}", peers::PAGE));
    }
    if peers::committed(&repo)? != page {
        bail!(
            "out of date: {}; run `cargo xtask peers` and commit the result",
            peers::PAGE
        );
    }
    Ok(())
}
