//! PURE. What NVIDIA's drivers say besides XIDs: NVSwitches, a GPU that is gone, links that are not
//! found, GPUDirect RDMA.

use super::fault::{digits, hex, on};
use super::words::is_word;
use super::{Record, What, at_level, gpu_name, number};
use crate::reason::Reason;
use crate::text;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    sxid(record)
        .or_else(|| fallen_off(record))
        .or_else(|| links(record))
        .or_else(|| peermem(record))
}

/// `nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up`, and behind it
/// two lines with `Severity 1 Engine instance 60 ...` and `Data {0x..., ...}`. KERN_ERR.
fn sxid(record: &Record<'_>) -> Option<What> {
    let rest = error(record)?.strip_prefix("nvidia-nvswitch")?;
    let (minor, rest) = rest.split_once(": SXid (PCI:")?;
    number(minor).filter(|_| !minor.is_empty())?;
    let (switch, rest) = rest.split_once("): ")?;
    let switch = gpu_name(switch.strip_suffix(".0")?)?;
    let (sxid, detail) = rest.split_once(", ")?;
    let sxid = number(sxid).filter(|sxid| (1..100_000).contains(sxid))?;
    let detail = text::part(detail, 160);
    (!detail.is_empty()).then_some(What::Sxid {
        switch,
        sxid,
        detail,
        driver: None,
    })
}

/// `NVRM: GPU 0000:29:00.0: GPU has fallen off the bus.` behind an XID 79, or, as one record, when
/// the driver starts: `NVRM: The NVIDIA GPU 0000:b3:00.0`, `NVRM: (PCI ID: 10de:26b5) installed in
/// this system has`, `NVRM: fallen off the bus and is not responding to commands.`
fn fallen_off(record: &Record<'_>) -> Option<What> {
    let text = error(record)?;
    let running = || {
        let rest = text.strip_prefix("NVRM: GPU ")?;
        rest.strip_suffix(": GPU has fallen off the bus.")
    };
    let starting = || {
        let rest = text.strip_prefix("NVRM: The NVIDIA GPU ")?;
        let rest = rest.strip_suffix(r"\x0a").unwrap_or(rest);
        let rest =
            rest.strip_suffix("NVRM: fallen off the bus and is not responding to commands.")?;
        let rest = rest.strip_suffix(r" installed in this system has\x0a")?;
        let (gpu, id) = rest.split_once(r"\x0aNVRM: (PCI ID: ")?;
        let (vendor, device) = id.strip_suffix(')')?.split_once(':')?;
        (hex(vendor) && hex(device)).then_some(gpu)
    };
    let gpu = running().or_else(starting)?;
    Some(What::FallenOff {
        gpu: gpu_name(gpu.strip_suffix(".0")?)?,
        detail: "GPU has fallen off the bus.".to_owned(),
        nvidia: false,
    })
}

/// `NVRM: knvlinkUpdatePostRxDetectLinkMask_IMPL: Failed to update Rx Detect Link mask!`, in newer
/// drivers behind `GPU0 ` (open-gpu-kernel-modules, kernel_nvlink*.c).
fn links(record: &Record<'_>) -> Option<What> {
    let rest = error(record)?.strip_prefix("NVRM: ")?;
    let (gpu, rest) = match rest.strip_prefix("GPU") {
        Some(numbered) => {
            let (gpu, rest) = numbered.split_once(' ')?;
            number(gpu).filter(|_| !gpu.is_empty())?;
            (format!("GPU{gpu}"), rest)
        }
        None => ("NVLink".to_owned(), rest),
    };
    let (function, text) = rest.split_once(": ")?;
    let peer = || {
        let peer = text.strip_prefix("Getting peer")?;
        peer.strip_suffix("'s postRxDetLinkMask failed!")
    };
    let failed = text == "Failed to update Rx Detect Link mask!" || peer().is_some_and(digits);
    let message = format!("{gpu}: links could not be found: {text}");
    (function.starts_with("knvlink") && is_word(function) && failed)
        .then(|| on(Reason::NvidiaNvlinkWarning, gpu, &message))
}

/// `nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further
/// processing`, KERN_ERR (nvidia-peermem.c, `peer_err`).
fn peermem(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 3)?.strip_prefix("nvidia-peermem nv_get_p2p_free_callback:")?;
    let line = rest.strip_suffix(" ERROR detected invalid context, skipping further processing")?;
    digits(line).then(|| {
        on(
            Reason::NvidiaPeermemError,
            "nvidia-peermem".to_owned(),
            "GPUDirect RDMA met an invalid context",
        )
    })
}

