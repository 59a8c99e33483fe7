//! What is asked of NVML: events as they come, and each GPU's state now and then.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_NVLINK_GET_STATE,
    NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL, NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    NVML_FI_DEV_PCIE_REPLAY_COUNTER, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING,
    NVML_FI_DEV_RETIRED_PENDING,
};
use nvml_wrapper::{Device, EventSet, Nvml as Library};
use tracing::{debug, info, warn};

use super::deadline::Deadline;
use super::details::plain;
use super::raw::{self, Field};
use super::{driver_loaded, holders, instance_types, pci, rehearsal};
use crate::clock;
use crate::judgement::{self, Action};
use crate::signal::{GpuDetails, GpuState, Links, Nvml, Recovery, Signal, SourceName, What};

/// Beyond the time that a call takes by itself. After XID 119 each call takes about 6 s.
const DEADLINE: Duration = Duration::from_secs(5);

/// Between two tries of what fails at once: events of a GPU that is lost, a look after each event.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks, of which one asks about the details as well.
const LOOKS: u32 = 6;

/// NVLinks of a GPU, at most.
const LINKS: u32 = 18;

/// What is asked in one call, besides the state of each link.
const FIELDS: [u32; 7] = [
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
    NVML_FI_DEV_REMAPPED_PENDING,
    NVML_FI_DEV_RETIRED_PENDING,
    NVML_FI_DEV_REMAPPED_FAILURE,
    NVML_FI_DEV_PCIE_REPLAY_COUNTER,
    NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
];

pub(super) struct Session {
    pub library: PathBuf,
    pub proc: PathBuf,
    pub sys: PathBuf,
    pub interval: Duration,
    pub queue: Sender<Signal>,
    pub wake: Arc<OwnedFd>,
    pub deadline: Arc<Deadline>,
}

