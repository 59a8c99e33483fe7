//! What the Helm chart takes from the rest of `deploy/`: the CRDs, the rules of both daemons and
//! the default policy. Helm reads nothing outside of its chart, so these are copies, and
//! `deploy/` is the source: it is what the tests run the daemons under.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

const CHART: &str = "deploy/chart";
const NAMESPACE: &str = "namespace: nodemend-system";
const DISABLED: &str = "  mode: Disabled\n";

/// Path and text of each; `crds` are those of `deploy/crds`.
pub(crate) fn files(
    repo: &Path,
    crds: &[(PathBuf, String)],
) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let chart = Path::new(CHART);
    let mut files = Vec::new();
    for (path, text) in crds {
        let name = path.file_name().context("name a CRD's file")?;
        files.push((chart.join("crds").join(name), text.clone()));
    }
    for daemon in ["detector", "repairer"] {
        let source = format!("deploy/rbac/{daemon}.yaml");
        let template = rules(&read(repo, &source)?).with_context(|| format!("read {source}"))?;
        files.push((
            chart.join(format!("templates/rbac-{daemon}.yaml")),
            generated_from(&source) + &template,
        ));
    }
    let source = "deploy/admission/detector.yaml";
    files.push((
        chart.join("templates/admission-detector.yaml"),
        generated_from(source) + &admission(&read(repo, source)?)?,
    ));
    let source = "deploy/policy.yaml";
    let template = policy(&read(repo, source)?).with_context(|| format!("read {source}"))?;
    files.push((
        chart.join("templates/policy.yaml"),
        generated_from(source) + &template,
    ));
    Ok(files)
}

/// Not a YAML comment: that would be in every release's manifest.
fn generated_from(source: &str) -> String {
    format!("{{{{- /* Generated from {source} by `cargo xtask gen`. */ -}}}}\n")
}

/// The namespace is the release's. The accounts are the chart's own: they carry values.
fn rules(manifest: &str) -> anyhow::Result<String> {
    let documents: Vec<_> = manifest
        .split("---\n")
        .filter(|document| {
            !document.contains("\nkind: Namespace\n")
                && !document.contains("\nkind: ServiceAccount\n")
        })
        .collect();
    let rules = documents.join("---\n");
    ensure!(
        rules.contains(NAMESPACE) && rules.contains("kind: ClusterRole\n"),
        "no rules of a service account in the namespace nodemend-system"
    );
    ensure!(
        !rules.contains("{{"),
        "a manifest cannot hold a template of its own"
    );
    Ok(rules.replace(NAMESPACE, "namespace: {{ .Release.Namespace }}"))
}

/// The account whose writes are looked at is in the namespace of the release.
fn admission(manifest: &str) -> anyhow::Result<String> {
    const ACCOUNT: &str = "system:serviceaccount:nodemend-system:";
    ensure!(
        manifest.matches(ACCOUNT).count() == 1 && !manifest.contains("{{"),
        "the admission policy names no service account of nodemend-system, or is a template"
    );
    let account = "system:serviceaccount:{{ .Release.Namespace }}:";
    Ok(manifest.replace(ACCOUNT, account))
}

fn policy(manifest: &str) -> anyhow::Result<String> {
    ensure!(
        manifest.matches(DISABLED).count() == 1,
        "the default policy does not say `mode: Disabled`"
    );
    let object = manifest
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect::<String>()
        .replace(DISABLED, "  mode: {{ .Values.policy.mode }}\n");
    Ok(format!(
        "{{{{- if .Values.policy.create }}}}\n{object}{{{{- end }}}}\n"
    ))
}

fn read(repo: &Path, path: &str) -> anyhow::Result<String> {
    fs::read_to_string(repo.join(path)).with_context(|| format!("read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crds(repo: &Path) -> Vec<(PathBuf, String)> {
        let files = fs::read_dir(repo.join("deploy/crds")).unwrap();
        files
            .map(|entry| {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                (path, text)
            })
            .collect()
    }

    #[test]
    fn the_chart_holds_what_deploy_says() {
        let repo = crate::repo();
        for (path, wanted) in files(&repo, &crds(&repo)).unwrap() {
            let there = fs::read_to_string(repo.join(&path)).unwrap_or_default();
            assert_eq!(there, wanted, "{}: run `cargo xtask gen`", path.display());
        }
    }

    #[test]
    fn the_chart_has_the_version_of_the_workspace() {
        let text = fs::read_to_string(crate::repo().join(CHART).join("Chart.yaml")).unwrap();
        for key in ["version", "appVersion"] {
            let line = format!("\n{key}: {}\n", env!("CARGO_PKG_VERSION"));
            assert!(
                text.contains(&line),
                "Chart.yaml has no line `{}`",
                line.trim()
            );
        }
    }

    #[test]
    fn rules_move_to_the_namespace_of_the_release_without_the_accounts() {
        let manifest = "# Why.\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: nodemend-system\n---\n\
            apiVersion: v1\nkind: ServiceAccount\nmetadata: {}\n---\n\
            kind: ClusterRole\nsubjects:\n  - namespace: nodemend-system\n";
        assert_eq!(
            rules(manifest).unwrap(),
            "kind: ClusterRole\nsubjects:\n  - namespace: {{ .Release.Namespace }}\n"
        );
        assert!(rules("kind: ClusterRole\n").is_err());
    }

    #[test]
    fn a_default_policy_that_repairs_is_refused() {
        assert!(policy("spec:\n  mode: Enforce\n").is_err());
    }
}
