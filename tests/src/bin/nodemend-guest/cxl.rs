//! The CXL memory of the machine: errors that it does not report before the firmware or the kernel has
//! unmasked them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::set_up::run;

/// As QEMU lays out its memory device.
const AER: u64 = 0x200;
const AER_UNCORRECTABLE_MASK: u64 = AER + 8;
const RAS_UNCORRECTABLE_MASK: u64 = 0x1084;

/// What it tells of its class to PCI.
const CXL_MEMORY: &str = "0x050210";

pub(crate) fn error() -> Value {
    json!({
        "execute": "cxl-inject-uncorrectable-errors",
        "arguments": {
            "path": "/machine/peripheral/cxl-memory",
            "errors": [{"type": "cache-data-ecc", "header": [0]}],
        },
    })
}

/// As the firmware of a server does; some kernels unmask a part of it themselves.
pub(crate) fn let_it_report() -> anyhow::Result<()> {
    let device = device()?;
    let config = OpenOptions::new()
        .read(true)
        .write(true)
        .open(device.join("config"))
        .context("open the configuration of the CXL memory")?;
    let mut capability = [0; 2];
    config
        .read_exact_at(&mut capability, AER)
        .context("read the configuration of the CXL memory")?;
    ensure!(capability == [1, 0], "the CXL memory has its AER elsewhere");
    config
        .write_all_at(&[0; 4], AER_UNCORRECTABLE_MASK)
        .context("unmask the PCIe errors of the CXL memory")?;

    let resources = fs::read_to_string(device.join("resource"))
        .context("read where the registers of the CXL memory are")?;
    let registers = resources
        .split_whitespace()
        .next()
        .and_then(|start| u64::from_str_radix(start.trim_start_matches("0x"), 16).ok())
        .with_context(|| format!("find registers of the CXL memory in {resources:?}"))?;
    let address = format!("{:#x}", registers + RAS_UNCORRECTABLE_MASK);
    run("busybox", &["devmem", &address, "32", "0"])
}

fn device() -> anyhow::Result<PathBuf> {
    let devices = "/sys/bus/pci/devices";
    for entry in fs::read_dir(devices).context("list the PCI devices")? {
        let path = entry.context("list the PCI devices")?.path();
        let class = fs::read_to_string(path.join("class")).context("read a PCI class")?;
        if class.trim() == CXL_MEMORY {
            return Ok(path);
        }
    }
    anyhow::bail!("there is no CXL memory in {devices}")
}
