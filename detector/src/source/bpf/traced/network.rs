//! PURE. Network interfaces and their hardware.

use detector_ebpf::Kind;

use super::Event;
use crate::reason::Reason;
use crate::signal::{LogFault, interface_name};
use crate::source::bpf::hook::Hook;

/// net/sched/sch_generic.c; once in each period of the watchdog.
pub(super) const TRANSMIT_TIMEOUT: Event = Event {
    hook: Hook::TransmitTimeout,
    kind: Kind::TransmitTimeout,
    category: "net",
    name: "net_dev_xmit_timeout",
    module: None,
    fault: None,
    limited_by: None,
    needs: &["name", "driver", "queue_index"],
    read: |values, _| {
        let name = values.text("name")?;
        let driver = values.text("driver")?;
        let queue = values.word("queue_index")?;
        let message =
            format!("{name} ({driver}) did not send what waits in its queue {queue}: it is reset");
        let reason = Reason::NetworkTransmitTimeout;
        Ok(Some(match interface_name(&name) {
            Some(name) => LogFault::on_interface(reason, name, message),
            None => LogFault::new(reason, name, message),
        }))
    },
};

/// net/devlink/health.c.
pub(super) const DEVLINK_HEALTH: Event = Event {
    hook: Hook::DevlinkHealth,
    kind: Kind::DevlinkHealth,
    category: "devlink",
    name: "devlink_health_report",
    module: None,
    fault: None,
    limited_by: None,
    needs: &[
        "bus_name",
        "dev_name",
        "driver_name",
        "reporter_name",
        "msg",
    ],
    read: |values, _| {
        let device = values.text("dev_name")?;
        let reporter = values.text("reporter_name")?;
        let message = format!(
            "the driver {} says that {reporter} of {} {device} is ill: {}",
            values.text("driver_name")?,
            values.text("bus_name")?,
            values.text("msg")?
        );
        let entity = format!("{device} {reporter}");
        let fault = LogFault::new(Reason::DevlinkHealthError, entity, message);
        Ok(Some(LogFault {
            device: Some(device),
            ..fault
        }))
    },
};

#[cfg(test)]
mod tests {
    use super::super::record::read_with;
    use super::*;

    #[test]
    fn a_timeout_names_interface_driver_and_queue() {
        let format = "field:__data_loc char[] name;offset:8;size:4;\nfield:__data_loc char[] driver;offset:12;size:4;\n\
            field:int queue_index;offset:16;size:4;";
        let fault = read_with(
            &TRANSMIT_TIMEOUT,
            format,
            &[(16, 4, 3)],
            &[(8, "eth0"), (12, "ena")],
        )
        .unwrap();
        assert_eq!(fault.interface.as_deref(), Some("eth0"));
        assert_eq!(
            fault.message,
            "eth0 (ena) did not send what waits in its queue 3: it is reset"
        );
    }

    #[test]
    fn a_report_names_device_and_reporter() {
        let names = [
            "bus_name",
            "dev_name",
            "driver_name",
            "reporter_name",
            "msg",
        ];
        let format: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                format!(
                    "field:__data_loc char[] {name};offset:{};size:4;",
                    8 + 4 * index
                )
            })
            .collect();
        let texts = [
            (8, "pci"),
            (12, "0000:03:00.0"),
            (16, "mlx5_core"),
            (20, "fw_fatal"),
            (24, "FW fatal error reported"),
        ];
        let fault = read_with(&DEVLINK_HEALTH, &format.join("\n"), &[], &texts).unwrap();
        assert_eq!(fault.entity, "0000:03:00.0 fw_fatal");
        assert_eq!(
            fault.message,
            "the driver mlx5_core says that fw_fatal of pci 0000:03:00.0 is ill: FW fatal error reported"
        );
    }
}
