//! Two replicas: one acts.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::scene::Scene;

fn says(text: &'static str) -> impl Fn(&Value) -> bool {
    move |line| {
        line["message"]
            .as_str()
            .is_some_and(|message| message.contains(text))
    }
}

pub(crate) async fn takes_over() -> anyhow::Result<()> {
    let scene = Scene::start(2).await?;
    let mut first = scene.repairer("first")?;
    first
        .wait_for_log(Duration::from_secs(10), says("leading"))
        .await?;
    let mut second = scene.repairer("second")?;
    second
        .wait_for_log(Duration::from_secs(10), says("another replica leads"))
        .await?;
    let status = first.terminate(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}");
    // The first let go of the lease, so this does not wait for it to expire.
    second
        .wait_for_log(Duration::from_secs(6), says("leading"))
        .await?;
    Ok(())
}

pub(crate) async fn lost() -> anyhow::Result<()> {
    let scene = Scene::start(2).await?;
    let mut first = scene.repairer("first")?;
    first
        .wait_for_log(Duration::from_secs(10), says("leading"))
        .await?;
    let leases: Api<Lease> = Api::namespaced(scene.control_plane.admin(), "nodemend-system");
    let theirs = json!({"spec": {"holderIdentity": "somebody-else"}});
    leases
        .patch(
            "nodemend-repairer",
            &PatchParams::default(),
            &Patch::Merge(theirs),
        )
        .await?;
    let status = first.wait_exit(Duration::from_secs(20))?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(
        first
            .log_lines()
            .iter()
            .any(|line| line.contains("another replica has taken the lease"))
    );
    Ok(())
}
