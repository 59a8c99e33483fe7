//! Builds etcd, the Kubernetes control plane, kubectl, kwok and Helm from their Go modules at the
//! versions that `tests/control-plane/` pins, once per machine.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::{cache, progress};

/// The folder with the binaries; built when it is not there.
pub(crate) fn ensure(repo: &Path) -> anyhow::Result<PathBuf> {
    let modules = repo.join("tests/control-plane");
    let kwok = modules.join("kwok");
    once("control-plane", &[&modules, &kwok], |out| {
        let what =
            "building etcd and the Kubernetes control plane (first run only, about five minutes)";
        go_build(&modules, out, &stamp(&modules)?, what)?;
        // etcd's main package is the module `server`.
        fs::rename(out.join("server"), out.join("etcd")).context("rename etcd's binary")?;
        let what = "building kwok (first run only, about two minutes)";
        go_build(&kwok, out, "-s -w", what)
    })
}

/// The folder with `kube-apiserver-floor`, of the oldest Kubernetes that the chart takes. Apart from
/// the control plane: only one suite needs it.
pub(crate) fn floor(repo: &Path) -> anyhow::Result<PathBuf> {
    let module = repo.join("tests/control-plane/floor");
    once("floor", &[&module], |out| {
        let what = "building the oldest API server that is supported (first run only, about three minutes)";
        go_build(&module, out, &stamp(&module)?, what)?;
        fs::rename(out.join("kube-apiserver"), out.join("kube-apiserver-floor"))
            .context("rename the API server")
    })
}

/// The folder with `kubelet`, of the control plane's version, for the same suite.
pub(crate) fn kubelet(repo: &Path) -> anyhow::Result<PathBuf> {
    let module = repo.join("tests/control-plane/kubelet");
    once("kubelet", &[&module], |out| {
        let what = "building kubelet (first run only, about a minute)";
        go_build(&module, out, &stamp(&module)?, what)
    })
}

/// The folder with `helm`. Apart from the control plane: only one suite needs it.
pub(crate) fn helm(repo: &Path) -> anyhow::Result<PathBuf> {
    let module = repo.join("tests/control-plane/helm");
    once("helm", &[&module], |out| {
        let what = "building Helm (first run only, about three minutes)";
        go_build(&module, out, "-s -w", what)
    })
}

/// Builds once per machine and version of `modules`; another build of the same is waited for.
fn once(
    name: &str,
    modules: &[&Path],
    build: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let cache = cache::dir()?;
    let folder = cache.join(format!("{name}-{}", version_key(modules)?));
    let bin = folder.join("bin");
    if bin.exists() {
        return Ok(bin);
    }
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(cache.join(format!("{name}.lock")))
        .with_context(|| format!("create the lock of the {name} build"))?;
    lock.lock()
        .with_context(|| format!("wait for another build of {name}"))?;
    if bin.exists() {
        return Ok(bin);
    }
    let unfinished = cache.join(format!("{name}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).context("remove an unfinished build")?;
    }
    let out = unfinished.join("bin");
    fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    build(&out)?;
    fs::rename(&unfinished, &folder)
        .with_context(|| format!("move the build to {}", folder.display()))?;
    Ok(bin)
}

/// Without these a server calls itself v0.0.0-master.
fn stamp(module: &Path) -> anyhow::Result<String> {
    let version = kubernetes_version(module)?;
    let minor = version
        .split('.')
        .nth(1)
        .context("read the minor version of k8s.io/kubernetes in go.mod")?;
    let package = "k8s.io/component-base/version";
    Ok(format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
    ))
}

fn go_build(module: &Path, out: &Path, ldflags: &str, what: &str) -> anyhow::Result<()> {
    let mut go = Command::new("go");
    go.current_dir(module)
        .args(["build", "-v", "-trimpath", "-ldflags", ldflags, "-o"])
        .arg(format!("{}/", out.display()))
        .arg("tool")
        // One set of build cache entries, and binaries that need no libc.
        .env("CGO_ENABLED", "0")
        .env(
            "GOFLAGS",
            env::var("GOFLAGS").unwrap_or_default() + " -mod=readonly",
        );
    let (status, _nothing) = progress::run(&mut go, what, progress::go)
        .context("run go: what the tests run on needs Go 1.26 or later (go.dev/doc/install)")?;
    if !status.success() {
        bail!("go build in {} failed ({status})", module.display());
    }
    Ok(())
}

fn kubernetes_version(module: &Path) -> anyhow::Result<String> {
    let file = module.join("go.mod");
    fs::read_to_string(&file)
        .with_context(|| format!("read {}", file.display()))?
        .lines()
        .find_map(|line| {
            let required = line
                .trim()
                .trim_start_matches("require ")
                .strip_prefix("k8s.io/kubernetes ")?;
            // A comment may follow.
            required.split_whitespace().next().map(str::to_owned)
        })
        .with_context(|| format!("{} requires no k8s.io/kubernetes", file.display()))
}

fn version_key(modules: &[&Path]) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    for module in modules {
        for file in ["go.mod", "go.sum"] {
            let file = module.join(file);
            hasher.update(fs::read(&file).with_context(|| format!("read {}", file.display()))?);
        }
    }
    let mut hex = String::new();
    for byte in hasher.finalize().iter().take(6) {
        write!(hex, "{byte:02x}").context("format a hash")?;
    }
    Ok(hex)
}
