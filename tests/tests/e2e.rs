//! The whole story, as the demo tells it, and that nothing of it is left behind.

#[path = "e2e/rights.rs"]
mod rights;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, Client};
use libtest_mimic::{Arguments, Completion, Trial};
use nodemend_tests::control_plane::{self, ControlPlane};
use nodemend_tests::faults;
use nodemend_tests::leftovers::Host;
use nodemend_tests::story::{self, Options, Screen};
use nodemend_tests::wait::until;

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // Each looks at what the whole host has left.
    args.test_threads = Some(1);
    let trials = vec![
        trial(
            "a_fault_of_this_kernel_and_one_of_a_gpu_become_replaced_nodes",
            whole_story,
        ),
        trial(
            "an_interrupted_story_leaves_its_cluster_and_its_host_as_they_were",
            interrupted_story,
        ),
        // The last of all suites.
        Trial::ignorable_test("the_rules_grant_what_the_daemons_use_and_no_more", || {
            if let Some(reason) = rights::unavailable() {
                return Ok(Completion::ignored_with(reason));
            }
            run(rights::are_used_and_enough)
        }),
    ];
    libtest_mimic::run(&args, trials).exit_code()
}

fn trial<F>(name: &str, test: F) -> Trial
where
    F: AsyncFnOnce() -> anyhow::Result<()> + Send + 'static,
{
    Trial::ignorable_test(name, move || {
        if let Some(reason) = faults::unavailable() {
            return Ok(Completion::ignored_with(reason));
        }
        if let Err(error) = control_plane::all_there() {
            return Ok(Completion::ignored_with(format!("{error:#}")));
        }
        run(test)
    })
}

fn run<F>(test: F) -> Result<Completion, libtest_mimic::Failed>
where
    F: AsyncFnOnce() -> anyhow::Result<()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(test())
        .map_err(|error| format!("{error:#}"))?;
    Ok(Completion::Completed)
}

fn options() -> Options {
    Options {
        kubeconfig: None,
        disabled_for: Duration::from_secs(1),
        gpu: true,
    }
}

async fn whole_story() -> anyhow::Result<()> {
    let before = Host::look()?;
    let screen = Screen::kept();
    let told = story::tell(&options(), &screen, std::future::pending()).await;
    told.map_err(|error| anyhow!("{}\n{error:#}", screen.lines().join("\n")))?;
    before.wait_unchanged().await
}

async fn interrupted_story() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    let objects = objects(&control_plane.admin()).await?;
    let before = Host::look()?;
    let options = Options {
        kubeconfig: Some(control_plane.admin_kubeconfig().to_owned()),
        ..options()
    };
    let screen = Screen::kept();
    // In the middle of the faults.
    let interrupted = async {
        while !screen
            .lines()
            .iter()
            .any(|line| line.contains("PacketsDropped"))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let error = story::tell(&options, &screen, interrupted)
        .await
        .err()
        .context("the story went on to its end")?;
    ensure!(
        error.to_string() == "interrupted",
        "{}\n{error:#}",
        screen.lines().join("\n")
    );
    before.wait_unchanged().await?;
    let now = until(
        Duration::from_secs(20),
        "the objects of the story are gone",
        async || {
            let now = self::objects(&control_plane.admin()).await?;
            ensure!(now == objects, "there are {now:?}");
            Ok(Some(now))
        },
    );
    now.await.map(drop)
}

/// The names of what the story creates in a cluster.
async fn objects(client: &Client) -> anyhow::Result<Vec<String>> {
    let all = ListParams::default();
    let nodes = Api::<Node>::all(client.clone())
        .list(&all)
        .await
        .context("list nodes")?;
    let crds = Api::<CustomResourceDefinition>::all(client.clone())
        .list(&all)
        .await
        .context("list CRDs")?;
    let roles = Api::<ClusterRole>::all(client.clone())
        .list(&all)
        .await
        .context("list roles")?;
    let pods = Api::<k8s_openapi::api::core::v1::Pod>::all(client.clone())
        .list(&all)
        .await
        .context("list pods")?;
    let names = nodes.into_iter().map(|node| node.metadata.name);
    let names = names.chain(crds.into_iter().map(|crd| crd.metadata.name));
    let names = names.chain(roles.into_iter().map(|role| role.metadata.name));
    Ok(names
        .chain(pods.into_iter().map(|pod| pod.metadata.name))
        .flatten()
        .collect())
}
