//! What the chart renders to is taken by API servers, in each shape that values give it, and what
//! cannot be installed is refused in words.

use std::env;

use anyhow::ensure;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::repo;
use nodemend_tests::terminal::Terminal;

use crate::chart::CHART;
use crate::profiles::HARDENED;

/// From the floor of the chart to what there is.
const VERSIONS: [&str; 5] = ["1.33", "1.34", "1.35", "1.36", "1.37"];
const ALL: &str = "--set networkPolicy.enabled=true --set monitoring.dashboard.enabled=true \
    --set repairer.maxParallel=2 --set repairer.paused=true --set aws.eksCluster=a";
const OPERATOR: &str =
    "--set monitoring.podMonitor.enabled=true --set monitoring.prometheusRule.enabled=true";

pub(crate) fn no_validator() -> Option<&'static str> {
    let python = env::var_os("NODEMEND_VALIDATE_PYTHON");
    python.is_none().then_some(
        "no kubernetes-validate: `cargo xtask test deploy` gets it from PyPI and sets NODEMEND_VALIDATE_PYTHON",
    )
}

pub(crate) async fn by_the_schemas_of_five_versions() -> anyhow::Result<()> {
    let terminal = Terminal::open()?;
    let manifest = terminal.home().join("manifest.yaml");
    let manifest = manifest.display();
    for values in ["", HARDENED, ALL] {
        terminal
            .run(&format!(
                "helm template nodemend {CHART} {values} > {manifest}"
            ))
            .await?;
        for version in VERSIONS {
            let line = format!(
                "$NODEMEND_VALIDATE_PYTHON -m kubernetes_validate --strict -k {version} {manifest}"
            );
            let said = terminal.run(&line).await?;
            // Of our own kinds it knows nothing.
            let unknown = said
                .lines()
                .filter(|line| line.starts_with("WARN") && !line.contains("nodemend.dev"));
            ensure!(unknown.count() == 0, "{version}: {said}");
        }
    }
    Ok(())
}

pub(crate) async fn by_a_real_api_server() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    control_plane.apply(&repo().join("deploy/crds")).await?;
    let terminal = Terminal::of(&control_plane)?;
    terminal
        .run("kubectl create namespace nodemend-system")
        .await?;
    in_each_shape(&terminal).await?;

    // Without the operator the first word is what to do about it.
    let install = format!("helm install nodemend {CHART} --namespace nodemend-system");
    let said = terminal.fails(&format!("{install} {OPERATOR}")).await?;
    ensure!(
        said.contains("want the Prometheus operator")
            && said.contains("set their `enabled` to false"),
        "{said}"
    );

    // A second one would share the nodes with the first.
    terminal.run(&install).await?;
    let second = format!("helm install other {CHART} --namespace other --create-namespace");
    let said = terminal.fails(&second).await?;
    ensure!(
        said.contains("nodemend-detector") && said.contains("invalid ownership metadata"),
        "{said}"
    );
    Ok(())
}

/// Into the namespace, by the server's own dry run.
pub(crate) async fn in_each_shape(terminal: &Terminal) -> anyhow::Result<()> {
    for values in ["", HARDENED, ALL] {
        let line = format!(
            "helm template nodemend {CHART} --namespace nodemend-system --skip-tests {values} \
             | kubectl apply --dry-run=server --validate=strict -f -"
        );
        let said = terminal.run(&line).await?;
        ensure!(!said.contains("Warning"), "{said}");
    }
    Ok(())
}

pub(crate) async fn not_below_the_floor() -> anyhow::Result<()> {
    let terminal = Terminal::open()?;
    let line = |version: &str| format!("helm template nodemend {CHART} --kube-version {version}");
    let said = terminal.fails(&line("1.32.9")).await?;
    ensure!(said.contains("kubeVersion: >=1.33.0-0"), "{said}");
    terminal.run(&line("1.33.0")).await?;
    Ok(())
}

pub(crate) async fn with_the_operator() -> anyhow::Result<()> {
    let terminal = Terminal::open()?;
    let render = format!(
        "helm template nodemend {CHART} --api-versions monitoring.coreos.com/v1 {OPERATOR} \
         --show-only templates/monitoring.yaml"
    );
    let said = terminal.run(&render).await?;
    // A detector on loopback cannot be reached.
    ensure!(
        said.contains("name: nodemend-repairer") && !said.contains("name: nodemend-detector"),
        "{said}"
    );
    ensure!(
        said.contains("alert: NodemendNoLeader") && said.contains("$labels.node"),
        "{said}"
    );
    let everywhere = format!("{render} --set detector.httpAddress=0.0.0.0:9847");
    let said = terminal.run(&everywhere).await?;
    ensure!(said.contains("name: nodemend-detector"), "{said}");
    Ok(())
}
