//! What the agent keeps of root's power: a privileged pod gives it all of it, and most of that is of
//! no use to it. The same list is what the chart's hardened profile grants.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};
use tracing::warn;

use crate::source::bpf::tracefs;

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

/// While there is one thread: those that it starts have no more. The hooks need tracefs, now and when
/// a module comes later.
pub(crate) fn give_up() {
    let to_mount = match tracefs::mounted() {
        Some(_) => CapabilitySet::empty(),
        None => CapabilitySet::SYS_ADMIN,
    };
    if let Err(error) = keep(to_mount) {
        warn!(%error, "cannot give up capabilities that are not needed");
    }
}

fn keep(more: CapabilitySet) -> io::Result<()> {
    let wanted = KEPT.iter().fold(more, |set, kept| set | kept.set);
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
