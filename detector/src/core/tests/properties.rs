//! What holds for any sequence of faults, answers and restarts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::suspects::MOST_SUSPECTS;
use super::*;

/// Some are under a critical path, some are not.
const DEVICES: [(&str, bool); 4] = [
    ("sda1", true),
    ("sdb1", true),
    ("loop0", false),
    ("dm-3", false),
];

#[derive(Debug, Clone)]
enum Deed {
    /// The kernel turns a file system read-only and says so.
    Break(usize),
    /// Somebody mounts it anew; nothing says so.
    Mend(usize),
    /// A line that is not true.
    Lie(usize),
    Oom(u32),
    IoError(usize),
    /// Time passes; a due wake-up is delivered.
    Wait(u64),
    /// What was asked for is answered.
    Answer,
    /// What was asked for is not answered in time.
    Late,
    /// The agent starts anew; `forgotten`: the log no longer has what the Node remembers.
    Restart {
        forgotten: bool,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    let device = 0..DEVICES.len();
    prop_oneof![
        3 => device.clone().prop_map(Deed::Break),
        3 => device.clone().prop_map(Deed::Mend),
        1 => device.clone().prop_map(Deed::Lie),
        1 => (0u32..5).prop_map(Deed::Oom),
        1 => device.prop_map(Deed::IoError),
        4 => (0u64..700).prop_map(Deed::Wait),
        4 => Just(Deed::Answer),
        1 => Just(Deed::Late),
        1 => any::<bool>().prop_map(|forgotten| Deed::Restart { forgotten }),
    ]
}

/// A host with an agent on it, and the Node object that it writes to.
struct Host {
    core: Core,
    seconds: u64,
    broken: [bool; DEVICES.len()],
    log: Vec<&'static str>,
    asked: Vec<String>,
    node: BTreeMap<ConditionType, Condition>,
}

impl Host {
    fn new() -> Self {
        let mut host = Self {
            core: Core::new(Vec::new()),
            seconds: 1,
            broken: [false; DEVICES.len()],
            log: Vec::new(),
            asked: Vec::new(),
            node: BTreeMap::new(),
        };
        host.start();
        host
    }

    fn start(&mut self) {
        self.start_with(self.log.clone());
    }

    fn start_with(&mut self, log: Vec<&'static str>) {
        self.core = Core::new(ConditionType::ALL.to_vec());
        self.asked.clear();
        for device in log {
            self.step(historic(read_only_line(device), at(0)));
        }
        self.step(Input::HistoryRead);
        let existing = self.node.values().map(|condition| Existing {
            kind: condition.kind,
            healthy: condition.healthy,
            transition: condition.transition,
            message: condition.message.clone(),
        });
        let existing = existing.collect();
        self.step(Input::Existing(existing));
    }

    fn step(&mut self, input: Input) {
        let now = at(self.seconds);
        for output in self.core.step(input, now) {
            match output {
                Output::Probe { device } => self.asked.push(device),
                Output::Transition(_)
                | Output::LookAtTask { .. }
                | Output::LookAtCpu { .. }
                | Output::Open(_)
                | Output::State(_) => {}
                Output::Conditions { conditions, .. } => {
                    for condition in conditions {
                        self.write(condition, now);
                    }
                }
            }
        }
        assert!(self.core.suspects.names().count() <= MOST_SUSPECTS);
        assert!(self.core.findings.iter().count() <= Reason::ALL.len() * (MOST_PER_REASON + 1));
    }

    /// The rule of `lastTransitionTime`, for every write to the Node.
    fn write(&mut self, new: Condition, now: Now) {
        match self.node.get(&new.kind) {
            Some(old) if old.healthy == new.healthy => assert_eq!(new.transition, old.transition),
            Some(_) | None => assert_eq!(new.transition, now.wall),
        }
        self.node.insert(new.kind, new);
    }

