//! Which Kubernetes the detector can report to.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;
use tokio::time::timeout;

/// The chart's `kubeVersion`, and a test compares them.
const FLOOR: u32 = 33;
const PATIENCE: Duration = Duration::from_secs(2);

/// Its version, or what to do about it.
pub(crate) async fn asked(kubeconfig: Option<&Path>) -> Result<String, String> {
    let config = crate::cluster(kubeconfig).await;
    let client = config.and_then(|config| Ok(Client::try_from(config)?));
    let client = client.map_err(|error| format!("{error:#}"))?;
    match timeout(PATIENCE, client.apiserver_version()).await {
        Ok(Ok(info)) => judge(&info),
        Ok(Err(error)) => Err(format!("the API server was asked for its version: {error}")),
        Err(_elapsed) => Err(format!(
            "no answer from the API server within {} s",
            PATIENCE.as_secs()
        )),
    }
}

/// Clouds write minor versions like `33+`.
fn judge(info: &Info) -> Result<String, String> {
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().ok();
    let version = format!("{}.{}", info.major, info.minor);
    match (number(&info.major), number(&info.minor)) {
        (Some(1), Some(minor)) if minor < FLOOR => Err(format!(
            "{version} is older than 1.{FLOOR}: before 1.32 the token of a pod does not name its Node, without which the admission policy lets no detector write; upgrade the control plane"
        )),
        (Some(_), Some(_)) => Ok(version),
        (_, _) => Err(format!(
            "the API server calls itself {:?}, which is no version",
            info.git_version
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(major: &str, minor: &str) -> Result<String, String> {
        judge(&Info {
            major: major.to_owned(),
            minor: minor.to_owned(),
            git_version: "v?".to_owned(),
            ..Info::default()
        })
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
    fn what_is_older_is_told_with_what_to_do() {
        for minor in ["32", "32+", "9"] {
            let why = judged("1", minor).unwrap_err();
            assert!(why.contains("older than 1.33"), "{why}");
            assert!(why.ends_with("upgrade the control plane"), "{why}");
        }
        assert_eq!(judged("1", "33+"), Ok("1.33+".to_owned()));
        assert_eq!(judged("1", "40"), Ok("1.40".to_owned()));
        assert_eq!(judged("2", "0"), Ok("2.0".to_owned()));
        assert!(judged("", "").unwrap_err().contains("no version"));
    }
}
