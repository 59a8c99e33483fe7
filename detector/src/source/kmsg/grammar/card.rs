//! PURE. Network cards that fail, in the words of their drivers: mlx5, ena, e1000e, igb, igc, ixgbe.
//!
//! Not here: links that go down, which a cable does too, and commands that the firmware refuses
//! (`mlx5_cmd_out_err`), which is mostly the answer to a question of some tool.

use super::fault::{digits, hex, on, on_device, on_interface, pci_function};
use super::words::is_word;
use super::{Record, What, at_level, interface_name, number};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    mlx5(record)
        .or_else(|| ena(record))
        .or_else(|| intel(record))
}

/// `mlx5_core 0000:5c:00.0: poll_health:739:(pid 0): text`
/// (drivers/net/ethernet/mellanox/mlx5/core/mlx5_core.h).
fn mlx5(record: &Record<'_>) -> Option<What> {
    let (address, rest) = record.text.strip_prefix("mlx5_core ")?.split_once(": ")?;
    let (place, text) = rest.split_once(": ")?;
    if !pci_function(address) || !is_place(place) {
        return None;
    }
    if at_level(record, 4).is_some()
        && let Some(watts) = text.strip_prefix("Detected insufficient power on the PCIe slot (")
    {
        let watts = watts.strip_suffix("W).").filter(|watts| digits(watts))?;
        let message = format!("the PCIe slot of {address} promises {watts} W, less than it needs");
        let reason = Reason::PcieSlotPowerLow;
        return Some(on_device(reason, address.to_owned(), &message));
    }
    let fails = at_level(record, 3).is_some() && (is_dead(text) || is_module_error(text))
        || at_level(record, 4).is_some() && is_lost_command(text)
        || is_health_report(text, record.level);
    let message = format!("network card {address}: {text}");
    fails.then(|| on(Reason::NetworkHardwareError, address.to_owned(), &message))
}

/// `function:123:(pid 7)`.
fn is_place(text: &str) -> bool {
    let mut parts = text.split(':');
    let (function, line, task, end) = (parts.next(), parts.next(), parts.next(), parts.next());
    let pid = task.and_then(|task| task.strip_prefix("(pid ")?.strip_suffix(')'));
    function.is_some_and(is_word)
        && line.is_some_and(digits)
        && pid.is_some_and(digits)
        && end.is_none()
}

/// KERN_ERR (mlx5/core/health.c).
fn is_dead(text: &str) -> bool {
    let error = text
        .strip_prefix("Fatal error ")
        .and_then(|rest| rest.strip_suffix(" detected"));
    error.is_some_and(digits)
        || matches!(
            text,
            "device's health compromised - reached miss count"
                | "health recovery flow aborted, PCI reads still not working"
                | "PCI slot is unavailable"
        )
}

/// `Port module event[error]: module 0, Cable error, High Temperature`, KERN_ERR
/// (mlx5/core/events.c): the transceiver in the port.
fn is_module_error(text: &str) -> bool {
    const ERRORS: [&str; 10] = [
        "Power budget exceeded",
        "Long Range for non MLNX cable",
        "Bus stuck(I2C or data shorted)",
        "No EEPROM/retry timeout",
        "Enforce part number list",
        "Unknown identifier",
        "High Temperature",
        "Bad or shorted cable/module",
        "One or more network ports have been powered down due to insufficient/unadvertised power on the PCIe slot",
        "Unknown error",
    ];
    text.strip_prefix("Port module event[error]: module ")
        .and_then(|rest| rest.split_once(", Cable error, "))
        .is_some_and(|(module, error)| digits(module) && ERRORS.contains(&error))
}

/// `ACCESS_REG(0x805) timeout. Will cause a leak of a command resource`, since 5.10 also `cmd[7]:
/// ACCESS_REG(0x805) Async, timeout. ...`, KERN_WARNING (mlx5/core/cmd.c): the firmware does not
/// answer.
fn is_lost_command(text: &str) -> bool {
    let command = || {
        let command = text.strip_suffix(" timeout. Will cause a leak of a command resource")?;
        let command = command.strip_suffix(" Async,").unwrap_or(command);
        let Some(numbered) = command.strip_prefix("cmd[") else {
            return Some(command);
        };
        let (index, command) = numbered.split_once("]: ")?;
        digits(index).then_some(command)
    };
    command()
        .and_then(|command| command.strip_suffix(')')?.split_once('('))
        .is_some_and(|(name, code)| is_word(name) && code.starts_with("0x") && hex(code))
}

