//! An installation that has left the CRDs out.

use anyhow::ensure;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::terminal::Terminal;

use crate::chart::CHART;

pub(crate) async fn named() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    let terminal = Terminal::of(&control_plane)?;
    let line = format!(
        "helm install nodemend {CHART} --namespace nodemend-system --create-namespace --skip-crds"
    );
    let said = terminal.fails(&line).await?;
    ensure!(
        said.contains(r#"no matches for kind "RepairPolicy" in version "nodemend.dev/v1alpha1""#)
            && said.contains("CRDs"),
        "{said}"
    );
    Ok(())
}
