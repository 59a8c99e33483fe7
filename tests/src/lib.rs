//! What the integration tests, the demo and the benchmarks run on: a real control plane, a fleet
//! of kwok nodes, a local AWS, the daemons as processes, and real faults of this kernel.
//!
//! Everything here looks at nodemend from outside: it runs the binaries and applies the manifests
//! that users get, and takes none of their code. Only the benchmark `export` does: it needs thousands
//! of the detector's exporters in one process.

pub mod api_proxy;
pub mod cloud;
pub mod company;
mod connection;
pub mod control_plane;
pub mod crash_point;
pub mod daemon;
pub mod faults;
pub mod fleet;
pub mod gpu_node;
/// The detector's own tests have it too.
#[path = "../../detector/src/source/journal/tests/writer.rs"]
pub mod journal_file;
pub mod karpenter;
pub mod kubelet;
pub mod leftovers;
pub mod link;
pub mod page;
pub mod peers;
mod pki;
mod process;
pub mod real_kubelet;
pub mod story;
pub mod terminal;
pub mod vm;
pub mod wait;
pub mod watch;

use std::path::{Path, PathBuf};

/// The folder of the repository: where `cargo xtask` says it is, else where it was compiled.
pub fn repo() -> PathBuf {
    std::env::var_os("NODEMEND_REPO").map_or_else(
        || {
            let package = Path::new(env!("CARGO_MANIFEST_DIR"));
            package.parent().unwrap_or(package).to_owned()
        },
        PathBuf::from,
    )
}