    fn answer(&mut self, late: bool) {
        for device in std::mem::take(&mut self.asked) {
            let index = DEVICES
                .iter()
                .position(|(name, _)| *name == device)
                .unwrap();
            let truth = if self.broken[index] {
                read_only(DEVICES[index].1)
            } else {
                Evidence::Writable
            };
            self.step(evidence(&device, if late { Evidence::Late } else { truth }));
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.seconds += seconds;
        if self
            .core
            .wake_at()
            .is_some_and(|due| due <= at(self.seconds).boot)
        {
            self.step(Input::Wake);
        }
    }

    fn do_(&mut self, deed: &Deed) {
        let now = at(self.seconds);
        match *deed {
            Deed::Break(index) => {
                self.broken[index] = true;
                self.log.push(DEVICES[index].0);
                self.step(signal(read_only_line(DEVICES[index].0), now));
            }
            Deed::Mend(index) => self.broken[index] = false,
            Deed::Lie(index) => self.step(signal(read_only_line(DEVICES[index].0), now)),
            Deed::Oom(pid) => self.step(signal(oom(pid), now)),
            Deed::IoError(index) => self.step(signal(io_error(DEVICES[index].0), now)),
            Deed::Wait(seconds) => self.wait(seconds),
            Deed::Answer => self.answer(false),
            Deed::Late => self.answer(true),
            Deed::Restart { forgotten: false } => self.start(),
            Deed::Restart { forgotten: true } => {
                let remembered: String = self
                    .node
                    .values()
                    .map(|condition| condition.message.as_str())
                    .collect();
                let known = |device: &&str| !remembered.contains(*device);
                // The next start finds it again: what neither the log nor the Node has any more is
                // known to the saved state alone, which this host does not have.
                self.start_with(self.log.iter().copied().filter(known).collect());
            }
        }
    }

    /// Lets everything be asked and answered, and what flaps be well for long enough.
    fn settle(&mut self) {
        for _ in 0..64 {
            self.wait(10);
            self.answer(false);
        }
    }

    fn statuses(&self) -> Vec<(ConditionType, bool)> {
        self.node
            .values()
            .map(|condition| (condition.kind, condition.healthy))
            .collect()
    }
}

proptest! {
    #[test]
    fn in_the_end_the_node_says_what_is_so(deeds in prop::collection::vec(deed(), 0..40)) {
        let mut host = Host::new();
        for deed in &deeds {
            host.do_(deed);
        }
        host.settle();
        let critical_broken = DEVICES.iter().zip(host.broken).any(|((_, critical), broken)| *critical && broken);
        let wanted = ConditionType::ALL.map(|kind| (kind, kind != ConditionType::StorageReady || !critical_broken));
        prop_assert_eq!(host.statuses(), wanted);
    }

    #[test]
    fn a_restart_anywhere_changes_no_status(
        deeds in prop::collection::vec(deed(), 0..30),
        place in any::<prop::sample::Index>(),
        forgotten in any::<bool>(),
    ) {
        let (mut calm, mut restarted) = (Host::new(), Host::new());
        let place = place.index(deeds.len() + 1);
        for (index, deed) in deeds.iter().enumerate() {
            if index == place {
                let before = restarted.statuses();
                restarted.do_(&Deed::Restart { forgotten });
                prop_assert_eq!(before, restarted.statuses(), "the restart alone changed something");
            }
            calm.do_(deed);
            restarted.do_(deed);
        }
        calm.settle();
        restarted.settle();
        prop_assert_eq!(calm.statuses(), restarted.statuses());
    }

    #[test]
    fn any_inputs_in_any_order_leave_a_bounded_core(
        inputs in prop::collection::vec((0u8..9, 0u32..100_000, 0u64..1_000_000_000), 0..600),
    ) {
        let mut core = Core::new(ConditionType::ALL.to_vec());
        for (kind, number, seconds) in inputs {
            let now = at(seconds);
            let name = format!("d{number}");
            let input = match kind {
                0 => signal(oom(number), now),
                1 => signal(io_error(&name), now),
                2 => signal(read_only_line(&name), now),
                3 => historic(read_only_line(&name), now),
                4 => evidence(&name, read_only(true)),
                5 => evidence(&name, Evidence::Writable),
                6 => Input::Wake,
                7 => Input::HistoryRead,
                _ => Input::Existing(vec![Existing {
                    kind: ConditionType::StorageReady,
                    healthy: false,
                    transition: now.wall,
                    message: format!("FilesystemReadOnly: {name}, mounted at /, is read-only").repeat(200),
                }]),
            };
            core.step(input, now);
            prop_assert!(core.suspects.names().count() <= MOST_SUSPECTS);
            prop_assert!(core.findings.iter().count() <= Reason::ALL.len() * (MOST_PER_REASON + 1));
        }
    }
}

/// Faults of one log, and what happens to the agents that read it.
#[derive(Debug, Clone)]
enum Happening {
    Fault(usize),
    Quiet(u64),
    /// The state reaches the file.
    Save,
    /// Killed, at any point after the last save; the next agent starts so many seconds later.
    Kill(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        5 => (0..DEVICES.len()).prop_map(Happening::Fault),
        3 => (0u64..400).prop_map(Happening::Quiet),
        2 => Just(Happening::Save),
        2 => (0u64..30).prop_map(Happening::Kill),
    ]
}

fn settings() -> Settings {
    let threshold = Threshold {
        count: 2,
        window: Duration::from_secs(300),
    };
    let over = Override {
        severity: Some(Severity::Fatal),
        threshold: Some(threshold),
        ..Override::default()
    };
    Settings {
        overrides: BTreeMap::from([("BlockDeviceIOError".to_owned(), over)]),
        ..Settings::default()
    }
}

/// Agents one after the other, on one log and one Node.
struct Agents {
    core: Core,
    log: Vec<(usize, Now)>,
    read: usize,
    file: Option<(State, usize)>,
    node: BTreeMap<ConditionType, Condition>,
}

impl Agents {
    fn new() -> Self {
        let mut agents = Self {
            core: Core::new(vec![]),
            log: Vec::new(),
            read: 0,
            file: None,
            node: BTreeMap::new(),
        };
        agents.start(at(1));
        agents
    }