/// KERN_ERR, or no level at all, which is 4 by default.
fn error<'a>(record: &Record<'a>) -> Option<&'a str> {
    at_level(record, 3).or_else(|| at_level(record, 4))
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::super::tests::line;
    use super::*;
    use crate::judgement;

    fn of(text: &str) -> Option<What> {
        let of_level = |level: u32| line(&format!("{level},1,2,-;{text}"));
        let what = of_level(3);
        assert_eq!(what, of_level(4), "{text}");
        assert_eq!(of_level(6), None, "{text}: level");
        assert_eq!(of_level(11), None, "{text}: facility");
        what
    }

    #[test]
    fn every_sxid_of_the_table_is_read_in_every_form() {
        for row in judgement::sxids() {
            for detail in [
                format!("Fatal, Link 30 {}", row.meaning),
                format!("Non-fatal, Link 30 {} (First)", row.meaning),
                "Severity 1 Engine instance 60 Sub-engine instance 00".to_owned(),
                "Data {0x10000000, 0x00000000}".to_owned(),
                row.meaning.to_owned(),
            ] {
                let code = row.code;
                let text =
                    format!("nvidia-nvswitch2: SXid (PCI:0000:A7:00.0): {code:05}, {detail}");
                assert_eq!(
                    of(&text),
                    Some(What::Sxid {
                        switch: "0000:a7:00".to_owned(),
                        sxid: code,
                        detail,
                        driver: None,
                    })
                );
            }
        }
    }

    #[test]
    fn what_only_resembles_an_sxid_does_not_count() {
        for text in [
            "x nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal",
            "nvidia-nvswitch: SXid (PCI:0000:05:00.0): 20034, Fatal",
            "nvidia-nvswitchx: SXid (PCI:0000:05:00.0): 20034, Fatal",
            "nvidia-nvswitch0: SXid (PCI:0000:05:00): 20034, Fatal",
            "nvidia-nvswitch0: SXid (PCI:../../05:00.0): 20034, Fatal",
            "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): xyz, Fatal error",
            "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): -1, Fatal",
            "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 99999999999999999999, Fatal",
            "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, ",
            "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn the_text_of_an_sxid_is_bounded_and_harmless() {
        let hostile = format!("Fatal; x\u{1b}[31m {}", "y".repeat(5000));
        let text = format!("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, {hostile}");
        let Some(What::Sxid { detail, .. }) = of(&text) else {
            panic!("not read");
        };
        assert!(detail.len() <= 160, "{}", detail.len());
        assert!(
            !detail.contains(|c: char| c.is_control() || c == ';'),
            "{detail}"
        );
    }

    #[test]
    fn a_gpu_that_fell_off_without_a_number_is_named() {
        for text in [
            "NVRM: GPU 0000:29:00.0: GPU has fallen off the bus.",
            r"NVRM: The NVIDIA GPU 0000:29:00.0\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has\x0aNVRM: fallen off the bus and is not responding to commands.",
            r"NVRM: The NVIDIA GPU 0000:29:00.0\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has\x0aNVRM: fallen off the bus and is not responding to commands.\x0a",
        ] {
            let Some(What::FallenOff { gpu, nvidia, .. }) = of(text) else {
                panic!("not read: {text}");
            };
            assert_eq!((gpu.as_str(), nvidia), ("0000:29:00", false));
        }
        for text in [
            "NVRM: GPU 18:00.0: GPU has fallen off the bus.",
            "NVRM: GPU 0000:29:00.0: GPU has fallen off the bus. x",
            "NVRM: The NVIDIA GPU 0000:b3:00.0",
            "NVRM: fallen off the bus and is not responding to commands.",
            r"NVRM: The NVIDIA GPU 0000:29:00.0\x0aNVRM: (PCI ID: x:y) installed in this system has\x0aNVRM: fallen off the bus and is not responding to commands.",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn links_that_are_not_found_are_told() {
        for (text, entity) in [
            (
                "NVRM: knvlinkDiscoverPostRxDetLinks_GH100: Getting peer0's postRxDetLinkMask failed!",
                "NVLink",
            ),
            (
                "NVRM: GPU3 knvlinkUpdatePostRxDetectLinkMask_IMPL: Failed to update Rx Detect Link mask!",
                "GPU3",
            ),
        ] {
            let fault = reads(3, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::NvidiaNvlinkWarning, entity)
            );
        }
        for text in [
            "NVRM: knvlinkDiscoverPostRxDetLinks_GH100: Getting peerx's postRxDetLinkMask failed!",
            "NVRM: GPU knvlinkX: Failed to update Rx Detect Link mask!",
            "NVRM: other: Failed to update Rx Detect Link mask!",
        ] {
            nothing(3, read, text);
        }
    }

    #[test]
    fn peermem_is_read_at_its_own_level_only() {
        let text = "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing";
        let fault = reads(3, read, text);
        assert_eq!(fault.reason, Reason::NvidiaPeermemError);
        nothing(6, read, text);
        nothing(
            3,
            read,
            "nvidia-peermem nv_get_p2p_free_callback:127 some other error message",
        );
        forged_by_names(
            read,
            &["nvidia-peermem ", "nvidia-nvswitch", "NVRM: GPU 0000:"],
        );
    }
}
