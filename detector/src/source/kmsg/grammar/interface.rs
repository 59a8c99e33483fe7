//! PURE. Network interfaces: a transmit queue that stands still, and one that cannot be removed.
//!
//! A link that goes down is not here: each driver words it in its own way.

use super::fault::{digits, on_interface, word};
use super::words::is_word;
use super::{Record, What, at_level, interface_name};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    watchdog(record)
        .or_else(|| watchdog_of_cpu(record))
        .or_else(|| leak(record))
}

/// `NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed out`, with ` 5040 ms` at its end since
/// 6.2: the text of a WARN, KERN_INFO or, without a level of its own, 4 (net/sched/sch_generic.c).
fn watchdog(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 6)
        .or_else(|| at_level(record, 4))?
        .strip_prefix("NETDEV WATCHDOG: ")?;
    let (place, rest) = rest.split_once("): transmit queue ")?;
    let (name, driver) = place.split_once(" (")?;
    let queue = queue(rest)?;
    (driver.is_empty() || word(driver)).then_some(())?;
    stuck(name, queue)
}

/// `virtio_net virtio0 eth0: NETDEV WATCHDOG: CPU: 1: transmit queue 0 timed out 5040 ms`, KERN_CRIT
/// since 6.5; `eth0 (virtio_net): ...` in some builds, `eth0: ...` without a parent device.
fn watchdog_of_cpu(record: &Record<'_>) -> Option<What> {
    let (place, rest) = at_level(record, 2)?.split_once(": NETDEV WATCHDOG: CPU: ")?;
    let (cpu, rest) = rest.split_once(": transmit queue ")?;
    let queue = queue(rest)?;
    digits(cpu).then_some(())?;
    let place = place.strip_suffix(" (unregistering)").unwrap_or(place);
    let words: Vec<_> = place.split(' ').collect();
    let name = match words[..] {
        [name] => name,
        [name, driver] if driver.starts_with('(') && driver.ends_with(')') => name,
        [driver, _device, name] if is_word(driver) => name,
        _ => return None,
    };
    stuck(name, queue)
}

/// `0 timed out` or `0 timed out 5040 ms`.
fn queue(text: &str) -> Option<&str> {
    let (queue, rest) = text.split_once(" timed out")?;
    let time = rest
        .strip_prefix(' ')
        .and_then(|rest| rest.strip_suffix(" ms"))
        .is_some_and(digits);
    (digits(queue) && (rest.is_empty() || time)).then_some(queue)
}

fn stuck(name: &str, queue: &str) -> Option<What> {
    let name = interface_name(name)?;
    let message = format!("transmit queue {queue} of {name} timed out");
    Some(on_interface(Reason::NetworkTransmitTimeout, name, &message))
}

/// `unregister_netdevice: waiting for lo to become free. Usage count = 1`, KERN_EMERG
/// (net/core/dev.c).
fn leak(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 0)?.strip_prefix("unregister_netdevice: waiting for ")?;
    let (name, count) = rest.split_once(" to become free. Usage count = ")?;
    let name = interface_name(name).filter(|_| digits(count.strip_prefix('-').unwrap_or(count)))?;
    let message = format!("{name} cannot be removed: {count} references to it are left");
    Some(on_interface(Reason::NetdeviceLeak, name, &message))
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn every_wording_of_a_transmit_timeout_names_its_interface() {
        for (level, text) in [
            (
                6,
                "NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed out",
            ),
            (
                4,
                "NETDEV WATCHDOG: eth0 (ena): transmit queue 7 timed out 5040 ms",
            ),
            (
                2,
                "eth0 (virtio_net): NETDEV WATCHDOG: CPU: 1: transmit queue 0 timed out 5040 ms",
            ),
            (
                2,
                "virtio_net virtio0 eth0: NETDEV WATCHDOG: CPU: 1: transmit queue 0 timed out 5040 ms",
            ),
            (
                2,
                "eth0: NETDEV WATCHDOG: CPU: 27: transmit queue 5 timed out 6352 ms",
            ),
        ] {
            let fault = reads(level, read, text);
            assert_eq!(
                (fault.reason, fault.interface.as_deref()),
                (Reason::NetworkTransmitTimeout, Some("eth0")),
                "{text}"
            );
        }
    }

    #[test]
    fn an_interface_that_cannot_be_removed_is_a_leak() {
        let fault = reads(
            0,
            read,
            "unregister_netdevice: waiting for lo to become free. Usage count = 1",
        );
        assert_eq!(
            (fault.reason, fault.interface.as_deref()),
            (Reason::NetdeviceLeak, Some("lo"))
        );
    }

    #[test]
    fn what_is_no_fault_or_not_whole_does_not_count() {
        for text in [
            "x NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed out",
            "NETDEV WATCHDOG: a/b (e1000e): transmit queue 0 timed out",
            "NETDEV WATCHDOG: abcdefghijklmnop (x): transmit queue 0 timed out",
            "NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed outIN=eth0",
            "e1000e: eth0 NIC Link is Down",
        ] {
            nothing(6, read, text);
        }
        for text in [
            "a b c eth0: NETDEV WATCHDOG: CPU: 1: transmit queue 0 timed out 5 ms",
            "eth0: NETDEV WATCHDOG: CPU: x: transmit queue 0 timed out 5 ms",
            "x:virtio_net virtio0 eth0: NETDEV WATCHDOG: CPU: 1: transmit queue 0 timed out 5 ms",
        ] {
            nothing(2, read, text);
        }
        nothing(
            6,
            read,
            "unregister_netdevice: waiting for lo to become free. Usage count = 1",
        );
        forged_by_names(
            read,
            &[
                "NETDEV WATCHDOG",
                "NETDEV WATCHDOG: eth0 (x): transmit queue 0 timed out",
                "eth0: NETDEV WATCHDOG: CPU: 1: transmit queue 0 timed out 5 ms",
                "unregister_netdevice: waiting for lo to become free. Usage count = 1",
            ],
        );
    }
}
