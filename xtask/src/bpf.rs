//! `cargo xtask bpf`: builds the BPF object on the pinned stable toolchain.
//!
//! `RUSTC_BOOTSTRAP=1` is set on the one child process only: `-Z build-std=core` has no
//! stable spelling, and a nightly toolchain would drift.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::{cache, cargo};

/// 0.10 borrows rustc's own LLVM 22; later versions want an LLVM 23 installed.
const BPF_LINKER: &str = "0.10.0";

/// Where `.cargo/config.toml` lets detector/build.rs look for it.
const OBJECT: &str = "target/bpf/detector.bpf.o";

/// Builds the object unless it is there already, from the same source.
pub(crate) fn build(repo: &Path) -> anyhow::Result<PathBuf> {
    let object = repo.join(OBJECT);
    let hash_file = object.with_extension("o.sha256");
    let hash = source_hash(&repo.join("detector-ebpf"))?;
    if object.exists() && fs::read_to_string(&hash_file).is_ok_and(|recorded| recorded == hash) {
        return Ok(object);
    }
    eprintln!("compiling the BPF programs");
    let target = target_dir(repo);
    run(repo, &target, &["build", "--quiet"], &[])?;
    let built = target.join("bpfel-unknown-none/release/detector-ebpf");
    let folder = object
        .parent()
        .context("find the folder of the BPF object")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    fs::copy(&built, &object).with_context(|| format!("copy {}", built.display()))?;
    fs::write(&hash_file, hash).with_context(|| format!("write {}", hash_file.display()))?;
    Ok(object)
}

pub(crate) fn clippy(repo: &Path) -> anyhow::Result<()> {
    run(
        repo,
        &target_dir(repo),
        &["clippy", "--quiet"],
        &["--", "-D", "warnings"],
    )
}

fn run(repo: &Path, target: &Path, command: &[&str], trailing: &[&str]) -> anyhow::Result<()> {
    let rustc = rustc_version()?;
    ensure_rust_src()?;
    let commit = field(&rustc, "commit-hash: ").unwrap_or("unknown");
    let linker = cache::cargo_tool(
        "bpf-linker",
        BPF_LINKER,
        &format!("-{}", commit.get(..9).unwrap_or(commit)),
    )?;
    let host = field(&rustc, "host: ").context("read the host triple from rustc -vV")?;
    let arch = host.split('-').next().unwrap_or(host);
    // No `--btf`: the kernel refuses type names like `MaybeUninit<u32>` (aya's globals), which the
    // linker does not mangle, and nothing here needs the object to carry types.
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        format!("-Clinker={}", linker.display()),
    ];
    let status = cargo::command()
        .current_dir(repo)
        .args(command)
        .args([
            "--locked",
            "--package",
            "detector-ebpf",
            "--features",
            "bpf",
            "--bin",
            "detector-ebpf",
            "--release",
        ])
        .args([
            "--target",
            "bpfel-unknown-none",
            "-Z",
            "build-std=core",
            "--target-dir",
        ])
        .arg(target)
        .args(trailing)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS")
        .status()
        .context("run cargo for the BPF programs")?;
    if !status.success() {
        bail!("cargo {} of the BPF programs failed ({status})", command[0]);
    }
    Ok(())
}

/// Its own target folder: other flags, other `core`.
fn target_dir(repo: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repo.join("target"), PathBuf::from)
        .join("bpf-build")
}

/// The same hash as in detector/build.rs, which refuses an object of another source.
fn source_hash(package: &Path) -> anyhow::Result<String> {
    let mut files = vec![package.join("Cargo.toml")];
    let folder = package.join("src");
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        files.push(entry.context("list the BPF sources")?.path());
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(fs::read(&file).with_context(|| format!("read {}", file.display()))?);
    }
    let mut hex = String::new();
    for byte in hasher.finalize() {
        write!(hex, "{byte:02x}").context("format a hash")?;
    }
    Ok(hex)
}

fn rustc_version() -> anyhow::Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("run rustc -vV")?;
    String::from_utf8(output.stdout).context("rustc -vV printed no UTF-8")
}

fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    version.lines().find_map(|line| line.strip_prefix(name))
}

fn ensure_rust_src() -> anyhow::Result<()> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .context("run rustc --print sysroot")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .exists()
    {
        return Ok(());
    }
    eprintln!("installing the toolchain component rust-src");
    let status = Command::new("rustup")
        .args(["component", "add", "rust-src"])
        .status()
        .context("run rustup component add rust-src (install rustup, or rust-src of this rustc)")?;
    if !status.success() {
        bail!("rustup component add rust-src failed ({status})");
    }
    Ok(())
}
