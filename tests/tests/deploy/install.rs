//! The README's installation, command by command, on nodes that have something to clean up.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{Api, Client};
use nodemend_tests::cloud::Cloud;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::kubelet;
use nodemend_tests::terminal::Terminal;

use crate::images;
use crate::readme;
use crate::scene::Scene;

const NAMESPACE: &str = "nodemend-system";
const CLEANUP: &str = "app.kubernetes.io/component=cleanup";
const TEST: &str = "app.kubernetes.io/component=test";

pub(crate) async fn as_the_readme_says() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    let mut scene = Scene::start(&control_plane).await?;
    let cloud = Cloud::start().await?;
    let mut terminal = Terminal::of(&control_plane)?;
    // What the README leaves to the reader.
    terminal.set("REGISTRY", "registry.test/nodemend");
    terminal.set("AWS_REGION", "us-west-2");
    images::prepare(&mut terminal)?;
    let mut steps = Vec::new();
    for command in readme::commands()? {
        let step = match command.split_whitespace().take(2).collect::<Vec<_>>()[..] {
            ["helm", step] => step.to_owned(),
            [..] => String::new(),
        };
        match step.as_str() {
            "install" => {
                let notes = terminal.run(&command).await?;
                ensure!(notes.contains("There are two steps"), "{notes}");
                ensure!(mode(&terminal).await? == "Disabled");
                all_run(control_plane.admin()).await?;
                scene.daemons_have_run(&control_plane).await?;
            }
            "test" => {
                let aws = cloud.sdk_environment();
                let (tested, ran) = tokio::join!(
                    terminal.run(&command),
                    kubelet::run_job(&control_plane, NAMESPACE, TEST, &aws),
                );
                let said = ran.context("what a kubelet does")?;
                ensure!(said.contains("ok       rights"), "{said}");
                ensure!(tested?.contains("Succeeded"), "{said}");
            }
            "upgrade" => {
                terminal.run(&command).await?;
                ensure!(mode(&terminal).await? == "Enforce");
                all_run(control_plane.admin()).await?;
            }
            "uninstall" => {
                let (uninstalled, stopped, cleaned) = tokio::join!(
                    terminal.run(&command),
                    scene.stop_the_detector(),
                    kubelet::run_job(&control_plane, NAMESPACE, CLEANUP, &[]),
                );
                stopped.and(cleaned).context("what a kubelet does")?;
                uninstalled?;
                scene.nothing_of_ours_is_left().await?;
                nothing_is_installed(control_plane.admin()).await?;
            }
            _ if command == "cargo xtask image" => images::are_whole(&terminal, &command).await?,
            _ => {
                let said = terminal.run(&command).await?;
                if command == "kubectl get noderepairs" && scene.has_run() {
                    ensure!(said.contains(scene.repaired_node()), "{said}");
                }
                if command.starts_with("kubectl patch") {
                    ensure!(mode(&terminal).await? == "Disabled");
                }
            }
        }
        steps.push(step);
    }
    steps.retain(|step| !step.is_empty());
    ensure!(
        steps == ["install", "test", "upgrade", "uninstall"],
        "the README's steps are {steps:?}"
    );
    Ok(())
}

async fn mode(terminal: &Terminal) -> anyhow::Result<String> {
    terminal
        .run("kubectl get repairpolicy default -o jsonpath={.spec.mode}")
        .await
}

/// `--wait` has come back: so they have to be there already.
async fn all_run(client: Client) -> anyhow::Result<()> {
    let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    let status = daemon_sets.get("nodemend-detector").await?.status;
    let status = status.context("read the DaemonSet's status")?;
    ensure!(
        status.number_ready == 3 && status.desired_number_scheduled == 3,
        "{status:?}"
    );
    let deployments: Api<Deployment> = Api::namespaced(client, NAMESPACE);
    let status = deployments.get("nodemend-repairer").await?.status;
    let ready = status.and_then(|status| status.ready_replicas);
    ensure!(ready == Some(2), "{ready:?} repairers are ready");
    Ok(())
}

async fn nothing_is_installed(client: Client) -> anyhow::Result<()> {
    let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    ensure!(daemon_sets.get_opt("nodemend-detector").await?.is_none());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let roles: Api<ClusterRole> = Api::all(client);
    for name in ["nodemend-detector", "nodemend-repairer", "nodemend-cleanup"] {
        ensure!(accounts.get_opt(name).await?.is_none(), "account {name}");
        ensure!(roles.get_opt(name).await?.is_none(), "ClusterRole {name}");
    }
    Ok(())
}
