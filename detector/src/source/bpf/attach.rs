//! Attaches each hook by the first variant that the kernel takes.

use anyhow::Context;
use aya::maps::Array;
use aya::programs::{BtfTracePoint, Iter, TracePoint};
use aya::{Btf as AyaBtf, Ebpf};
use detector_ebpf::CopyRule;
use tracing::{debug, info, warn};
use zerocopy::transmute;

use super::fields::Format;
use super::hook::{Hook, HookStatus};
use super::layout::{Attach, Copied, Layout, Missing, Variant};
use super::tasks;
use super::traced::Event;
use super::tracefs::Tracefs;

/// Tries the variants in order; each refusal is kept for the status.
pub(super) fn hook(
    programs: &mut Ebpf,
    types: &AyaBtf,
    layout: &Layout,
    hook: Hook,
    disabled: &[String],
) -> HookStatus {
    let missing = layout.missing(hook);
    let mut refused: Vec<String> = missing.map(Missing::why).into_iter().collect();
    for variant in layout.variants(hook) {
        let name = variant.attach.to_string();
        if disabled.contains(&name) {
            refused.push(format!("{name}: disabled by --disable-variant"));
            continue;
        }
        match attach(programs, Some(types), variant) {
            Ok(()) => {
                let missing = (!refused.is_empty()).then(|| refused.join("; "));
                return HookStatus {
                    hook,
                    using: Some(name),
                    missing,
                    absent: false,
                };
            }
            Err(error) => {
                let error = format!("{error:#}");
                debug!(variant = name, error, "refused");
                refused.push(format!("{name}: {}", first_line(&error)));
            }
        }
    }
    HookStatus {
        hook,
        using: None,
        missing: Some(refused.join("; ")),
        absent: matches!(missing, Some(Missing::Absent(_))) && layout.variants(hook).is_empty(),
    }
}

fn attach(programs: &mut Ebpf, types: Option<&AyaBtf>, variant: &Variant) -> anyhow::Result<()> {
    let program = programs
        .program_mut(variant.program)
        .context("not in the BPF object")?;
    match variant.attach {
        Attach::Btf(event) => {
            let program: &mut BtfTracePoint = program.try_into().context("wrong program type")?;
            let types = types.context("the types of the kernel are gone")?;
            program.load(event, types).context("load")?;
            program.attach().context("attach")?;
        }
        Attach::Classic(category, event) => {
            let program: &mut TracePoint = program.try_into().context("wrong program type")?;
            program.load().context("load")?;
            program.attach(category, event).context("attach")?;
        }
        Attach::Iterator(over) => {
            let program: &mut Iter = program.try_into().context("wrong program type")?;
            let types = types.context("the types of the kernel are gone")?;
            program.load(over, types).context("load")?;
            // Each scan attaches it anew: this one only shows that it can be.
            tasks::open(program)?;
        }
    }
    Ok(())
}

/// Attaches what a module has brought; what cannot be had is logged.
pub(super) fn late(
    programs: &mut Ebpf,
    loaded: &[&'static Event],
    tracefs: &Tracefs,
) -> Vec<(&'static Event, Format)> {
    loaded
        .iter()
        .filter_map(|&event| match attach_copied(programs, event, tracefs) {
            Ok((format, attach)) => {
                info!(hook = event.hook.name(), using = %attach, "attached");
                Some((event, format))
            }
            Err(error) => {
                let missing = format!("{error:#}");
                let missing = first_line(&missing);
                warn!(hook = event.hook.name(), missing, "not watched");
                None
            }
        })
        .collect()
}

fn attach_copied(
    programs: &mut Ebpf,
    event: &'static Event,
    tracefs: &Tracefs,
) -> anyhow::Result<(Format, Attach)> {
    let copied =
        Copied::resolve(event, tracefs).map_err(|missing| anyhow::Error::msg(missing.why()))?;
    set_rule(programs, &copied)?;
    let variant = Variant {
        program: event.name,
        attach: Attach::Classic(event.category, event.name),
    };
    attach(programs, None, &variant)?;
    Ok((copied.format, variant.attach))
}

/// Before its program runs.
pub(super) fn set_rule(programs: &mut Ebpf, copied: &Copied) -> anyhow::Result<()> {
    let map = programs
        .map_mut("COPY_RULES")
        .context("find the map COPY_RULES in the BPF object")?;
    let mut rules: Array<_, [u8; size_of::<CopyRule>()]> =
        Array::try_from(map).context("open the map of copied events")?;
    let rule: [u8; size_of::<CopyRule>()] = transmute!(copied.rule);
    rules
        .set(copied.event.kind as u32, rule, 0)
        .with_context(|| format!("say where the fields of {} are", copied.event.name))
}

/// A verifier log has hundreds of lines.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