/// `Health issue observed, firmware internal error, severity(3) ERROR:`, at the level that it names,
/// or KERN_ERR in older kernels (mlx5/core/health.c). Warnings are about what can go on.
fn is_health_report(text: &str, level: Option<u32>) -> bool {
    const NAMES: [&str; 4] = ["EMERGENCY", "ALERT", "CRITICAL", "ERROR"];
    let severity = || {
        let rest = text.strip_prefix("Health issue observed, ")?;
        let (what, rest) = rest.split_once(", severity(")?;
        let (severity, name) = rest.strip_suffix(':')?.split_once(") ")?;
        let severity = number(severity)?;
        let known = NAMES.get(usize::try_from(severity).ok()?)? == &name;
        (super::words::are_words(what) && known).then_some(severity)
    };
    severity().is_some_and(|severity| level.is_none_or(|level| level == severity || level == 3))
}

/// `ena 0000:00:05.0 eth0: Keep alive watchdog timeout.`, KERN_ERR
/// (drivers/net/ethernet/amazon/ena/ena_netdev.c): the card that AWS gives an instance.
fn ena(record: &Record<'_>) -> Option<What> {
    let (card, text) = Card::of(at_level(record, 3)?, "ena")?;
    let fails = matches!(
        text,
        "Keep alive watchdog timeout."
            | "ENA admin queue is not in running state!"
            | "Reset attempt failed. Can not reset the device"
    ) || is_lost_completion(text).is_some()
        || is_lost_interrupt(text).is_some();
    fails.then(|| card.failed(text))
}

/// `The number of lost tx completions is above the threshold (129 > 128). Reset the device`, since 6.9
/// `Lost TX completions are above the threshold (129 > 128). Completion transmission timeout: 5000000.`
fn is_lost_completion(text: &str) -> Option<()> {
    let (begin, rest) = text.split_once(" above the threshold (")?;
    let (counts, rest) = rest.split_once("). ")?;
    let (lost, allowed) = counts.split_once(" > ")?;
    let known = match begin {
        "The number of lost tx completions is" => rest == "Reset the device",
        "Lost TX completions are" => rest
            .strip_prefix("Completion transmission timeout: ")
            .is_some_and(|rest| rest.strip_suffix('.').is_some_and(digits)),
        _ => false,
    };
    (known && digits(lost) && digits(allowed)).then_some(())
}

/// `Potential MSIX issue on Rx side Queue = 3. Reset the device`.
fn is_lost_interrupt(text: &str) -> Option<()> {
    let (side, rest) = text
        .strip_prefix("Potential MSIX issue on ")?
        .split_once(" side Queue = ")?;
    let queue = rest.strip_suffix(". Reset the device")?;
    (matches!(side, "Rx" | "Tx") && digits(queue)).then_some(())
}

/// `e1000e 0000:00:1f.6 eno1: Detected Hardware Unit Hang:`, `igb 0000:01:00.0: Detected Tx Unit
/// Hang`, in one record with the registers; `PCIe link lost, device now detached` where even those
/// cannot be read. KERN_ERR (drivers/net/ethernet/intel). Not `PCIe link lost` alone: igb says it of
/// a card that sleeps.
fn intel(record: &Record<'_>) -> Option<What> {
    let text = at_level(record, 3)?;
    let (driver, _) = text.split_once(' ')?;
    let hang: &[&str] = match driver {
        "e1000e" => &["Detected Hardware Unit Hang:"],
        "igb" | "igc" => &[
            "Detected Tx Unit Hang",
            "PCIe link lost, device now detached",
        ],
        "ixgbe" => &["Detected Tx Unit Hang", "Detected Tx Unit Hang (XDP)"],
        _ => return None,
    };
    let (card, text) = Card::of(text, driver)?;
    let (head, registers) = match text.split_once("\\x0a") {
        Some((head, registers)) => (head, registers),
        None => (text, ""),
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b" <>_[].,:-\\".contains(&b);
    (hang.contains(&head) && registers.bytes().all(fits)).then(|| card.failed(head))
}

/// How a driver names its card: `driver 0000:00:05.0 eth0: `, without the interface where there is
/// none yet.
struct Card<'a> {
    address: &'a str,
    interface: Option<String>,
}

impl<'a> Card<'a> {
    /// With the text that follows.
    fn of(text: &'a str, driver: &str) -> Option<(Self, &'a str)> {
        let (place, text) = text
            .strip_prefix(driver)?
            .strip_prefix(' ')?
            .split_once(": ")?;
        let (address, interface) = match place.split_once(' ') {
            Some((address, interface)) => (address, Some(interface_name(interface)?)),
            None => (place, None),
        };
        let card = Self { address, interface };
        pci_function(address).then_some((card, text))
    }

