//! The images: whole layouts, the same at every build, with all that their binaries need.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use nodemend_tests::repo;
use nodemend_tests::terminal::Terminal;
use serde_json::Value;

/// Builds them with the README's command, and looks at what that made.
pub(crate) async fn are_whole(terminal: &Terminal, command: &str) -> anyhow::Result<()> {
    for (name, user) in [
        ("nodemend-detector", "0:0"),
        ("nodemend-repairer", "65532:65532"),
    ] {
        let layout = repo().join("target/images").join(name);
        terminal.run(command).await?;
        let first = read(&layout.join("index.json"))?;
        terminal.run(command).await?;
        let index = read(&layout.join("index.json"))?;
        ensure!(index == first, "{name}: another build, another image");
        ensure!(read(&layout.join("oci-layout"))?["imageLayoutVersion"] == "1.0.0");

        let manifest = blob(terminal, &layout, &index["manifests"][0]).await?;
        let manifest = read(Path::new(&manifest))?;
        let config = blob(terminal, &layout, &manifest["config"]).await?;
        let config = read(Path::new(&config))?;
        let layer = blob(terminal, &layout, &manifest["layers"][0]).await?;
        ensure!(config["rootfs"]["diff_ids"][0] == manifest["layers"][0]["digest"]);
        ensure!(config["config"]["User"] == user, "{name}: {config}");

        // With nothing of this host, as the user that the image says.
        let root = tempfile::Builder::new()
            .prefix("nodemend-image-")
            .tempdir()
            .context("make a folder")?;
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
    }
    Ok(())
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
