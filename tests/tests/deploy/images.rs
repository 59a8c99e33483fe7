//! The images: whole layouts, the same at every build, with all that their binaries need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, anyhow, ensure};
use flate2::read::ZlibDecoder;
use nodemend_tests::daemon::binary;
use nodemend_tests::repo;
use nodemend_tests::terminal::Terminal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::name_lookup;

/// Packed, as a node pulls it.
const LARGEST: u64 = 20_000_000;
const COMMAND: &str = "cargo xtask image";
const BINARY: &str = "usr/bin/nodemend-repairer";

const IMAGES: [(&str, &str); 2] = [
    ("nodemend-detector", "0:0"),
    ("nodemend-repairer", "65532:65532"),
];

/// Each build replaces the layouts of the one before.
static BUILDING: Mutex<()> = Mutex::const_new(());

/// Every build is the same.
static BUILT: OnceCell<()> = OnceCell::const_new();

/// Builds them with the README's command, and looks at what that made.
pub(crate) async fn are_whole(terminal: &Terminal, command: &str) -> anyhow::Result<()> {
    let _building = BUILDING.lock().await;
    let mut builds = Vec::new();
    for _ in 0..2 {
        terminal.run(command).await?;
        let indexes = IMAGES.map(|(name, _)| read(&layout(name).join("index.json")));
        builds.push(indexes.into_iter().collect::<Result<Vec<_>, _>>()?);
    }
    ensure!(builds[0] == builds[1], "another build, another image");
    for (name, user) in IMAGES {
        let layout = layout(name);
        ensure!(read(&layout.join("oci-layout"))?["imageLayoutVersion"] == "1.0.0");
        let manifest = manifest(terminal, &layout).await?;
        let config = blob(terminal, &layout, &manifest["config"]).await?;
        let config = read(Path::new(&config))?;
        let layer = blob(terminal, &layout, &manifest["layers"][0]).await?;
        let contents = terminal
            .run(&format!("gzip -dc {layer} | sha256sum"))
            .await?;
        let contents = contents.split(' ').next().unwrap_or_default();
        ensure!(config["rootfs"]["diff_ids"][0] == format!("sha256:{contents}"));
        let size = manifest["layers"][0]["size"].as_u64().unwrap_or(u64::MAX);
        ensure!(size <= LARGEST, "{name}: {size} bytes");
        ensure!(config["config"]["User"] == user, "{name}: {config}");

        // With nothing of this host, as the user that the image says.
        let root = folder()?;
        let root = root.path().display();
        let entrypoint = config["config"]["Entrypoint"][0].as_str();
        let entrypoint = entrypoint.context("the image has no entry point")?;
        let version = terminal
            .run(&format!(
                "chmod 755 {root}; tar -C {root} -xf {layer}; \
                 chroot --userspec={user} {root} {entrypoint} --version"
            ))
            .await?;
        ensure!(version.starts_with(&format!("{name} ")), "{version}");
        let binary = fs::read(format!("{root}{entrypoint}")).context("read a binary")?;
        let documents = format!("{root}/usr/share/doc/nodemend");
        let bill = read(Path::new(&format!("{documents}/sbom.cdx.json")))?;
        ensure!(bill["bomFormat"] == "CycloneDX", "{bill}");
        let components = bill["components"].as_array().context("no components")?;
        let listed = |name: &str| components.iter().any(|one| one["name"] == name);
        ensure!(listed("tokio") && listed(name), "{name}: {bill}");
        let crates = crates_in(&binary, name)?;
        let bill: BTreeSet<_> = components
            .iter()
            .filter(|one| one["type"] == "library")
            .filter_map(name_and_version)
            .collect();
        ensure!(crates == bill, "{name} holds {crates:?}, its bill {bill:?}");
        let count = format!("grep -c . {documents}/licences.txt");
        let count = terminal.run(&count).await?;
        ensure!(count.trim().parse::<usize>()? > 50, "{count} licences");
    }
    Ok(())
}

/// As `cargo auditable` writes them into a binary.
fn crates_in(binary: &[u8], root: &str) -> anyhow::Result<BTreeSet<(String, String)>> {
    let packed = auditable_extract::raw_auditable_data(binary);
    let packed = packed.map_err(|error| anyhow!("it holds no list of its crates: {error}"))?;
    let list: Value = serde_json::from_reader(ZlibDecoder::new(packed)).context("parse a list")?;
    let packages = list["packages"].as_array().context("no packages")?;
    for package in packages {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for place in dependencies.filter_map(Value::as_u64) {
            let there = usize::try_from(place)? < packages.len();
            ensure!(there, "{package} needs {place}");
        }
    }
    let roots = packages.iter().filter(|package| package["root"] == true);
    let roots: Vec<_> = roots.map(|package| &package["name"]).collect();
    ensure!(roots == [root], "its roots are {roots:?}");
    Ok(packages.iter().filter_map(name_and_version).collect())
}

