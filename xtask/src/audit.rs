//! Which crates a binary is made of, inside of it, as `cargo auditable` writes it: scanners of images
//! and hosts (Trivy, Syft, `cargo audit bin`) read it. cargo-auditable itself would take the place that
//! our wrapper of rustc has.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};

use crate::crates::{self, Crate};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Of the format's specification. It is not loaded into memory; `R` keeps it where nothing refers to it.
const SECTION: &str = ".dep-v0";

/// An object file for the linker, in the folder of what it is linked into.
pub(crate) fn object(
    repo: &Path,
    package: &str,
    platform: &str,
    folder: &Path,
) -> anyhow::Result<PathBuf> {
    let list = list(&crates::linked(repo, package, platform)?, package);
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
    packer
        .write_all(list.to_string().as_bytes())
        .context("pack a list of crates")?;
    let packed = packer.finish().context("pack a list of crates")?;
    let bytes = packed.iter().map(u8::to_string).collect::<Vec<_>>();
    let source = format!(
        ".section {SECTION},\"R\",%progbits\n.byte {}\n.section .note.GNU-stack,\"\",%progbits\n",
        bytes.join(",")
    );
    let file = folder.join(format!("{package}{SECTION}.s"));
    fs::write(&file, source).with_context(|| format!("write {}", file.display()))?;
    let object = file.with_extension("o");
    // As the crate `cc` looks for it.
    let of_platform = format!("CC_{}", platform.replace('-', "_"));
    let compiler = [of_platform.as_str(), "CC"]
        .into_iter()
        .find_map(env::var_os);
    let status = Command::new(compiler.unwrap_or_else(|| "cc".into()))
        .arg("-c")
        .arg(&file)
        .arg("-o")
        .arg(&object)
        .status()
        .context("run cc: is there a C compiler?")?;
    ensure!(status.success(), "cc {}: {status}", file.display());
    Ok(object)
}

fn list(crates: &[Crate], package: &str) -> Value {
    let packages: Vec<_> = crates
        .iter()
        .map(|one| {
            let mut entry = json!({
                "name": one.name,
                "version": one.version,
                "source": match one.source.as_deref() {
                    None => "local",
                    Some(CRATES_IO) => "crates.io",
                    Some(other) => other,
                },
            });
            if !one.dependencies.is_empty() {
                entry["dependencies"] = json!(one.dependencies);
            }
            if one.name == package {
                entry["root"] = json!(true);
            }
            entry
        })
        .collect();
    json!({"packages": packages})
}
