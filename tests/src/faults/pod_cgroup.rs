//! Cgroups as kubelet and the container runtime make them, and what their limits do: OOM kills and
//! refused forks.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::boot_clock;
use super::victim::Victim;

/// Enough for a process to be killed in and little enough to be quick.
const LIMIT: u64 = 8 << 20;
/// Processes and threads.
const MOST_PIDS: u64 = 4;

/// The cgroups of one container of one pod. Dropping it removes them.
pub struct PodCgroup {
    container_id: String,
    /// Where the memory limit is.
    container: PathBuf,
    /// Where processes are put: the container's cgroup, or one below.
    leaf: PathBuf,
    /// From the outermost inwards.
    made: Vec<PathBuf>,
    v2: bool,
}

/// A process that the OOM killer ended.
#[derive(Debug, Clone)]
pub struct Killed {
    pub pid: u32,
    /// When it began to allocate; the kill is some milliseconds later.
    pub at: Duration,
}

impl PodCgroup {
    /// As kubelet's systemd driver and containerd name them:
    /// `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice/cri-containerd-<64 hex>.scope`.
    pub fn systemd(pod_uid: &str) -> anyhow::Result<Self> {
        let id = new_container_id();
        let pod = format!("kubepods-burstable-pod{}.slice", pod_uid.replace('-', "_"));
        let scope = format!("cri-containerd-{id}.scope");
        Self::make(
            id,
            &["kubepods.slice", "kubepods-burstable.slice", &pod, &scope],
            &[],
        )
    }

    /// The same, but the limit is that of the pod: its container has none.
    pub fn limited_pod(pod_uid: &str) -> anyhow::Result<Self> {
        let cgroup = Self::systemd(pod_uid)?;
        let pod = cgroup.container.parent().map(Path::to_owned);
        cgroup.set_limit(&pod.context("find the cgroup of a pod")?, Some(LIMIT))?;
        cgroup.set_limit(&cgroup.container.clone(), None)?;
        Ok(cgroup)
    }

    /// As the cgroupfs driver names them: `kubepods/burstable/pod<uid>/<64 hex>`.
    pub fn cgroupfs(pod_uid: &str) -> anyhow::Result<Self> {
        let id = new_container_id();
        let pod = format!("pod{pod_uid}");
        Self::make(id.clone(), &["kubepods", "burstable", &pod, &id], &[])
    }

    /// As [`PodCgroup::systemd`], with cgroups that the container made for itself below its own;
    /// the killed processes are in the innermost.
    pub fn nested(pod_uid: &str, below: &[&str]) -> anyhow::Result<Self> {
        let id = new_container_id();
        let pod = format!("kubepods-burstable-pod{}.slice", pod_uid.replace('-', "_"));
        let scope = format!("cri-containerd-{id}.scope");
        Self::make(
            id,
            &["kubepods.slice", "kubepods-burstable.slice", &pod, &scope],
            below,
        )
    }

    /// As [`PodCgroup::systemd`], but what is limited is the number of its processes.
    pub fn with_few_pids(pod_uid: &str) -> anyhow::Result<Self> {
        let id = new_container_id();
        let pod = format!("kubepods-burstable-pod{}.slice", pod_uid.replace('-', "_"));
        let scope = format!("cri-containerd-{id}.scope");
        let cgroup = Self::make_below(
            "pids",
            id,
            &["kubepods.slice", "kubepods-burstable.slice", &pod, &scope],
        )?;
        let max = cgroup.container.join("pids.max");
        fs::write(&max, MOST_PIDS.to_string())
            .with_context(|| format!("write {}", max.display()))?;
        Ok(cgroup)
    }

    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// The container's cgroup.
    pub fn path(&self) -> &Path {
        &self.container
    }

    /// Puts a process with this name into the cgroup and lets it allocate until it is killed. May
    /// be called again.
    pub fn oom_kill(&self, comm: &str) -> anyhow::Result<Killed> {
        let mut victim = Victim::start("allocate", comm, None)?;
        self.take(&victim)?;
        let at = boot_clock();
        victim.go()?;
        victim
            .wait_for_signal(Signal::KILL)
            .context("wait for the OOM killer")?;
        Ok(Killed {
            pid: victim.pid(),
            at,
        })
    }

    /// Puts a process with this name into the cgroup and lets it end itself by SIGABRT. Returns its
    /// pid.
    pub fn abort(&self, comm: &str) -> anyhow::Result<u32> {
        let mut victim = Victim::start("abort", comm, None)?;
        self.take(&victim)?;
        victim.go()?;
        victim
            .wait_for_signal(Signal::ABORT)
            .context("wait for the abort")?;
        Ok(victim.pid())
    }

