//! A real node: containerd and kubelet as processes of this host, in a mount namespace of their own.
//! What they write below /var and /run stays in it, and so do the sysctls that a kubelet sets.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness reads its environment and runs other programs"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::json;
use tempfile::TempDir;

use crate::control_plane::{ControlPlane, program};
use crate::process;

/// The folder of an unpacked containerd and runc.
const CONTAINERD: &str = "NODEMEND_CONTAINERD";
const GRACE: Duration = Duration::from_secs(20);
/// What a kubelet sets, and ends where it may not: files of the namespace, which hold it already.
const SYSCTLS: [(&str, &str); 5] = [
    ("vm/overcommit_memory", "1"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Stopped on drop; what it ran goes with it.
pub struct RealKubelet {
    child: Child,
    folder: TempDir,
    cgroup: String,
}

/// Why there can be none.
pub fn unavailable() -> Option<String> {
    if let Err(error) = containerd().and_then(|_| program("kubelet")) {
        return Some(format!(
            "{error:#}: `cargo xtask test deploy` gets containerd from Debian, and builds kubelet"
        ));
    }
    let name = format!("nodemend-try-{}", std::process::id());
    let tried = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"]
        .iter()
        .map(|root| Path::new(root).join(&name))
        .any(|cgroup| {
            fs::create_dir(&cgroup)
                .and_then(|()| fs::remove_dir(&cgroup))
                .is_ok()
        });
    (!tried).then(|| "a kubelet needs cgroups, and none can be made here".to_owned())
}

impl RealKubelet {
    /// `image` is an OCI layout, and what it is called.
    pub fn start(
        control_plane: &ControlPlane,
        name: &str,
        provider_id: &str,
        image: (&Path, &str),
    ) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("nodemend-node-").context("make a folder")?;
        let cgroup = folder.path().file_name().context("name a cgroup")?;
        let cgroup = cgroup.to_string_lossy().into_owned();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("cni")).context("make a folder")?;
        let network =
            json!({"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]});
        fs::write(at("cni/10-none.conflist"), network.to_string()).context("write a network")?;
        fs::write(at("containerd.toml"), containerd_config(folder.path())?)
            .context("write containerd's configuration")?;
        fs::write(
            at("kubelet.json"),
            kubelet_config(folder.path(), &cgroup).to_string(),
        )
        .context("write kubelet's configuration")?;
        fs::write(
            at("pause.c"),
            "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n",
        )
        .context("write a program")?;
        let (layout, base) = image;
        let script = script(
            folder.path(),
            &cgroup,
            control_plane,
            name,
            provider_id,
            layout,
            base,
        )?;
        fs::write(at("node.sh"), script).context("write a script")?;
        let log = fs::File::create(at("node.log")).context("make a log")?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "/bin/sh", "-eu"])
            .arg(at("node.sh"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share a log")?)
            .stderr(log);
        let child = process::spawn(command)?;
        Ok(Self {
            child,
            folder,
            cgroup,
        })
    }

    /// An error as soon as it has ended.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        while self
            .child
            .try_wait()
            .context("look at a kubelet")?
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("the node has ended")
    }

    pub fn last_words(&self) -> String {
        let text = fs::read(self.folder.path().join("node.log")).unwrap_or_default();
        process::last_lines(&String::from_utf8_lossy(&text))
    }
}

impl Drop for RealKubelet {
    fn drop(&mut self) {
        // It stops the others in their order.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _signalled = pid.map(|pid| rustix::process::kill_process(pid, Signal::TERM));
        let _ended = process::wait_exit(&mut self.child, GRACE);
        let _killed = process::signal_group(self.child.id(), Signal::KILL);
        let _status = self.child.wait();
        remove_cgroups(&self.cgroup);
    }
}

fn containerd() -> anyhow::Result<PathBuf> {
    let folder = env::var_os(CONTAINERD).with_context(|| format!("no {CONTAINERD}"))?;
    let folder = PathBuf::from(folder);
    ensure!(
        folder.join("containerd").is_file(),
        "no containerd in {}",
        folder.display()
    );
    Ok(folder)
}

fn containerd_config(folder: &Path) -> anyhow::Result<String> {
    let folder = folder.display();
    let runc = env::var("NODEMEND_RUNC").context("no NODEMEND_RUNC")?;
    Ok(format!(
        r#"version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
disable_apparmor = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{folder}/cni"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runc}"
"#
    ))
}

fn kubelet_config(folder: &Path, cgroup: &str) -> serde_json::Value {
    let folder = folder.display();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "containerRuntimeEndpoint": format!("unix://{folder}/containerd.sock"),
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "volumePluginDir": format!("{folder}/volume-plugins"),
        "address": "127.0.0.1",
        "port": 0,
        "healthzPort": 0,
        "readOnlyPort": 0,
        "enableServer": false,
        "resolvConf": "",
        "localStorageCapacityIsolation": false,
        "nodeLeaseDurationSeconds": 8,
        "nodeStatusUpdateFrequency": "2s",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
    })
}

