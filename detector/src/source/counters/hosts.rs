//! What each kind of host has, as docs/hosts.md says, on folders that have the files of one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::files::{Files, Roots};
use crate::host_log;

const HOSTS: [&str; 5] = ["AL2023", "Bottlerocket", "Ubuntu", "Debian", "Flatcar"];

/// What all nodes have.
const NODE: &[&str] = &[
    "var/lib/kubelet/pki/kubelet-client-current.pem",
    "run/containerd/containerd.sock",
    "run/systemd/system/x",
    "var/log/pods/kube-system_kube-proxy-abc_u/kube-proxy/0.log",
    "usr/lib/systemd/network/99-default.link",
];
const JOURNAL: &str = "log/journal/0123456789abcdef0123456789abcdef/system.journal";
const VPC_CNI: &str = "run/aws-node/ipam.json";
const POLICY_AGENT: &str = "usr/lib/systemd/system/aws-network-policy-agent.service";

/// The journal is in memory where the host keeps none on disk.
fn files(host: &str) -> Vec<String> {
    let on_disk = format!("var/{JOURNAL}");
    let own: &[&str] = match host {
        "AL2023" | "Ubuntu" => &[&on_disk, VPC_CNI],
        "Bottlerocket" => &[&on_disk, VPC_CNI, POLICY_AGENT],
        "Debian" | "Flatcar" => &[&on_disk],
        other => panic!("{other}"),
    };
    let all = NODE.iter().chain(own);
    all.map(|&path| path.to_owned()).collect()
}

/// cgroup v1 and v2, both with a container of a pod.
const CGROUPS: [&str; 2] = [
    "kubepods.slice/kubepods-podu.slice/cri-containerd-c.scope/pids.events",
    "pids/kubepods.slice/kubepods-podu.slice/cri-containerd-c.scope/pids.events",
];

fn make(root: &Path, path: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "x").unwrap();
}

/// By row of the page: whether the host has it.
fn found(host: &str, cgroup: &str) -> BTreeMap<String, bool> {
    let folder = tempfile::tempdir().unwrap();
    let proc = folder.path().join("proc");
    let root = proc.join("1/root");
    for path in files(host) {
        make(&root, &path);
    }
    make(&root, &format!("sys/fs/cgroup/{cgroup}"));
    let roots = Roots::find(&proc, &folder.path().join("sys"));
    let counters = super::all(&roots, &args(&proc));
    let mut found: BTreeMap<String, bool> = counters
        .iter()
        .map(|counter| {
            let files = Files::read(&roots, counter.wants());
            (format!("`{}`", counter.name()), files.any())
        })
        .collect();
    let journal = ["var", "run"].map(|place| root.join(place).join("log/journal"));
    found.insert(
        "journal of kubelet, containerd, systemd".to_owned(),
        journal.iter().any(|folder| folder.is_dir()),
    );
    let cron = host_log::FILES.iter().find(|path| path.contains("cron"));
    let cron = root.join(cron.unwrap().trim_start_matches('/'));
    found.insert("cron's log file".to_owned(), cron.exists());
    found
}

fn args(proc: &Path) -> crate::args::SourceArgs {
    use clap::Parser;
    let proc = proc.display().to_string();
    let cli = crate::args::Cli::parse_from(["nodemend-detector", "check", "--host-proc", &proc]);
    match cli.command {
        crate::args::Command::Check { sources, .. } => sources,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_host_has_what_docs_hosts_md_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hosts.md");
    let page = fs::read_to_string(page).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect())
        .collect();
    assert_eq!(
        rows[0],
        ["check"].iter().chain(&HOSTS).copied().collect::<Vec<_>>()
    );
    assert!(rows.len() >= 12, "{rows:?}");
    for (index, host) in HOSTS.iter().enumerate() {
        for cgroup in CGROUPS {
            let found = found(host, cgroup);
            for row in &rows[1..] {
                let there = found.get(row[0]).unwrap_or_else(|| panic!("{}", row[0]));
                let said = match row[index + 1] {
                    "yes" => true,
                    "absent" => false,
                    other => panic!("{other}"),
                };
                assert_eq!(*there, said, "{host}: {}", row[0]);
            }
        }
    }
}