    fn failed(self, text: &str) -> What {
        let message = format!(
            "network card {}: {}",
            self.address,
            text.trim_end_matches(':')
        );
        let reason = Reason::NetworkHardwareError;
        match self.interface {
            Some(interface) => on_interface(reason, interface, &message),
            None => on(reason, self.address.to_owned(), &message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn a_mellanox_card_that_fails_is_named_by_its_address() {
        for (level, text) in [
            (
                3,
                "mlx5_core 0000:5c:00.0: poll_health:739:(pid 0): device's health compromised - reached miss count",
            ),
            (
                3,
                "mlx5_core 0000:5c:00.0: poll_health:800:(pid 0): Fatal error 1 detected",
            ),
            (
                3,
                "mlx5_core 0000:5c:00.0: print_health_info:431:(pid 0): Health issue observed, firmware internal error, severity(3) ERROR:",
            ),
            (
                2,
                "mlx5_core 0000:5c:00.0: print_health_info:431:(pid 0): Health issue observed, unrecoverable hardware error, severity(2) CRITICAL:",
            ),
            (
                4,
                "mlx5_core 0000:5c:00.0: wait_func:1171:(pid 812): ACCESS_REG(0x805) timeout. Will cause a leak of a command resource",
            ),
            (
                4,
                "mlx5_core 0000:5c:00.0: cb_timeout_handler:877:(pid 812): cmd[7]: ACCESS_REG(0x805) Async, timeout. Will cause a leak of a command resource",
            ),
            (
                3,
                "mlx5_core 0000:5c:00.0: print_health_info:431:(pid 0): PCI slot is unavailable",
            ),
            (
                3,
                "mlx5_core 0000:5c:00.0: print_health_info:431:(pid 0): Health issue observed, High temperature, severity(2) CRITICAL:",
            ),
            (
                3,
                "mlx5_core 0000:5c:00.0: port_module:252:(pid 0): Port module event[error]: module 0, Cable error, High Temperature",
            ),
        ] {
            let fault = reads(level, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::NetworkHardwareError, "0000:5c:00.0"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_slot_with_too_little_power_is_told_apart() {
        let fault = reads(
            4,
            read,
            "mlx5_core 0000:5c:00.0: mlx5_pcie_event:299:(pid 268269): Detected insufficient power on the PCIe slot (27W).",
        );
        assert_eq!(
            (fault.reason, fault.device.as_deref()),
            (Reason::PcieSlotPowerLow, Some("0000:5c:00.0"))
        );
        assert!(fault.message.contains("27 W"), "{}", fault.message);
    }

    #[test]
    fn a_card_is_named_by_its_interface_where_it_has_one() {
        for (text, entity, interface) in [
            (
                "ena 0000:00:05.0 eth0: Keep alive watchdog timeout.",
                "eth0",
                Some("eth0"),
            ),
            (
                "ena 0000:00:05.0 ens5: The number of lost tx completions is above the threshold (129 > 128). Reset the device",
                "ens5",
                Some("ens5"),
            ),
            (
                "ena 0000:00:05.0 ens5: Lost TX completions are above the threshold (129 > 128). Completion transmission timeout: 5000000.",
                "ens5",
                Some("ens5"),
            ),
            (
                "ena 0000:00:05.0 ens5: Potential MSIX issue on Rx side Queue = 3. Reset the device",
                "ens5",
                Some("ens5"),
            ),
            (
                "ena 0000:00:05.0: Reset attempt failed. Can not reset the device",
                "0000:00:05.0",
                None,
            ),
            (
                r"e1000e 0000:00:1f.6 eno1: Detected Hardware Unit Hang:\x0a  TDH                  <0>\x0a  TDT                  <1c>\x0abuffer_info[next_to_clean]:\x0a  time_stamp           <10016f3a1>\x0aPHY 1000BASE-T Status  <3800>",
                "eno1",
                Some("eno1"),
            ),
            (
                "e1000e 0000:00:1f.6 eno1: Detected Hardware Unit Hang:",
                "eno1",
                Some("eno1"),
            ),
            (
                r"igb 0000:01:00.0: Detected Tx Unit Hang\x0a  Tx Queue             <2>\x0a  TDH                  <a>",
                "0000:01:00.0",
                None,
            ),
            (
                "igc 0000:03:00.0 enp3s0: PCIe link lost, device now detached",
                "enp3s0",
                Some("enp3s0"),
            ),
            (
                r"ixgbe 0000:01:00.0 eth2: Detected Tx Unit Hang (XDP)\x0a  Tx Queue             <0>\x0a  TDH, TDT             <93>, <9d>\x0atx_buffer_info[next_to_clean]",
                "eth2",
                Some("eth2"),
            ),
        ] {
            let fault = reads(3, read, text);
            assert_eq!(
                (
                    fault.reason,
                    fault.entity.as_str(),
                    fault.interface.as_deref()
                ),
                (Reason::NetworkHardwareError, entity, interface),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_fault_or_not_whole_does_not_count() {
        const MLX5: &str = "mlx5_core 0000:5c:00.0: f:1:(pid 0): ";
        for text in [
            "mlx5_core : mlx5_pcie_event:299:(PID): Detected insufficient power on the PCIe slot (27W).",
            "mlx5_core: Detected insufficient power on the PCIe slot (27W).",
            "mlx5_core 0000:5c:00.0: Detected insufficient power on the PCIe slot (27W).",
            "mlx5_core 0000:5c:00.0: f:1:(pid 0): Detected insufficient power on the PCIe slot (27 W).",
            "mlx5_core 0000:5c:00.0: f:1:(pid 0): Detected insufficient power on the PCIe slot (27W). x",
            "mlx5_core 0000:5c:00.0: f:1:(pid x): ACCESS_REG(0x805) timeout. Will cause a leak of a command resource",
            "mlx5_core ../5c:00.0: f:1:(pid 0): ACCESS_REG(0x805) timeout. Will cause a leak of a command resource",
            "mlx5_core 0000:5c:00.0: f:1:(pid 0): x ACCESS_REG(0x805) timeout. Will cause a leak of a command resource",
            "ena 0000:00:05.0 eth0: Keep alive watchdog timeout.",
        ] {
            nothing(4, read, text);
        }
        for text in [
            "mlx5_core 0000:5c:00.0: mlx5_cmd_out_err:838:(pid 7): ACCESS_REG(0x805) op_mod(0x1) failed, status bad operation(0x2), syndrome (0x1c3f2f), err(-22)",
            "mlx5_core 0000:5c:00.0: f:1:(pid 0): Port module event[error]: module 0, Cable error, Bad Mood",
            "mlx5_core 0000:5c:00.0: f:1:(pid 0): Port module event: module 0, Cable unplugged",
            "mlx5_core 0000:5c:00.0: f:1:(pid 0): Health issue observed, High temperature, severity(4) WARNING:",
            "mlx5_core 0000:5c:00.0: f:1:(pid 0): Health issue observed, firmware internal error, severity(3) CRITICAL:",
            "ena 0000:00:05.0 ens5: The number of lost tx completions is above the threshold (129 > x). Reset the device",
            "ena 0000:00:05.0 ens5: Potential MSIX issue on Rx side Queue = 3 > 4. Reset the device",
            "igb 0000:03:00.0 enp3s0: PCIe link lost",
            "mlx5_core 0000:5c:00.0: f:1:(pid 0): Fatal error 1 detected, or not",
            "mlx5_core 0000:5c:00.0 eth0: Link down",
            "ena 0000:00:05.0 eth0: Keep alive watchdog timeout. IN=eth0 OUT=",
            "ena 0000:00:05.0 a/b: Keep alive watchdog timeout.",
            "ena x eth0: Keep alive watchdog timeout.",
            "x ena 0000:00:05.0 eth0: Keep alive watchdog timeout.",
            r"igb 0000:01:00.0: Detected Tx Unit Hang\x0aIN=eth0 OUT= MAC=",
            "igb 0000:01:00.0: Detected Tx Unit Hang or so",
            "e1000e 0000:00:1f.6 eno1: NIC Link is Down",
            "e1000 0000:00:1f.6 eno1: Detected Tx Unit Hang",
        ] {
            nothing(3, read, text);
        }
        nothing(6, read, &format!("{MLX5}Fatal error 1 detected"));
        forged_by_names(
            read,
            &[
                "mlx5_core 0000:",
                "mlx5_core 0000:5c:00.0: f:1:(pid 0): Fatal error 1 detected",
                "ena 0000:00:05.",
                "ena 0000:00:05.0 eth0: Keep alive watchdog timeout.",
                "igb 0000:01:00.0: Detected Tx Unit Hang",
            ],
        );
    }
}
