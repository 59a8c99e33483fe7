//! A local AWS: an endpoint that speaks EC2, Auto Scaling, EKS and ARC zonal shift over state that
//! lives and changes as AWS's does, with every call recorded and faults on demand.

mod fault;
mod group;
pub mod identity;
mod machine;
mod query;
mod rate;
mod record;
mod render;
mod rest;
mod server;
mod service;
mod state;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::connection::Connection;
use crate::crash_point::CrashPoints;

pub use fault::{Fault, Kind};
pub use group::{Group, NodeGroup, Shift};
pub use machine::{Instance, InstanceState, Seen};
pub use record::{Answer, Call};
pub use state::Delays;

use rate::Rate;
use state::State;

/// What time it is in the cloud.
#[derive(Clone)]
pub enum Clock {
    Real,
    Manual(Arc<Mutex<Timestamp>>),
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the cloud reads its clock"
    )]
    fn now(&self) -> Timestamp {
        match self {
            Self::Real => Timestamp::now(),
            Self::Manual(now) => *lock(now),
        }
    }
}

/// A handle; the endpoint ends with the last one.
#[derive(Clone)]
pub struct Cloud(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    faults: Mutex<Vec<Fault>>,
    rate: Mutex<Option<Rate>>,
    /// What the caller's policies allow, such as `ec2:DescribeInstances`; `None` is everything.
    allowed: Mutex<Option<BTreeSet<String>>>,
    calls: Mutex<Vec<Call>>,
    points: CrashPoints,
}

impl Cloud {
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Clock::Real, Delays::default()).await
    }

    pub async fn start_with(clock: Clock, delays: Delays) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("open a port for the local AWS")?;
        let address = listener.local_addr().context("read a port")?;
        let shared = Arc::new(Shared {
            clock,
            state: Mutex::new(State::new(delays)),
            faults: Mutex::default(),
            rate: Mutex::default(),
            allowed: Mutex::default(),
            calls: Mutex::default(),
            points: CrashPoints::default(),
        });
        let service =
            server::router(Arc::clone(&shared)).into_make_service_with_connect_info::<Connection>();
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                tracing::error!(%error, "local AWS");
            }
        });
        Ok(Self(Arc::new(Running {
            shared,
            address,
            server,
        })))
    }

    /// An Auto Scaling group with one running instance for each zone given; their ids, in order.
    pub fn create_group(&self, name: &str, zones: &[&str]) -> Vec<String> {
        self.state(|state, now| state.create_group(name, zones, now))
    }

    /// One more instance of a group that has been running for a while; its machine never becomes a Node.
    pub fn create_dead_member(&self, group: &str, zone: &str) -> String {
        self.state(|state, now| {
            let id = state.create_member(group, zone, now);
            if let Some(instance) = state.instances.get_mut(&id) {
                instance.joins = false;
            }
            id
        })
    }

    /// An instance of no group.
    pub fn create_instance(&self, zone: &str) -> String {
        self.state(|state, now| state.create_instance(zone, now))
    }

    /// `TerminateInstances` by somebody else, of an instance of no group.
    pub fn terminate_instance(&self, id: &str) {
        self.state(|state, now| state.terminate_alone(id, now));
    }

    /// Changes a group; nothing where there is none of the name.
    pub fn group(&self, name: &str, change: impl FnOnce(&mut Group)) {
        self.state(|state, _| state.groups.get_mut(name).map(change));
    }

    /// Minimum, desired and maximum of a group.
    pub fn sizes(&self, name: &str) -> Option<(usize, usize, usize)> {
        let sizes = |group: &Group| (group.min, group.desired, group.max);
        self.state(|state, _| state.groups.get(name).map(sizes))
    }

    pub fn instance(&self, id: &str, change: impl FnOnce(&mut Instance)) {
        self.state(|state, _| state.instances.get_mut(id).map(change));
    }

    /// Whoever holds the hook of the instance lets it go.
    pub fn complete_hook(&self, id: &str) {
        self.state(|state, now| state.complete_hook(id, now));
    }

    /// Replaces the one of its name.
    pub fn set_node_group(&self, node_group: NodeGroup) {
        self.state(|state, _| {
            state
                .node_groups
                .retain(|known| known.name != node_group.name);
            state.node_groups.push(node_group);
        });
    }

    /// `None`: ARC does not know the cluster.
    pub fn set_shifts(&self, shifts: Option<Vec<Shift>>) {
        self.state(|state, _| state.shifts = shifts);
    }

    pub fn set_reservation(&self, id: &str, instances: u32) {
        self.state(|state, _| state.reservations.insert(id.to_owned(), instances));
    }

    /// Only these, such as `ec2:DescribeInstances`; what else is asked is denied.
    pub fn allow_only(&self, actions: BTreeSet<String>) {
        *lock(&self.0.shared.allowed) = Some(actions);
    }

    /// All instances ever, as they are now.
    pub fn instances(&self) -> Vec<Seen> {
        self.state(|state, now| state.instances(now))
    }

    /// Whether an instance is being or has been terminated.
    pub fn is_going(&self, id: &str) -> bool {
        self.instances()
            .iter()
            .any(|instance| instance.id == id && instance.state.is_going())
    }

    /// Consumed in order by the calls that they match.
    pub fn add_fault(&self, fault: Fault) {
        lock(&self.0.shared.faults).push(fault);
    }

    /// From now on no more calls than this, of any action, for as long as it lasts.
    pub fn limit_rate(&self, burst: u32, refill: Duration) {
        let now = self.0.shared.clock.now();
        *lock(&self.0.shared.rate) = Some(Rate::new(burst, refill, now));
    }

    pub fn forget_calls(&self) {
        lock(&self.0.shared.calls).clear();
    }

    pub fn calls(&self) -> Vec<Call> {
        lock(&self.0.shared.calls).clone()
    }

    /// The calls that ask for a change, dry runs left out.
    pub fn mutating_calls(&self) -> Vec<Call> {
        self.calls().into_iter().filter(Call::is_mutating).collect()
    }

    /// Crash points are named for the action.
    pub fn points(&self) -> &CrashPoints {
        &self.0.shared.points
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// What the AWS SDK needs to talk to this endpoint and to nothing else.
    pub fn sdk_environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.url().as_str()),
            ("AWS_REGION", "us-west-2"),
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", "local"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
    }

    fn state<T>(&self, look: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        self.0.shared.state(look)
    }
}

impl Shared {
    /// Looks at the state as it is now.
    fn state<T>(&self, look: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        state.advance(now);
        look(&mut state, now)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
