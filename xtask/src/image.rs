//! `cargo xtask image`: both images as OCI layouts, written directly, with no container engine.
//!
//! An image is one layer: the binary, the loader and libraries that it was linked against, and for
//! the repairer the certificate authorities that AWS is checked with. The same inputs make the same
//! bytes.

mod elf;
mod layout;
mod tar;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use self::layout::Image;
use self::tar::Tar;
use crate::{bpf, build};

const FOLDER: &str = "target/images";
const NON_ROOT: &str = "65532:65532";
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

/// The folders of the two layouts. With `NODEMEND_BIN_DIR` the binaries are taken from there.
pub(crate) fn run(repo: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let bin_dir = match env::var_os("NODEMEND_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            bpf::build(repo)?;
            build::bin_dir(&build::workspace(repo)?)?
        }
    };
    // It loads BPF programs: root, as the chart runs it.
    let detector = image("nodemend-detector", &bin_dir, &FOR_NVML, None, "0:0")?;
    let authorities = AUTHORITIES
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .context("find the certificate authorities of this host: install ca-certificates")?;
    let repairer = image(
        "nodemend-repairer",
        &bin_dir,
        &[],
        Some(authorities),
        NON_ROOT,
    )?;
    let folder = repo.join(FOLDER);
    [detector, repairer]
        .iter()
        .map(|image| {
            let layout = folder.join(image.name);
            layout::write(image, &layout)?;
            Ok(layout)
        })
        .collect()
}

fn image(
    name: &'static str,
    bin_dir: &Path,
    more_libraries: &[&str],
    authorities: Option<&str>,
    user: &'static str,
) -> anyhow::Result<Image> {
    let path = bin_dir.join(name);
    let binary = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let mut layer = Tar::default();
    for (path, bytes) in elf::closure(&binary, more_libraries)
        .with_context(|| format!("find what {} is linked against", path.display()))?
    {
        layer.file(&path, 0o755, bytes)?;
    }
    if let Some(host) = authorities {
        let bytes = fs::read(host).with_context(|| format!("read {host}"))?;
        ensure!(!bytes.is_empty(), "{host} is empty");
        layer.file(Path::new(AUTHORITIES[0]), 0o644, bytes)?;
    }
    let entrypoint = format!("/usr/bin/{name}");
    layer.file(Path::new(&entrypoint), 0o755, binary)?;
    Ok(Image {
        name,
        user,
        entrypoint,
        layer: layer.finish()?,
    })
}