/// What was said of a GPU last.
#[derive(Default)]
struct Known {
    state: GpuState,
    /// When its details were read, if they were.
    details: Option<Duration>,
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
        let mut present = None;
        while driver_loaded(&self.sys) {
            self.count(&mut present);
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
                self.tell(What::Nvml(Nvml::Watching {
                    gpus: states.len(),
                    untold: untold(&states),
                }));
            }
            listening = self.events(listening)?;
        }
        Ok(())
    }

    /// Against what an instance of this type has, where that is known.
    fn count(&self, told: &mut Option<usize>) {
        let expected = pci::product_name(&self.sys)
            .and_then(|name| Some((instance_types::gpus(&name)?, name)));
        let Some((expected, instance_type)) = expected else {
            return;
        };
        match pci::count_of_nvidia(&self.sys) {
            Ok(gpus) if told.replace(gpus) != Some(gpus) => {
                self.tell(What::Nvml(Nvml::Present {
                    gpus,
                    expected,
                    instance_type,
                }));
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "the PCI bus cannot be read"),
        }
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
                            partition: None,
                            xid,
                            detail: None,
                            process: None,
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
        states: &mut BTreeMap<String, Known>,
    ) -> Result<Vec<String>, NvmlError> {
        let bound = pci::gpus(&self.sys);
        // One that was there and is bound to another driver now is somebody's intention.
        let gone = states
            .keys()
            .filter(|gpu| !bound.contains(gpu) && !pci::exists(&self.sys, gpu))
            .cloned()
            .collect::<Vec<_>>();
        let held = holders::ask(&self.proc)
            .inspect_err(|error| debug!(%error, "kubelet does not say who holds the GPUs"));
        let mut answering = Vec::new();
        for gpu in gone.into_iter().chain(bound) {
            let known = states.get(&gpu);
            let state = if pci::exists(&self.sys, &gpu) {
                let named = known.is_some_and(|known| known.state.uuid.is_some());
                self.state(nvml, &gpu, named)?
            } else {
                Some(lost("it is not on the PCI bus any more".to_owned()))
            };
            let Some(mut state) = state else { continue };
            let uuid = known.and_then(|known| known.state.uuid.clone());
            state.uuid = state.uuid.or(uuid);
            let (details, read) = self.renewed(nvml, &gpu, &state, known, held.is_err())?;
            *state.details = details;
            hold(&mut state, held.as_ref().ok());
            if state.lost.is_none() {
                answering.push(gpu.clone());
            }
            if known.map(|known| &known.state) != Some(&state) {
                self.tell(What::Gpu {
                    gpu: gpu.clone(),
                    state: state.clone(),
                });
            }
            let known = Known {
                state,
                details: read,
            };
            states.insert(gpu, known);
        }
        Ok(answering)
    }

    /// The details, and when they were read: as they were, unless it is time to ask again.
    fn renewed(
        &self,
        nvml: &Library,
        gpu: &str,
        state: &GpuState,
        known: Option<&Known>,
        unheld: bool,
    ) -> Result<(GpuDetails, Option<Duration>), NvmlError> {
        let now = clock::boot();
        let before = known.map(|known| known.state.details.as_ref());
        let read = known.and_then(|known| known.details);
        let is_due = read.is_none_or(|read| now >= read + self.interval * LOOKS);
        let unchanged = || (before.cloned().unwrap_or_default(), read);
        if state.lost.is_some() || !is_due {
            return Ok(unchanged());
        }
        let before = before.filter(|_| read.is_some());
        match self.details(nvml, gpu, before, unheld) {
            Ok(details) => Ok((details, Some(now))),
            Err(error) if ends_all(&error) => Err(error),
            // The next look says what is wrong with it.
            Err(error) => {
                debug!(gpu, %error, "no details");
                Ok(unchanged())
            }
        }
    }

    /// Nothing where NVML does not say.
    fn state(&self, nvml: &Library, gpu: &str, named: bool) -> Result<Option<GpuState>, NvmlError> {
        self.ask(nvml, gpu, named)
            .map_or_else(|error| is_lost(error, gpu), |state| Ok(Some(state)))
    }

    /// `named`: its UUID is known, which does not change.
    fn ask(&self, nvml: &Library, gpu: &str, named: bool) -> Result<GpuState, NvmlError> {
        let device = self.device(nvml, gpu)?;
        let uuid = if named {
            None
        } else {
            supported(self.call_about(gpu, "nvmlDeviceGetUUID", || device.uuid()))?.map(plain)
        };
        let uncorrected = supported(self.call_about(gpu, "nvmlDeviceGetTotalEccErrors", || {
            device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
        }))?;
        let links = (0..LINKS).map(|link| (NVML_FI_DEV_NVLINK_GET_STATE, link));
        let wanted: Vec<Field> = FIELDS
            .into_iter()
            .map(|field| (field, 0))
            .chain(links)
            .collect();
        let fields = supported(self.call_about(gpu, "nvmlDeviceGetFieldValues", || {
            raw::fields(nvml, &device, &wanted)
        }))?;
        let mut fields = fields.unwrap_or_default().into_iter();
        let mut next = || fields.next().flatten();
        let action = next().and_then(judgement::recovery_action);
        let pending = [next(), next()];
        let failed = next();
        let pcie_replays = next();
        let link_errors = [next(), next()];
        let links = of_links(fields);
        let clocks = supported(self.call_about(
            gpu,
            "nvmlDeviceGetCurrentClocksThrottleReasons",
            || device.current_throttle_reasons(),
        ))?;
        let fabric = supported(self.call_about(gpu, "nvmlDeviceGetGpuFabricInfoV", || {
            raw::fabric(nvml, &device)
        }))?;
        let hot = ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::SW_THERMAL_SLOWDOWN;
        let brake = ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN;
        let slowed = ThrottleReasons::HW_SLOWDOWN;
        Ok(GpuState {
            lost: None,
            uuid,
            holders: Vec::new(),
            recovery: match action {
                None => Recovery::Unknown,
                Some(Action::None) => Recovery::NotNeeded,
                Some(_) => Recovery::Needed,
            },
            action: action.filter(|action| *action != Action::None),
            uncorrected,
            remap_pending: pending
                .into_iter()
                .flatten()
                .map(|pending| pending != 0)
                .reduce(|one, other| one || other),
            remap_failed: failed.map(|failed| failed != 0),
            links,
            link_errors: link_errors
                .into_iter()
                .flatten()
                .reduce(u64::saturating_add),
            pcie_replays,
            hot: clocks.map(|reasons| reasons.intersects(hot)),
            power_brake: clocks.map(|reasons| {
                reasons.intersects(brake) || reasons.intersects(slowed) && !reasons.intersects(hot)
            }),
            fabric: fabric.flatten(),
            details: Box::default(),
        })
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
                    let set = self.call_about(gpu, "nvmlDeviceRegisterEvents", register);
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

    pub(super) fn device<'nvml>(
        &self,
        nvml: &'nvml Library,
        gpu: &str,
    ) -> Result<Device<'nvml>, NvmlError> {
        let address = format!("{gpu}.0");
        self.call_about(gpu, "nvmlDeviceGetHandleByPciBusId_v2", || {
            nvml.device_by_pci_bus_id(address)
        })
    }

    fn call<T>(&self, name: &'static str, limit: Duration, call: impl FnOnce() -> T) -> T {
        self.watched(name, None, limit, call)
    }

    pub(super) fn call_about<T>(
        &self,
        gpu: &str,
        name: &'static str,
        call: impl FnOnce() -> T,
    ) -> T {
        self.watched(name, Some(gpu), DEADLINE, call)
    }

    fn watched<T>(
        &self,
        name: &'static str,
        gpu: Option<&str>,
        limit: Duration,
        call: impl FnOnce() -> T,
    ) -> T {
        let (result, hung) = self.deadline.watch(name, gpu, limit, call);
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

/// Nothing where this GPU or driver does not have it.
pub(super) fn supported<T>(result: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(
            NvmlError::NotSupported
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::InvalidArg
            | NvmlError::NoPermission,
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A bit for each that is active; nothing where there are none.
fn of_links(states: impl Iterator<Item = Option<u64>>) -> Option<Links> {
    let states: Vec<_> = states.collect();
    let active = states
        .iter()
        .enumerate()
        .filter(|(_, state)| **state == Some(1))
        .fold(0, |mask, (link, _)| mask | 1 << link);
    let any = states.iter().any(Option::is_some);
    any.then_some(Links { active, known: 0 })
}

/// What none of the GPUs tells that answer.
fn untold(states: &BTreeMap<String, Known>) -> Vec<&'static str> {
    let answering: Vec<_> = states
        .values()
        .map(|known| &known.state)
        .filter(|state| state.lost.is_none())
        .map(GpuState::tells)
        .collect();
    let Some(first) = answering.first() else {
        return Vec::new();
    };
    let untold = first.iter().enumerate().filter(|(index, _)| {
        answering
            .iter()
            .all(|tells| tells.get(*index).is_none_or(|(_, told)| !told))
    });
    untold.map(|(_, (what, _))| *what).collect()
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

/// Whom kubelet gave it to, as a whole or in partitions.
fn hold(state: &mut GpuState, held: Option<&BTreeMap<String, Vec<String>>>) {
    let of = |uuid: &String| held.and_then(|held| held.get(uuid)).cloned();
    state.holders = state.uuid.as_ref().and_then(of).unwrap_or_default();
    for partition in &mut state.details.partitions {
        partition.holders = of(&partition.uuid).unwrap_or_default();
        state.holders.extend(partition.holders.iter().cloned());
    }
}

/// It is about the GPU, or about NVML, and not about one answer.
pub(super) fn concerns_all(error: &NvmlError) -> bool {
    ends_all(error) || matches!(error, NvmlError::GpuLost | NvmlError::ResetRequired)
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
        ..GpuState::default()
    }
}

/// A GPU that is lost may not be asked for its address any more, but its handle stays the same.
fn key(device: &Device<'_>) -> usize {
    #[expect(unsafe_code, reason = "the handle is compared, never used")]
    // SAFETY: no call is made with it.
    let handle = unsafe { device.handle() };
    handle.addr()
}
