//! What sysfs says about PCI devices, without touching them.

use std::fs;
use std::io;
use std::path::Path;

use crate::signal::gpu_name;

const NVIDIA: &str = "0x10de";

/// The driver that has this GPU.
pub(super) fn driver(sys: &Path, gpu: &str) -> Option<String> {
    let link = fs::read_link(device(sys, gpu).join("driver")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

pub(super) fn exists(sys: &Path, gpu: &str) -> bool {
    device(sys, gpu).exists()
}

/// All devices that are bound to the driver nvidia.
pub(super) fn gpus(sys: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(sys.join("bus/pci/drivers/nvidia")) else {
        return Vec::new();
    };
    let mut gpus: Vec<_> = entries
        .flatten()
        .filter_map(|entry| gpu_name(entry.file_name().to_str()?.strip_suffix(".0")?))
        .collect();
    gpus.sort();
    gpus
}

pub(super) fn any_of_nvidia(sys: &Path) -> bool {
    let Ok(devices) = fs::read_dir(sys.join("bus/pci/devices")) else {
        return false;
    };
    devices.flatten().any(|entry| is_of_nvidia(&entry.path()))
}

/// NVIDIA's GPUs on the bus, whoever has them.
pub(super) fn count_of_nvidia(sys: &Path) -> io::Result<usize> {
    let devices = fs::read_dir(sys.join("bus/pci/devices"))?;
    let is_gpu = |device: &Path| {
        // Display controllers: VGA, or 3D without a display.
        let class = fs::read_to_string(device.join("class"));
        is_of_nvidia(device) && class.is_ok_and(|class| class.starts_with("0x03"))
    };
    Ok(devices
        .flatten()
        .filter(|entry| is_gpu(&entry.path()))
        .count())
}

/// As the firmware tells it: `p5.48xlarge` on EC2.
pub(super) fn product_name(sys: &Path) -> Option<String> {
    let name = fs::read_to_string(sys.join("class/dmi/id/product_name")).ok()?;
    Some(name.trim().to_owned())
}

/// NVIDIA's, and not given to a guest: its own driver has it, or none, as after a failed start.
pub(super) fn is_nvidia(sys: &Path, gpu: &str) -> bool {
    is_of_nvidia(&device(sys, gpu)) && driver(sys, gpu).is_none_or(|driver| driver == "nvidia")
}

/// Whether a driver has been loaded that could have printed a line.
pub(super) fn has_driver(sys: &Path, driver: &str) -> bool {
    sys.join("bus/pci/drivers").join(driver).exists()
}

fn is_of_nvidia(device: &Path) -> bool {
    fs::read_to_string(device.join("vendor")).is_ok_and(|vendor| vendor.trim() == NVIDIA)
}

/// A GPU is the first function of its device.
fn device(sys: &Path, gpu: &str) -> std::path::PathBuf {
    sys.join("bus/pci/devices").join(format!("{gpu}.0"))
}
