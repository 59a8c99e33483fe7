//! `nodemend-detector`: finds sick Kubernetes nodes from inside the kernel.

use std::process::ExitCode;

fn main() -> ExitCode {
    match nodemend_detector::main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
