//! The machine's firmware, where it is the first to see that hardware fails: the table that tells the
//! kernel where to look (HEST, section 18.3 of the ACPI specification), and what it leaves there
//! (appendix N of the UEFI specification). It writes from within the guest, as firmware does.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use anyhow::Context;

/// Of the firmware: the kernel has no use for it.
const MEMORY: u64 = 0x1000_0000;
const MEMORY_BYTES: u32 = 0x1_0000;
/// Where the memory begins is the address of the status block.
const STATUS: u64 = MEMORY + 0x1000;
const STATUS_BYTES: u32 = 0x1000;
const POLL_MILLISECONDS: u32 = 500;

/// Of errors that the system survives.
#[derive(Clone, Copy)]
pub enum Severity {
    Uncorrected = 0,
    Corrected = 2,
}

/// The option by which the kernel leaves the memory alone.
pub(super) fn reserved_memory() -> String {
    format!("memmap={MEMORY_BYTES:#x}${MEMORY:#x}")
}

/// The body of a HEST with one generic source of errors, at which the kernel is to look from time to time.
pub(super) fn error_sources() -> Vec<u8> {
    const GENERIC_SOURCE: u16 = 9;
    const NO_RELATED_SOURCE: u16 = 0xffff;
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let parts: [Vec<u8>; 8] = [
        // How many sources there are.
        numbers(&[1]),
        [GENERIC_SOURCE, 1, NO_RELATED_SOURCE]
            .map(u16::to_le_bytes)
            .concat(),
        // Enabled, in the second byte.
        vec![0, 1],
        // Records, sections in each, and bytes of raw data.
        numbers(&[1, 1, STATUS_BYTES]),
        // In memory, 64 bits wide, read as 64 bits.
        [&[0, 64, 0, 4][..], &MEMORY.to_le_bytes()].concat(),
        // Polled; the length of this part; no thresholds.
        vec![0, 28, 0, 0],
        numbers(&[POLL_MILLISECONDS, 0, 0, 0, 0, 0]),
        numbers(&[STATUS_BYTES]),
    ];
    parts.concat()
}

/// What an error is about.
pub struct Section {
    kind: [u8; 16],
    part: &'static str,
    data: Vec<u8>,
}

impl Section {
    /// Of a kind that no kernel knows.
    pub fn unknown() -> Self {
        Self {
            kind: *b"nodemend-unknown",
            part: "DIMM_A1",
            data: b"nodemend".to_vec(),
        }
    }

    /// e19e3d16-bc11-11e4-9caa-c2051d5d46b0
    pub fn arm_processor() -> Self {
        // A cache error; its valid fields, how many errors it stands for, flags and details: none.
        let error = [&[0, 32][..], &[0; 30]].concat();
        let number = u32::to_le_bytes;
        let data = [
            // MPIDR and running state are valid.
            number(0b101).as_slice(),
            // One error, and no context.
            &[1, 0, 0, 0],
            &number(40 + 32),
            &[0; 4],
            // MPIDR, MIDR.
            &0x8000_0100_u64.to_le_bytes(),
            &0x410f_d0c0_u64.to_le_bytes(),
            // Running.
            &number(1),
            &number(0),
            &error,
        ]
        .concat();
        Self {
            kind: *b"\x16\x3d\x9e\xe1\x11\xbc\xe4\x11\x9c\xaa\xc2\x05\x1d\x5d\x46\xb0",
            part: "CPU 1",
            data,
        }
    }

    /// A status block without its first field, and with one entry.
    fn status(&self, severity: Severity) -> Vec<u8> {
        const REVISION: [u8; 2] = 0x300_u16.to_le_bytes();
        const PART_IS_NAMED: u8 = 0b10;
        let severity = (severity as u32).to_le_bytes();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut part = [0; 20];
        for (to, from) in part.iter_mut().zip(self.part.bytes()) {
            *to = from;
        }
        let entry = [
            self.kind.as_slice(),
            &severity,
            &REVISION,
            &[PART_IS_NAMED, 0],
            &length(&self.data),
            &[0; 16],
            &part,
            // No time.
            &[0; 8],
            &self.data,
        ]
        .concat();
        [
            // No raw data.
            &[0; 8],
            length(&entry).as_slice(),
            &severity,
            &entry,
        ]
        .concat()
    }
}

/// An error that the kernel finds when it looks next.
pub fn report(section: &Section, severity: Severity) -> anyhow::Result<()> {
    const ONE_ENTRY: u32 = 1 << 4;
    let kind = match severity {
        Severity::Uncorrected => 1,
        Severity::Corrected => 2,
    };
    let memory = OpenOptions::new()
        .write(true)
        .open("/dev/mem")
        .context("open the memory of the machine")?;
    let write = |address, bytes: &[u8]| {
        memory
            .write_all_at(bytes, address)
            .with_context(|| format!("write to the memory of the firmware at {address:#x}"))
    };
    write(MEMORY, &STATUS.to_le_bytes())?;
    write(STATUS + 4, &section.status(severity))?;
    // Last: with it the rest is there.
    write(STATUS, &(ONE_ENTRY | kind).to_le_bytes())
}
