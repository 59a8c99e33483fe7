//! A BPF program that does nothing: what the kernel's own counting adds to each.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::Context;

use crate::drops::Runs;

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// `r0 = 0; exit`
const INSTRUCTIONS: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

/// `union bpf_attr` of BPF_PROG_LOAD, as far as it is used; the rest is zero.
#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    rest: [u64; 14],
}

/// `union bpf_attr` of BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    reserved: u32,
    rest: [u64; 14],
}

pub(super) struct Program {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Program {
    /// Runs for each event of this tracepoint until it is dropped.
    pub(super) fn attach(event: &CStr) -> anyhow::Result<Self> {
        let load = Load {
            kind: BPF_PROG_TYPE_RAW_TRACEPOINT,
            instruction_count: 2,
            instructions: INSTRUCTIONS.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            rest: [0; 14],
        };
        let program = bpf(BPF_PROG_LOAD, &load).context("load an empty BPF program")?;
        let open = Open {
            name: event.as_ptr() as u64,
            program: program.as_raw_fd().unsigned_abs(),
            reserved: 0,
            rest: [0; 14],
        };
        let link = bpf(BPF_RAW_TRACEPOINT_OPEN, &open)
            .with_context(|| format!("attach an empty program to {}", event.to_string_lossy()))?;
        Ok(Self {
            program,
            _link: link,
        })
    }

    pub(super) fn runs(&self) -> anyhow::Result<Runs> {
        let path = format!("/proc/self/fdinfo/{}", self.program.as_raw_fd());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
                .with_context(|| format!("find {name} in {path}"))
        };
        Ok(Runs {
            runs: field("run_cnt:")?,
            nanoseconds: field("run_time_ns:")?,
        })
    }
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "bpf(2) has no wrapper in libc")]
    // SAFETY: `attributes` is the whole union of the command, and what it points to outlives the call;
    // the kernel copies. A result that is not negative is a new descriptor.
    unsafe {
        let result = libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>());
        match i32::try_from(result) {
            Ok(fd) if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
