//! What only an ioctl tells: statistics of a network driver, and log pages of an NVMe controller. The
//! only place that calls it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETH_SS_STATS: u32 = 1;
/// `ETH_GSTRING_LEN`
const NAME: usize = 32;
/// ENA of 32 queues has some 500.
const MOST_STATISTICS: usize = 16 << 10;

/// `struct ifreq`, of which SIOCETHTOOL uses the name and a pointer.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u32,
    rest: [u8; 16],
}

/// A driver's own statistics by their names (linux/ethtool.h), of an interface of this process's
/// network namespace.
pub(super) fn statistics(interface: &str) -> io::Result<BTreeMap<String, u64>> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    let count = count(socket.as_fd(), interface)?;
    let names_at = 3;
    let mut names = vec![0_u32; names_at + count * (NAME / 4)];
    names[..names_at].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_STATS, as_u32(count)]);
    ethtool(socket.as_fd(), interface, &mut names)?;
    let values_at = 2;
    let mut values = vec![0_u32; values_at + count * 2];
    values[..values_at].copy_from_slice(&[ETHTOOL_GSTATS, as_u32(count)]);
    ethtool(socket.as_fd(), interface, &mut values)?;
    let names = names[names_at..].chunks_exact(NAME / 4);
    let values = values[values_at..].chunks_exact(2);
    Ok(names
        .zip(values)
        .map(|(name, value)| (text(name), wide(value)))
        .collect())
}

/// As many as the driver says; it fills the buffers without asking how long they are.
fn count(socket: BorrowedFd<'_>, interface: &str) -> io::Result<usize> {
    // cmd, reserved, a mask of sets (64 bits), and their lengths.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_STATS, 0, 0];
    ethtool(socket, interface, &mut info)?;
    // The mask says which sets there are.
    if info[2] & (1 << ETH_SS_STATS) == 0 {
        return Ok(0);
    }
    match usize::try_from(info[4]) {
        Ok(count) if count <= MOST_STATISTICS => Ok(count),
        _ => Err(io::Error::other(format!("{} statistics", info[4]))),
    }
}

fn ethtool(socket: BorrowedFd<'_>, interface: &str, command: &mut [u32]) -> io::Result<()> {
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        data: command.as_mut_ptr(),
        rest: [0; 16],
    };
    // One byte stays for the end.
    if interface.len() >= request.name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..interface.len()].copy_from_slice(interface.as_bytes());
    #[expect(unsafe_code, reason = "ioctl is a C function")]
    // SAFETY: `request` and what it points to outlive the call, and each command is followed by room
    // for as many strings and numbers as the driver has said it has.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Of what is bounded, by [`MOST_STATISTICS`] or [`LOG_PAGE`].
fn as_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn wide(words: &[u32]) -> u64 {
    let mut bytes = [0; 8];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    u64::from_ne_bytes(bytes)
}

pub(super) const LOG_PAGE: usize = 4096;
/// `NVME_IOCTL_ADMIN_CMD` (linux/nvme_ioctl.h)
const ADMIN_COMMAND: libc::c_ulong = 0xC048_4E41;
const GET_LOG_PAGE: u8 = 0x02;

/// `struct nvme_passthru_cmd`
#[repr(C)]
#[derive(Default)]
struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    address: u64,
    metadata_length: u32,
    data_length: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

/// With the driver's own timeout: what runs into a shorter one makes the driver reset the controller.
pub(super) fn log_page(device: &File, page: u8) -> io::Result<[u8; LOG_PAGE]> {
    let mut data = [0; LOG_PAGE];
    let length = as_u32(LOG_PAGE);
    // In words of 32 bits, less one.
    let words = length / 4 - 1;
    let mut command = AdminCommand {
        opcode: GET_LOG_PAGE,
        namespace: 1,
        address: data.as_mut_ptr() as u64,
        data_length: length,
        cdw10: u32::from(page) | (words << 16),
        ..AdminCommand::default()
    };
    #[expect(unsafe_code, reason = "ioctl is a C function")]
    // SAFETY: `command` and `data`, which is as long as `data_length` says, outlive the call.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), ADMIN_COMMAND as _, &raw mut command) };
    match answer {
        0 => Ok(data),
        answer if answer < 0 => Err(io::Error::last_os_error()),
        status => Err(io::Error::other(format!("NVMe status {status:#x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structures_have_their_sizes() {
        assert_eq!(size_of::<AdminCommand>(), 72);
        assert_eq!(size_of::<Request>(), 40);
    }

    #[test]
    fn a_loopback_has_no_statistics_and_a_name_that_is_too_long_no_interface() {
        let error = statistics("lo").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
        assert!(statistics("an-interface-of-16").is_err());
    }

    /// Of whatever this machine has: the driver's words, and no two alike.
    #[test]
    fn interfaces_with_statistics_name_them() {
        for entry in std::fs::read_dir("/sys/class/net").unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Ok(found) = statistics(&name) else {
                continue;
            };
            assert!(
                found.keys().all(|name| !name.is_empty()),
                "{name}: {found:?}"
            );
        }
    }

    #[test]
    fn a_file_that_is_no_controller_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        assert!(log_page(&file, 0xD0).is_err());
    }
}
