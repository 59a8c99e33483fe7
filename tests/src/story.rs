//! The whole story on real parts, told once for the demo and for the end-to-end test: from faults
//! of this kernel, through both daemons, to a replaced node.

mod gpu;
mod kubectl;
mod latency;
mod policy;
mod removal;
mod repair;
mod replacement;
mod screen;
mod silence;
mod stage;
mod timeline;
mod warnings;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use tokio::time::Instant;

use self::replacement::Told;
use crate::control_plane::ControlPlane;
use crate::faults;

pub use screen::Screen;

pub struct Options {
    /// An existing cluster, whose API server is on loopback; None starts one.
    pub kubeconfig: Option<PathBuf>,
    /// How long it is shown that a disabled policy repairs nothing.
    pub disabled_for: Duration,
    /// Whether a node loses a GPU, too.
    pub gpu: bool,
}

/// Tells the story, and takes everything away again. An error is a step that did not happen.
pub async fn tell(
    options: &Options,
    screen: &Screen,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    if let Some(reason) = faults::unavailable() {
        return Err(anyhow!(reason));
    }
    let started = Instant::now();
    let mut interrupted = std::pin::pin!(interrupted);
    screen.line("nodemend: from a kernel fault to a replaced node, on real parts");
    screen.chapter("The cluster");
    let control_plane = tokio::select! {
        control_plane = cluster(options, screen) => control_plane?,
        () = &mut interrupted => return Err(anyhow!("interrupted")),
    };
    let told = tokio::select! {
        told = chapters(&control_plane, options, screen) => told,
        () = &mut interrupted => Err(anyhow!("interrupted")),
    };
    if options.kubeconfig.is_some() {
        let removed = screen
            .step(
                "everything removed from the cluster",
                removal::remove(&control_plane),
            )
            .await;
        return told.and(removed);
    }
    told?;
    drop(control_plane);
    screen.line("");
    screen.done(&format!(
        "done in {}; everything is taken away again",
        screen::seconds(started.elapsed())
    ));
    Ok(())
}

async fn cluster(options: &Options, screen: &Screen) -> anyhow::Result<ControlPlane> {
    match &options.kubeconfig {
        None => {
            let what =
                "etcd, kube-apiserver, kube-controller-manager and kube-scheduler on loopback";
            screen.step(what, ControlPlane::start()).await
        }
        Some(kubeconfig) => {
            let control_plane = ControlPlane::existing(kubeconfig).await?;
            removal::ensure_free(&control_plane).await?;
            screen.done(&format!("the cluster at {}", control_plane.server_url()?));
            Ok(control_plane)
        }
    }
}

async fn chapters(
    control_plane: &ControlPlane,
    options: &Options,
    screen: &Screen,
) -> anyhow::Result<()> {
    let mut stage = stage::set(control_plane, screen).await?;

    // First, because the control plane takes its time to call a node silent.
    screen.chapter("In a larger group");
    let silence = silence::begin(&mut stage, screen).await?;

    screen.chapter("Four faults that a node survives: each becomes an Event");
    let mut latencies = warnings::provoke(&mut stage, screen).await?;

    screen.chapter("A fault that it does not survive: its file system becomes read-only");
    let mut told =
        vec![repair::follow(&mut stage, options.disabled_for, &mut latencies, screen).await?];
    if options.gpu {
        screen.chapter("A GPU falls off the bus: NVML (a scripted one) tells XID 79");
        told.push(gpu::follow(control_plane, &stage, &mut latencies, screen).await?);
    }

    screen.chapter("Three nodes of ten are silent: is it the nodes?");
    told.push(silence::follow(&stage, silence, screen).await?);

    screen.chapter("What it took");
    for line in latency::table(&latencies) {
        screen.note(&line);
    }
    for line in told.iter().flat_map(Told::table) {
        screen.note(&line);
    }
    screen.chapter("The repair step by step, as its NodeRepair tells it");
    timeline::show(&stage, stage::HOST, true, screen).await?;
    screen.chapter("The repair of the node that stayed silent: it had no pod");
    timeline::show(&stage, silence::CANARY, false, screen).await?;
    screen.chapter("$ kubectl get noderepairs -o wide");
    let record = kubectl::run(control_plane, &["get", "noderepairs", "-o", "wide"]).await?;
    ensure!(
        record.matches("Succeeded").count() == told.len(),
        "kubectl does not show {} repairs that succeeded:\n{record}",
        told.len()
    );
    for line in record.lines() {
        screen.note(&screen::printable(line));
    }
    Ok(())
}
