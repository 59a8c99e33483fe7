//! What the agent keeps of root's power: a privileged pod gives it all of it, and most of that is of
//! no use to it. The same list is what the chart's hardened profile grants.

use std::io;
use std::path::Path;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};
use tracing::warn;

use crate::source::bpf::tracefs;
use crate::source::counters::has_ebs_volumes;

pub(crate) struct Kept {
    pub name: &'static str,
    set: CapabilitySet,
    /// What is lost without it.
    pub lost: &'static str,
}

const fn kept(name: &'static str, set: CapabilitySet, lost: &'static str) -> Kept {
    Kept { name, set, lost }
}

pub(crate) const KEPT: [Kept; 9] = [
    kept("BPF", CapabilitySet::BPF, "no hook can be loaded"),
    kept("PERFMON", CapabilitySet::PERFMON, "no hook can be attached"),
    kept(
        "SYSLOG",
        CapabilitySet::SYSLOG,
        "the kernel log cannot be read, and waits of blocked tasks have no names",
    ),
    kept(
        "SYS_PTRACE",
        CapabilitySet::SYS_PTRACE,
        "the root of process 1 cannot be looked at: no log files, no journal, no probe of a mount",
    ),
    kept(
        "DAC_READ_SEARCH",
        CapabilitySet::DAC_READ_SEARCH,
        "folders that root does not own cannot be looked into",
    ),
    kept(
        "NET_ADMIN",
        CapabilitySet::NET_ADMIN,
        "packet filters cannot be read",
    ),
    kept(
        "SYS_NICE",
        CapabilitySet::SYS_NICE,
        "a busy node delays what is found",
    ),
    kept(
        "IPC_LOCK",
        CapabilitySet::IPC_LOCK,
        "a node without memory, or without its disk, delays what is found",
    ),
    kept(
        "SYS_RESOURCE",
        CapabilitySet::SYS_RESOURCE,
        "before Linux 5.11 no hook can be loaded; the agent is killed like any other for want of memory",
    ),
];

/// Log pages of an NVMe controller are for nobody else (`nvme_cmd_allowed` in drivers/nvme/host/ioctl.c).
const OF_EBS: Kept = kept(
    "SYS_ADMIN",
    CapabilitySet::SYS_ADMIN,
    "how long EBS's volumes are above their limits cannot be asked",
);

/// What is of use on this host.
pub(crate) fn useful(host_sys: &Path) -> impl Iterator<Item = &'static Kept> {
    let of_ebs = has_ebs_volumes(host_sys).then_some(&OF_EBS);
    KEPT.iter().chain(of_ebs)
}

/// While there is one thread: those that it starts have no more. The hooks need tracefs, now and when
/// a module comes later.
pub(crate) fn give_up(host_sys: &Path) {
    let to_mount = match tracefs::mounted() {
        Some(_) => CapabilitySet::empty(),
        None => CapabilitySet::SYS_ADMIN,
    };
    let wanted = useful(host_sys).fold(to_mount, |set, kept| set | kept.set);
    if let Err(error) = keep(wanted) {
        warn!(%error, "cannot give up capabilities that are not needed");
    }
}

fn keep(wanted: CapabilitySet) -> io::Result<()> {
    // What a program that it starts can get. A later kernel may have more than these.
    for capability in (CapabilitySet::all() - wanted).iter() {
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    let has = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: has.effective & wanted,
            permitted: has.permitted & wanted,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// Whether the calling thread has it, or what is lost.
pub(crate) fn held(kept: &Kept) -> Result<String, String> {
    let has = capabilities(None).map_err(|error| format!("capget: {error}"))?;
    if has.effective.contains(kept.set) {
        Ok("held".to_owned())
    } else {
        Err(format!("CAP_{} is missing: {}", kept.name, kept.lost))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_only_ebs_needs_is_kept_where_there_is_ebs() {
        let sys = tempfile::tempdir().unwrap();
        let names = || -> Vec<_> { useful(sys.path()).map(|kept| kept.name).collect() };
        assert!(!names().contains(&"SYS_ADMIN"));
        for (controller, model, needed) in [
            ("nvme0", "Some other disk\n", false),
            ("nvme1", "Amazon Elastic Block Store              \n", true),
        ] {
            let folder = sys.path().join("class/nvme").join(controller);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("model"), model).unwrap();
            assert_eq!(names().contains(&"SYS_ADMIN"), needed, "{model}");
        }
    }
}
