//! PURE. Jobs that cron starts: `(user) CMD (command)`.

use super::shown;
use crate::reason::Reason;
use crate::signal::LogFault;

/// rsyslog's.
pub(super) const LOG: &str = "/var/log/cron.log";

pub(super) fn read(line: &str) -> Option<LogFault> {
    let (before, command) = line.split_once(") CMD (")?;
    let (_, user) = before.rsplit_once('(')?;
    let command = command.trim_end().strip_suffix(')')?;
    let entity = shown(&format!("{user}: {command}"));
    let message = format!("cron starts this more often than every 5 minutes: {entity}");
    Some(LogFault::new(Reason::RapidCron, entity, message))
}
