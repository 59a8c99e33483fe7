//! Kubeconfig files (JSON is a valid kubeconfig) and the tokens that they carry.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::http::Uri;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

/// Static tokens of the control plane's own users; tests use those of service accounts.
pub(super) struct Tokens {
    pub(super) file: PathBuf,
    pub(super) admin: String,
    pub(super) controller_manager: String,
    pub(super) scheduler: String,
}

impl Tokens {
    pub(super) fn create(dir: &Path) -> anyhow::Result<Self> {
        let (admin, controller_manager, scheduler) = (random()?, random()?, random()?);
        let file = dir.join("tokens.csv");
        let rows = format!(
            "{admin},admin,1,\"system:masters\"\n\
             {controller_manager},system:kube-controller-manager,2\n\
             {scheduler},system:kube-scheduler,3\n"
        );
        fs::write(&file, rows).with_context(|| format!("write {}", file.display()))?;
        Ok(Self {
            file,
            admin,
            controller_manager,
            scheduler,
        })
    }
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) fn cluster(server: &str, ca_cert: &Path) -> Value {
    json!({"server": server, "certificate-authority": ca_cert})
}

/// An empty token makes a kubeconfig without a user.
pub(super) fn write(path: &Path, cluster: &Value, token: &str) -> anyhow::Result<PathBuf> {
    let user = if token.is_empty() {
        json!({})
    } else {
        json!({"token": token})
    };
    write_json(
        path,
        &json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
        }),
    )
}

/// A copy of one of our own kubeconfigs, with the same user at another cluster.
pub(super) fn write_with_cluster(
    path: &Path,
    original: &Path,
    cluster: &Value,
) -> anyhow::Result<PathBuf> {
    let text = fs::read(original).with_context(|| format!("read {}", original.display()))?;
    let mut config: Value =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", original.display()))?;
    config["clusters"][0]["cluster"] = cluster.clone();
    write_json(path, &config)
}

/// Whole or not at all: another test may read or write the same one.
fn write_json(path: &Path, config: &Value) -> anyhow::Result<PathBuf> {
    let folder = path.parent().context("find the folder of a kubeconfig")?;
    let mut file = tempfile::Builder::new()
        // Whoever runs as somebody else reads it, too.
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .context("make a file")?;
    file.write_all(config.to_string().as_bytes())
        .with_context(|| format!("write {}", path.display()))?;
    file.persist(path)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path.to_owned())
}

/// As the user of a kubeconfig.
pub async fn client(path: &Path) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(path)
        .with_context(|| format!("read kubeconfig {}", path.display()))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use kubeconfig {}", path.display()))?;
    // A 429 is an answer (of a PodDisruptionBudget, say), and a test wants to see it.
    config.default_retry = false;
    Client::try_from(config).with_context(|| format!("make a client of {}", path.display()))
}

/// The cluster of the current context, with its certificate authority as the file states it.
pub(super) fn current_cluster(path: &Path) -> anyhow::Result<Value> {
    let config = Kubeconfig::read_from(path)
        .with_context(|| format!("read kubeconfig {}", path.display()))?;
    let current = config
        .current_context
        .with_context(|| format!("{} has no current context", path.display()))?;
    let context = config
        .contexts
        .into_iter()
        .find(|named| named.name == current)
        .and_then(|named| named.context)
        .with_context(|| format!("{} has no context `{current}`", path.display()))?;
    let cluster = config
        .clusters
        .into_iter()
        .find(|named| named.name == context.cluster)
        .and_then(|named| named.cluster)
        .with_context(|| format!("{} has no cluster `{}`", path.display(), context.cluster))?;
    serde_json::to_value(cluster).context("copy a cluster")
}

pub(super) fn server(cluster: &Value) -> anyhow::Result<&str> {
    cluster["server"]
        .as_str()
        .context("the cluster of the kubeconfig has no server")
}

pub(super) fn is_loopback(server: &str) -> bool {
    let Ok(uri) = server.parse::<Uri>() else {
        return false;
    };
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_this_machine_is_loopback() {
        for server in [
            "https://127.0.0.1:6443",
            "https://localhost:1",
            "https://[::1]:6443",
            "http://127.8.9.1",
        ] {
            assert!(is_loopback(server), "{server}");
        }
        for server in [
            "https://10.0.0.1:6443",
            "https://localhost.example.org",
            "https://127.0.0.1.nip.io",
            "?",
        ] {
            assert!(!is_loopback(server), "{server}");
        }
    }
}
