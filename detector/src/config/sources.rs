//! PURE. `sources`: which are on, and where they are.

use std::time::Duration;

use clap::ValueEnum;

use super::AtStart;
use super::error::Errors;
use super::item::Item;
use crate::args::Interval;
use crate::source::bpf::Hook;

const MOST_CHAINS: usize = 64;
const LONGEST_INTERVAL: Interval = Interval(Duration::from_secs(3600));

pub(super) fn read(item: &Item<'_>, at_start: &mut AtStart, errors: &mut Errors) {
    let sources = item.object(&["kernelLog", "bpf", "nvml", "counters"], errors);
    if let Some(item) = sources.get("kernelLog") {
        at_start.kernel_log = enabled(item, errors);
    }
    if let Some(item) = sources.get("counters") {
        counters(item, at_start, errors);
    }
    if let Some(item) = sources.get("bpf") {
        at_start.disabled_hooks = bpf(item, errors);
    }
    if let Some(item) = sources.get("nvml") {
        let object = item.object(&["enabled", "library", "interval"], errors);
        let nvml = &mut at_start.nvml;
        if let Some(enabled) = object.get("enabled") {
            nvml.enabled = enabled.boolean(errors).unwrap_or(true);
        }
        let library = object.get("library").and_then(|item| item.text(errors));
        nvml.library = library.map(str::to_owned);
        nvml.interval = object
            .get("interval")
            .and_then(|item| item.duration(LONGEST_INTERVAL, errors));
    }
}

fn counters(item: &Item<'_>, at_start: &mut AtStart, errors: &mut Errors) {
    let object = item.object(&["enabled", "allowedFilterChains"], errors);
    let on = object.get("enabled").and_then(|item| item.boolean(errors));
    at_start.counters = on.unwrap_or(true);
    let chains = object.get("allowedFilterChains");
    for chain in chains.map_or_else(Vec::new, |chains| chains.list(MOST_CHAINS, errors)) {
        match chain.text(errors) {
            Some(text) if text.split('/').filter(|part| !part.is_empty()).count() == 2 => {
                at_start.allowed_filter_chains.push(text.to_owned());
            }
            Some(_) => chain.error(errors, "write table/chain, like filter/MY-CHAIN"),
            None => {}
        }
    }
}

fn enabled(item: &Item<'_>, errors: &mut Errors) -> bool {
    item.object(&["enabled"], errors)
        .get("enabled")
        .and_then(|item| item.boolean(errors))
        .unwrap_or(true)
}

/// The hooks that are off: `{hooks: {oom: {enabled: false}}}`.
fn bpf(item: &Item<'_>, errors: &mut Errors) -> Vec<Hook> {
    let names = Hook::ALL.map(Hook::name);
    let object = item.object(&["enabled", "hooks"], errors);
    let on = object
        .get("enabled")
        .and_then(|item| item.boolean(errors))
        .unwrap_or(true);
    if !on {
        if let Some(hooks) = object.get("hooks") {
            hooks.error(errors, "has no effect while sources.bpf.enabled is false");
        }
        return Hook::value_variants().to_vec();
    }
    let Some(hooks) = object.get("hooks") else {
        return Vec::new();
    };
    let hooks = hooks.object(&names, errors);
    let mut off = |hook: &Hook| {
        hooks
            .get(hook.name())
            .is_some_and(|item| !enabled(item, errors))
    };
    Hook::ALL.into_iter().filter(|hook| off(hook)).collect()
}
