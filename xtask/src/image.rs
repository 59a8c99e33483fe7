//! `cargo xtask image`: both images as OCI layouts, written directly, with no container engine; one
//! that is there gets them too.
//!
//! An image is one layer: the binary, for the detector also the loader and libraries that it was
//! linked against, and for the repairer, which is static, the certificate authorities that AWS is
//! checked with; and what that is made of, under which licences. The same inputs make the same bytes.

mod elf;
mod emulated;
mod engine;
mod layout;
mod sbom;
mod tar;

use std::env;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;

use self::elf::Libraries;
use self::emulated::Machine;
use self::engine::Engine;
use self::layout::Image;
use self::tar::Tar;
use crate::cross::{self, Toolchain};
use crate::{bpf, build};

const FOLDER: &str = "target/images";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const DETECTOR: &str = "nodemend-detector";
const REPAIRER: &str = "nodemend-repairer";
/// What the NVIDIA driver's library asks for when it is loaded; the detector itself does not.
const FOR_NVML: [&str; 5] = [
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
];
/// Debian's and Red Hat's.
const AUTHORITIES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// What an image is made for.
struct Platform {
    /// By Go's names, as images have them.
    architecture: &'static str,
    /// rustc's.
    target: String,
    libraries: Libraries,
}

/// That this system can build for, but not run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Foreign {
    #[value(name = "linux/arm64")]
    Arm64,
}

/// Prints the folders of the two layouts, and how large each is on its way to a node. With `NODEMEND_BIN_DIR` the binaries are taken from there.
pub(crate) fn run(repo: &Path) -> anyhow::Result<()> {
    let bin_dir = match env::var_os("NODEMEND_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            bpf::build(repo)?;
            build::bin_dir(&build::workspace(repo)?)?
        }
    };
    let platform = Platform {
        architecture: match ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => bail!("no image is made for {other}"),
        },
        target: format!("{ARCH}-unknown-linux-gnu"),
        libraries: Libraries::OfThisSystem,
    };
    let folder = repo.join(FOLDER);
    write(&folder, &detector(repo, &bin_dir, &platform)?)?;
    write(&folder, &repairer(repo, &bin_dir, &platform)?)?;
    let Some(engine) = Engine::find(&env::var_os("PATH").unwrap_or_default()) else {
        eprintln!(
            "neither buildah nor podman is here: the layouts are what there is; push each with \
             `skopeo copy oci:{FOLDER}/NAME docker://REGISTRY/NAME:{VERSION}`"
        );
        return Ok(());
    };
    for name in [DETECTOR, REPAIRER] {
        let put = engine.put(&folder, name, VERSION);
        eprintln!("{}", put.context("the layouts are written, but not more")?);
    }
    Ok(())
}

/// The same for another architecture, as layouts only. The detector is run on an emulated machine,
/// and what it says is printed.
pub(crate) fn run_foreign(repo: &Path, foreign: Foreign) -> anyhow::Result<()> {
    let Foreign::Arm64 = foreign;
    bpf::build(repo)?;
    let toolchain = Toolchain::ensure()?;
    let bin_dir = build::bin_dir(&toolchain.build(repo)?)?;
    let platform = Platform {
        architecture: "arm64",
        target: cross::TARGET.to_owned(),
        libraries: Libraries::Foreign {
            folder: toolchain.libraries(),
            multiarch: cross::MULTIARCH,
        },
    };
    let folder = repo.join(FOLDER).join("arm64");
    let detector = detector(repo, &bin_dir, &platform)?;
    write(&folder, &detector)?;
    write(&folder, &repairer(repo, &bin_dir, &platform)?)?;
    match Machine::ensure() {
        Ok(machine) => println!("{}", machine.run(&detector.layer)?),
        Err(error) => {
            eprintln!("NOT RUN: the detector for arm64, as there is no machine: {error:#}")
        }
    }
    Ok(())
}

fn write(folder: &Path, image: &Image) -> anyhow::Result<()> {
    let layout = folder.join(image.name);
    let size = layout::write(image, &layout)?;
    println!(
        "{}: {}.{} MB",
        layout.display(),
        size / 1_000_000,
        size / 100_000 % 10
    );
    Ok(())
}

fn detector(repo: &Path, bin_dir: &Path, platform: &Platform) -> anyhow::Result<Image> {
    let binary = read(&bin_dir.join(DETECTOR))?;
    let mut layer = Tar::default();
    for (path, bytes) in elf::closure(&binary, &FOR_NVML, &platform.libraries)
        .with_context(|| format!("find what {DETECTOR} is linked against"))?
    {
        layer.file(&path, 0o755, bytes)?;
    }
    // It loads BPF programs: root, as the chart runs it.
    image(repo, DETECTOR, platform, layer, binary, "0:0")
}

fn repairer(repo: &Path, bin_dir: &Path, platform: &Platform) -> anyhow::Result<Image> {
    let path = bin_dir.join(REPAIRER);
    let binary = read(&path)?;
    ensure!(
        elf::is_static(&binary).with_context(|| format!("read {}", path.display()))?,
        "{} is not static: let `cargo xtask` build it",
        path.display()
    );
    let mut layer = Tar::default();
    let authorities = AUTHORITIES
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .context("find the certificate authorities of this host: install ca-certificates")?;
    let bytes = read(Path::new(authorities))?;
    ensure!(!bytes.is_empty(), "{authorities} is empty");
    layer.file(Path::new(AUTHORITIES[0]), 0o644, bytes)?;
    image(repo, REPAIRER, platform, layer, binary, "65532:65532")
}

fn image(
    repo: &Path,
    name: &'static str,
    platform: &Platform,
    mut layer: Tar,
    binary: Vec<u8>,
    user: &'static str,
) -> anyhow::Result<Image> {
    let contents = sbom::of(repo, name, &platform.target, layer.files())?;
    let documents = Path::new("/usr/share/doc/nodemend");
    layer.file(&documents.join("sbom.cdx.json"), 0o644, contents.cyclonedx)?;
    layer.file(&documents.join("licences.txt"), 0o644, contents.licences)?;
    let entrypoint = format!("/usr/bin/{name}");
    layer.file(Path::new(&entrypoint), 0o755, binary)?;
    Ok(Image {
        name,
        architecture: platform.architecture,
        user,
        entrypoint,
        layer,
    })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