    fn start(&mut self, now: Now) {
        self.core = Core::new(vec![ConditionType::StorageReady]);
        self.step(Input::Settings(settings()), now);
        self.read = 0;
        if let Some((state, read)) = self.file.clone() {
            self.read = read;
            let bytes = serde_json::to_vec(&state).unwrap();
            let state = State::parse(&bytes, "boot").unwrap().unwrap().state;
            self.core.restore(&state, now);
        }
        self.read_log(now);
        self.step(Input::HistoryRead, now);
        let existing = self.node.values().map(|condition| Existing {
            kind: condition.kind,
            healthy: condition.healthy,
            // The API has whole seconds.
            transition: condition.transition,
            message: condition.message.clone(),
        });
        let existing = existing.collect();
        self.step(Input::Existing(existing), now);
    }

    fn read_log(&mut self, now: Now) {
        for index in self.read..self.log.len() {
            let (device, when) = self.log[index];
            let fault = Signal {
                at: when.boot,
                historic: false,
                what: io_error(DEVICES[device].0),
            };
            self.step(Input::Signal(fault), now);
        }
        self.read = self.log.len();
    }

    fn step(&mut self, input: Input, now: Now) {
        for output in self.core.step(input, now) {
            if let Output::Conditions { conditions, .. } = output {
                for condition in conditions {
                    self.node.insert(condition.kind, condition);
                }
            }
        }
    }

    fn fault(&mut self, device: usize, now: Now) {
        self.log.push((device, now));
        self.read_log(now);
    }

    fn wake(&mut self, now: Now) {
        while let Some(due) = self.core.wake_at().filter(|due| *due <= now.boot) {
            self.step(Input::Wake, at(due.as_secs()));
        }
    }

