//! A fleet of real exporters in this process, against a real API server: in peace, after an outage,
//! and through a rolling restart.

mod fleet;
mod report;

use std::time::Duration;

use anyhow::Context;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::link::Link;
use nodemend_tests::wait::until;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::fleet::Fleet;
use self::report::Report;
use crate::Format;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Nodes, each with an exporter of its own
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=5000))]
    agents: u32,
    /// Seconds between heartbeats; users have 300, and the table says what it comes to there
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=300))]
    heartbeat: u32,
    /// Seconds for which the fleet is watched in peace
    #[arg(long, default_value_t = 60)]
    steady: u64,
    /// Seconds for which the API server cannot be reached
    #[arg(long, default_value_t = 60)]
    outage: u64,
    /// Seconds over which the restarts are spread
    #[arg(long, default_value_t = 60)]
    rollout: u64,
    /// Seconds between the end of an agent and the start of the next
    #[arg(long, default_value_t = 30)]
    gap: u64,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// More than the longest delay between two tries, with a machine that is busy.
const ALL_BACK_WITHIN: Duration = Duration::from_secs(300);

pub(crate) async fn measure(args: &Args) -> anyhow::Result<Report> {
    allow_connections()?;
    eprintln!("starting a control plane");
    let control_plane = ControlPlane::start().await?;
    let mut link = Link::new(&control_plane)?;
    link.up()?;
    eprintln!("creating {} nodes", args.agents);
    let heartbeat = Duration::from_secs(args.heartbeat.into());
    let mut fleet = Fleet::new(&control_plane, &link, args.agents, heartbeat).await?;
    let mut phases = Vec::new();

    eprintln!("starting {} exporters", args.agents);
    let phase = fleet.phase("all started at once").await?;
    fleet.start()?;
    fleet
        .all_wrote_since(phase.started, ALL_BACK_WITHIN)
        .await?;
    phases.push(fleet.end(phase).await?);

    eprintln!("{} s of peace", args.steady);
    // The first heartbeats are spread over one interval.
    tokio::time::sleep(heartbeat).await;
    let phase = fleet.phase("steady state").await?;
    tokio::time::sleep(Duration::from_secs(args.steady)).await;
    phases.push(fleet.end(phase).await?);
    let before = fleet.transitions().await?;

    eprintln!("{} s without the API server", args.outage);
    let phase = fleet.phase("the outage").await?;
    link.down().await?;
    tokio::time::sleep(Duration::from_secs(args.outage)).await;
    phases.push(fleet.end(phase).await?);
    let phase = fleet.phase("return after the outage").await?;
    link.up()?;
    fleet
        .all_wrote_since(phase.started, ALL_BACK_WITHIN)
        .await?;
    phases.push(fleet.end(phase).await?);
    let after_outage = fleet.transitions().await?;

    eprintln!("restarting all over {} s", args.rollout);
    let phase = fleet.phase("rolling restart").await?;
    let (rollout, gap) = (args.rollout, args.gap);
    fleet
        .restart(Duration::from_secs(rollout), Duration::from_secs(gap))
        .await?;
    // The agents of now are all new.
    fleet
        .all_wrote_since(phase.started, ALL_BACK_WITHIN)
        .await?;
    phases.push(fleet.end(phase).await?);
    let after_restart = fleet.transitions().await?;

    Ok(Report {
        agents: args.agents,
        heartbeat,
        outage: Duration::from_secs(args.outage),
        phases,
        conditions: before.len(),
        changed_by_outage: report::changes(&before, &after_outage),
        changed_by_restart: report::changes(&after_outage, &after_restart),
    })
}

/// Each agent has a connection, which passes through this process once more.
fn allow_connections() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, all).context("allow more open files")
}

impl Fleet {
    async fn all_wrote_since(&self, since: Duration, within: Duration) -> anyhow::Result<()> {
        until(
            within,
            "every exporter has written its conditions",
            async || Ok(self.wrote_since(since).then_some(())),
        )
        .await
    }
}
