//! `nodemend-detector`: finds sick Kubernetes nodes from inside the kernel.

use std::io::Write;

fn main() {
    let code = match nodemend_detector::main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            1
        }
    };
    leave(code)
}

/// exit(3) would run the destructors of NVML, which can hang as its calls do.
fn leave(code: u8) {
    if let Err(error) = std::io::stdout().flush() {
        eprintln!("error: write to standard output: {error}");
    }
    #[expect(unsafe_code, reason = "_exit is a C function")]
    // SAFETY: it takes a number and does not return.
    unsafe {
        libc::_exit(code.into())
    }
}
