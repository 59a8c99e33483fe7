//! PURE. PCIe hot plug: `pcieport 0000:00:1c.0: pciehp: Slot(5): Link Down`, KERN_INFO
//! (drivers/pci/hotplug/pciehp_ctrl.c). A link that comes up is no fault.

use super::fault::{hex, on_device, pci_function};
use super::{Record, What, at_level};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    let (port, rest) = match record.text.strip_prefix("pcieport ") {
        Some(rest) => rest.split_once(": pciehp: Slot(")?,
        // Before 4.20 `pciehp 0000:00:1c.0:pcie004: Slot(5): Link Down`.
        None => {
            let (port, rest) = record.text.strip_prefix("pciehp ")?.split_once(": Slot(")?;
            (port.split_once(":pcie")?.0, rest)
        }
    };
    let (slot, state) = rest.split_once("): ")?;
    let slot_fits = (1..=20).contains(&slot.len())
        && slot.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let gone = at_level(record, 6).is_some() && matches!(state, "Link Down" | "Card not present");
    // KERN_ERR before 5.19.
    let untrained = (at_level(record, 6).is_some() || at_level(record, 3).is_some())
        && state
            .strip_prefix("Cannot train link: status ")
            .is_some_and(hex);
    let broken = untrained || at_level(record, 3).is_some() && state == "Power fault";
    let message = format!("PCIe slot {slot} below {port}: {state}");
    (slot_fits && pci_function(port) && (gone || broken))
        .then(|| on_device(Reason::PcieLinkDown, port.to_owned(), &message))
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn a_link_that_goes_down_is_of_its_port() {
        for (level, text) in [
            (6, "pcieport 0000:00:1c.0: pciehp: Slot(5): Link Down"),
            (
                6,
                "pcieport 0000:00:1c.0: pciehp: Slot(0-1): Card not present",
            ),
            (6, "pciehp 0000:00:1c.0:pcie004: Slot(5): Link Down"),
            (
                6,
                "pcieport 0000:00:1c.0: pciehp: Slot(1-1): Cannot train link: status 0x2000",
            ),
            (
                3,
                "pcieport 0000:00:1c.0: pciehp: Slot(5): Cannot train link: status 0x0001",
            ),
            (3, "pcieport 0000:00:1c.0: pciehp: Slot(5): Power fault"),
        ] {
            let fault = reads(level, read, text);
            assert_eq!(
                (fault.reason, fault.device.as_deref()),
                (Reason::PcieLinkDown, Some("0000:00:1c.0")),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_fault_or_not_whole_does_not_count() {
        for text in [
            "pcieport 0000:00:1c.0: pciehp: Slot(5): Link Up",
            "pcieport 0000:00:1c.0: pciehp: Slot(5): Card present",
            "pcieport 0000:00:1c.0: pciehp: Slot(5): Link Down IN=eth0",
            "pcieport 0000:00:1c: pciehp: Slot(5): Link Down",
            "pcieport ../x: pciehp: Slot(5): Link Down",
            "x pcieport 0000:00:1c.0: pciehp: Slot(5): Link Down",
        ] {
            nothing(6, read, text);
        }
        nothing(4, read, "pcieport 0000:00:1c.0: pciehp: Slot(5): Link Down");
        forged_by_names(
            read,
            &[
                "pcieport 0000:0",
                "pcieport 0000:00:1c.0: pciehp: Slot(5): Link Down",
            ],
        );
    }
}
