//! PURE. `detector.yaml`: text in; a configuration, or everything that is wrong with it, out.
//! docs/configuration.md describes the format.

use std::sync::Arc;
use std::time::Duration;

use crate::core::Settings;
use crate::export::Coexistence;
use crate::reason::ConditionType;
use crate::rules::{Live, LogRules};
use crate::signal::What;
use crate::source::bpf::Hook;
use crate::text;

mod document;
mod error;
mod filter;
mod item;
mod log_rules;
mod reasons;
mod sources;

use self::error::Errors;
pub(crate) use self::error::{ConfigError, Place};
use self::filter::Filter;
use self::item::Item;

/// Everything that the file can say. What it does not say stays as the flags have it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub settings: Settings,
    pub critical_mounts: Option<Vec<String>>,
    pub scope: Scope,
    pub rules: Arc<LogRules>,
    pub at_start: AtStart,
}

/// Which devices and interfaces count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    devices: Filter,
    interfaces: Filter,
}

/// What is read once: a change waits for the next start of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AtStart {
    pub kernel_log: bool,
    pub disabled_hooks: Vec<Hook>,
    pub nvml: NvmlConfig,
    pub counters: bool,
    /// Beside those that the flags allow.
    pub allowed_filter_chains: Vec<String>,
    pub coexistence: Option<Coexistence>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NvmlConfig {
    pub enabled: bool,
    pub library: Option<String>,
    pub interval: Option<Duration>,
}

/// A ConfigMap holds no more.
pub(crate) const FILE_LIMIT: usize = 1 << 20;

const KEYS: &[&str] = &[
    "reasons",
    "xids",
    "ownFatalReasons",
    "sources",
    "criticalMounts",
    "criticalProcesses",
    "devices",
    "interfaces",
    "coexistence",
    "logRules",
];
const MOST_MOUNTS: usize = 64;
const MOST_PROCESSES: usize = 64;
/// TASK_COMM_LEN, without the NUL.
const LONGEST_COMM: usize = 15;

/// All or nothing.
pub(crate) fn parse(bytes: &[u8]) -> Result<Config, Vec<ConfigError>> {
    let mut errors = Errors::default();
    let config = read(bytes, &mut errors);
    match config {
        Some(config) if errors.is_empty() => Ok(config),
        _ => Err(errors.into_list()),
    }
}

fn read(bytes: &[u8], errors: &mut Errors) -> Option<Config> {
    let whole = |message: String| ConfigError {
        path: String::new(),
        place: Place::default(),
        message,
    };
    if bytes.len() > FILE_LIMIT {
        errors.add(whole(format!("larger than {FILE_LIMIT} bytes")));
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            errors.add(whole(format!("not UTF-8: {error}")));
            return None;
        }
    };
    let Some(root) = document::parse(text, errors) else {
        return Some(Config::default());
    };
    let root = Item::root(&root).object(KEYS, errors);
    let own_fatal_reasons = root
        .get("ownFatalReasons")
        .and_then(|item| item.boolean(errors))
        .unwrap_or(true);
    let mut settings = Settings {
        own_fatal_reasons,
        ..Settings::default()
    };
    if let Some(item) = root.get("criticalProcesses") {
        for item in item.list(MOST_PROCESSES, errors) {
            let Some(name) = item.text(errors) else {
                continue;
            };
            if name.len() > LONGEST_COMM {
                let why = format!("the kernel keeps {LONGEST_COMM} bytes of a process' name");
                item.error(errors, why);
            }
            settings.critical_processes.insert(name.to_owned());
        }
    }
    let log_rules = root.get("logRules");
    let rules = log_rules
        .map(|item| log_rules::read(item, &mut settings, errors))
        .unwrap_or_default();
    settings.custom = rules.iter().map(|rule| rule.reason()).collect();
    let xids = root
        .get("xids")
        .map(|item| reasons::xids(item, &mut settings, errors))
        .unwrap_or_default();
    if let Some(item) = root.get("reasons") {
        reasons::read(item, &xids, &rules, &mut settings, errors);
    }
    let mut filter = |key| {
        root.get(key)
            .map(|item| filter::read(item, errors))
            .unwrap_or_default()
    };
    let scope = Scope {
        devices: filter("devices"),
        interfaces: filter("interfaces"),
    };
    let critical_mounts = root.get("criticalMounts").map(|item| {
        let items = item.list(MOST_MOUNTS, errors);
        let paths: Vec<_> = items.iter().filter_map(|item| item.path(errors)).collect();
        if paths.is_empty() {
            item.error(errors, "at least one path");
        }
        paths
    });
    let mut at_start = AtStart::default();
    if let Some(item) = root.get("sources") {
        sources::read(item, &mut at_start, errors);
    }
    if let Some(coexistence) = root.get("coexistence").and_then(|item| {
        let choice = [
            ("Shadow", Coexistence::Shadow),
            ("Refuse", Coexistence::Refuse),
        ];
        item.choice("mode", &choice, errors)
    }) {
        at_start.coexistence = Some(coexistence);
    }
    Some(Config {
        settings,
        critical_mounts,
        scope,
        rules: Arc::new(rules.with_host_logs()),
        at_start,
    })
}

