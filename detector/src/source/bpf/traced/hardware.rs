//! PURE. Processors, memory, buses and firmware.

use detector_ebpf::Kind;

use super::Event;
use crate::reason::Reason;
use crate::signal::LogFault;
use crate::source::bpf::hook::Hook;
use crate::source::hardware::{machine_check, memory_module};

/// arch/x86/kernel/cpu/mce/core.c. Corrected ones come when a bank is polled: every 5 minutes, or after
/// an interrupt.
pub(super) const MACHINE_CHECK: Event = Event {
    hook: Hook::MachineCheck,
    kind: Kind::MachineCheck,
    category: "mce",
    name: "mce_record",
    module: None,
    fault: None,
    limited_by: Some("cpu"),
    needs: &["status", "cpu", "bank"],
    read: |values, _| {
        Ok(Some(machine_check(
            values.word("cpu")?,
            values.word("bank")?,
            values.number("status")?,
        )))
    },
};

/// drivers/edac/edac_mc.c; also of ghes_edac.
pub(super) const MEMORY_CONTROLLER: Event = Event {
    hook: Hook::Edac,
    kind: Kind::MemoryController,
    category: "ras",
    name: "mc_event",
    module: None,
    fault: None,
    limited_by: Some("mc_index"),
    needs: &["error_type", "label", "error_count", "mc_index"],
    read: |values, _| {
        // enum hw_event_mc_err_type of include/linux/edac.h.
        let (reason, kind) = match values.number("error_type")? {
            0 => (Reason::EdacCorrectedError, "corrected"),
            // Poisoned, but used by nobody yet.
            2 => (Reason::EdacUncorrectedError, "deferred"),
            1 | 3 => (Reason::EdacUncorrectedError, "uncorrected"),
            _information => return Ok(None),
        };
        Ok(Some(memory_module(
            reason,
            kind,
            values.word("error_count")?,
            values.word("mc_index")?,
            &values.text("label")?,
        )))
    },
};

/// drivers/pci/pcie/aer.c; only where the kernel owns AER.
pub(super) const AER: Event = Event {
    hook: Hook::PcieError,
    kind: Kind::Aer,
    category: "ras",
    name: "aer_event",
    module: None,
    fault: None,
    limited_by: None,
    needs: &["dev_name", "status", "severity"],
    read: |values, _| {
        // AER_* of include/linux/aer.h.
        let (reason, severity) = match values.number("severity")? {
            0 => (Reason::PcieNonFatalError, "not fatal"),
            2 => (Reason::PcieCorrectedError, "corrected"),
            _fatal => (Reason::PcieFatalError, "fatal"),
        };
        let device = values.text("dev_name")?.to_ascii_lowercase();
        let status = values.word("status")?;
        let message = format!("PCIe error of {device}: {severity}, status {status:#x}");
        Ok(Some(LogFault::on_device(reason, device, message)))
    },
};

/// drivers/acpi/apei/ghes.c: what no other event is for.
pub(super) const FIRMWARE_ERROR: Event = Event {
    hook: Hook::Firmware,
    kind: Kind::FirmwareError,
    category: "ras",
    name: "non_standard_event",
    module: None,
    fault: None,
    limited_by: None,
    needs: &["fru_text", "sev"],
    read: |values, _| {
        let Some((reason, severity)) = by_firmware(values.number("sev")?) else {
            return Ok(None);
        };
        let part = match values.text("fru_text")?.as_str() {
            "" => String::new(),
            part => format!(" in {part}"),
        };
        let message = format!("the firmware reported a hardware error{part}: {severity}");
        Ok(Some(LogFault::new(reason, "firmware".to_owned(), message)))
    },
};

/// drivers/ras/ras.c. It has its severity since 6.17 (and in some older ones by backport); without, an error that was corrected
/// looks like another one, and the log knows.
pub(super) const ARM_ERROR: Event = Event {
    hook: Hook::ArmError,
    kind: Kind::ArmError,
    category: "ras",
    name: "arm_event",
    module: None,
    fault: None,
    limited_by: None,
    needs: &["mpidr", "sev"],
    read: |values, _| {
        let Some((reason, severity)) = by_firmware(values.number("sev")?) else {
            return Ok(None);
        };
        let mpidr = values.number("mpidr")?;
        let message =
            format!("the firmware reported an error of the processor {mpidr:#x}: {severity}");
        Ok(Some(LogFault::new(reason, "firmware".to_owned(), message)))
    },
};

