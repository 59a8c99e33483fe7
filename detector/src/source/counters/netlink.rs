//! Tables of the kernel, asked for over netlink in the network namespace of the thread that asks.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netlink_packet_core::NetlinkBuffer;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// For one answer of the kernel.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of one table; a router of the whole Internet has more routes, and none of pods.
const MOST_MESSAGES: usize = 256 << 10;
const BUFFER: usize = 64 << 10;
/// A table that changes while it is read is read anew.
const TRIES: u32 = 3;

const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The host's network namespace, for one thread and all that it asks.
pub(super) struct NetworkOfHost {
    proc: PathBuf,
    entered: bool,
}

impl NetworkOfHost {
    pub(super) fn new(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            entered: false,
        }
    }

    /// Once; tried again where it was refused.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        if self.entered {
            return Ok(());
        }
        let of_host = File::open(self.proc.join("1/ns/net"))?;
        let own = File::open("/proc/thread-self/ns/net")?;
        if of_host.metadata()?.ino() != own.metadata()?.ino() {
            move_into_link_name_space(of_host.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        self.entered = true;
        Ok(())
    }
}

/// Each entry of the table: kind, and payload.
pub(super) fn dump(
    protocol: Option<Protocol>,
    kind: u16,
    payload: &[u8],
) -> io::Result<Vec<(u16, Vec<u8>)>> {
    for _ in 1..TRIES {
        match ask(protocol, kind, NLM_F_DUMP, payload) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
    ask(protocol, kind, NLM_F_DUMP, payload)
}

pub(super) fn one(
    protocol: Option<Protocol>,
    kind: u16,
    payload: &[u8],
) -> io::Result<Option<(u16, Vec<u8>)>> {
    ask(protocol, kind, NLM_F_ACK, payload).map(|answers| answers.into_iter().next())
}

fn ask(
    protocol: Option<Protocol>,
    kind: u16,
    flags: u16,
    payload: &[u8],
) -> io::Result<Vec<(u16, Vec<u8>)>> {
    let cloexec = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, cloexec, protocol)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    send(&socket, &request(kind, flags, payload), SendFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let mut answers = Vec::new();
    loop {
        let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if take(&buffer[..length], &mut answers)? {
            return Ok(answers);
        }
        if answers.len() > MOST_MESSAGES {
            let message = format!("more than {MOST_MESSAGES} entries");
            return Err(io::Error::other(message));
        }
    }
}

fn request(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut request = vec![0; HEADER];
    request.extend(payload);
    let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
    let mut header = NetlinkBuffer::new(&mut request);
    header.set_length(length);
    header.set_message_type(kind);
    header.set_flags(NLM_F_REQUEST | flags);
    request
}

/// One read of the socket; true at the end of the answer.
fn take(mut bytes: &[u8], answers: &mut Vec<(u16, Vec<u8>)>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{error}"));
        let message = NetlinkBuffer::new_checked(bytes).map_err(damaged)?;
        if message.flags() & NLM_F_DUMP_INTR != 0 {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "it changed while it was read",
            ));
        }
        match message.message_type() {
            NLMSG_NOOP => {}
            // Of an error the first four bytes are the number, of an acknowledgement 0.
            NLMSG_DONE | NLMSG_ERROR => {
                let code = message.payload().first_chunk().copied();
                return match code.map_or(0, i32::from_ne_bytes) {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
            kind => answers.push((kind, message.payload().to_vec())),
        }
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    let _end = take(bytes, &mut answers);
    let messages: Vec<_> = answers.into_iter().map(|(_, message)| message).collect();
    assert!(messages.iter().map(Vec::len).sum::<usize>() <= bytes.len());
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut message = request(kind, flags, payload);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let mut answers = Vec::new();
        let parts = [message(32, 0, b"abcde"), message(32, 0, b"")].concat();
        assert!(!take(&parts, &mut answers).unwrap());
        let end = message(NLMSG_DONE, 0, &[0; 4]);
        assert!(take(&end, &mut answers).unwrap());
        assert_eq!(answers, [(32, b"abcde".to_vec()), (32, Vec::new())]);
    }

    #[test]
    fn what_the_kernel_refuses_loses_or_cuts_is_an_error() {
        let mut answers = Vec::new();
        let refused = message(NLMSG_ERROR, 0, &(-libc::EPERM).to_ne_bytes());
        let error = take(&refused, &mut answers).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        // The end of a dump that could not be finished.
        let unfinished = message(NLMSG_DONE, 0, &(-libc::ENOBUFS).to_ne_bytes());
        let error = take(&unfinished, &mut answers).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
        let changed = message(32, NLM_F_DUMP_INTR, b"");
        let error = take(&changed, &mut answers).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        let cut = &message(32, 0, b"abcdefgh")[..20];
        assert!(take(cut, &mut answers).is_err());
        assert!(take(&[1, 2, 3], &mut answers).is_err());
    }
}
