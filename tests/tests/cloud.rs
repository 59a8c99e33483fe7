//! The repairer's side of AWS as its user sees it: the program, its environment, and the local AWS.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, a panic is a failure with a place"
)]

use std::path::PathBuf;
use std::time::Duration;

use nodemend_tests::cloud::identity::{
    INSTANCE_KEY, INSTANCE_REGION, IRSA_KEY, POD_IDENTITY_KEY, TOKEN,
};
use nodemend_tests::cloud::{Call, Cloud, NodeGroup};
use nodemend_tests::daemon::Daemon;
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
const REGION: (&str, &str) = ("AWS_REGION", "us-west-2");

type Environment<'a> = Vec<(&'a str, &'a str)>;

struct Scene {
    cloud: Cloud,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Self {
        let cloud = Cloud::start().await.unwrap();
        cloud.set_node_group(NodeGroup {
            cluster: "prod".to_owned(),
            name: "blue".to_owned(),
            group: "workers".to_owned(),
            status: "ACTIVE".to_owned(),
            issues: Vec::new(),
            repair_config: Some(json!({"enabled": true})),
        });
        let folder = tempfile::tempdir().unwrap();
        Self { cloud, folder }
    }

    fn token(&self) -> String {
        let path: PathBuf = self.folder.path().join("token");
        std::fs::write(&path, TOKEN).unwrap();
        path.display().to_string()
    }

    /// `import`, which asks one thing of AWS and nothing of a cluster: its exit code and what it says.
    async fn import(&self, environment: &[(&str, &str)]) -> (Option<i32>, String) {
        let url = self.cloud.url();
        let mut all = vec![
            ("AWS_ENDPOINT_URL", url.as_str()),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ];
        // The last one of a name counts.
        all.extend_from_slice(environment);
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let all: Vec<_> = all.iter().map(own).collect();
        let args = ["import", "--eks-cluster", "prod", "blue"];
        let mut program = Daemon::start("nodemend-repairer", &args, &all).unwrap();
        let status = program.wait_exit(SOON).unwrap();
        (status.code(), program.output().await)
    }

    /// Key and region of the one call that was made.
    fn signed(&self) -> (String, String) {
        let calls = self.cloud.calls();
        let names: Vec<_> = calls.iter().map(Call::name).collect();
        assert_eq!(names, ["eks:DescribeNodegroup"]);
        let credential = calls[0].credential.clone().unwrap();
        let parts: Vec<_> = credential.split('/').collect();
        (parts[0].to_owned(), parts[2].to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_get_credentials_works() {
    let scene = Scene::start().await;
    let (url, token) = (scene.cloud.url(), scene.token());
    let agent = format!("{url}/v1/credentials");
    let rows: [(&str, Environment<'_>, &str, &str); 4] = [
        (
            "static keys",
            vec![
                REGION,
                ("AWS_ACCESS_KEY_ID", "KEYOFENV"),
                ("AWS_SECRET_ACCESS_KEY", "local"),
            ],
            "KEYOFENV",
            "us-west-2",
        ),
        (
            "IRSA",
            vec![
                REGION,
                ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/nodemend"),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
            ],
            IRSA_KEY,
            "us-west-2",
        ),
        (
            "EKS Pod Identity",
            vec![
                REGION,
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
            ],
            POD_IDENTITY_KEY,
            "us-west-2",
        ),
        (
            "the instance's role, and its region",
            vec![
                ("AWS_EC2_METADATA_DISABLED", "false"),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url),
            ],
            INSTANCE_KEY,
            INSTANCE_REGION,
        ),
    ];
    for (what, environment, key, region) in rows {
        let scene = Scene {
            cloud: scene.cloud.clone(),
            folder: tempfile::tempdir().unwrap(),
        };
        scene.cloud.forget_calls();
        let (code, said) = scene.import(&environment).await;
        assert_eq!(code, Some(0), "{what}: {said}");
        assert!(said.contains("kind: RepairPolicy"), "{what}: {said}");
        let expected = (key.to_owned(), region.to_owned());
        assert_eq!(scene.signed(), expected, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credentials_or_a_region_it_says_what_is_missing() {
    let scene = Scene::start().await;
    let (code, said) = scene.import(&[REGION]).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("credentials"), "{said}");
    let keys = [
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
    ];
    let (code, said) = scene.import(&keys).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("set AWS_REGION"), "{said}");
    assert!(scene.cloud.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_gone_through_unless_the_environment_says_not_to() {
    let scene = Scene::start().await;
    // The local AWS answers whatever host it is asked for, as a proxy does.
    let proxy = scene.cloud.url();
    let mut environment = vec![
        REGION,
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
        ("AWS_ENDPOINT_URL", "http://aws.invalid"),
        ("HTTP_PROXY", &proxy),
    ];
    let (code, said) = scene.import(&environment).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(scene.cloud.calls().len(), 1);
    environment.push(("NO_PROXY", "aws.invalid"));
    let (code, said) = scene.import(&environment).await;
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(scene.cloud.calls().len(), 1, "it was gone through");
}