/// `GHES_SEV_*` of include/acpi/ghes.h; 0 is for information, and no error.
fn by_firmware(severity: u64) -> Option<(Reason, &'static str)> {
    match severity {
        0 => None,
        1 => Some((Reason::FirmwareCorrectedError, "corrected")),
        2 => Some((Reason::FirmwareHardwareError, "recoverable")),
        _ => Some((Reason::FirmwareHardwareError, "fatal")),
    }
}

/// mm/memory-failure.c.
pub(super) const POISONED_PAGE: Event = Event {
    hook: Hook::PoisonedPage,
    kind: Kind::PoisonedPage,
    category: "ras",
    name: "memory_failure_event",
    module: None,
    fault: None,
    limited_by: None,
    needs: &["pfn", "type", "result"],
    read: |values, _| {
        // The numbers of types differ between kernels; 0 and 1 of the results are ignored and failed.
        const OF_THE_KERNEL: [&str; 3] = [
            "reserved kernel page",
            "high-order kernel page",
            "kernel slab page",
        ];
        let (page, kind) = (values.number("pfn")?, values.symbol("type")?);
        let kept = values.number("result")? <= 1;
        let reason = if kept && OF_THE_KERNEL.contains(&kind.as_str()) {
            Reason::KernelMemoryPoisoned
        } else {
            Reason::MemoryPagePoisoned
        };
        let message = format!(
            "the hardware cannot keep the memory page {page:#x}: a {kind}: {}",
            values.symbol("result")?
        );
        Ok(Some(LogFault::new(
            reason,
            format!("page {page:#x}"),
            message,
        )))
    },
};

/// drivers/cxl/core/trace.h.
pub(super) const CXL_ERROR: Event = Event {
    hook: Hook::Cxl,
    kind: Kind::CxlUncorrectable,
    category: "cxl",
    name: "cxl_aer_uncorrectable_error",
    module: Some("cxl_core"),
    fault: None,
    limited_by: Some("serial"),
    needs: &["memdev", "host", "status"],
    read: |values, _| {
        let device = values.text("memdev")?;
        let message = format!(
            "the CXL memory {device} ({}) reported an uncorrected error, status {:#x}",
            values.text("host")?,
            values.word("status")?
        );
        Ok(Some(LogFault::on_device(Reason::CxlError, device, message)))
    },
};

/// drivers/thermal/thermal_trip.c. Passive and active trips are the fans' business.
pub(super) const THERMAL_TRIP: Event = Event {
    hook: Hook::Thermal,
    kind: Kind::ThermalTrip,
    category: "thermal",
    name: "thermal_zone_trip",
    module: None,
    // enum thermal_trip_type: 2 hot, 3 critical.
    fault: Some(("trip_type", 2)),
    limited_by: Some("id"),
    needs: &["thermal_zone", "id", "trip_type"],
    read: |values, _| {
        let (zone, id) = (values.text("thermal_zone")?, values.word("id")?);
        let trip = match values.word("trip_type")? {
            2 => "hot",
            _ => "critical",
        };
        let message = format!("thermal zone {id} {zone} has reached its {trip} temperature");
        Ok(Some(LogFault::new(
            Reason::CriticalTemperature,
            format!("thermal zone {id}"),
            message,
        )))
    },
};

#[cfg(test)]
mod tests {
    use super::super::record::{read, read_with};
    use super::*;

    fn names(fault: &LogFault) -> (Reason, &str) {
        (fault.reason, &fault.entity)
    }

    #[test]
    fn a_machine_check_is_told_in_the_words_of_its_line() {
        let format = "field:u64 status;offset:24;size:8;\nfield:u32 cpu;offset:88;size:4;\nfield:u8 bank;offset:105;size:1;";
        let values = |status| [(24, 8, status), (88, 4, 3), (105, 1, 5)];
        let fault = read(&MACHINE_CHECK, format, &values(0xbe00_0000_0080_0400)).unwrap();
        assert_eq!(names(&fault), (Reason::MachineCheck, "cpu 3 bank 5"));
        let fault = read(&MACHINE_CHECK, format, &values(0x9c00_0000_0001_0091)).unwrap();
        assert_eq!(fault.reason, Reason::MachineCheckCorrected);
    }

    #[test]
    fn a_memory_module_is_named_as_the_log_names_it() {
        let format = "field:unsigned int error_type;offset:8;size:4;\nfield:__data_loc char[] label;offset:16;size:4;\n\
            field:u16 error_count;offset:20;size:2;\nfield:u8 mc_index;offset:22;size:1;";
        let of = |kind| {
            let values = [(8, 4, kind), (20, 2, 2), (22, 1, 1)];
            read_with(&MEMORY_CONTROLLER, format, &values, &[(16, "DIMM_A1")])
        };
        assert_eq!(
            names(&of(0).unwrap()),
            (Reason::EdacCorrectedError, "MC1 DIMM_A1")
        );
        assert_eq!(of(1).unwrap().reason, Reason::EdacUncorrectedError);
        assert_eq!(of(4), None);
    }

