//! The faults, in the classes of `nodemend-detector check`.

use std::any::Any;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context;
use nodemend_tests::faults::{
    self as real, AllNetworkLines, Ext4, FullConntrack, HungTask, LoopDisk, NearlyAllFiles,
    Orphans, PodCgroup,
};
use nodemend_tests::vm::LATE;
use nodemend_tests::vm::firmware::{self, Section, Severity};

use crate::devices::{cannot_read, disk, open, read};
use crate::set_up::run;
use crate::{Guest, cxl};

const POD: &str = "5f0c7ad1-8f6e-4f4a-9d6c-2f3a4b5c6d7e";
/// Where scsi_debug cannot read.
const SCSI_BAD_SECTOR: u64 = 4660;

/// Without what the oldest of the kernels does not know.
const XFS: &[&str] = &[
    "-q",
    "-m",
    "bigtime=0,inobtcount=0",
    "-i",
    "nrext64=0,exchange=0",
];

/// A class, and the reasons each of which is right.
pub(crate) type Shows = (&'static str, &'static [&'static str]);

pub(crate) struct Fault {
    /// One class, or two where nothing provokes one without the other.
    pub(crate) shows: [Option<Shows>; 2],
    /// The hook that came with a module, after the detectors had started.
    pub(crate) late: Option<&'static str>,
    pub(crate) provoke: fn(&mut Guest) -> anyhow::Result<Box<dyn Any>>,
}

pub(crate) const ALL: &[Fault] = &[
    fault("OOM kill", &["OOMKilling"], |_| {
        let pod = PodCgroup::systemd(POD)?;
        pod.oom_kill("hog")?;
        keep(pod)
    }),
    fault("process crash", &["AppCrash"], |_| {
        keep(real::crash("crasher")?)
    }),
    fault("block I/O error", &["BlockDeviceIOError"], |_| {
        cannot_read(&disk("/virtio")?, nodemend_tests::vm::BAD_SECTOR)?;
        keep(())
    }),
    fault("hung task", &["AppBlocked"], |_| {
        keep(HungTask::start("stuck-writer")?)
    }),
    fault("ext4 error", &["FilesystemError"], |_| {
        let file_system = Ext4::mounted_reporting()?;
        file_system.report_error()?;
        keep(file_system)
    }),
    fault("read-only remount", &["FilesystemReadOnly"], |_| {
        let file_system = Ext4::mounted()?;
        file_system.turn_read_only()?;
        keep(file_system)
    }),
    fault("lost write", &["WritebackError"], |_| {
        let file_system = Ext4::mounted_reporting()?;
        file_system.lose_a_write()?;
        keep(file_system)
    }),
    fault(
        "btrfs error, abort",
        &["BtrfsReadOnly", "FilesystemError"],
        |_| {
            let disk = Mounted::new("btrfs", 160, &["--quiet"])?;
            disk.fail()?;
            let file = disk.folder.path().join("lost");
            // Refused, or lost at the next commit.
            let _written = fs::write(&file, [1; 1 << 16]);
            rustix::fs::sync();
            keep(disk)
        },
    ),
    fault("NVMe retry", &["NVMeCommandRetried"], |_| {
        cannot_read(&disk("/nvme")?, nodemend_tests::vm::BAD_SECTOR)?;
        keep(())
    }),
    fault("ATA error", &["ATAError"], |_| {
        cannot_read(&disk("/ata")?, nodemend_tests::vm::BAD_SECTOR)?;
        keep(())
    }),
    fault("SCSI error, timeout", &["SCSIError"], |_| {
        cannot_read(&disk("/pseudo")?, SCSI_BAD_SECTOR)?;
        keep(())
    }),
    fault(
        "machine check",
        &["MachineCheck", "MachineCheckCorrected"],
        |guest| {
            guest.ask_in_words("mce 0 4 0x9c00000000010091 0x0 0x12345000 0x8c")?;
            keep(())
        },
    ),
    fault(
        "PCIe error (AER)",
        &["PCIeCorrectedError", "PCIeNonFatalError", "PCIeFatalError"],
        |guest| {
            guest.ask_in_words("pcie_aer_inject_error port0 POISON_TLP")?;
            keep(())
        },
    ),
    fault("CXL error", &["CXLError"], |guest| {
        cxl::let_it_report()?;
        guest.ask(cxl::error())?;
        keep(())
    }),
    fault("firmware-first error", &["FirmwareCorrectedError"], |_| {
        firmware::report(&Section::unknown(), Severity::Corrected)?;
        keep(())
    }),
    fault("Arm processor error", &["FirmwareHardwareError"], |_| {
        firmware::report(&Section::arm_processor(), Severity::Uncorrected)?;
        keep(())
    }),
    fault(
        "poisoned page",
        &["MemoryPagePoisoned", "KernelMemoryPoisoned"],
        |_| {
            poison()?;
            keep(())
        },
    ),
    fault(
        "memory module (EDAC)",
        &["EDACCorrectedError", "EDACUncorrectedError"],
        |_| by_module("corrected-memory"),
    ),
    fault("WARN, oops, BUG", &["KernelWarning"], |_| {
        by_module("warning")
    }),
    fault("transmit timeout", &["NetworkTransmitTimeout"], |_| {
        by_module("")?;
        run("ip", &["address", "add", "192.0.2.1/24", "dev", "stuck0"])?;
        run("ip", &["link", "set", "stuck0", "up"])?;
        let socket = UdpSocket::bind("192.0.2.1:0").context("bind a UDP socket")?;
        // The question who has that address is never sent.
        socket.send_to(b"?", "192.0.2.2:9").context("send")?;
        keep(StuckCard)
    }),
    Fault {
        shows: [
            Some(("soft lockup", &["SoftLockup"])),
            Some(("RCU stall", &["RCUStall"])),
        ],
        late: None,
        provoke: |_| by_module("lockup"),
    },
    fault("packet drops", &["PacketsDropped"], |_| {
        keep(real::fill_socket_buffer(2000)?)
    }),
    fault("conntrack full", &["ConntrackExceededKernel"], |_| {
        keep(FullConntrack::fill()?)
    }),
    fault("neighbour table full", &["NeighbourTableFull"], |_| {
        let lines = AllNetworkLines::allow()?;
        real::overflow_neighbours()?;
        keep(lines)
    }),
    fault(
        "SYN flood, TCP memory",
        &["SynFlood", "OrphanSocketsExceeded"],
        |_| {
            let lines = AllNetworkLines::allow()?;
            // One for the log, and one that stays for the counter.
            drop(Orphans::too_many()?);
            keep((Orphans::as_many_as_allowed()?, lines))
        },
    ),
    fault("fork refused", &["PidsLimitReached"], |_| {
        let pod = PodCgroup::with_few_pids(POD)?;
        pod.fork_beyond("forker")?;
        keep(pod)
    }),
    fault(
        "file-max reached",
        &["FileMaxReached", "ApproachingMaxOpenFiles"],
        |_| keep(NearlyAllFiles::open()?),
    ),
    fault("devlink health", &["DevlinkHealthError"], |_| {
        run("modprobe", &["netdevsim"])?;
        fs::write("/sys/bus/netdevsim/new_device", "1 1").context("make a simulated device")?;
        let trigger = "/sys/kernel/debug/netdevsim/netdevsim1/health/break_health";
        fs::write(trigger, "broken").with_context(|| format!("write {trigger}"))?;
        keep(())
    }),
    Fault {
        shows: [Some(("file system shutdown", &["XFSShutdown"])), None],
        late: Some("xfs-shutdown"),
        provoke: |guest| {
            let disk = guest.late.take().context("mount XFS first")?;
            let place = disk.folder.path().display().to_string();
            run("xfs_io", &["-x", "-c", "shutdown -f", &place])?;
            keep(disk)
        },
    },
    // Last, as the disk stays slow.
    fault("NVMe timeout, removal", &["NVMeTimeout"], |guest| {
        let path = format!("/dev/{}", disk("/nvme")?);
        guest.ask_in_words("block_set_io_throttle nvme 0 2048 0 0 0 0")?;
        for part in 1..=8 {
            let disk = open(&path)?;
            // More than comes through in the driver's 5 s; killed with the machine.
            thread::spawn(move || read(&disk, part << 20, 128 << 10));
        }
        keep(())
    }),
];

const fn fault(
    class: &'static str,
    reasons: &'static [&'static str],
    provoke: fn(&mut Guest) -> anyhow::Result<Box<dyn Any>>,
) -> Fault {
    Fault {
        shows: [Some((class, reasons)), None],
        late: None,
        provoke,
    }
}

fn keep(guard: impl Any) -> anyhow::Result<Box<dyn Any>> {
    Ok(Box::new(guard))
}

/// What only a module of the kernel can do; nothing, but that the module is there, for the empty name.
fn by_module(fault: &str) -> anyhow::Result<Box<dyn Any>> {
    const DOOR: &str = "/proc/nodemend-faults";
    if !Path::new(DOOR).exists() {
        run("insmod", &["/nodemend/nodemend_faults.ko"])?;
    }
    if !fault.is_empty() {
        fs::write(DOOR, fault).with_context(|| format!("ask for {fault}"))?;
    }
    keep(())
}

/// Taken down on drop: each line about it would make the kernel's watchdog count anew.
struct StuckCard;

impl Drop for StuckCard {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["link", "set", "stuck0", "down"]) {
            eprintln!("nodemend-guest: {error:#}");
        }
    }
}

