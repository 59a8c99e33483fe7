//! What a container runtime makes of the chart's detector: an OCI bundle (runtime-spec `config.md`)
//! of our image and the pod's security context, mounts and environment, run by runc.

#![expect(clippy::disallowed_methods, reason = "it runs runc")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use nodemend_tests::daemon::Daemon;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::images;

/// Why no container can be run here.
pub(crate) fn unavailable() -> Option<&'static str> {
    let runc = env::var_os("NODEMEND_RUNC").map(PathBuf::from);
    let there = runc.is_some_and(|runc| runc.is_file());
    (!there)
        .then_some("no runc: `cargo xtask test deploy` gets it from Debian and sets NODEMEND_RUNC")
}

/// containerd's defaults for a pod that is not privileged.
const MASKED: [&str; 7] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

pub(crate) struct Container {
    id: String,
    /// Root file system, configuration and state of runc.
    folder: TempDir,
}

impl Container {
    /// `pod` is the spec of a pod with one container.
    pub(crate) async fn new(pod: &Value) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("nodemend-container-").context("make a folder")?;
        let root = folder.path().join("rootfs");
        fs::create_dir(&root).context("make a folder")?;
        images::unpack("nodemend-detector", &root).await?;
        let id = folder.path().file_name().context("name a container")?;
        let id = id.to_string_lossy().into_owned();
        let config = config(pod, &id, folder.path())?;
        let path = folder.path().join("config.json");
        fs::write(&path, config.to_string()).context("write a bundle")?;
        Ok(Self { id, folder })
    }

    /// For what a test changes of it.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let path = self.folder.path().join("config.json");
        let text = fs::read(&path).context("read a bundle")?;
        let mut config = serde_json::from_slice(&text).context("parse a bundle")?;
        edit(&mut config);
        fs::write(&path, config.to_string()).context("write a bundle")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What is not the host's in a volume.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.folder.path().join("volumes").join(name)
    }

    /// With these arguments instead of the pod's.
    pub(crate) fn with_args(&self, args: &[&str]) -> anyhow::Result<()> {
        self.edit(|config| {
            let entrypoint = config["process"]["args"][0].clone();
            let mut all = vec![entrypoint];
            all.extend(args.iter().map(|&arg| Value::from(arg)));
            config["process"]["args"] = Value::from(all);
        })
    }

    pub(crate) fn run(&self) -> anyhow::Result<Daemon> {
        let (state, bundle) = (self.state(), self.folder.path().display().to_string());
        let args = ["--root", &state, "run", "--bundle", &bundle, &self.id];
        let runc = env::var("NODEMEND_RUNC").context("find runc")?;
        Daemon::start(&runc, &args, &[])
    }

    /// Of its first process, as the host counts.
    pub(crate) fn pid(&self) -> anyhow::Result<u64> {
        let runc = env::var_os("NODEMEND_RUNC").context("find runc")?;
        let output = Command::new(runc)
            .args(["--root", &self.state(), "state", &self.id])
            .output()
            .context("run runc")?;
        let state: Value = serde_json::from_slice(&output.stdout).context("parse a state")?;
        state["pid"].as_u64().context("a container has no process")
    }

    fn state(&self) -> String {
        self.folder.path().join("runc").display().to_string()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let Some(runc) = env::var_os("NODEMEND_RUNC") else {
            return;
        };
        // What has ended is gone already.
        let _deleted = Command::new(runc)
            .args(["--root", &self.state(), "delete", "--force", &self.id])
            .output();
    }
}

fn config(pod: &Value, id: &str, folder: &Path) -> anyhow::Result<Value> {
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    let privileged = security["privileged"] == true;
    let mut args = vec![Value::from("/usr/bin/nodemend-detector")];
    args.extend(container["args"].as_array().into_iter().flatten().cloned());
    let environment: Vec<_> = container["env"]
        .as_array()
        .into_iter()
        .flatten()
        // A reference to a field of the pod is the test's to give.
        .filter_map(|variable| {
            let (name, value) = (variable["name"].as_str()?, variable["value"].as_str()?);
            Some(format!("{name}={value}"))
        })
        .collect();
    let capabilities = if privileged {
        of_this_process()?
    } else {
        let added = security["capabilities"]["add"].as_array();
        let own = of_this_process()?;
        added
            .context("no capability is added")?
            .iter()
            .map(|name| format!("CAP_{}", name.as_str().unwrap_or_default()))
            // A host that does not have it itself cannot give it.
            .filter(|name| own.contains(name))
            .collect()
    };
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "args": args,
            "env": environment,
            "noNewPrivileges": security["allowPrivilegeEscalation"] == false,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": {"path": "rootfs", "readonly": security["readOnlyRootFilesystem"]},
        "mounts": mounts(pod, folder, privileged)?,
        "linux": {
            "cgroupsPath": format!("/{id}"),
            // hostPID and hostNetwork.
            "namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            // Of an unprivileged one runc itself allows null, zero, random and terminals.
            "resources": {"devices": [{"allow": privileged, "access": "rwm"}]},
        },
    });
    if !privileged {
        config["linux"]["maskedPaths"] = json!(MASKED);
        config["linux"]["readonlyPaths"] = json!(READ_ONLY);
    }
    if let Some(profile) = security["seccompProfile"]["localhostProfile"].as_str() {
        let path = nodemend_tests::repo().join("deploy/seccomp").join(profile);
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        config["linux"]["seccomp"] = serde_json::from_slice(&text).context("parse a profile")?;
    }
    Ok(config)
}

fn mounts(pod: &Value, folder: &Path, privileged: bool) -> anyhow::Result<Vec<Value>> {
    let access = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "nodev", access]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}),
    ];
    // As containerd does it from version 2 of cgroups on, and for the first one by hand.
    let bind = |from: &Path, to: &str, access: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", "rprivate", access]});
    mounts.push(bind(Path::new("/sys/fs/cgroup"), "/sys/fs/cgroup", "ro"));
    for mount in pod["containers"][0]["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let (name, to) = (
            &mount["name"],
            mount["mountPath"].as_str().context("a path")?,
        );
        let volumes = pod["volumes"].as_array().into_iter().flatten();
        let volume = volumes.clone().find(|volume| volume["name"] == *name);
        let volume = volume.with_context(|| format!("no volume {name}"))?;
        let host = volume["hostPath"]["path"].as_str();
        let own = folder
            .join("volumes")
            .join(name.as_str().unwrap_or_default());
        // The state is this test's own, not the host's.
        let from = match host {
            Some(host) if mount["readOnly"] == true && Path::new(host).exists() => {
                PathBuf::from(host)
            }
            Some(_) | None => {
                fs::create_dir_all(&own).context("make a volume")?;
                own
            }
        };
        let access = if mount["readOnly"] == true {
            "ro"
        } else {
            "rw"
        };
        mounts.push(bind(&from, to, access));
    }
    Ok(mounts)
}

fn of_this_process() -> anyhow::Result<Vec<String>> {
    let has = rustix::thread::capabilities(None).context("read own capabilities")?;
    let names = has.permitted.iter_names();
    let names: Vec<_> = names.map(|(name, _)| format!("CAP_{name}")).collect();
    ensure!(!names.is_empty(), "this needs root");
    Ok(names)
}