fn script(
    folder: &Path,
    cgroup: &str,
    control_plane: &ControlPlane,
    name: &str,
    provider_id: &str,
    layout: &Path,
    base: &str,
) -> anyhow::Result<String> {
    let sysctls: Vec<_> = SYSCTLS
        .iter()
        .map(|(path, value)| format!("{path}={value}"))
        .collect();
    Ok(format!(
        r#"cd {folder}
export PATH={containerd}:$PATH
for at in /var/lib /var/log /run; do mount -t tmpfs tmpfs $at; done
for sysctl in {sysctls}; do
  at=/proc/sys/${{sysctl%=*}}
  [ -e $at ] || continue
  file=$(echo ${{sysctl%=*}} | tr / -)
  echo ${{sysctl#*=}} > $file
  mount --bind $file $at
done
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir /sys/fs/cgroup/{cgroup}
else
  for at in /sys/fs/cgroup/*/; do
    [ -L ${{at%/}} ] || [ ! -e $at/cgroup.procs ] && continue
    mkdir ${{at}}{cgroup}
  done
fi
ended() {{
  kill $kubelet || true
  wait $kubelet || true
  find /sys/fs/cgroup -path '*/{cgroup}/*' -name cgroup.procs -exec cat {{}} + | sort -u | xargs -r kill -9 || true
  kill $containerd || true
  wait $containerd || true
  for shim in $(grep -sl {folder}/containerd.sock /proc/[0-9]*/cmdline | cut -d/ -f3); do
    [ $shim = $$ ] || kill -9 $shim || true
  done
}}
containerd=; kubelet=
trap 'ended; exit 0' TERM
cc -static -o pause pause.c
containerd -c containerd.toml &
containerd=$!
for _ in $(seq 100); do [ -S containerd.sock ] && break; sleep 0.1; done
tar -C {layout} -cf image.tar .
ctr -a containerd.sock -n k8s.io images import --base-name {base} image.tar
mkdir -p root oci/blobs/sha256
cp pause root/
tar -C root -cf layer.tar pause
blob() {{ sum=$(sha256sum $1 | cut -d' ' -f1); cp $1 oci/blobs/sha256/$sum; echo "\"digest\":\"sha256:$sum\",\"size\":$(stat -c %s $1)"; }}
layer=$(blob layer.tar)
printf '{{"architecture":"%s","os":"linux","config":{{"Entrypoint":["/pause"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:%s"]}}}}' {architecture} $(sha256sum layer.tar | cut -d' ' -f1) > config.json
config=$(blob config.json)
printf '{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json",%s}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar",%s}}]}}' "$config" "$layer" > manifest.json
manifest=$(blob manifest.json)
printf '{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s,"annotations":{{"org.opencontainers.image.ref.name":"1"}}}}]}}' "$manifest" > oci/index.json
echo '{{"imageLayoutVersion":"1.0.0"}}' > oci/oci-layout
tar -C oci -cf pause.tar .
ctr -a containerd.sock -n k8s.io images import --base-name localhost/pause pause.tar
{kubelet} --config=kubelet.json --kubeconfig={kubeconfig} --hostname-override={name} \
  --provider-id={provider_id} --root-dir={folder}/kubelet --cert-dir={folder}/pki &
kubelet=$!
wait $kubelet
"#,
        folder = folder.display(),
        containerd = containerd()?.display(),
        sysctls = sysctls.join(" "),
        layout = layout.display(),
        architecture = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        },
        kubelet = program("kubelet")?.display(),
        kubeconfig = control_plane.admin_kubeconfig().display(),
    ))
}

/// The deepest first.
fn remove_cgroups(name: &str) {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup").join(name)];
    for entry in fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        roots.push(entry.path().join(name));
    }
    for root in roots {
        remove_below(&root);
    }
}

fn remove_below(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_below(&entry.path());
        }
    }
    // One that still holds a process stays.
    let _removed = fs::remove_dir(folder);
}
