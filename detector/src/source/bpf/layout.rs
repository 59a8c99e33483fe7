//! Where this kernel keeps what the programs read, and which variant of each hook fits it.

use std::collections::HashMap;

use detector_ebpf::CopyRule;

use super::btf::{Btf, BtfError};
use super::fields::Format;
use super::hook::Hook;
use super::tasks;
use super::traced::{EVENTS, Event};
use super::tracefs::Tracefs;

/// One way to attach to an event. They are tried in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variant {
    pub program: &'static str,
    pub attach: Attach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attach {
    /// `tp_btf`: typed arguments, only for events of vmlinux itself.
    Btf(&'static str),
    /// The classic tracepoint: category and event.
    Classic(&'static str, &'static str),
    /// Run over all objects of a kind whenever user space reads it.
    Iterator(&'static str),
}

impl std::fmt::Display for Attach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Btf(event) => write!(f, "tp_btf {event}"),
            Self::Classic(category, event) => write!(f, "tracepoint {category}:{event}"),
            Self::Iterator(over) => write!(f, "iter {over}"),
        }
    }
}

/// Why a hook cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    /// The kernel does not have the event, or not before its module is loaded.
    Absent(String),
    /// It has it, but not as it is needed.
    Unfit(String),
}

impl Missing {
    pub(super) fn why(&self) -> String {
        let (Self::Absent(why) | Self::Unfit(why)) = self;
        why.clone()
    }
}

/// An event whose records are copied, and how.
pub(super) struct Copied {
    pub event: &'static Event,
    pub format: Format,
    pub rule: CopyRule,
}