fn name_and_version(of: &Value) -> Option<(String, String)> {
    let text = |key: &str| of[key].as_str().map(str::to_owned);
    Some((text("name")?, text("version")?))
}

/// The binary and the certificate authorities: no loader, no library, and it needs neither.
pub(crate) async fn repairer_is_static() -> anyhow::Result<()> {
    let terminal = terminal()?;
    let _building = BUILDING.lock().await;
    terminal.run(COMMAND).await?;
    let layout = layout("nodemend-repairer");
    let manifest = manifest(&terminal, &layout).await?;
    let layer = blob(&terminal, &layout, &manifest["layers"][0]).await?;
    let files = terminal.run(&format!("tar -tf {layer}")).await?;
    let files: Vec<_> = files.lines().filter(|name| !name.ends_with('/')).collect();
    let documents = ["licences.txt", "sbom.cdx.json"];
    let [licences, bill] = documents.map(|name| format!("usr/share/doc/nodemend/{name}"));
    ensure!(
        files
            == [
                "etc/ssl/certs/ca-certificates.crt",
                BINARY,
                &licences,
                &bill
            ],
        "{files:?}"
    );
    let root = folder()?;
    let root = root.path();
    let unpack = format!("tar -C {} -xf {layer}", root.display());
    terminal.run(&unpack).await?;
    let binary = root.join(BINARY);
    ensure!(!has_interpreter(&binary)?, "it names a loader");
    let run = format!("chroot {} /{BINARY} --version", root.display());
    let version = terminal.run(&run).await?;
    ensure!(version.starts_with("nodemend-repairer "), "{version}");
    name_lookup::works(&terminal, root).await
}

/// Its layout, for as long as nobody builds it again.
pub(crate) async fn built(name: &str) -> anyhow::Result<(PathBuf, MutexGuard<'static, ()>)> {
    let terminal = terminal()?;
    let building = BUILDING.lock().await;
    BUILT
        .get_or_try_init(async || terminal.run(COMMAND).await.map(drop))
        .await?;
    Ok((layout(name), building))
}

/// What is in an image, into a folder.
pub(crate) async fn unpack(name: &str, root: &Path) -> anyhow::Result<()> {
    let terminal = terminal()?;
    let (layout, _building) = built(name).await?;
    let manifest = manifest(&terminal, &layout).await?;
    let layer = blob(&terminal, &layout, &manifest["layers"][0]).await?;
    let unpack = format!("tar -C {} -xf {layer}", root.display());
    terminal.run(&unpack).await.map(drop)
}

pub(crate) fn no_engine() -> Option<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let there = |tool: &&str| env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let found = ["buildah", "podman"].iter().any(there);
    (!found).then_some("neither buildah nor podman is installed")
}

/// Under the names that the chart asks for, and the same as in the layouts.
pub(crate) async fn are_given_to_the_engine() -> anyhow::Result<()> {
    let terminal = terminal()?;
    let _building = BUILDING.lock().await;
    let said = terminal.run(COMMAND).await?;
    let version = env!("CARGO_PKG_VERSION");
    for (name, _) in IMAGES {
        let image = format!("localhost/{name}:{version}");
        let line = said.lines().find(|line| line.starts_with(&image));
        let line = line.with_context(|| format!("nothing is said of {image}: {said}"))?;
        let engine = line.rsplit(' ').next().unwrap_or_default();
        let id = format!("{engine} images --quiet --no-trunc {image}");
        let id = terminal.run(&id).await?;
        let manifest = manifest(&terminal, &layout(name)).await?;
        ensure!(manifest["config"]["digest"] == id.trim(), "{image}: {id}");
    }
    Ok(())
}

pub(crate) fn not_cross_built() -> Option<&'static str> {
    let there = IMAGES.iter().all(|(name, _)| foreign(name).is_dir());
    (!there).then_some(
        "not cross-built here: `cargo xtask image --platform linux/arm64` does it (a quarter of an hour of CPU, 8 GB of memory), and runs the detector on an emulated machine",
    )
}