/// Takes a page of this process out of use, as after an error that memory cannot correct.
fn poison() -> anyhow::Result<()> {
    const PAGE: usize = 4096;
    #[expect(unsafe_code, reason = "mmap and madvise are C functions")]
    // SAFETY: the page is new, and never touched after it is poisoned.
    let result = unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        );
        libc::madvise(page, PAGE, libc::MADV_HWPOISON)
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("poison a page");
    }
    Ok(())
}

/// A file system on a device of the device mapper, which can fail.
pub(crate) struct Mounted {
    folder: tempfile::TempDir,
    mapped: PathBuf,
    name: String,
    sectors: u64,
}

impl Mounted {
    /// Of the module that is not loaded yet.
    pub(crate) fn late() -> anyhow::Result<Self> {
        Self::new(LATE, 320, XFS)
    }

    fn new(kind: &str, mebibytes: u64, options: &[&str]) -> anyhow::Result<Self> {
        let disk = LoopDisk::of_size(mebibytes << 20)?;
        let name = format!("nodemend-{kind}");
        let sectors = mebibytes << 11;
        let table = format!("0 {sectors} linear {} 0", disk.path().display());
        run(
            "dmsetup",
            &["create", "--noudevsync", &name, "--table", &table],
        )?;
        run("dmsetup", &["mknodes", &name])?;
        // The mapped device holds it from now on.
        drop(disk);
        let mapped = Path::new("/dev/mapper").join(&name);
        let device = mapped.display().to_string();
        run(&format!("mkfs.{kind}"), &[options, &[&device]].concat())?;
        let folder = tempfile::tempdir().context("make a mount point")?;
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount(&mapped, folder.path(), kind, flags, None)
            .with_context(|| format!("mount {device}"))?;
        Ok(Self {
            folder,
            mapped,
            name,
            sectors,
        })
    }

    /// Nothing of it can be read or written any more.
    fn fail(&self) -> anyhow::Result<()> {
        let table = format!("0 {} error", self.sectors);
        run("dmsetup", &["load", &self.name, "--table", &table])?;
        run(
            "dmsetup",
            &["suspend", "--noflush", "--nolockfs", &self.name],
        )?;
        run("dmsetup", &["resume", "--noudevsync", &self.name])
            .with_context(|| format!("break {}", self.mapped.display()))
    }
}
