//! An image in the OCI image layout (opencontainers/image-spec, `image-layout.md`).

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::tar::Tar;

pub(super) struct Image {
    pub(super) name: &'static str,
    pub(super) architecture: &'static str,
    pub(super) user: &'static str,
    pub(super) entrypoint: String,
    pub(super) layer: Tar,
}

/// A layout that was there before is replaced. Returns what a node has to pull, in bytes.
pub(super) fn write(image: &Image, folder: &Path) -> anyhow::Result<u64> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("create {}", blobs.display()))?;
    let blob = |media: &str, bytes: &[u8]| -> anyhow::Result<Value> {
        let digest = hex(bytes)?;
        let file = blobs.join(&digest);
        fs::write(&file, bytes).with_context(|| format!("write {}", file.display()))?;
        let media = format!("application/vnd.oci.image.{media}");
        Ok(json!({"mediaType": media, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
    };
    let files = image.layer.finish()?;
    let layer = blob("layer.v1.tar+gzip", &packed(&files)?)?;
    let config = json!({
        "architecture": image.architecture,
        "os": "linux",
        "config": {"User": image.user, "Entrypoint": [image.entrypoint], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&files)?)]},
    });
    let config = blob("config.v1+json", config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [&layer],
    });
    let mut manifest = blob("manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["annotations"] =
        json!({"org.opencontainers.image.ref.name": env!("CARGO_PKG_VERSION")});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    let put = |name: &str, value: &Value| {
        let file = folder.join(name);
        fs::write(&file, value.to_string()).with_context(|| format!("write {}", file.display()))
    };
    put("index.json", &index)?;
    put("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
    layer["size"].as_u64().context("size a layer")
}

/// Without a name or a time, so that the same bytes come out each time.
fn packed(layer: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(layer).context("pack a layer")?;
    packer.finish().context("pack a layer")
}

pub(super) fn hex(bytes: &[u8]) -> anyhow::Result<String> {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}").context("format a digest")?;
    }
    Ok(hex)
}
