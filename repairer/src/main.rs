//! `nodemend-repairer`: repairs sick Kubernetes nodes without making an outage worse.

use std::process::ExitCode;

use clap::Parser;
use nodemend_repairer::args::Cli;

fn main() -> ExitCode {
    match nodemend_repairer::main(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
