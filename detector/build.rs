//! Embeds the BPF object that `cargo xtask bpf` built, with the hash of the source that it was
//! built from beside the hash of the source that is here: they are compared at load.
//!
//! Without an object (plain `cargo check`, clippy, unit tests) an empty one is embedded, so that
//! these need no BPF toolchain; loading it is an error that says what to do.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script is told its paths by the environment"
)]

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use sha2::{Digest, Sha256};

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    let object = PathBuf::from(env::var("NODEMEND_BPF_OBJECT").unwrap_or_default());
    println!("cargo::rerun-if-env-changed=NODEMEND_BPF_OBJECT");
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed=../detector-ebpf/src");
    println!("cargo::rerun-if-changed=../detector-ebpf/Cargo.toml");

    let bytes = fs::read(&object).unwrap_or_default();
    let recorded = fs::read_to_string(object.with_extension("o.sha256")).unwrap_or_default();
    fs::write(out.join("detector.bpf.o"), bytes)?;
    println!("cargo::rustc-env=BPF_BUILT_FROM={recorded}");
    println!(
        "cargo::rustc-env=BPF_SOURCE={}",
        source_hash(Path::new("../detector-ebpf"))?
    );
    Ok(())
}

/// The same hash as in xtask/src/bpf.rs.
fn source_hash(package: &Path) -> io::Result<String> {
    let mut files = vec![package.join("Cargo.toml")];
    for entry in fs::read_dir(package.join("src"))? {
        files.push(entry?.path());
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(fs::read(&file)?);
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
