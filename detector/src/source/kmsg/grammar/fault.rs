//! PURE. Puts a line that fits its grammar into words, and checks the pieces that lines are made of.

use crate::reason::Reason;
use crate::signal::{LogFault, What};
use crate::text;

pub(super) fn on_device(reason: Reason, device: String, message: &str) -> What {
    What::Logged(LogFault::on_device(reason, device, shown(message)))
}

pub(super) fn on_interface(reason: Reason, interface: String, message: &str) -> What {
    What::Logged(LogFault::on_interface(reason, interface, shown(message)))
}

pub(super) fn on(reason: Reason, entity: String, message: &str) -> What {
    What::Logged(fault(reason, entity, message))
}

pub(super) fn fault(reason: Reason, entity: String, message: &str) -> LogFault {
    LogFault::new(reason, entity, shown(message))
}

pub(super) fn shown(text: &str) -> String {
    text::part(text, 240)
}

/// A decimal number of any size.
pub(super) fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `-5` as well.
pub(super) fn errno(text: &str) -> bool {
    digits(text.strip_prefix('-').unwrap_or(text))
}

/// `0x1f`, or `0`, as `%#x` prints it.
pub(super) fn hex(text: &str) -> bool {
    let number = text.strip_prefix("0x").unwrap_or(text);
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Names and numbers without a space, for example `xfs_agf_verify+0x83/0xb0`, `[xfs]`.
pub(super) fn word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A PCI function, `0000:00:1c.0`.
pub(super) fn pci_function(text: &str) -> bool {
    let Some((device, function)) = text.rsplit_once('.') else {
        return false;
    };
    crate::signal::gpu_name(device).is_some() && function.len() == 1 && digits(function)
}