    #[test]
    fn pcie_errors_have_three_severities() {
        let format = "field:__data_loc char[] dev_name;offset:8;size:4;\nfield:u32 status;offset:12;size:4;\nfield:u8 severity;offset:16;size:1;";
        for (severity, reason) in [
            (0, Reason::PcieNonFatalError),
            (1, Reason::PcieFatalError),
            (2, Reason::PcieCorrectedError),
        ] {
            let values = [(12, 4, 0x1000), (16, 1, severity)];
            let fault = read_with(&AER, format, &values, &[(8, "0000:00:1C.0")]).unwrap();
            assert_eq!(names(&fault), (reason, "0000:00:1c.0"));
        }
    }

    #[test]
    fn firmware_names_the_part_and_how_bad_it_is() {
        let format =
            "field:__data_loc char[] fru_text;offset:40;size:4;\nfield:u8 sev;offset:44;size:1;";
        let fault = read_with(&FIRMWARE_ERROR, format, &[(44, 1, 2)], &[(40, "DIMM 3")]).unwrap();
        assert_eq!(
            fault.message,
            "the firmware reported a hardware error in DIMM 3: recoverable"
        );
        let information = read_with(&FIRMWARE_ERROR, format, &[(44, 1, 0)], &[(40, "DIMM 3")]);
        assert_eq!(information, None);
        let format = "field:u64 mpidr;offset:8;size:8;\nfield:u8 sev;offset:16;size:1;";
        for (severity, reason) in [
            (0, None),
            (1, Some(Reason::FirmwareCorrectedError)),
            (3, Some(Reason::FirmwareHardwareError)),
        ] {
            let fault = read(&ARM_ERROR, format, &[(8, 8, 1), (16, 1, severity)]);
            assert_eq!(fault.map(|fault| fault.reason), reason);
        }
    }

    #[test]
    fn a_page_that_the_kernel_cannot_give_up_is_fatal_and_no_other() {
        let format = "field:unsigned long pfn;offset:8;size:8;\nfield:int type;offset:16;size:4;\nfield:int result;offset:20;size:4;\n\
            print fmt: \"x\", __print_symbolic(REC->type, { 0, \"reserved kernel page\" }, { 9, \"dirty LRU page\" }), \
            __print_symbolic(REC->result, { 0, \"Ignored\" }, { 3, \"Recovered\" })";
        let of = |kind, result| {
            let values = [(8, 8, 0x1234), (16, 4, kind), (20, 4, result)];
            read(&POISONED_PAGE, format, &values).unwrap()
        };
        assert_eq!(
            names(&of(0, 0)),
            (Reason::KernelMemoryPoisoned, "page 0x1234")
        );
        assert_eq!(of(0, 3).reason, Reason::MemoryPagePoisoned);
        assert_eq!(of(9, 0).reason, Reason::MemoryPagePoisoned);
        assert_eq!(
            of(9, 3).message,
            "the hardware cannot keep the memory page 0x1234: a dirty LRU page: Recovered"
        );
    }

    #[test]
    fn a_cxl_device_is_named_though_a_header_log_lies_before_its_name() {
        let format = "field:__data_loc char[] memdev;offset:8;size:4;\nfield:__data_loc char[] host;offset:12;size:4;\n\
            field:u64 serial;offset:16;size:8;\nfield:u32 status;offset:24;size:4;";
        let texts = [(8, "mem0"), (12, "0000:35:00.0")];
        let fault = read_with(&CXL_ERROR, format, &[(24, 4, 4)], &texts).unwrap();
        assert_eq!(names(&fault), (Reason::CxlError, "mem0"));
    }

    #[test]
    fn a_thermal_zone_is_hot_or_critical() {
        let format = "field:__data_loc char[] thermal_zone;offset:8;size:4;\nfield:int id;offset:12;size:4;\nfield:int trip_type;offset:20;size:4;";
        let values = [(12, 4, 1), (20, 4, 3)];
        let fault = read_with(&THERMAL_TRIP, format, &values, &[(8, "x86_pkg_temp")]).unwrap();
        assert_eq!(
            fault.message,
            "thermal zone 1 x86_pkg_temp has reached its critical temperature"
        );
    }
}
