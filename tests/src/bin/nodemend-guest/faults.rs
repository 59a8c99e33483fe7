//! The faults, in the classes of `nodemend-detector check`.

use std::any::Any;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context;
use nodemend_tests::faults::{
    self as real, AllNetworkLines, Ext4, FullConntrack, HungTask, LoopDisk, NearlyAllFiles,
    Orphans, PodCgroup, Setting,
};
use nodemend_tests::vm::LATE;
use nodemend_tests::vm::firmware::{self, Section, Severity};

use crate::devices::{Sent, cannot_read, disk, lose_a_command, open, read, timeout};
use crate::set_up::run;
use crate::{Guest, cxl};

const POD: &str = "5f0c7ad1-8f6e-4f4a-9d6c-2f3a4b5c6d7e";
/// Where scsi_debug cannot read.
const SCSI_BAD_SECTOR: u64 = 4660;
const SCSI_DEBUG: &str = "/sys/bus/pseudo/drivers/scsi_debug";

/// Without what the oldest of the kernels does not know.
const XFS: &[&str] = &[
    "-q",
    "-m",
    "bigtime=0,inobtcount=0",
    "-i",
    "nrext64=0,exchange=0",
];

/// A class (`CLASS: FAULT` where it has several), and the reasons each of which is right.
pub(crate) type Shows = (&'static str, &'static [&'static str]);

pub(crate) struct Fault {
    /// One class, or two where nothing provokes one without the other.
    pub(crate) shows: [Option<Shows>; 2],
    pub(crate) by: Option<By>,
    /// It leaves a host as it was.
    pub(crate) anywhere: bool,
    pub(crate) provoke: fn(&mut Guest) -> anyhow::Result<Box<dyn Any>>,
}

/// Of several hooks of a class the one that must tell of this fault.
#[derive(Clone, Copy)]
pub(crate) struct By {
    pub(crate) hook: &'static str,
    /// What no other says with the same reason.
    pub(crate) says: &'static str,
    /// It came with a module, after the detectors had started.
    pub(crate) late: bool,
}

impl Fault {
    const fn by(mut self, hook: &'static str, says: &'static str) -> Self {
        let late = false;
        self.by = Some(By { hook, says, late });
        self
    }

    const fn anywhere(mut self) -> Self {
        self.anywhere = true;
        self
    }

    const fn late(mut self) -> Self {
        if let Some(by) = &mut self.by {
            by.late = true;
        }
        self
    }
}

pub(crate) const ALL: &[Fault] = &[
    fault("OOM kill", &["OOMKilling"], |_| {
        let pod = PodCgroup::systemd(POD)?;
        pod.oom_kill("hog")?;
        keep(pod)
    })
    .anywhere(),
    fault("process crash", &["AppCrash"], |_| {
        keep(real::crash("crasher")?)
    })
    .anywhere(),
    fault("block I/O error", &["BlockDeviceIOError"], |guest| {
        if guest.is_machine {
            cannot_read(&disk("/virtio")?, nodemend_tests::vm::BAD_SECTOR)?;
            return keep(());
        }
        let disk = LoopDisk::new()?;
        disk.read_error()?;
        keep(disk)
    })
    .anywhere(),
    fault("hung task", &["AppBlocked"], |_| {
        keep(HungTask::start("stuck-writer")?)
    })
    .anywhere(),
    fault("ext4 error", &["FilesystemError"], |_| {
        let file_system = Ext4::mounted_reporting()?;
        file_system.report_error()?;
        keep(file_system)
    })
    .anywhere(),
    fault(
        "ext4 error: dead disk",
        &["FilesystemError", "JournalAborted"],
        |_| {
            let disk = Mounted::new("ext4", "dead-ext4", 64, &["-q"])?;
            disk.fail_and_write()?;
            keep(disk)
        },
    ),
    fault("read-only remount", &["FilesystemReadOnly"], |_| {
        let file_system = Ext4::mounted()?;
        file_system.turn_read_only()?;
        keep(file_system)
    })
    .anywhere(),
    fault("lost write", &["WritebackError"], |_| {
        let file_system = Ext4::mounted_reporting()?;
        file_system.lose_a_write()?;
        keep(file_system)
    })
    .anywhere(),
    fault(
        "btrfs error, abort",
        &["BtrfsReadOnly", "FilesystemError"],
        |_| {
            let disk = Mounted::new("btrfs", "dead-btrfs", 160, &["--quiet"])?;
            disk.fail_and_write()?;
            keep(disk)
        },
    ),
    fault("NVMe retry", &["NVMeCommandRetried"], |_| {
        cannot_read(&disk("/nvme")?, nodemend_tests::vm::BAD_SECTOR)?;
        keep(())
    }),
    fault("ATA error: refused command", &["ATAError"], |_| {
        cannot_read(&disk("/ata1/")?, nodemend_tests::vm::BAD_SECTOR)?;
        keep(())
    }),
    fault("ATA error: lost command", &["ATAError"], |_| {
        let disk = disk("/ata2/")?;
        let _impatience = timeout(&disk, "1")?;
        lose_a_command(&disk)?;
        keep(())
    }),
    fault("SCSI error, timeout: medium error", &["SCSIError"], |_| {
        cannot_read(&disk("/adapter0/")?, SCSI_BAD_SECTOR)?;
        keep(())
    })
    .by("scsi-error", "failed: medium error"),
    fault("SCSI error, timeout: no answer", &["SCSIError"], |_| {
        let disk = disk("/adapter1/")?;
        let _impatience = timeout(&disk, "1")?;
        let sent = {
            let _ignored = Setting::change(format!("{SCSI_DEBUG}/opts"), "4")?;
            let _each = Setting::change(format!("{SCSI_DEBUG}/every_nth"), "1")?;
            Sent::to(&disk)?
        };
        sent.until_done()?;
        keep(())
    })
    .by("scsi-timeout", "was not answered in its time"),
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
        by: None,
        anywhere: false,
        provoke: |_| by_module("lockup"),
    },
    fault("packet drops", &["PacketsDropped"], |_| {
        keep(real::fill_socket_buffer(2000)?)
    })
    .anywhere(),
    fault("conntrack full", &["ConntrackExceededKernel"], |_| {
        keep(FullConntrack::fill()?)
    })
    .anywhere(),
    fault("neighbour table full", &["NeighbourTableFull"], |_| {
        let lines = AllNetworkLines::allow()?;
        real::overflow_neighbours()?;
        keep(lines)
    })
    .anywhere(),
    fault(
        "SYN flood, TCP memory",
        &["SynFlood", "OrphanSocketsExceeded"],
        |_| {
            let lines = AllNetworkLines::allow()?;
            // One for the log, and one that stays for the counter.
            drop(Orphans::too_many()?);
            keep((Orphans::as_many_as_allowed()?, lines))
        },
    )
    .anywhere(),
    fault("fork refused", &["PidsLimitReached"], |_| {
        let pod = PodCgroup::with_few_pids(POD)?;
        pod.fork_beyond("forker")?;
        keep(pod)
    })
    .anywhere(),
    fault(
        "file-max reached",
        &["FileMaxReached", "ApproachingMaxOpenFiles"],
        |_| keep(NearlyAllFiles::open()?),
    )
    .anywhere(),
    fault("devlink health", &["DevlinkHealthError"], |_| {
        by_module("ill-device")
    }),
    fault("temperature", &["CriticalTemperature"], |_| {
        // The kernel runs it at a critical temperature, when this has returned: so it stays.
        let command = "/proc/sys/kernel/poweroff_cmd";
        fs::write(command, "/usr/bin/busybox true").with_context(|| format!("write {command}"))?;
        by_module("heat")
    }),
    fault("file system shutdown: ext4", &["JournalAborted"], |_| {
        // Not the device whose journal was aborted before: a repeat is not told within a minute.
        let _before = LoopDisk::new()?;
        let file_system = Ext4::mounted()?;
        file_system.shut_down()?;
        keep(file_system)
    })
    .by("ext4-shutdown", "ext4 on ")
    .anywhere(),
    fault("file system shutdown: XFS", &["XFSShutdown"], |guest| {
        let disk = guest.late.take().context("mount XFS first")?;
        let place = disk.folder.path().display().to_string();
        run("xfs_io", &["-x", "-c", "shutdown -f", &place])?;
        keep(disk)
    })
    .by("xfs-shutdown", "XFS on ")
    .late(),
    fault(
        "file system shutdown: XFS, dead disk",
        &["XFSShutdown"],
        |_| {
            let disk = Mounted::new(LATE, "dead-xfs", 320, XFS)?;
            disk.fail_and_write()?;
            keep(disk)
        },
    )
    .by("xfs-shutdown", "XFS on "),
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
        by: None,
        anywhere: false,
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
        Self::new(LATE, "late", 320, XFS)
    }

    fn new(kind: &str, name: &str, mebibytes: u64, options: &[&str]) -> anyhow::Result<Self> {
        let disk = LoopDisk::of_size(mebibytes << 20)?;
        let name = format!("nodemend-{name}");
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

    /// What is written is refused, or lost at the next commit.
    fn fail_and_write(&self) -> anyhow::Result<()> {
        self.fail()?;
        let _written = fs::write(self.folder.path().join("lost"), [1; 1 << 16]);
        rustix::fs::sync();
        Ok(())
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