    fn save(&mut self, now: Now) {
        let mut state = State::new("boot".to_owned(), now, at(1).boot);
        self.core.save(&mut state);
        self.file = Some((state, self.read));
    }

    /// All that anybody could see of it, but for the gap that a restart reports.
    fn visible(&self) -> Vec<(Reason, String, u64, Duration)> {
        let open = self.core.findings.iter();
        open.filter(|((reason, _), _)| *reason != Reason::MonitoringGap)
            .map(|((reason, entity), open)| {
                let finding = &open.finding;
                (*reason, entity.clone(), finding.count, finding.last_seen)
            })
            .collect()
    }

    fn conditions(&self) -> Vec<(bool, Timestamp)> {
        let conditions = self.node.values();
        conditions
            .map(|condition| (condition.healthy, condition.transition))
            .collect()
    }
}

proptest! {
    #[test]
    fn killed_at_any_point_the_next_agents_know_what_one_would_have_known(
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let (mut one, mut many) = (Agents::new(), Agents::new());
        many.save(at(1));
        let mut seconds = 1;
        for happening in happenings {
            match happening {
                Happening::Fault(device) => {
                    one.fault(device, at(seconds));
                    many.fault(device, at(seconds));
                }
                Happening::Quiet(quiet) => {
                    seconds += quiet;
                    one.wake(at(seconds));
                    many.wake(at(seconds));
                }
                Happening::Save => many.save(at(seconds)),
                Happening::Kill(pause) => {
                    // Nobody is awake in between, but nothing happens either.
                    seconds += pause;
                    one.wake(at(seconds));
                    many.start(at(seconds));
                    many.wake(at(seconds));
                }
            }
            prop_assert_eq!(one.visible(), many.visible());
            prop_assert_eq!(one.conditions().iter().map(|c| c.0).collect::<Vec<_>>(),
                many.conditions().iter().map(|c| c.0).collect::<Vec<_>>());
        }
    }

    #[test]
    fn when_every_change_was_saved_the_transition_times_are_those_of_one_agent(
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let (mut one, mut many) = (Agents::new(), Agents::new());
        let mut seconds = 1;
        many.save(at(seconds));
        for happening in happenings {
            match happening {
                Happening::Fault(device) => {
                    one.fault(device, at(seconds));
                    many.fault(device, at(seconds));
                }
                Happening::Quiet(quiet) => {
                    seconds += quiet;
                    one.wake(at(seconds));
                    many.wake(at(seconds));
                }
                Happening::Save => {}
                Happening::Kill(_) => {
                    one.wake(at(seconds));
                    many.start(at(seconds));
                }
            }
            many.save(at(seconds));
            prop_assert_eq!(one.visible(), many.visible());
            prop_assert_eq!(one.conditions(), many.conditions());
        }
    }
}

proptest! {
    /// Somebody sets the clock: nothing is opened, repeated or cleared by that, or at another time.
    #[test]
    fn the_wall_clock_decides_nothing(
        faults in prop::collection::vec((0..DEVICES.len(), 0u64..900, -100_000i64..100_000), 0..60),
    ) {
        let (mut calm, mut jumping) = (started(), started());
        for core in [&mut calm, &mut jumping] {
            core.step(Input::Settings(settings()), at(1));
        }
        let mut seconds = 1;
        for (device, pause, jump) in faults {
            seconds += pause;
            let true_time = at(seconds);
            let wrong = Timestamp::from_second(true_time.wall.as_second() + jump).unwrap();
            let set = Now { wall: wrong, ..true_time };
            for input in [Input::Wake, signal(io_error(DEVICES[device].0), true_time)] {
                let one = calm.step(input.clone(), true_time);
                let other = jumping.step(input, set);
                prop_assert_eq!(changes(&one), changes(&other));
                let healthy = |outputs: &[Output]| storage(outputs).map(|storage| storage.healthy);
                prop_assert_eq!(healthy(&one), healthy(&other));
            }
            prop_assert_eq!(calm.wake_at(), jumping.wake_at());
        }
    }
}