impl Default for Config {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            critical_mounts: None,
            scope: Scope::default(),
            rules: Arc::new(LogRules::default().with_host_logs()),
            at_start: AtStart::default(),
        }
    }
}

impl Config {
    /// Which conditions the log rules look after depends on the logs that this agent reads.
    pub(crate) fn feed(&mut self, live: Live) {
        self.settings.fed_by_rules = self.rules.conditions(live);
    }
}

impl Scope {
    /// Whether the file lets this count.
    pub(crate) fn admits(&self, what: &What) -> bool {
        match what {
            What::BlockError { disk, .. } => disk
                .name
                .as_deref()
                .is_none_or(|name| self.devices.admits(name)),
            What::Ext4Error { device, .. }
            | What::RemountedReadOnly { device }
            | What::BlockLine { disk: device, .. } => self.devices.admits(device),
            What::Logged(fault) | What::Traced { fault, .. } | What::Counted { fault, .. } => {
                let fits = |name: &Option<String>, filter: &Filter| {
                    name.as_deref().is_none_or(|name| filter.admits(name))
                };
                // Devices that are no disks have addresses, which no one means by `devices`.
                let disk = fault.reason.row().condition == ConditionType::StorageReady;
                (!disk || fits(&fault.device, &self.devices))
                    && fits(&fault.interface, &self.interfaces)
            }
            What::PacketDrops { interface, .. } => interface
                .as_deref()
                .is_none_or(|name| self.interfaces.admits(name)),
            What::OomKill { .. }
            | What::HungTask { .. }
            | What::Crash { .. }
            | What::SoftLockup { .. }
            | What::Stolen { .. }
            | What::Restarts { .. }
            | What::Xid { .. }
            | What::FallenOff { .. }
            | What::Sxid { .. }
            | What::Gpu { .. }
            | What::Nvml(_)
            | What::LogRule { .. }
            | What::Configuration { .. }
            | What::UnexpectedBoot { .. }
            | What::BlockedTask(_)
            | What::Lost { .. }
            | What::Overrun { .. } => true,
        }
    }
}

impl AtStart {
    /// The keys in which `new` differs; empty: nothing waits for a restart.
    pub(crate) fn differs_in(&self, new: &Self) -> Vec<&'static str> {
        let keys = [
            ("sources.kernelLog", self.kernel_log != new.kernel_log),
            ("sources.bpf", self.disabled_hooks != new.disabled_hooks),
            ("sources.nvml", self.nvml != new.nvml),
            (
                "sources.counters",
                self.counters != new.counters
                    || self.allowed_filter_chains != new.allowed_filter_chains,
            ),
            ("coexistence", self.coexistence != new.coexistence),
        ];
        let changed = keys.into_iter().filter(|(_, changed)| *changed);
        changed.map(|(key, _)| key).collect()
    }
}

impl Default for AtStart {
    fn default() -> Self {
        Self {
            kernel_log: true,
            disabled_hooks: Vec::new(),
            nvml: NvmlConfig {
                enabled: true,
                library: None,
                interval: None,
            },
            counters: true,
            allowed_filter_chains: Vec::new(),
            coexistence: None,
        }
    }
}

/// In one line, as it goes into an Event.
pub(crate) fn summary(errors: &[ConfigError]) -> String {
    const LIMIT: usize = 700;
    let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
    text::bounded(&all.join("; "), LIMIT)
}

#[cfg(test)]
mod tests;
