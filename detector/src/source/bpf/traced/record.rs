//! Records for tests: a layout as text, and what is where.

use super::{Event, LogFault};
use crate::source::bpf::fields::{Format, Values};
use crate::source::bpf::names::Names;

pub(super) struct Host;

impl Host {
    pub(super) const ATA: u32 = 5;
}

impl Names for Host {
    fn disk(&self, device: (u32, u32)) -> Option<String> {
        (device == (7, 1)).then(|| "sda1".to_owned())
    }

    fn above(&self, _disk: &str) -> Vec<String> {
        Vec::new()
    }

    fn mount_point(&self, device: (u32, u32)) -> Option<String> {
        (device == (7, 1)).then(|| "/data".to_owned())
    }

    fn scsi_disk(&self, address: &str) -> Option<String> {
        (address == "2:0:0:0").then(|| "sdb".to_owned())
    }

    fn is_ata(&self, host: u32) -> bool {
        host == Self::ATA
    }
}

/// `values`: offset, size and number of each.
pub(super) fn read(
    event: &Event,
    format: &str,
    values: &[(usize, usize, u64)],
) -> Option<LogFault> {
    read_with(event, format, values, &[])
}

/// `texts` lie one after the other at the end, where the locations at these offsets point.
pub(super) fn read_with(
    event: &Event,
    format: &str,
    values: &[(usize, usize, u64)],
    texts: &[(usize, &str)],
) -> Option<LogFault> {
    let format = Format::parse(format);
    event.rule(&format).unwrap();
    let mut data = vec![0; 256];
    for (offset, size, number) in values {
        data[*offset..offset + size].copy_from_slice(&number.to_ne_bytes()[..*size]);
    }
    for (offset, text) in texts {
        let location = u32::try_from(data.len() | (text.len() + 1) << 16).unwrap();
        data[*offset..offset + 4].copy_from_slice(&location.to_ne_bytes());
        data.extend(text.bytes().chain([0]));
    }
    let values = Values {
        format: &format,
        data: &data,
    };
    (event.read)(&values, &Host).unwrap()
}
