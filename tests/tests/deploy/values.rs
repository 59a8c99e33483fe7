//! What a person can get wrong in the values, and that what is right has an effect.

use anyhow::ensure;
use nodemend_tests::terminal::Terminal;

use crate::chart::{CHART, render};

pub(crate) async fn wrong() -> anyhow::Result<()> {
    let terminal = Terminal::open()?;
    let cases = [
        ("detektor.heartbeat=5m", "detektor"),
        ("detector.hearbeat=5m", "hearbeat"),
        ("detector.heartbeat=five", "/detector/heartbeat"),
        (
            "detector.criticalMounts={var}",
            "/detector/criticalMounts/0",
        ),
        ("detector.httpAddress=localhost", "/detector/httpAddress"),
        ("repairer.httpAddress=9848", "/repairer/httpAddress"),
        ("repairer.replicas=0", "/repairer/replicas"),
        ("repairer.replicas=two", "/repairer/replicas"),
        ("policy.mode=On", "/policy/mode"),
        ("aws.region=us_west_2", "/aws/region"),
        ("image.registry=registry.test/", "/image/registry"),
        ("detector.securityProfile=safe", "/detector/securityProfile"),
        (
            "detector.seccompProfile.type=none",
            "/detector/seccompProfile/type",
        ),
        ("detector.tolerations[0].kye=a", "kye"),
        ("detector.affinity.nodeAfinity.a=b", "nodeAfinity"),
        (
            "detector.resources.limits.memory=lots",
            "/detector/resources/limits/memory",
        ),
        (
            "detector.updateStrategy.rollingUpdate.maxUnavailable=all",
            "maxUnavailable",
        ),
        ("repairer.maxParallel=0", "/repairer/maxParallel"),
        (
            "monitoring.podMonitor.interval=soon",
            "/monitoring/podMonitor/interval",
        ),
        ("networkPolicy.metricsFrom[0].namespace=a", "namespace"),
        ("aws.eksCluster=a/b", "/aws/eksCluster"),
    ];
    for (value, named) in cases {
        let line = format!("helm template nodemend {CHART} --set '{value}'");
        let said = terminal.fails(&line).await?;
        ensure!(said.contains(named), "{value}: {said}");
    }
    Ok(())
}

pub(crate) async fn every_value() -> anyhow::Result<()> {
    let cases = [
        (
            "image.registry=registry.test/a",
            "registry.test/a/nodemend-detector:",
        ),
        ("image.tag=v9", "nodemend-repairer:v9"),
        ("image.pullPolicy=Always", r#""imagePullPolicy":"Always""#),
        (
            "imagePullSecrets[0].name=pull",
            r#""imagePullSecrets":[{"name":"pull"}]"#,
        ),
        ("logFormat=text", r#""value":"text""#),
        ("detector.image=d9", "d9:"),
        ("detector.heartbeat=9m", r#""value":"9m""#),
        ("detector.fatalHeartbeat=9s", r#""value":"9s""#),
        ("detector.criticalMounts={/,/data}", r#""value":"/,/data""#),
        (
            "detector.httpAddress=",
            r#""name":"NODEMEND_HTTP_ADDRESS","value":"""#,
        ),
        ("detector.disableHooks={oom}", r#""value":"oom""#),
        (
            "detector.config.ownFatalReasons=false",
            "ownFatalReasons: false",
        ),
        ("detector.nodeSelector.a=b", r#""a":"b""#),
        ("detector.resources.limits.memory=9Mi", r#""memory":"9Mi""#),
        ("repairer.image=r9", "r9:"),
        ("repairer.replicas=3", r#""replicas":3"#),
        (
            "repairer.httpAddress=[::]:9900",
            r#""ports":[{"containerPort":9900,"name":"http"}]"#,
        ),
        (
            "repairer.serviceAccountAnnotations.a=b",
            r#""annotations":{"a":"b"}"#,
        ),
        ("repairer.resources.limits.memory=9Mi", r#""memory":"9Mi""#),
        ("aws.region=us-west-2", r#""value":"us-west-2""#),
        ("aws.eksCluster=here", r#""value":"here""#),
        (
            "detector.securityProfile=hardened",
            r#""drop":["ALL"]},"readOnlyRootFilesystem":true,"seccompProfile":{"type":"RuntimeDefault"}}"#,
        ),
        ("detector.tolerations[0].key=k9", r#""key":"k9""#),
        ("detector.affinity.podAffinity.a=b9", r#""a":"b9""#),
        (
            "detector.priorityClassName=p9",
            r#""priorityClassName":"p9""#,
        ),
        (
            "detector.updateStrategy.rollingUpdate.maxUnavailable=9%",
            r#""maxUnavailable":"9%""#,
        ),
        ("detector.podLabels.l=m9", r#""l":"m9""#),
        ("detector.podAnnotations.n=o9", r#""n":"o9""#),
        ("repairer.nodeSelector.q=r9", r#""q":"r9""#),
        ("repairer.tolerations[0].key=k8", r#""key":"k8""#),
        ("repairer.affinity.podAffinity.a=b8", r#""a":"b8""#),
        (
            "repairer.priorityClassName=p8",
            r#""priorityClassName":"p8""#,
        ),
        ("repairer.podLabels.l=m8", r#""l":"m8""#),
        ("repairer.podAnnotations.n=o8", r#""n":"o8""#),
        (
            "repairer.paused=true",
            r#""name":"NODEMEND_PAUSED","value":"true""#,
        ),
        (
            "repairer.maxParallel=7",
            r#""name":"NODEMEND_MAX_PARALLEL","value":"7""#,
        ),
        (
            "repairer.maxRepairsPerHour=7",
            r#""name":"NODEMEND_MAX_REPAIRS_PER_HOUR","value":"7""#,
        ),
        ("networkPolicy.enabled=true", r#""kind":"NetworkPolicy""#),
        (
            "networkPolicy.enabled=true,networkPolicy.metricsFrom[0].podSelector.a=b7",
            r#""from":[{"podSelector":{"a":"b7"}}]"#,
        ),
        (
            "monitoring.dashboard.enabled=true",
            r#""name":"nodemend-dashboard""#,
        ),
        (
            "monitoring.dashboard.enabled=true,monitoring.dashboard.labels.d=e9",
            r#""d":"e9""#,
        ),
        ("policy.mode=Enforce", r#""mode":"Enforce""#),
    ];
    let default = text("").await?;
    for (value, shown) in cases {
        ensure!(!default.contains(shown), "{shown} is there by default");
        let rendered = text(&format!("--set '{value}'")).await?;
        ensure!(rendered.contains(shown), "{value} has no effect");
    }
    let alone = text("--set repairer.replicas=1").await?;
    let unguarded = text("--set repairer.podDisruptionBudget=false").await?;
    ensure!(default.contains("PodDisruptionBudget"));
    ensure!(!alone.contains("PodDisruptionBudget") && !unguarded.contains("PodDisruptionBudget"));
    let without = text("--set policy.create=false").await?;
    ensure!(default.contains("RepairPolicy") && !without.contains("RepairPolicy"));
    Ok(())
}

async fn text(more: &str) -> anyhow::Result<String> {
    Ok(serde_json::Value::Array(render(more).await?).to_string())
}
