//! An image's files on an emulated machine of their architecture, under Debian's kernel for it: that the
//! detector attaches its programs there, and tells a fault.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::tar::Tar;
use crate::vm::debian::Suite;
use crate::vm::{TOOLS, in_tree, tree};
use crate::{cross, progress};

/// Seconds; it takes half a minute.
const LIMIT: &str = "300";
const FAULT: &str = "OOMKilling";
/// The first process: it has a kernel, the image's files, and a busybox.
const INIT: &str = r#"#!/busybox sh
cd /
for kind in proc sysfs devtmpfs tracefs; do
  case $kind in
    proc) at=/proc ;; sysfs) at=/sys ;; devtmpfs) at=/dev ;; tracefs) at=/sys/kernel/tracing ;;
  esac
  /busybox mkdir -p $at
  /busybox mount -t $kind $kind $at
done
/busybox uname -srm
/usr/bin/nodemend-detector --version
/usr/bin/nodemend-detector check
/usr/bin/nodemend-detector watch -o json > /said &
/busybox sleep 10
# Until the kernel kills it.
/busybox tail /dev/zero
/busybox sleep 5
/busybox cat /said
/busybox poweroff -f
"#;

pub(super) struct Machine {
    qemu: PathBuf,
    guest: PathBuf,
    folder: PathBuf,
}

impl Machine {
    pub(super) fn ensure() -> anyhow::Result<Self> {
        let folder = cross::folder()?;
        let lock = File::create(folder.join("lock")).context("create a lock")?;
        lock.lock().context("wait for another set-up")?;
        let qemu = folder.join("qemu");
        tree::once(&qemu, |tree| {
            Suite::open(TOOLS, &folder, false)?.unpack_with_dependencies(&["qemu-system-arm"], tree)
        })?;
        let guest = folder.join("guest-arm64");
        tree::once(&guest, |tree| {
            let suite = Suite::open_arm64(TOOLS, &folder)?;
            let depends = suite.field("linux-image-arm64", "Depends")?;
            let image = depends
                .split([',', ' '])
                .find(|name| name.starts_with("linux-image-"))
                .context("linux-image-arm64 depends on no image")?;
            suite.unpack(&[image, "busybox-static"], tree)
        })?;
        Ok(Self {
            qemu,
            guest,
            folder,
        })
    }

    /// What the detector of an image's files says there.
    pub(super) fn run(&self, image: &Tar) -> anyhow::Result<String> {
        let archive = self.folder.join("initramfs");
        self.write(image, &archive)?;
        let program = in_tree(&self.qemu, "usr/bin/qemu-system-aarch64");
        let mut qemu = Command::new("timeout");
        qemu.arg(LIMIT)
            .arg(program.get_program())
            .args(program.get_args());
        qemu.arg("-L").arg(self.qemu.join("usr/share/qemu"));
        qemu.args("-M virt -cpu max,pauth-impdef=on -accel tcg -m 1024 -smp 2".split(' '));
        qemu.args("-display none -nodefaults -no-reboot -serial stdio".split(' '));
        qemu.arg("-kernel").arg(self.kernel()?);
        qemu.arg("-initrd").arg(&archive);
        qemu.args(["-append", "console=ttyAMA0 loglevel=1 panic=-1"]);
        qemu.stdin(Stdio::null());
        let (status, lines) = progress::run(
            &mut qemu,
            "running the detector on an emulated arm64",
            |_| progress::Line::Message,
        )?;
        let said = lines.join("\n");
        ensure!(status.success(), "the machine ended with {status}:\n{said}");
        ensure!(
            lines
                .iter()
                .any(|line| line.contains("\"opened\"") && line.contains(FAULT)),
            "the detector tells no {FAULT} there:\n{said}"
        );
        Ok(said)
    }

    fn kernel(&self) -> anyhow::Result<PathBuf> {
        let boot = self.guest.join("boot");
        let entries = fs::read_dir(&boot).with_context(|| format!("list {}", boot.display()))?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().contains("vmlinuz-"))
            .context("Debian's package has no kernel in /boot")
    }

    fn busybox(&self) -> anyhow::Result<Vec<u8>> {
        let places = ["bin/busybox", "usr/bin/busybox"].map(|place| self.guest.join(place));
        let busybox = places.iter().find(|place| place.is_file());
        let busybox = busybox.context("Debian's package has no busybox")?;
        fs::read(busybox).context("read busybox")
    }

    fn write(&self, image: &Tar, path: &Path) -> anyhow::Result<()> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut out = BufWriter::new(file);
        let busybox = self.busybox()?;
        let own = [("init", INIT.as_bytes()), ("busybox", &busybox)];
        for folder in image.folders() {
            out = entry(out, &folder.to_string_lossy(), 0o040_755, b"")?;
        }
        for (path, bytes) in image.files() {
            out = entry(out, &path.to_string_lossy(), 0o100_755, bytes)?;
        }
        for (path, bytes) in own {
            out = entry(out, path, 0o100_755, bytes)?;
        }
        let mut out = cpio::newc::trailer(out).context("end an archive")?;
        out.flush().context("write an archive")
    }
}

fn entry<W: Write>(out: W, path: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<W> {
    let size = u32::try_from(bytes.len()).with_context(|| format!("{path} is too large"))?;
    let mut writer = cpio::newc::Builder::new(path).mode(mode).write(out, size);
    writer
        .write_all(bytes)
        .with_context(|| format!("write {path}"))?;
    writer.finish().with_context(|| format!("write {path}"))
}
