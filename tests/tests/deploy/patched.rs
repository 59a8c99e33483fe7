//! A person changes the policy's mode past Helm, as in an emergency, and upgrades later.

use anyhow::ensure;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::terminal::Terminal;

use crate::chart::CHART;

/// Whoever has decided last is not overruled by values that are older.
pub(crate) async fn is_not_overruled() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    let terminal = Terminal::of(&control_plane)?;
    let helm = |command: &str| format!("helm {command} --namespace nodemend-system");
    let upgrade = helm(&format!("upgrade nodemend {CHART} --reuse-values"));
    let install = format!("install nodemend {CHART} --create-namespace --set policy.mode=Enforce");
    terminal.run(&helm(&install)).await?;

    for decided in ["Disabled", "Enforce"] {
        let patch = format!(r#"{{"spec":{{"mode":"{decided}"}}}}"#);
        let patch = format!("kubectl patch repairpolicy default --type=merge -p '{patch}'");
        terminal.run(&patch).await?;
        let said = terminal.fails(&upgrade).await?;
        ensure!(
            said.contains("kubectl-patch") && said.contains(".spec.mode"),
            "{said}"
        );
        let mode = "kubectl get repairpolicy default -o jsonpath={.spec.mode}";
        ensure!(terminal.run(mode).await? == decided);
        // The remedy of README and NOTES: values that say the same.
        let remedy = format!("{upgrade} --set policy.mode={decided}");
        terminal.run(&remedy).await?;
        ensure!(terminal.run(mode).await? == decided);
    }
    Ok(())
}
