//! A node with two GPUs, as far as the detector can tell: the scripted library of `tests/nvml`, and
//! files in a folder that goes with it. No GPU is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::daemon;
use anyhow::Context;

/// As the kernel log and the detector name them.
pub const GPU: &str = "0000:05:00";
pub const OTHER_GPU: &str = "0000:06:00";
/// On the bus, with another driver.
pub const PASSED_THROUGH: &str = "0000:07:00";

/// An NVSwitch.
pub const SWITCH: &str = "0000:08:00";

pub const HEALTHY: &str = "gpu 0000:05:00.0\ngpu 0000:06:00.0\n";

pub struct GpuNode {
    folder: tempfile::TempDir,
    library: PathBuf,
    /// Between two looks.
    interval: &'static str,
}

impl GpuNode {
    /// With its driver loaded.
    pub fn new(scenario: &str) -> anyhow::Result<Self> {
        let node = Self {
            folder: tempfile::Builder::new()
                .prefix("nodemend-gpu-")
                .tempdir()
                .context("make a folder")?,
            library: daemon::binary("libnvml_scripted.so")?,
            interval: "1s",
        };
        for (gpu, driver) in [
            (GPU, "nvidia"),
            (OTHER_GPU, "nvidia"),
            (SWITCH, "nvidia-nvswitch"),
            (PASSED_THROUGH, "vfio-pci"),
        ] {
            let (device, driver) = (
                node.path(&format!("sys/bus/pci/devices/{gpu}.0")),
                node.path(&format!("sys/bus/pci/drivers/{driver}")),
            );
            fs::create_dir_all(&device).context("make a PCI device")?;
            fs::write(device.join("vendor"), "0x10de\n").context("name its vendor")?;
            let class = if gpu == SWITCH {
                "0x068000\n"
            } else {
                "0x030200\n"
            };
            fs::write(device.join("class"), class).context("name its class")?;
            fs::create_dir_all(&driver).context("make a driver")?;
            symlink(&driver, device.join("driver")).context("bind a driver")?;
            symlink(&device, driver.join(format!("{gpu}.0"))).context("bind a driver")?;
        }
        node.load_driver()?;
        node.play(scenario)?;
        Ok(node)
    }

    /// So many, at most 224, each as the scenario's words say.
    pub fn with_gpus(count: u8, words: &str) -> anyhow::Result<Self> {
        let addresses: Vec<_> = (0..count)
            .map(|gpu| format!("0000:{:02x}:00.0", gpu + 0x20))
            .collect();
        let scenario: String = addresses
            .iter()
            .map(|address| format!("gpu {address} {words}\n"))
            .collect();
        let node = Self::new(&scenario)?;
        fs::remove_dir_all(node.path("sys/bus/pci")).context("take the first two away")?;
        let driver = node.path("sys/bus/pci/drivers/nvidia");
        fs::create_dir_all(&driver).context("make a driver")?;
        for address in addresses {
            let device = node.path(&format!("sys/bus/pci/devices/{address}"));
            fs::create_dir_all(&device).context("make a PCI device")?;
            fs::write(device.join("vendor"), "0x10de\n").context("name its vendor")?;
            symlink(&driver, device.join("driver")).context("bind a driver")?;
            symlink(&device, driver.join(&address)).context("bind a driver")?;
        }
        Ok(node)
    }

    /// From now on this is what happens.
    pub fn play(&self, scenario: &str) -> anyhow::Result<()> {
        let (new, path) = (self.path("scenario.new"), self.path("scenario"));
        fs::write(&new, scenario).context("write a scenario")?;
        fs::rename(new, path).context("put a scenario into place")
    }

    pub fn load_driver(&self) -> anyhow::Result<()> {
        fs::create_dir_all(self.path("sys/module/nvidia")).context("load the driver")
    }

    pub fn unload_driver(&self) -> anyhow::Result<()> {
        fs::remove_dir(self.path("sys/module/nvidia")).context("unload the driver")
    }

    /// No GPU, no driver.
    pub fn remove_gpus(&self) -> anyhow::Result<()> {
        self.unload_driver()?;
        fs::remove_dir_all(self.path("sys/bus")).context("remove the PCI bus")
    }

    /// The same library, in which a function cannot be found.
    pub fn without_symbol(mut self, symbol: &str) -> anyhow::Result<Self> {
        let mut library = fs::read(&self.library).context("read the library")?;
        let name = format!("\0{symbol}\0").into_bytes();
        let places: Vec<_> = (0..library.len().saturating_sub(name.len()))
            .filter(|&at| library[at..].starts_with(&name))
            .collect();
        anyhow::ensure!(!places.is_empty(), "the library has no {symbol}");
        for at in places {
            library[at + 1] = b'X';
        }
        self.library = self.path("libnvidia-ml.so.1");
        fs::write(&self.library, library).context("write the library")?;
        Ok(self)
    }

    pub fn looked_at_every(mut self, interval: &'static str) -> Self {
        self.interval = interval;
        self
    }

    pub fn without_library(self) -> Self {
        let nowhere = self.path("libnvidia-ml.so.1");
        self.with_library(nowhere)
    }

    pub fn with_library(mut self, library: PathBuf) -> Self {
        self.library = library;
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn args(&self) -> Vec<String> {
        vec![
            "--host-sys".to_owned(),
            self.path("sys").display().to_string(),
            "--nvml-library".to_owned(),
            self.library.display().to_string(),
            "--gpu-interval".to_owned(),
            self.interval.to_owned(),
        ]
    }

    pub fn env(&self) -> Vec<(String, String)> {
        let scenario = self.path("scenario").display().to_string();
        vec![("NVML_SCENARIO".to_owned(), scenario)]
    }
}
