//! QEMU as a process: its devices, its monitor, and the line on which the guest reports.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness runs other programs and measures deadlines"
)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Parts, Report, firmware, initramfs};
use crate::process;

/// Of each disk, in bytes.
const DISK: u64 = 16 << 20;
/// A read of this sector of a disk fails.
pub const BAD_SECTOR: u64 = 2048;
const BAD_SECTORS: &str =
    "[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\nsector = \"2048\"\n";

/// A host bridge, its port, and memory behind it.
const CXL: &str = "-object memory-backend-ram,id=cxl-ram,size=256M \
    -device pxb-cxl,bus=pcie.0,id=cxl,bus_nr=12 \
    -device cxl-rp,bus=cxl,id=cxl-port,chassis=2,slot=2 \
    -device cxl-type3,bus=cxl-port,id=cxl-memory,volatile-memdev=cxl-ram,sn=1";

/// Killed on drop.
pub struct Machine {
    child: Child,
    reports: mpsc::Receiver<String>,
    /// With the disks and the monitor's socket.
    folder: TempDir,
    /// Kept until the kernel is booted again.
    console: PathBuf,
}

impl Machine {
    /// `options` are the kernel's, `arguments` those of `nodemend-guest`.
    pub fn boot(parts: &Parts, options: &str, arguments: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("nodemend-vm-")
            .tempdir()
            .context("make a folder")?;
        let at = |name: &str| folder.path().join(name);
        let console = parts.kernel.join("console");
        initramfs::write(parts, &at("initramfs"))?;
        fs::write(at("blkdebug"), BAD_SECTORS).context("describe the faults of the disks")?;
        fs::write(at("hest"), firmware::error_sources()).context("write an ACPI table")?;
        let mut command = program(&parts.qemu);
        command.args("-M q35,cxl=on -accel tcg,thread=multi -cpu max,+mce,+mca -m 1536 -smp 2 -display none -nodefaults -no-reboot".split(' '));
        command.arg("-kernel").arg(parts.kernel.join("vmlinuz"));
        command.arg("-initrd").arg(at("initramfs"));
        command.arg("-append").arg(format!(
            "console=ttyS0 loglevel=4 mitigations=off tsc=reliable pcie_ports=native panic=-1 \
             iomem=relaxed {} NODEMEND_BIN_DIR=/nodemend PATH=/usr/sbin:/usr/bin {options} -- {arguments}",
            firmware::reserved_memory()
        ));
        let table = format!("sig=HEST,data={}", at("hest").display());
        command.args(["-acpitable", &table]);
        let socket = |name| format!("{name},path={},server=on,wait=off", at("monitor").display());
        command.args(["-chardev", &socket("socket,id=monitor")]);
        command.args(["-mon", "chardev=monitor,mode=control"]);
        command.args(["-serial", &format!("file:{}", console.display())]);
        command.args(["-chardev", "stdio,id=reports,signal=off"]);
        command.args(["-serial", "chardev:reports"]);
        command.args(
            "-device pcie-root-port,id=port0,slot=1,chassis=1,hotplug=off -device e1000e,bus=port0"
                .split(' '),
        );
        for (name, device) in [
            ("nvme", "nvme,serial=nodemend"),
            ("sata", "ide-hd,bus=ide.0"),
            ("sata2", "ide-hd,bus=ide.1"),
            ("virtio", "virtio-blk-pci"),
        ] {
            let image = File::create(at(name)).context("make a disk")?;
            image.set_len(DISK).context("make a disk")?;
            command.arg("-drive").arg(format!(
                "if=none,id={name},driver=raw,file.driver=blkdebug,file.config={},\
                 file.image.driver=file,file.image.filename={}",
                at("blkdebug").display(),
                at(name).display()
            ));
            command.args(["-device", &format!("{device},drive={name}")]);
        }
        // Last: a device that names no bus would go there.
        command.args(CXL.split_whitespace());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = process::spawn(command)?;
        let stdout = child.stdout.take().context("read the reports")?;
        Ok(Self {
            child,
            reports: read(stdout),
            folder,
            console,
        })
    }

    /// The next report that is not for the machine itself; an error at the deadline, or when the
    /// machine ends before.
    pub fn report(&mut self, deadline: Instant) -> anyhow::Result<Report> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.reports.recv_timeout(left) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the guest took too long; {}", self.last_words())
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("the guest ended; {}", self.last_words())
                }
            };
            // The firmware and the kernel may say something there, too.
            let Some(start) = line.find('{') else {
                continue;
            };
            match serde_json::from_str(line.get(start..).unwrap_or_default()) {
                Ok(Report::Ask { command }) => self.ask(&command)?,
                Ok(report) => return Ok(report),
                Err(error) => bail!("the guest said {line:?}: {error}"),
            }
        }
    }

    /// A command of the monitor (QMP).
    fn ask(&self, command: &Value) -> anyhow::Result<()> {
        let path = self.folder.path().join("monitor");
        let monitor = UnixStream::connect(&path).context("reach QEMU's monitor")?;
        monitor
            .set_read_timeout(Some(Duration::from_secs(2)))
            .context("set up QEMU's monitor")?;
        let mut answers = BufReader::new(&monitor).lines();
        for command in [&json!({"execute": "qmp_capabilities"}), command] {
            writeln!(&monitor, "{command}").context("ask QEMU's monitor")?;
            let answer = loop {
                let line = answers.next().context("QEMU's monitor ended")?;
                let line = line.context("read the answer of QEMU's monitor")?;
                let line: Value = serde_json::from_str(&line)
                    .with_context(|| format!("QEMU's monitor said {line:?}"))?;
                // Else a greeting or an event.
                if line.get("return").or(line.get("error")).is_some() {
                    break line;
                }
            };
            // A command for people has its complaints in its text.
            let said = answer["return"].as_str().unwrap_or_default();
            let complaint = ["rror", "unknown", "nvalid"];
            if answer.get("error").is_some() || complaint.iter().any(|word| said.contains(word)) {
                bail!("QEMU's monitor answers {command} with {answer}");
            }
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let console = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&console);
        let lines: Vec<_> = text.lines().rev().take(40).collect();
        let lines: Vec<_> = lines.into_iter().rev().collect();
        format!("{}:\n{}", self.console.display(), lines.join("\n"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The lines of a thread that ends with the machine.
fn read(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// QEMU with the libraries, modules and firmware that it was unpacked with.
fn program(tree: &Path) -> Command {
    let libraries = tree.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
    command
        .arg("--library-path")
        .arg(&libraries)
        .arg(tree.join("usr/bin/qemu-system-x86_64"))
        .env("QEMU_MODULE_DIR", libraries.join("qemu"));
    for folder in ["qemu", "seabios", "ipxe"] {
        command.arg("-L").arg(tree.join("usr/share").join(folder));
    }
    command
}
