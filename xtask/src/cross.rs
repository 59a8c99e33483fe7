//! The daemons for another architecture, from x86-64: with rustc's target of it, and a C compiler and a
//! C library of this system's own Debian, unpacked into the cache.

use std::env;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::build::{self, Executable};
use crate::vm::debian::Suite;
use crate::vm::tree;
use crate::{cache, cargo};

pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";
/// By Debian's name.
pub(crate) const MULTIARCH: &str = "aarch64-linux-gnu";
const PACKAGES: &[&str] = &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];
const LIBRARIES: &str = "x86_64-linux-gnu";
/// The compiler runs on this system's own: two that differ do not go together.
const OWN_LIBC: &[&str] = &[
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
];

pub(crate) struct Toolchain(PathBuf);

/// Of this system: what is unpacked has to run here.
pub(crate) fn suite_name() -> anyhow::Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let is_debian = text.lines().any(|line| line == "ID=debian");
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.filter(|_| is_debian)
        .map(str::to_owned)
        .context("cross-building takes its compiler from Debian's packages, and this is no Debian")
}

/// Where what is unpacked is kept, between calls.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    let folder = cache::dir()?.join("cross");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

impl Toolchain {
    pub(crate) fn ensure() -> anyhow::Result<Self> {
        ensure!(
            ARCH == "x86_64",
            "the images for arm64 are cross-built on x86-64; here `cargo xtask image` builds them"
        );
        let folder = folder()?;
        let lock = fs::File::create(folder.join("lock")).context("create a lock")?;
        lock.lock().context("wait for another set-up")?;
        let suite = suite_name()?;
        let place = folder.join(format!("{suite}-gcc"));
        tree::once(&place, |tree| {
            Suite::open(&suite, &folder, false)?.unpack_with_dependencies(PACKAGES, tree)?;
            for (below, name) in ["lib", "usr/lib"]
                .into_iter()
                .flat_map(|below| OWN_LIBC.iter().map(move |name| (below, name)))
            {
                let library = tree.join(below).join(LIBRARIES).join(name);
                if library.exists() {
                    fs::remove_file(&library)
                        .with_context(|| format!("remove {}", library.display()))?;
                }
            }
            Ok(())
        })?;
        Ok(Self(place))
    }

    /// The C library and its loader.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.0.join("usr").join(MULTIARCH).join("lib")
    }

    /// Both daemons; nothing else is built for that architecture.
    pub(crate) fn build(&self, repo: &Path) -> anyhow::Result<Vec<Executable>> {
        let added = Command::new("rustup")
            .current_dir(repo)
            .args(["target", "add", TARGET])
            .status()
            .context("run rustup")?;
        ensure!(added.success(), "rustup target add {TARGET}: {added}");
        let tool = |name: &str| self.0.join(format!("usr/bin/{MULTIARCH}-{name}"));
        let root = format!("--sysroot={}", self.0.display());
        let of_target = TARGET.replace('-', "_");
        let for_cargo = format!("CARGO_TARGET_{}", of_target.to_uppercase());
        let libraries = ["lib", "usr/lib"].map(|below| self.0.join(below).join(LIBRARIES));
        let libraries = env::join_paths(libraries).context("name the compiler's libraries")?;
        let mut cargo = cargo::command();
        cargo
            .current_dir(repo)
            .args(["build", "--locked", "--profile", build::PROFILE])
            .args(["--target", TARGET, "--bins"])
            .args(["-p", "nodemend-detector", "-p", "nodemend-repairer"])
            .env("LD_LIBRARY_PATH", libraries)
            .env(format!("{for_cargo}_LINKER"), tool("gcc"))
            .env(
                format!("{for_cargo}_RUSTFLAGS"),
                format!("-C link-arg={root}"),
            )
            .env(format!("CC_{of_target}"), tool("gcc"))
            .env(format!("CFLAGS_{of_target}"), &root)
            .env(format!("AR_{of_target}"), tool("ar"));
        let what = "compiling the daemons for arm64 (first run: ten minutes and 8 GB of memory, most of it the AWS SDK)";
        build::run(&mut cargo, what)
    }
}
