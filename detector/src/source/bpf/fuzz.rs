//! Records of the ring, and the kernel's own descriptions of itself.

use super::btf::Btf;
use super::decode;
use super::fields::{Format, Values};
use super::names::Names;
use super::rcu;
use super::traced::EVENTS;
use crate::fuzz;
use crate::signal::What;

/// A host that has the names of everything.
struct Host;

impl Names for Host {
    fn disk(&self, _device: (u32, u32)) -> Option<String> {
        Some("sda1".to_owned())
    }

    fn above(&self, _disk: &str) -> Vec<String> {
        vec!["md0".to_owned()]
    }

    fn mount_point(&self, _device: (u32, u32)) -> Option<String> {
        Some("/data".to_owned())
    }

    fn scsi_disk(&self, _address: &str) -> Option<String> {
        Some("sdb".to_owned())
    }

    fn is_ata(&self, host: u32) -> bool {
        host == 5
    }
}

/// One record.
pub(crate) fn ring(bytes: &[u8]) {
    let Some(record) = decode::record(bytes) else {
        return;
    };
    let what = match record.what {
        decode::What::OomKill { victim, limit } => What::OomKill { victim, limit },
        decode::What::HungTask(task) => What::HungTask { task },
        decode::What::Crash {
            task,
            signal,
            count,
        } => What::Crash {
            task,
            signal,
            count,
        },
        decode::What::RcuStall { data, count } => What::Traced {
            fault: rcu::stall(&data),
            count,
        },
        decode::What::BlockError { errno, .. } => {
            assert_ne!(errno, i32::MIN);
            return;
        }
        // Of numbers only; or see below.
        decode::What::PacketDrops { .. } | decode::What::Copied { .. } => return,
    };
    fuzz::tell([what]);
}

/// The name of an event, its `format` file, NUL, and a record that the kernel part has copied.
pub(crate) fn tracepoint(bytes: &[u8]) {
    let (format, data) = match bytes.iter().position(|&byte| byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    let text = String::from_utf8_lossy(format);
    let (name, text) = text.split_once('\n').unwrap_or_default();
    let format = Format::parse(text);
    let Some(event) = EVENTS.iter().find(|event| event.name == name) else {
        return;
    };
    let values = Values {
        format: &format,
        data,
    };
    // Without its fields it is not attached.
    if event.rule(&format).is_err() {
        return;
    }
    if let Ok(Some(fault)) = (event.read)(&values, &Host) {
        // The kernel's own names for numbers are shown as they are.
        if !text.contains("__print_symbolic") {
            fuzz::tell([What::Traced { fault, count: 1 }]);
        }
    }
}

pub(crate) fn btf(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes) else {
        return;
    };
    for path in [&["p"][..], &["pad", "p"], &["absent"]] {
        let _found = btf.offset("outer", path);
    }
    if let Ok(values) = btf.enum_values("colour") {
        assert!(values.len() * 8 <= bytes.len());
    }
    let _found = btf.tracepoint_arguments("ev");
}
