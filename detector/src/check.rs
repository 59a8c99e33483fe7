//! `nodemend-detector check`: what this host supports, and the remedy for what it does not.

use serde_json::{Value, json};

use crate::args::{Format, SourceArgs};
use crate::host::Host;
use crate::reason::ConditionType;

/// Prints the table; false when nothing at all can be watched here.
pub(crate) fn check(args: &SourceArgs, format: Format) -> bool {
    let host = Host::open(args);
    let monitored = host.monitored();
    let mut rows: Vec<(String, Option<String>, Option<String>)> = host
        .hooks
        .iter()
        .map(|status| {
            (
                format!("hook {}", status.hook.name()),
                status.using.clone(),
                status.missing.clone(),
            )
        })
        .collect();
    rows.push((
        "source kernel log".to_owned(),
        host.kernel_log.is_ok().then(|| "/dev/kmsg".to_owned()),
        host.kernel_log.err(),
    ));
    rows.extend(ConditionType::ALL.into_iter().map(|condition| {
        let watched = monitored.contains(&condition);
        let absent = || "not published: what it needs above is missing".to_owned();
        (
            format!("condition {}", condition.name()),
            watched.then(|| "published".to_owned()),
            (!watched).then(absent),
        )
    }));
    let usable = rows.iter().any(|(_, using, _)| using.is_some());
    match format {
        Format::Json => {
            let rows: Vec<Value> = rows
                .into_iter()
                .map(|(what, using, missing)| json!({"what": what, "using": using, "missing": missing}))
                .collect();
            println!("{}", Value::from(rows));
        }
        Format::Text => {
            for (what, using, missing) in rows {
                let using = using.unwrap_or_else(|| "NOT WATCHED".to_owned());
                let missing = missing
                    .map(|missing| format!("  ({missing})"))
                    .unwrap_or_default();
                println!("{what:<27} {using}{missing}");
            }
        }
    }
    usable
}
