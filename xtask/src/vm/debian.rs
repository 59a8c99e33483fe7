//! Packages of one of Debian's suites, from the mirror that this machine uses. apt checks their
//! signatures; its state is a folder of ours, so nothing of the machine's changes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{cache, progress};

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The file of a package at `path`; the package alone is kept in the cache, without what it needs.
pub(crate) fn file(
    suite: &str,
    component: &'static str,
    package: &str,
    path: &str,
) -> anyhow::Result<PathBuf> {
    let cache = cache::dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(cache.join(format!("{package}.lock"))).context("create a lock")?;
    lock.lock().context("wait for another download")?;
    let folder = cache.join(package);
    let file = folder.join(path);
    if !file.exists() {
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Suite::open_component(suite, component, &folder, false)
            .and_then(|suite| suite.unpack(&[package], &folder))
            .with_context(|| format!("fetch {package} of Debian's {suite}/{component}"))?;
        ensure!(file.exists(), "{package} has no {}", file.display());
    }
    Ok(file)
}

pub(crate) struct Suite {
    name: String,
    component: &'static str,
    apt: PathBuf,
    /// By Debian's name.
    architecture: &'static str,
}

impl Suite {
    /// With the lists of packages that an earlier call has fetched, unless they are to be `newest`.
    pub(crate) fn open(name: &str, folder: &Path, newest: bool) -> anyhow::Result<Self> {
        Self::open_component(name, "main", folder, newest)
    }

    fn open_component(
        name: &str,
        component: &'static str,
        folder: &Path,
        newest: bool,
    ) -> anyhow::Result<Self> {
        Self {
            name: name.to_owned(),
            component,
            apt: folder.join("apt").join(name),
            architecture: "amd64",
        }
        .fetched(newest)
    }

    /// The same for machines of another kind.
    pub(crate) fn open_arm64(name: &str, folder: &Path) -> anyhow::Result<Self> {
        Self {
            name: name.to_owned(),
            component: "main",
            apt: folder.join("apt").join(format!("{name}-arm64")),
            architecture: "arm64",
        }
        .fetched(false)
    }

    fn fetched(self, newest: bool) -> anyhow::Result<Self> {
        let fetched = self.apt.join("fetched");
        if newest || !fetched.exists() {
            self.update()?;
            fs::write(&fetched, "").context("remember that the lists are fetched")?;
        }
        Ok(self)
    }

    fn update(&self) -> anyhow::Result<()> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = self.apt.join(part);
            fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        }
        let (
            mirror,
            Self {
                name, component, ..
            },
        ) = (mirror()?, self);
        let sources = format!("deb [signed-by={KEYS}] {mirror} {name} {component}\n");
        fs::write(self.apt.join("sources.list"), sources).context("write the sources of apt")?;
        let what = format!("fetching the list of Debian's packages in {}", self.name);
        run(self.command("apt-get").arg("update"), &what).map(drop)
    }

    /// A package's field as the suite's newest version of it has it.
    pub(crate) fn field(&self, package: &str, field: &str) -> anyhow::Result<String> {
        let mut command = self.command("apt-cache");
        command.args(["show", "--no-all-versions", package]);
        let lines = run(&mut command, &format!("reading about {package}"))?;
        let value = lines
            .iter()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
        value
            .map(str::to_owned)
            .with_context(|| format!("{package} in {} has no {field}", self.name))
    }

    /// Only these.
    pub(crate) fn unpack(&self, packages: &[&str], into: &Path) -> anyhow::Result<()> {
        let archives = self.apt.join("cache/archives");
        let mut command = self.command("apt-get");
        command
            .current_dir(&archives)
            .arg("download")
            .args(packages);
        self.fetch(command, packages, into)
    }

    /// These and all that they need.
    pub(crate) fn unpack_with_dependencies(
        &self,
        packages: &[&str],
        into: &Path,
    ) -> anyhow::Result<()> {
        let mut command = self.command("apt-get");
        command
            .args(["install", "--yes", "--download-only"])
            .arg("--no-install-recommends")
            .args(packages);
        self.fetch(command, packages, into)
    }

    fn fetch(&self, mut command: Command, packages: &[&str], into: &Path) -> anyhow::Result<()> {
        let what = format!("fetching {} (first run only)", packages.join(", "));
        let archives = self.apt.join("cache/archives");
        run(&mut command, &what)?;
        for entry in fs::read_dir(&archives).context("list the packages")? {
            let package = entry.context("list the packages")?.path();
            if package.extension().is_some_and(|end| end == "deb") {
                let mut unpack = Command::new("dpkg-deb");
                unpack.arg("-x").arg(&package).arg(into);
                run(&mut unpack, &format!("unpacking {}", package.display()))?;
                fs::remove_file(&package).context("remove an unpacked package")?;
            }
        }
        Ok(())
    }

    /// An apt that knows only this suite, and of no package that it was installed.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, value) in [
            ("Dir::Etc::sourcelist", self.apt.join("sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            ("Dir::State", self.apt.join("state")),
            ("Dir::State::status", PathBuf::from("/dev/null")),
            ("Dir::Cache", self.apt.join("cache")),
        ] {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        for name in ["APT::Architecture", "APT::Architectures"] {
            command
                .arg("-o")
                .arg(format!("{name}={}", self.architecture));
        }
        // Root's packages would be fetched by a user who may not write here.
        command.args(["-o", "APT::Sandbox::User=root"]);
        // Archives are removed when they are unpacked.
        command.args(["-o", "Binary::apt::APT::Keep-Downloaded-Packages=true"]);
        command
    }
}

/// Where this machine's own apt fetches Debian's packages.
fn mirror() -> anyhow::Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)"]);
    apt.arg("Identifier: Packages");
    let lines = run(&mut apt, "asking apt for its mirror")
        .context("this is made of Debian's packages, by apt-get and dpkg-deb")?;
    lines
        .iter()
        .filter_map(|line| line.split_once(' '))
        .map(|(uri, _)| uri.trim_end_matches('/'))
        .find(|uri| uri.ends_with("/debian"))
        .map(str::to_owned)
        .context("apt fetches from no mirror of Debian here: add one to /etc/apt/sources.list.d")
}

/// The lines of its standard output.
fn run(command: &mut Command, what: &str) -> anyhow::Result<Vec<String>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (status, lines) = progress::run(command, what, |_| progress::Line::Message)
        .with_context(|| what.to_owned())?;
    ensure!(status.success(), "{what}: {program} ended with {status}");
    Ok(lines)
}
