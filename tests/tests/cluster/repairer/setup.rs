//! What a person has to mend is named with its remedy.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use nodemend_tests::cloud::Cloud;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::link::Link;
use nodemend_tests::repo;
use serde_json::Value;

use super::scene::repairer;

const SOON: Duration = Duration::from_secs(20);

fn says(text: &'static str) -> impl Fn(&Value) -> bool {
    move |line| line.to_string().contains(text)
}

pub(crate) async fn missing() -> anyhow::Result<()> {
    let cloud = Cloud::start().await?;
    let mut unreadable = repairer(Path::new("/nonexistent/kubeconfig"), "a", &cloud)?;
    let status = unreadable.wait_exit(SOON)?;
    ensure!(status.code() == Some(3), "{status}");
    let said = unreadable.output().await;
    ensure!(
        said.contains("read the kubeconfig /nonexistent/kubeconfig"),
        "{said}"
    );

    let control_plane = ControlPlane::start().await?;
    let admin = control_plane.admin_kubeconfig();
    let args = [
        "run",
        "--kubeconfig",
        &admin.to_string_lossy(),
        "--log-format",
        "json",
    ];
    let nowhere: Vec<_> = cloud
        .sdk_environment()
        .into_iter()
        .map(|(key, value)| {
            if key == "AWS_REGION" {
                (key, String::new())
            } else {
                (key, value)
            }
        })
        .collect();
    let mut no_region = Daemon::start("nodemend-repairer", &args, &nowhere)?;
    let status = no_region.wait_exit(SOON)?;
    ensure!(status.code() == Some(3), "{status}");
    ensure!(no_region.log_lines().join("\n").contains("set AWS_REGION"));

    // The account exists, its rules and the CRDs do not.
    control_plane
        .apply(&repo().join("deploy/rbac/repairer.yaml"))
        .await?;
    let account = control_plane
        .kubeconfig_for_service_account("nodemend-system", "nodemend-repairer")
        .await?;
    let mut no_crds = repairer(&account, "a", &cloud)?;
    no_crds
        .wait_for_log(SOON, says("apply deploy/crds"))
        .await?;
    no_crds.kill();

    let stranger = control_plane
        .kubeconfig_for_service_account("default", "default")
        .await?;
    let mut no_rbac = repairer(&stranger, "b", &cloud)?;
    no_rbac
        .wait_for_log(SOON, says("use the service account nodemend-repairer"))
        .await?;
    Ok(())
}

pub(crate) async fn late() -> anyhow::Result<()> {
    let cloud = Cloud::start().await?;
    let control_plane = ControlPlane::start().await?;
    control_plane.apply(&repo().join("deploy/crds")).await?;
    control_plane
        .apply(&repo().join("deploy/rbac/repairer.yaml"))
        .await?;
    let account = control_plane
        .kubeconfig_for_service_account("nodemend-system", "nodemend-repairer")
        .await?;
    let mut link = Link::new(&control_plane)?;
    let kubeconfig = control_plane.kubeconfig_through(&link, &account)?;
    let mut daemon = repairer(&kubeconfig, "a", &cloud)?;
    daemon
        .wait_for_log(SOON, says("the lease could not be taken"))
        .await?;
    link.up()?;
    daemon
        .wait_for_log(SOON, says("watching the nodes"))
        .await?;
    Ok(())
}