/// The values of the programs' globals, the variants of each hook, and the names of drop reasons.
pub(super) struct Layout {
    pub globals: Vec<(&'static str, u32)>,
    pub copied: Vec<Copied>,
    variants: HashMap<Hook, Vec<Variant>>,
    missing: HashMap<Hook, Missing>,
    /// Index: raw `enum skb_drop_reason`; names without `SKB_DROP_REASON_`.
    pub drop_reasons: Vec<String>,
}

impl Layout {
    pub(super) fn variants(&self, hook: Hook) -> &[Variant] {
        self.variants
            .get(&hook)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Why a hook has no variant at all on this kernel.
    pub(super) fn missing(&self, hook: Hook) -> Option<&Missing> {
        self.missing.get(&hook)
    }

    pub(super) fn resolve(btf: &Btf<'_>, tracefs: &Tracefs) -> Self {
        let mut layout = Self {
            globals: Vec::new(),
            copied: Vec::new(),
            variants: HashMap::new(),
            missing: HashMap::new(),
            drop_reasons: Vec::new(),
        };
        let task = task_offsets(btf);
        layout.oom(btf, tracefs, &task);
        layout.hung_task(btf, tracefs, &task);
        layout.blocked_task(btf, &task);
        layout.block_io(tracefs);
        layout.net_drop(btf, tracefs);
        layout.crash(tracefs, &task);
        layout.console(btf);
        layout.rcu_stall(tracefs);
        layout.copied(tracefs);
        if let Ok(offsets) = task {
            layout.globals.extend(offsets);
            // Without these it stays unknown which limit a victim had reached.
            layout
                .globals
                .extend(memory_offsets(btf).unwrap_or_default());
        }
        layout
    }

    fn offer(&mut self, hook: Hook, program: &'static str, attach: Attach) {
        self.variants
            .entry(hook)
            .or_default()
            .push(Variant { program, attach });
    }

    fn oom(
        &mut self,
        btf: &Btf<'_>,
        tracefs: &Tracefs,
        task: &Result<Vec<(&'static str, u32)>, BtfError>,
    ) {
        // Kernels without the 2024 backport pass a pid only.
        let takes_task = btf
            .tracepoint_arguments("mark_victim")
            .is_ok_and(|arguments| arguments.first() == Some(&Some("task_struct".to_owned())));
        if takes_task && task.is_ok() {
            self.offer(Hook::Oom, "oom_task", Attach::Btf("mark_victim"));
        }
        match offsets(tracefs, "oom", "mark_victim", ["pid"]) {
            Ok([pid]) => {
                self.globals.push(("OOM_PID", pid));
                self.offer(Hook::Oom, "oom_pid", Attach::Classic("oom", "mark_victim"));
            }
            Err(why) => drop(self.missing.insert(Hook::Oom, why)),
        }
    }

    fn hung_task(
        &mut self,
        btf: &Btf<'_>,
        tracefs: &Tracefs,
        task: &Result<Vec<(&'static str, u32)>, BtfError>,
    ) {
        if task.is_ok() && btf.tracepoint_arguments("sched_process_hang").is_ok() {
            self.offer(
                Hook::HungTask,
                "hung_task",
                Attach::Btf("sched_process_hang"),
            );
        }
        let format = event(tracefs, "sched", "sched_process_hang");
        match format.and_then(|format| {
            let unfit = |name| no_field("sched", "sched_process_hang", name);
            let field = |name| format.field(name).ok_or_else(|| unfit(name));
            Ok((field("pid")?, field("comm")?))
        }) {
            Ok((pid, comm)) => {
                self.globals.extend([
                    ("HANG_PID", pid.offset),
                    ("HANG_COMM", comm.offset),
                    ("HANG_COMM_DYNAMIC", u32::from(comm.dynamic)),
                ]);
                self.offer(
                    Hook::HungTask,
                    "hung_pid",
                    Attach::Classic("sched", "sched_process_hang"),
                );
            }
            // The event exists only with CONFIG_DETECT_HUNG_TASK.
            Err(why) => drop(self.missing.insert(Hook::HungTask, why)),
        }
    }

    fn blocked_task(&mut self, btf: &Btf<'_>, task: &Result<Vec<(&'static str, u32)>, BtfError>) {
        let usable = match task {
            Ok(_) => tasks::offsets(btf).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let usable = usable.and_then(|offsets| tasks::sees_the_host().map(|()| offsets));
        match usable {
            Ok(offsets) => {
                self.globals.extend(offsets);
                self.offer(Hook::BlockedTask, tasks::PROGRAM, Attach::Iterator("task"));
            }
            Err(why) => drop(self.missing.insert(Hook::BlockedTask, Missing::Unfit(why))),
        }
    }

    fn block_io(&mut self, tracefs: &Tracefs) {
        const FIELDS: [&str; 5] = ["dev", "sector", "nr_sector", "error", "rwbs"];
        const GLOBALS: [&str; 5] = [
            "BLOCK_DEV",
            "BLOCK_SECTOR",
            "BLOCK_SECTORS",
            "BLOCK_ERROR",
            "BLOCK_RWBS",
        ];
        // Of one event class in every kernel, so whichever is there gives the offsets of both.
        for (program, name) in [
            ("block_rq_error", "block_rq_error"),
            ("block_rq_complete", "block_rq_complete"),
        ] {
            match offsets(tracefs, "block", name, FIELDS) {
                Ok(offsets) => {
                    if self.variants(Hook::BlockIo).is_empty() {
                        self.globals.extend(GLOBALS.into_iter().zip(offsets));
                    }
                    self.offer(Hook::BlockIo, program, Attach::Classic("block", name));
                }
                Err(why) => drop(self.missing.insert(Hook::BlockIo, why)),
            }
        }
    }

    fn net_drop(&mut self, btf: &Btf<'_>, tracefs: &Tracefs) {
        match drop_reasons(btf) {
            Ok(names) => self.drop_reasons = names,
            Err(error) => {
                // Before 5.17 drops have no reason: counting them all would only count noise.
                self.missing
                    .insert(Hook::NetDrop, Missing::Absent(error.to_string()));
                return;
            }
        }
        let arguments = btf
            .tracepoint_arguments("kfree_skb")
            .map(|arguments| arguments.len())
            .unwrap_or(0);
        let types = || -> Result<_, BtfError> {
            Ok([
                ("SKB_IIF", btf.offset("sk_buff", &["skb_iif"])?),
                ("SKB_DEV", btf.offset("sk_buff", &["dev"])?),
                ("DEV_IFINDEX", btf.offset("net_device", &["ifindex"])?),
                ("DEV_NET", btf.offset("net_device", &["nd_net", "net"])?),
                ("SOCK_NUM", btf.offset("sock", &["__sk_common", "skc_num"])?),
                (
                    "SOCK_NET",
                    btf.offset("sock", &["__sk_common", "skc_net", "net"])?,
                ),
                ("NET_INUM", btf.offset("net", &["ns", "inum"])?),
            ])
        };
        if let Ok(types) = types() {
            self.globals.extend(types);
            if arguments >= 4 {
                self.offer(Hook::NetDrop, "net_drop_socket", Attach::Btf("kfree_skb"));
            }
            if arguments == 3 {
                self.offer(Hook::NetDrop, "net_drop", Attach::Btf("kfree_skb"));
            }
        }
        match offsets(tracefs, "skb", "kfree_skb", ["reason", "skbaddr"]) {
            Ok([reason, packet]) => {
                self.globals
                    .extend([("KFREE_REASON", reason), ("KFREE_SKB", packet)]);
                self.offer(
                    Hook::NetDrop,
                    "net_drop_classic",
                    Attach::Classic("skb", "kfree_skb"),
                );
            }
            Err(why) => drop(self.missing.insert(Hook::NetDrop, why)),
        }
    }

    fn crash(&mut self, tracefs: &Tracefs, task: &Result<Vec<(&'static str, u32)>, BtfError>) {
        // The event does not say whose signal it is.
        if let Err(error) = task {
            let why = Missing::Unfit(error.to_string());
            self.missing.insert(Hook::Crash, why);
            return;
        }
        match offsets(tracefs, "signal", "signal_deliver", ["sig", "sa_handler"]) {
            Ok([signal, handler]) => {
                self.globals
                    .extend([("SIGNAL_NUMBER", signal), ("SIGNAL_HANDLER", handler)]);
                let attach = Attach::Classic("signal", "signal_deliver");
                self.offer(Hook::Crash, "signal_deliver", attach);
            }
            Err(why) => drop(self.missing.insert(Hook::Crash, why)),
        }
    }

    /// Before 5.19 it sees only what the console prints, in the console's form.
    fn console(&mut self, btf: &Btf<'_>) {
        let whole = kernel_version().is_some_and(|version| version >= (5, 19));
        if !whole {
            let why = "printk:console has every line since Linux 5.19 only";
            self.missing
                .insert(Hook::Console, Missing::Absent(why.to_owned()));
            return;
        }
        match btf.tracepoint_arguments("console") {
            Ok(_) => self.offer(Hook::Console, "console", Attach::Btf("console")),
            Err(error) => {
                let why = Missing::Absent(error.to_string());
                self.missing.insert(Hook::Console, why);
            }
        }
    }

    fn rcu_stall(&mut self, tracefs: &Tracefs) {
        match offsets(tracefs, "rcu", "rcu_stall_warning", ["rcuname", "msg"]) {
            Ok([name, message]) => {
                self.globals
                    .extend([("RCU_NAME", name), ("RCU_MESSAGE", message)]);
                let attach = Attach::Classic("rcu", "rcu_stall_warning");
                self.offer(Hook::RcuStall, "rcu_stall_warning", attach);
            }
            Err(why) => drop(self.missing.insert(Hook::RcuStall, why)),
        }
    }

    fn copied(&mut self, tracefs: &Tracefs) {
        for event in EVENTS {
            match Copied::resolve(event, tracefs) {
                Ok(copied) => {
                    let attach = Attach::Classic(event.category, event.name);
                    self.offer(event.hook, event.name, attach);
                    self.copied.push(copied);
                }
                Err(why) => drop(self.missing.insert(event.hook, why)),
            }
        }
    }
}

impl Copied {
    pub(super) fn resolve(event: &'static Event, tracefs: &Tracefs) -> Result<Self, Missing> {
        let format = self::event(tracefs, event.category, event.name).map_err(|why| {
            match (why, event.module) {
                (Missing::Absent(why), Some(module)) => {
                    Missing::Absent(format!("{why}: it comes with the module {module}"))
                }
                (why, _) => why,
            }
        })?;
        let rule = event.rule(&format).map_err(Missing::Unfit)?;
        Ok(Self {
            event,
            format,
            rule,
        })
    }
}

fn event(tracefs: &Tracefs, category: &str, name: &str) -> Result<Format, Missing> {
    match tracefs.format(category, name) {
        Ok(Some(format)) => Ok(format),
        Ok(None) => Err(Missing::Absent(format!(
            "this kernel has no tracepoint {category}:{name}"
        ))),
        Err(error) => Err(Missing::Unfit(format!("{error:#}"))),
    }
}

fn offsets<const N: usize>(
    tracefs: &Tracefs,
    category: &str,
    name: &str,
    fields: [&str; N],
) -> Result<[u32; N], Missing> {
    let format = event(tracefs, category, name)?;
    let mut offsets = [0; N];
    for (offset, field) in offsets.iter_mut().zip(fields) {
        *offset = format
            .field(field)
            .ok_or_else(|| no_field(category, name, field))?
            .offset;
    }
    Ok(offsets)
}

fn no_field(category: &str, event: &str, field: &str) -> Missing {
    Missing::Unfit(format!(
        "the tracepoint {category}:{event} has no field `{field}`"
    ))
}

/// `6.18.5-aws` is (6, 18).
fn kernel_version() -> Option<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.trim().split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn task_offsets(btf: &Btf<'_>) -> Result<Vec<(&'static str, u32)>, BtfError> {
    let memory = btf
        .enum_values("cgroup_subsys_id")?
        .into_iter()
        .find(|(name, _)| name == "memory_cgrp_id")
        .and_then(|(_, value)| u32::try_from(value).ok())
        .ok_or_else(|| BtfError::Absent("memory_cgrp_id (CONFIG_MEMCG)".to_owned()))?;
    // Renamed in 6.18.
    let parent = btf
        .offset("kernfs_node", &["parent"])
        .or_else(|_| btf.offset("kernfs_node", &["__parent"]))?;
    Ok(vec![
        ("TASK_PID", btf.offset("task_struct", &["pid"])?),
        ("TASK_TGID", btf.offset("task_struct", &["tgid"])?),
        ("TASK_COMM", btf.offset("task_struct", &["comm"])?),
        ("TASK_CGROUPS", btf.offset("task_struct", &["cgroups"])?),
        (
            "CSS_SET_MEMORY",
            btf.offset("css_set", &["subsys"])? + 8 * memory,
        ),
        (
            "CSS_CGROUP",
            btf.offset("cgroup_subsys_state", &["cgroup"])?,
        ),
        ("CGROUP_KN", btf.offset("cgroup", &["kn"])?),
        ("KN_NAME", btf.offset("kernfs_node", &["name"])?),
        ("KN_PARENT", parent),
    ])
}

fn memory_offsets(btf: &Btf<'_>) -> Option<[(&'static str, u32); 3]> {
    let of = |path: &[&str]| btf.offset("mem_cgroup", path).ok();
    // The programs take the css for the mem_cgroup that it begins.
    if of(&["css"])? != 0 {
        return None;
    }
    let parent = btf.offset("cgroup_subsys_state", &["parent"]).ok()?;
    Some([
        ("CSS_PARENT", parent),
        ("MEMCG_USAGE", of(&["memory", "usage"])?),
        ("MEMCG_MAX", of(&["memory", "max"])?),
    ])
}

fn drop_reasons(btf: &Btf<'_>) -> Result<Vec<String>, BtfError> {
    let mut names = Vec::new();
    for (name, value) in btf.enum_values("skb_drop_reason")? {
        let Some(name) = name.strip_prefix("SKB_DROP_REASON_") else {
            continue;
        };
        // The last value is a mask.
        let Some(index) = usize::try_from(value).ok().filter(|&index| index < 1024) else {
            continue;
        };
        if names.len() <= index {
            names.resize(index + 1, String::new());
        }
        name.clone_into(&mut names[index]);
    }
    Ok(names)
}