/// Those of an earlier `cargo xtask image --platform linux/arm64`.
pub(crate) async fn are_of_arm64() -> anyhow::Result<()> {
    // ELF's number of the architecture (elf(5), e_machine).
    const AARCH64: [u8; 2] = 183_u16.to_le_bytes();
    let terminal = terminal()?;
    for (name, user) in IMAGES {
        let layout = foreign(name);
        let manifest = manifest(&terminal, &layout).await?;
        let config = blob(&terminal, &layout, &manifest["config"]).await?;
        let config = read(Path::new(&config))?;
        ensure!(config["architecture"] == "arm64", "{name}: {config}");
        ensure!(config["config"]["User"] == user, "{name}: {config}");
        let size = manifest["layers"][0]["size"].as_u64().unwrap_or(u64::MAX);
        ensure!(size <= LARGEST, "{name}: {size} bytes");
        let layer = blob(&terminal, &layout, &manifest["layers"][0]).await?;
        let root = folder()?;
        let root = root.path();
        let unpack = format!("tar -C {} -xf {layer}", root.display());
        terminal.run(&unpack).await?;
        let binary = root.join("usr/bin").join(name);
        let interpreted = has_interpreter(&binary)?;
        let binary = fs::read(binary).context("read a binary")?;
        ensure!(binary.get(18..20) == Some(&AARCH64), "{name} is of another");
        crates_in(&binary, name)?;
        let loader = root.join("lib/ld-linux-aarch64.so.1");
        ensure!(
            interpreted == loader.is_file(),
            "{name}: its loader is missing, or it needs none"
        );
    }
    Ok(())
}

/// With the binaries that are there already, and a storage of its own for a container engine.
pub(crate) fn prepare(terminal: &mut Terminal) -> anyhow::Result<()> {
    let detector = binary("nodemend-detector")?;
    let binaries = detector.parent().context("find the binaries")?;
    terminal.set("NODEMEND_BIN_DIR", binaries);
    let storage = terminal.home().join("containers");
    let conf = terminal.home().join("storage.conf");
    let text = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}\"\nrunroot = \"{0}-run\"\n",
        storage.display()
    );
    fs::write(&conf, text).with_context(|| format!("write {}", conf.display()))?;
    terminal.set("CONTAINERS_STORAGE_CONF", conf);
    Ok(())
}

fn terminal() -> anyhow::Result<Terminal> {
    let mut terminal = Terminal::open()?;
    prepare(&mut terminal)?;
    Ok(terminal)
}

fn foreign(name: &str) -> PathBuf {
    repo().join("target/images/arm64").join(name)
}

fn layout(name: &str) -> PathBuf {
    repo().join("target/images").join(name)
}

fn folder() -> anyhow::Result<TempDir> {
    TempDir::with_prefix("nodemend-image-").context("make a folder")
}

async fn manifest(terminal: &Terminal, layout: &Path) -> anyhow::Result<Value> {
    let index = read(&layout.join("index.json"))?;
    read(Path::new(
        &blob(terminal, layout, &index["manifests"][0]).await?,
    ))
}

/// By the program headers of a 64-bit little-endian ELF file (elf(5)).
fn has_interpreter(path: &Path) -> anyhow::Result<bool> {
    const PT_INTERP: [u8; 4] = 3_u32.to_le_bytes();
    let file = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    ensure!(file.starts_with(b"\x7fELF\x02\x01"), "no such ELF file");
    let table = usize::try_from(u64::from_le_bytes(file[32..40].try_into()?))?;
    let size = usize::from(u16::from_le_bytes(file[54..56].try_into()?));
    let count = usize::from(u16::from_le_bytes(file[56..58].try_into()?));
    ensure!(count > 0, "it has no program headers");
    Ok(file[table..]
        .chunks_exact(size)
        .take(count)
        .any(|header| header.starts_with(&PT_INTERP)))
}

/// The path of a blob whose size and digest are those of its descriptor.
async fn blob(terminal: &Terminal, layout: &Path, descriptor: &Value) -> anyhow::Result<String> {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    let digest = digest.strip_prefix("sha256:").context("read a digest")?;
    let path = layout.join("blobs/sha256").join(digest);
    let path = path.display().to_string();
    let size = fs::metadata(&path)
        .with_context(|| format!("look at {path}"))?
        .len();
    ensure!(descriptor["size"] == size, "{path}: {size} bytes");
    let sum = terminal.run(&format!("sha256sum {path}")).await?;
    ensure!(sum.starts_with(digest), "{sum}");
    Ok(path)
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
}
