//! What is asked of NVML: events as they come, and each GPU's state now and then.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, EventSet, Nvml as Library};
use tracing::{debug, info, warn};

use super::deadline::Deadline;
use super::{driver_loaded, pci, rehearsal};
use crate::clock;
use crate::signal::{GpuState, Nvml, Recovery, Signal, SourceName, What};

/// Beyond the time that a call takes by itself. After XID 119 each call takes about 6 s.
const DEADLINE: Duration = Duration::from_secs(5);

/// Between two tries of what fails at once: events of a GPU that is lost, a look after each event.
const PAUSE: Duration = Duration::from_secs(1);

/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`: 0 none, 1 reset, 2 reboot, 3 drain, 4 drain and reset.
const RECOVERY_ACTION: u32 = 230;

pub(super) struct Session {
    pub library: PathBuf,
    pub sys: PathBuf,
    pub interval: Duration,
    pub queue: Sender<Signal>,
    pub wake: Arc<OwnedFd>,
    pub deadline: Arc<Deadline>,
}

/// Events of these GPUs.
struct Listening<'nvml> {
    set: EventSet<'nvml>,
    gpus: BTreeMap<usize, String>,
}

impl Session {
    /// Until the process ends: a driver may come later, go, and come again.
    pub(super) fn run(&self) {
        let mut told = None;
        loop {
            let driver = driver_loaded(&self.sys);
            let why = if driver {
                self.open(&mut told)
            } else {
                "the driver nvidia is not loaded".to_owned()
            };
            let driver = driver_loaded(&self.sys);
            if told.as_ref() != Some(&(why.clone(), driver)) {
                warn!(why, driver, "NVML cannot be used; trying again");
                self.tell(What::Nvml(Nvml::Unavailable {
                    why: why.clone(),
                    driver,
                }));
                told = Some((why, driver));
            }
            thread::sleep(self.interval);
        }
    }

    /// Returns why it is over.
    fn open(&self, told: &mut Option<(String, bool)>) -> String {
        match rehearsal::begin(&self.library) {
            Ok(mut child) => {
                if let Err(error) = self.call("dlopen", DEADLINE, || child.wait()) {
                    warn!(%error, "the end of a process that loads NVML could not be awaited");
                }
            }
            Err(error) => warn!(%error, "NVML is loaded without having tried that"),
        }
        let loaded = self.call("nvmlInit_v2", DEADLINE, || {
            Library::builder().lib_path(self.library.as_os_str()).init()
        });
        let nvml = match loaded {
            Ok(nvml) => nvml,
            Err(error) => return format!("{}: {error}", self.library.display()),
        };
        // The others are missed at their first use, before anything is called watched.
        if let Err(error) = &nvml.lib().nvmlEventSetWait_v2 {
            let why = error.to_string();
            self.call("nvmlShutdown", DEADLINE, || drop(nvml));
            return why;
        }
        let error = match self.watch(&nvml, told) {
            Ok(()) => "the driver nvidia has been unloaded".to_owned(),
            Err(error) => error.to_string(),
        };
        self.call("nvmlShutdown", DEADLINE, || drop(nvml));
        error
    }

    /// Until the driver has gone.
    fn watch(&self, nvml: &Library, told: &mut Option<(String, bool)>) -> Result<(), NvmlError> {
        let mut states = BTreeMap::new();
        let mut listening: Option<Listening<'_>> = None;
        let mut first = true;
        while driver_loaded(&self.sys) {
            let answering = self.look(nvml, &mut states)?;
            let wanted = || answering.iter().collect::<Vec<_>>();
            if listening.as_ref().map(|now| now.gpus.values().collect()) != Some(wanted()) {
                if let Some(old) = listening.take() {
                    self.call("nvmlEventSetFree", DEADLINE, || drop(old));
                }
                listening = self.listen(nvml, answering)?;
            }
            if std::mem::take(&mut first) {
                info!(gpus = states.len(), "NVML answers");
                *told = None;
                self.tell(What::Nvml(Nvml::Watching { gpus: states.len() }));
            }
            listening = self.events(listening)?;
        }
        Ok(())
    }

    /// Hands over events until the next look is due.
    fn events<'nvml>(
        &self,
        listening: Option<Listening<'nvml>>,
    ) -> Result<Option<Listening<'nvml>>, NvmlError> {
        let begun = clock::boot();
        loop {
            let left = (begun + self.interval).saturating_sub(clock::boot());
            let Some(heard) = listening.as_ref().filter(|_| !left.is_zero()) else {
                thread::sleep(left);
                return Ok(listening);
            };
            let milliseconds = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
            let event = self.call("nvmlEventSetWait_v2", left + DEADLINE, || {
                heard.set.wait(milliseconds)
            });
            match event {
                Ok(event) => {
                    let gpu = heard.gpus.get(&key(&event.device));
                    if let (Some(gpu), Some(XidError::Value(xid))) = (gpu, event.event_data)
                        && let Ok(xid @ 1..1000) = u32::try_from(xid)
                    {
                        self.tell(What::Xid {
                            gpu: gpu.clone(),
                            xid,
                            detail: None,
                            seen_by: SourceName::Nvml,
                            driver: Some("nvidia".to_owned()),
                        });
                    }
                    // What it did to the GPU is seen at once, but not for each of a storm.
                    if clock::boot().saturating_sub(begun) >= PAUSE {
                        return Ok(listening);
                    }
                }
                Err(NvmlError::Timeout) => {}
                Err(error) if ends_all(&error) => return Err(error),
                Err(error) => {
                    // A GPU that is lost ends the wait at once, every time: listen to the others.
                    debug!(%error, "no events");
                    thread::sleep(PAUSE.min(left));
                    if let Some(old) = listening {
                        self.call("nvmlEventSetFree", DEADLINE, || drop(old));
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Tells what is new about each GPU; returns those that answer.
    fn look(
        &self,
        nvml: &Library,
        states: &mut BTreeMap<String, GpuState>,
    ) -> Result<Vec<String>, NvmlError> {
        let bound = pci::gpus(&self.sys);
        // One that was there and is bound to another driver now is somebody's intention.
        let gone = states
            .keys()
            .filter(|gpu| !bound.contains(gpu) && !pci::exists(&self.sys, gpu))
            .cloned()
            .collect::<Vec<_>>();
        let mut answering = Vec::new();
        for gpu in gone.into_iter().chain(bound) {
            let state = if pci::exists(&self.sys, &gpu) {
                self.state(nvml, &gpu)?
            } else {
                Some(lost("it is not on the PCI bus any more".to_owned()))
            };
            let Some(state) = state else { continue };
            if state.lost.is_none() {
                answering.push(gpu.clone());
            }
            if states.get(&gpu) != Some(&state) {
                self.tell(What::Gpu {
                    gpu: gpu.clone(),
                    state: state.clone(),
                });
                states.insert(gpu, state);
            }
        }
        Ok(answering)
    }

    /// Nothing where NVML does not say.
    fn state(&self, nvml: &Library, gpu: &str) -> Result<Option<GpuState>, NvmlError> {
        let device = match self.device(nvml, gpu) {
            Ok(device) => device,
            Err(error) => return is_lost(error, gpu),
        };
        let errors = self.call("nvmlDeviceGetTotalEccErrors", DEADLINE, || {
            device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
        });
        let uncorrected = match errors {
            Ok(errors) => Some(errors),
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => None,
            Err(error) => return is_lost(error, gpu),
        };
        let fields = self.call("nvmlDeviceGetFieldValues", DEADLINE, || {
            device.field_values_for(&[FieldId(RECOVERY_ACTION)])
        });
        let field = match fields {
            Ok(fields) => fields.into_iter().next(),
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => None,
            Err(error) => return is_lost(error, gpu),
        };
        let recovery = match field.and_then(|field| field.ok()?.value.ok()) {
            Some(SampleValue::U32(0) | SampleValue::U64(0)) => Recovery::NotNeeded,
            Some(SampleValue::U32(_) | SampleValue::U64(_)) => Recovery::Needed,
            Some(SampleValue::F64(_) | SampleValue::I64(_)) | None => Recovery::Unknown,
        };
        Ok(Some(GpuState {
            lost: None,
            recovery,
            uncorrected,
        }))
    }

    /// One set for all; a GPU without events is left to the looks.
    fn listen<'nvml>(
        &self,
        nvml: &'nvml Library,
        gpus: Vec<String>,
    ) -> Result<Option<Listening<'nvml>>, NvmlError> {
        let mut mute = Vec::new();
        'anew: while mute.len() < gpus.len() {
            let mut set = self.call("nvmlEventSetCreate", DEADLINE, || nvml.create_event_set())?;
            let mut listening = BTreeMap::new();
            for gpu in gpus.iter().filter(|gpu| !mute.contains(*gpu)) {
                let device = self.device(nvml, gpu);
                let registered = device.and_then(|device| {
                    let types = EventTypes::CRITICAL_XID_ERROR;
                    let register = || device.register_events(types, set);
                    let set = self.call("nvmlDeviceRegisterEvents", DEADLINE, register);
                    Ok((set.map_err(|error| error.error)?, key(&device)))
                });
                match registered {
                    Ok((registered, key)) => {
                        set = registered;
                        listening.insert(key, gpu.clone());
                    }
                    Err(error) if ends_all(&error) => return Err(error),
                    // The set went with the failure.
                    Err(error) => {
                        warn!(gpu, %error, "NVML tells no events of this GPU");
                        mute.push(gpu.clone());
                        continue 'anew;
                    }
                }
            }
            return Ok(Some(Listening {
                set,
                gpus: listening,
            }));
        }
        Ok(None)
    }

    fn device<'nvml>(&self, nvml: &'nvml Library, gpu: &str) -> Result<Device<'nvml>, NvmlError> {
        let address = format!("{gpu}.0");
        self.call("nvmlDeviceGetHandleByPciBusId_v2", DEADLINE, || {
            nvml.device_by_pci_bus_id(address)
        })
    }

    fn call<T>(&self, name: &'static str, limit: Duration, call: impl FnOnce() -> T) -> T {
        let (result, hung) = self.deadline.watch(name, limit, call);
        if hung {
            self.tell(What::Nvml(Nvml::Answered));
        }
        result
    }

    fn tell(&self, what: What) {
        let signal = Signal {
            at: clock::boot(),
            historic: false,
            what,
        };
        // Without a reader the process is on its way out.
        if self.queue.send(signal).is_ok()
            && let Err(error) = rustix::io::write(&self.wake, &1u64.to_ne_bytes())
        {
            warn!(%error, "the reader thread could not be woken");
        }
    }
}

/// NVML is of no more use.
fn ends_all(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::Uninitialized
            | NvmlError::DriverNotLoaded
            | NvmlError::LibRmVersionMismatch
            | NvmlError::FailedToLoadSymbol(_)
    )
}

/// Nothing where the error says nothing about the GPU: no permission, an old driver.
fn is_lost(error: NvmlError, gpu: &str) -> Result<Option<GpuState>, NvmlError> {
    match error {
        error if ends_all(&error) => Err(error),
        NvmlError::GpuLost
        | NvmlError::ResetRequired
        | NvmlError::NotFound
        | NvmlError::InsufficientPower
        | NvmlError::IrqIssue => Ok(Some(lost(error.to_string()))),
        error => {
            debug!(gpu, %error, "NVML says nothing about this GPU");
            Ok(None)
        }
    }
}

fn lost(why: String) -> GpuState {
    GpuState {
        lost: Some(why),
        recovery: Recovery::Unknown,
        uncorrected: None,
    }
}

/// A GPU that is lost may not be asked for its address any more, but its handle stays the same.
fn key(device: &Device<'_>) -> usize {
    #[expect(unsafe_code, reason = "the handle is compared, never used")]
    // SAFETY: no call is made with it.
    let handle = unsafe { device.handle() };
    handle.addr()
}
