//! PURE. PCIe Advanced Error Reporting.

use super::super::record::Record;
use super::at_level;
use super::words::{are_words, is_word, only};
use crate::reason::Reason;
use crate::signal::LogFault;

/// `nvme 0000:01:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)`, with
/// `AER: ` before it in some kernels, `Correctable` and `Uncorrectable` since 6.7, `CXL` for `PCIe` of a
/// CXL device's link in newer ones (7.2 does, 6.12 does not); KERN_WARNING if
/// corrected (KERN_ERR before 5.8), else KERN_ERR (drivers/pci/pcie/aer.c). The line before it, `AER:
/// Corrected error received`, is of the same event.
pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 3).or_else(|| at_level(record, 4))?;
    let (driver, rest) = line.split_once(' ')?;
    let (address, rest) = rest.split_once(": ")?;
    let rest = rest.strip_prefix("AER: ").unwrap_or(rest);
    let (severity, rest) = rest
        .strip_prefix("PCIe")
        .or_else(|| rest.strip_prefix("CXL"))?
        .strip_prefix(" Bus Error: severity=")?
        .split_once(", type=")?;
    let (layer, agent) = rest.split_once(", (")?;
    let reason = match severity {
        "Corrected" | "Correctable" => Reason::PcieCorrectedError,
        "Uncorrected (Non-Fatal)" | "Uncorrectable (Non-Fatal)" => Reason::PcieNonFatalError,
        "Uncorrected (Fatal)" | "Uncorrectable (Fatal)" => Reason::PcieFatalError,
        _ => return None,
    };
    let fits = is_word(driver) && are_words(layer) && are_words(agent.strip_suffix(')')?);
    if !fits || (reason != Reason::PcieCorrectedError && record.level == Some(4)) {
        return None;
    }
    let device = pci_address(address)?;
    let message = format!("PCIe error of {device} ({driver}): {severity}, {layer}");
    Some(LogFault {
        device: Some(device.clone()),
        ..LogFault::new(reason, device, message)
    })
}

/// `0000:01:00.0`; domains of virtual machines can be longer than 16 bits.
fn pci_address(text: &str) -> Option<String> {
    let (place, function) = text.split_once('.')?;
    let parts: Vec<_> = place.split(':').collect();
    let [domain, bus, device] = parts[..] else {
        return None;
    };
    let is_hex = |part: &str| only(part, |b| b.is_ascii_hexdigit());
    let fits = (4..=8).contains(&domain.len())
        && bus.len() == 2
        && device.len() == 2
        && function.len() == 1
        && [domain, bus, device, function].into_iter().all(is_hex);
    fits.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{logged, logged_at};
    use super::*;

    #[test]
    fn an_error_names_its_device_and_severity_in_all_wordings() {
        for (level, text, reason) in [
            (
                4,
                "nvme 0000:01:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",
                Reason::PcieCorrectedError,
            ),
            (
                4,
                "nvme 0000:01:00.0: AER: PCIe Bus Error: severity=Correctable, type=Data Link Layer, (Transmitter ID)",
                Reason::PcieCorrectedError,
            ),
            (
                3,
                "pcieport 0000:01:00.0: AER: PCIe Bus Error: severity=Uncorrected (Non-Fatal), type=Transaction Layer, (Requester ID)",
                Reason::PcieNonFatalError,
            ),
            (
                3,
                "pcieport 0000:01:00.0: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Inaccessible, (Unregistered Agent ID)",
                Reason::PcieFatalError,
            ),
            (
                3,
                "cxl_pci 0000:01:00.0: AER: CXL Bus Error: severity=Uncorrectable (Fatal), type=Inaccessible, (Unregistered Agent ID)",
                Reason::PcieFatalError,
            ),
        ] {
            let fault = logged(level, text);
            assert_eq!(
                (fault.reason, fault.device.as_deref()),
                (reason, Some("0000:01:00.0")),
                "{text}"
            );
        }
    }

    #[test]
    fn what_only_resembles_an_error_of_pcie_does_not_count() {
        const TAIL: &str = "PCIe Bus Error: severity=Uncorrected (Fatal), type=Inaccessible, (Unregistered Agent ID)";
        for (level, text) in [
            (3, format!("nvme 0000:01:00: {TAIL}")),
            (3, format!("nvme ../../01:00.0: {TAIL}")),
            (3, format!("a b 0000:01:00.0: {TAIL}")),
            (3, format!("nvme 0000:01:00.0: {TAIL} x")),
            (4, format!("nvme 0000:01:00.0: {TAIL}")),
            (6, format!("nvme 0000:01:00.0: {TAIL}")),
            (
                6,
                "pcieport 0000:00:1c.0: AER: Corrected error received: 0000:00:1c.0".to_owned(),
            ),
            (
                3,
                "nvme 0000:01:00.0: PCIe Bus Error: severity=Great, type=Inaccessible, (Unregistered Agent ID)".to_owned(),
            ),
        ] {
            assert_eq!(logged_at(level, &text), None, "{text}");
        }
    }
}