    /// While a process, `nodemend-fault`, waits in the cgroup.
    pub fn with_process<T>(&self, run: impl FnOnce(u32) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut victim = Victim::start("abort", "ended", None)?;
        self.take(&victim)?;
        let result = run(victim.pid());
        victim.go()?;
        victim
            .wait_for_signal(Signal::ABORT)
            .context("wait for its end")?;
        result
    }

    /// Puts a process with this name into the cgroup and lets it start threads until it is refused one
    /// several times.
    pub fn fork_beyond(&self, comm: &str) -> anyhow::Result<()> {
        let mut victim = Victim::start("fork", comm, None)?;
        self.take(&victim)?;
        victim.go()?;
        victim.wait_for_success()
    }

    pub(super) fn take(&self, victim: &Victim) -> anyhow::Result<()> {
        self.put(victim.pid())
    }

    pub(super) fn put(&self, pid: u32) -> anyhow::Result<()> {
        let procs = self.leaf.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).with_context(|| format!("write {}", procs.display()))
    }

    fn make(container_id: String, names: &[&str], below: &[&str]) -> anyhow::Result<Self> {
        let mut cgroup = Self::make_below("memory", container_id, names)?;
        cgroup.set_limit(&cgroup.container, Some(LIMIT))?;
        for name in below {
            cgroup.descend("memory", name)?;
        }
        Ok(cgroup)
    }

    fn make_below(controller: &str, container_id: String, names: &[&str]) -> anyhow::Result<Self> {
        let (root, v2) = hierarchy(controller)?;
        let mut cgroup = Self {
            container_id,
            container: root.clone(),
            leaf: root,
            made: Vec::new(),
            v2,
        };
        for name in names {
            cgroup.descend(controller, name)?;
        }
        cgroup.container = cgroup.leaf.clone();
        Ok(cgroup)
    }

    /// `None`: no limit.
    fn set_limit(&self, folder: &Path, limit: Option<u64>) -> anyhow::Result<()> {
        let (file, swap, none) = if self.v2 {
            ("memory.max", "memory.swap.max", "max")
        } else {
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "-1")
        };
        let write = |file: &str, value: &str| {
            let path = folder.join(file);
            fs::write(&path, value).with_context(|| format!("write {}", path.display()))
        };
        let limit = limit.map_or_else(|| none.to_owned(), |limit| limit.to_string());
        // Without swap accounting in the kernel there is no such file, and no swap in the way.
        let swap = Some(swap).filter(|swap| folder.join(swap).exists());
        match swap {
            // With both in one unit, the limit of memory must not be above the other.
            Some(swap) if !self.v2 && limit == none => {
                write(swap, none)?;
                write(file, none)
            }
            Some(swap) => {
                write(file, &limit)?;
                write(swap, if self.v2 { "0" } else { &limit })
            }
            None => write(file, &limit),
        }
    }

    fn descend(&mut self, controller: &str, name: &str) -> anyhow::Result<()> {
        if self.v2 {
            let control = self.leaf.join("cgroup.subtree_control");
            fs::write(&control, format!("+{controller}"))
                .with_context(|| format!("write {}", control.display()))?;
        }
        let path = self.leaf.join(name);
        match fs::create_dir(&path) {
            Ok(()) => self.made.push(path.clone()),
            // The classes of pods are shared, and may be kubelet's own.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("create the cgroup {}", path.display()));
            }
        }
        self.leaf = path;
        Ok(())
    }
}

impl Drop for PodCgroup {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            remove(path);
        }
    }
}

/// A cgroup stays busy for a moment after its last process was reaped.
fn remove(path: &Path) {
    for _ in 0..100 {
        match fs::remove_dir(path) {
            Ok(()) => return,
            Err(error)
                if error.kind() == std::io::ErrorKind::ResourceBusy && !has_children(path) =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            // In use by somebody else by now, or gone.
            Err(_) => return,
        }
    }
    eprintln!(
        "could not remove the cgroup {}: it stays busy",
        path.display()
    );
}

fn has_children(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()))
}

/// The root of the hierarchy with this controller, and whether it is cgroup v2.
fn hierarchy(controller: &str) -> anyhow::Result<(PathBuf, bool)> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(point), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let point = PathBuf::from(point);
        if kind == "cgroup" && options.split(',').any(|option| option == controller) {
            return Ok((point, false));
        }
        let controllers =
            || fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default();
        if kind == "cgroup2"
            && controllers()
                .split_whitespace()
                .any(|name| name == controller)
        {
            return Ok((point, true));
        }
    }
    bail!("find the {controller} controller: no cgroup hierarchy with it is mounted")
}

fn new_container_id() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    (0..4)
        .map(|_| format!("{:016x}", RandomState::new().build_hasher().finish()))
        .collect()
}
