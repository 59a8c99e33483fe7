//! Programs of Debian packages for the tests, unpacked into the user's cache, not installed: kept by
//! package and version.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::cache;

/// The program at `path` of a package, unless the host has it anyway; `None`, and said so, where it
/// cannot be had.
pub(crate) fn program(package: &str, path: &str) -> Option<PathBuf> {
    let name = Path::new(path).file_name()?;
    let folders = env::var_os("PATH").unwrap_or_default();
    let installed = env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file());
    installed.or_else(|| {
        unpacked(package)
            .map(|folder| folder.join(path))
            .map_err(|error| eprintln!("no {}: {error:#}", name.display()))
            .ok()
    })
}

fn unpacked(package: &str) -> anyhow::Result<PathBuf> {
    let cache = cache::dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock =
        File::create(cache.join("debian.lock")).context("create the lock of the packages")?;
    lock.lock().context("wait for another download")?;
    let version = match candidate(package)? {
        Some(version) => version,
        None => {
            run(Command::new("apt-get").args(["update", "--quiet"]))?;
            candidate(package)?
                .with_context(|| format!("this system knows no package {package}"))?
        }
    };
    let folder = cache.join(format!("debian-{package}-{}", version.replace(':', "_")));
    if folder.exists() {
        return Ok(folder);
    }
    eprintln!("downloading the Debian package {package} {version} (first run only)");
    let unfinished = cache.join("debian.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).context("remove an unfinished download")?;
    }
    let content = unfinished.join("content");
    fs::create_dir_all(&content).with_context(|| format!("create {}", content.display()))?;
    run(Command::new("apt-get")
        .args(["download", "--quiet", &format!("{package}={version}")])
        .current_dir(&unfinished))?;
    let archive = fs::read_dir(&unfinished)
        .context("list a download")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get has downloaded nothing")?;
    run(Command::new("dpkg-deb")
        .arg("-x")
        .arg(archive)
        .arg(&content))?;
    fs::rename(&content, &folder)
        .with_context(|| format!("move the package to {}", folder.display()))?;
    Ok(folder)
}

fn candidate(package: &str) -> anyhow::Result<Option<String>> {
    let output = Command::new("apt-cache")
        .args(["policy", package])
        .output()
        .context("run apt-cache: this is no Debian; install it by other means")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(found
        .filter(|&version| version != "(none)")
        .map(str::to_owned))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let what = command.get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {what}"))?;
    ensure!(
        output.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
