//! Which Kubernetes the repairer is for.

use anyhow::Context;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;

use super::{Checked, Word};
use crate::explain::explain;

const WHAT: &str = "Kubernetes";
/// The chart's `kubeVersion`, and a test compares them.
const FLOOR: u32 = 33;

pub async fn add(client: &Client, checked: &mut Checked) -> anyhow::Result<()> {
    let info = client.apiserver_version().await.map_err(explain);
    judge(
        &info.context("ask the API server for its version")?,
        checked,
    );
    Ok(())
}

/// Clouds write minor versions like `33+`.
fn judge(info: &Info, checked: &mut Checked) {
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().ok();
    let version = format!("{}.{}", info.major, info.minor);
    match (number(&info.major), number(&info.minor)) {
        (Some(1), Some(minor)) if minor < FLOOR => {
            let message = format!(
                "{version} is older than 1.{FLOOR}: before 1.32 the token of a pod does not name its Node, without which the admission policy lets no detector write; upgrade the control plane"
            );
            checked.add(WHAT, Word::Error, message);
        }
        (Some(_), Some(_)) => checked.add(WHAT, Word::Good, version),
        (_, _) => {
            let message = format!(
                "the API server calls itself {:?}, which is no version",
                info.git_version
            );
            checked.add(WHAT, Word::Warning, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(minor: &str) -> String {
        let mut checked = Checked::default();
        let info = Info {
            major: "1".to_owned(),
            minor: minor.to_owned(),
            git_version: "v?".to_owned(),
            ..Info::default()
        };
        judge(&info, &mut checked);
        checked.text()
    }

    #[test]
    fn the_floor_is_the_charts() {
        let chart = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../deploy/chart/Chart.yaml"
        ));
        let line = format!("\nkubeVersion: \">=1.{FLOOR}.0-0\"\n");
        assert!(chart.unwrap().contains(&line), "Chart.yaml has no {line}");
    }

    #[test]
    fn what_is_older_is_an_error_with_its_remedy() {
        for minor in ["32", "32+", "9"] {
            let said = judged(minor);
            assert!(said.starts_with("ERROR    Kubernetes: 1."), "{said}");
            assert!(said.ends_with("upgrade the control plane\n"), "{said}");
        }
        assert_eq!(judged("33+"), "ok       Kubernetes: 1.33+\n");
        assert!(judged("").starts_with("WARNING"), "{}", judged(""));
    }
}
