//! Whose a network namespace is, and what its interfaces are called: by a process that lives in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::signal::{Workload, interface_name};

/// Processes that one walk looks at.
const MOST_PROCESSES: usize = 8192;
/// Namespaces that are remembered; a node has about as many pods.
const MOST_KNOWN: usize = 1024;
/// Between two walks: drops in many namespaces must not keep the reader busy.
const BETWEEN_WALKS: Duration = Duration::from_secs(1);

pub(super) struct NetworkNamespaces {
    proc: PathBuf,
    own: Option<u32>,
    /// A process in each.
    known: BTreeMap<u32, PathBuf>,
    walked: Option<Duration>,
}

impl NetworkNamespaces {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self {
            proc,
            own: inode(Path::new("/proc/self")),
            known: BTreeMap::new(),
            walked: None,
        }
    }

    /// The name of an interface and the pod whose namespace it is in; `netns` is 0 where it is not
    /// known.
    pub(super) fn resolve(
        &mut self,
        netns: u32,
        ifindex: u32,
    ) -> (Option<String>, Option<Workload>) {
        if netns == 0 || Some(netns) == self.own {
            return (interface(Path::new("/proc/self"), ifindex), None);
        }
        let Some(process) = self.process(netns) else {
            return (loopback(ifindex), None);
        };
        (interface(&process, ifindex), workload(&process))
    }

    fn process(&mut self, netns: u32) -> Option<PathBuf> {
        // The number of one that is gone is given to the next.
        let is_there = |process: &PathBuf| inode(process) == Some(netns);
        if let Some(process) = self.known.get(&netns)
            && is_there(process)
        {
            return Some(process.clone());
        }
        let now = clock::boot();
        if self
            .walked
            .is_some_and(|walked| now < walked + BETWEEN_WALKS)
        {
            return None;
        }
        self.walked = Some(now);
        self.walk();
        self.known.get(&netns).cloned()
    }

    fn walk(&mut self) {
        self.known.clear();
        let Ok(processes) = fs::read_dir(&self.proc) else {
            return;
        };
        let paths = processes.flatten().map(|entry| entry.path());
        for path in paths.take(MOST_PROCESSES) {
            if let Some(netns) = inode(&path)
                && self.known.len() < MOST_KNOWN
            {
                self.known.entry(netns).or_insert(path);
            }
        }
    }
}

/// Of a process' network namespace: `net:[4026531840]`.
fn inode(process: &Path) -> Option<u32> {
    let link = fs::read_link(process.join("ns/net")).ok()?;
    link.to_str()?
        .strip_prefix("net:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

fn workload(process: &Path) -> Option<Workload> {
    Workload::from_cgroup_lines(&fs::read_to_string(process.join("cgroup")).ok()?)
}

/// Index 1 is the loopback interface of every namespace.
fn loopback(ifindex: u32) -> Option<String> {
    (ifindex == 1).then(|| "lo".to_owned())
}

/// Each that can receive is a member of a group: `2    eth0    1     0     333300000001`.
fn interface(process: &Path, ifindex: u32) -> Option<String> {
    loopback(ifindex).or_else(|| {
        let text = fs::read_to_string(process.join("net/dev_mcast")).ok()?;
        name_in(&text, ifindex)
    })
}

fn name_in(text: &str, ifindex: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let index: u32 = words.next()?.parse().ok()?;
        (index == ifindex).then(|| interface_name(words.next()?))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_named_by_its_groups() {
        let text = "2    ifb0            1     0     333300000001\n4    eth0            1     0     01005e000001\n4    eth0            1     0     3333ff000001\nx\n5\n";
        assert_eq!(name_in(text, 4), Some("eth0".to_owned()));
        assert_eq!(name_in(text, 5), None);
        assert_eq!(name_in(text, 0), None);
    }

    #[test]
    fn a_namespace_is_found_by_a_process_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join("7");
        fs::create_dir_all(process.join("ns")).unwrap();
        std::os::unix::fs::symlink("net:[4026532001]", process.join("ns/net")).unwrap();
        let uid = "0f1d2c3b-4a59-6877-8695-a4b3c2d1e0f9";
        let cgroup = format!("0::/kubepods/burstable/pod{uid}/{}\n", "a".repeat(64));
        fs::write(process.join("cgroup"), cgroup).unwrap();
        let mut namespaces = NetworkNamespaces::new(folder.path().to_owned());
        let (interface, workload) = namespaces.resolve(4_026_532_001, 1);
        assert_eq!(interface.as_deref(), Some("lo"));
        assert_eq!(workload.unwrap().pod_uid.as_deref(), Some(uid));
        // The process has left it.
        fs::remove_file(process.join("ns/net")).unwrap();
        assert_eq!(namespaces.resolve(4_026_532_001, 9), (None, None));
    }
}
