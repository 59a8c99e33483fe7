//! A GPU that falls off the bus, as a scripted NVML tells it, and the repair of its node: another
//! node of the group, with a detector of its own. No GPU is needed.

use anyhow::ensure;

use super::latency::Latency;
use super::repair::MORE_REPLICAS;
use super::replacement::{Patient, Told};
use super::screen::Screen;
use super::stage::{SOON, Stage, detector_of};
use crate::control_plane::ControlPlane;
use crate::faults;
use crate::gpu_node::{GpuNode, HEALTHY};

const NODE: &str = "nodemend-demo-2";
const CONDITION: &str = "AcceleratedHardwareReady";
const LOST: &str = "gpu 0000:05:00.0 lost\ngpu 0000:06:00.0\nxid 0000:05:00.0 79\n";
const REASON: &str = "NvidiaXID79Error";

pub(super) async fn follow(
    control_plane: &ControlPlane,
    stage: &Stage,
    latencies: &mut Vec<Latency>,
    screen: &Screen,
) -> anyhow::Result<Told> {
    let gpus = GpuNode::new(HEALTHY)?;
    let mut detector = detector_of(control_plane, NODE, &gpus.args(), &gpus.env()).await?;
    let listens = detector.wait_for_log(SOON, |line| line["message"] == "NVML answers");
    screen
        .step(
            &format!("nodemend-detector watches two GPUs of {NODE}"),
            listens,
        )
        .await?;

    let patient = Patient::admit(stage, NODE).await?;
    let mut told = Told::since_now("the repair of the node with GPUs");
    let fault = ("XID 79: a GPU is lost", faults::boot_clock());
    gpus.play(LOST)?;
    let (latency, condition) = patient
        .falls_sick(&stage.client, &mut detector, CONDITION, fault, screen)
        .await?;
    ensure!(
        condition.reason.as_deref() == Some(REASON),
        "the reason is {:?}",
        condition.reason
    );
    latencies.push(latency);
    told.step("AcceleratedHardwareReady is False: NvidiaXID79Error");
    patient.becomes_cordoned(stage, &mut told, screen).await?;
    patient.is_terminated(stage, &mut told, screen).await?;
    // Its host is gone.
    detector.kill();
    patient
        .is_replaced(stage, MORE_REPLICAS, &mut told, screen)
        .await?;
    Ok(told)
}
