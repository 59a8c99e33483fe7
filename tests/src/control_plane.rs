//! A real control plane on loopback: etcd, kube-apiserver, kube-controller-manager and
//! kube-scheduler on free ports, with RBAC on, gone when it is dropped.

mod apply;
mod kubeconfig;
mod programs;
pub mod traffic;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::link::Link;
use crate::pki::Pki;
use crate::process::Server;
use crate::wait::until;

pub use kubeconfig::client;
pub(crate) use programs::program;
pub use programs::{all_there, has_floor};

/// From exec to "up" takes about 4 s; on a busy machine several times that.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// kwok renews its 8 s leases every 2 s: a node is lost soon, but not because a machine is busy.
const GRACE: Duration = Duration::from_secs(12);

pub struct ControlPlane {
    /// The `cluster` part of a kubeconfig: address and certificate authority.
    cluster: Value,
    admin: Client,
    admin_kubeconfig: PathBuf,
    /// Absent for a cluster that somebody else runs. Stopped before the folder below goes.
    servers: Option<Servers>,
    dir: TempDir,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kubernetes {
    Newest,
    Floor,
}

impl Kubernetes {
    fn apiserver(self) -> &'static str {
        match self {
            Self::Newest => "kube-apiserver",
            Self::Floor => "kube-apiserver-floor",
        }
    }
}

/// In the order in which they are stopped: an API server that has lost etcd retries for ever
/// (seen with Kubernetes 1.36), so etcd is last.
struct Servers {
    scheduler: Option<Server>,
    controller_manager: Option<Server>,
    apiserver: Server,
    etcd: Server,
}

impl ControlPlane {
    /// Starts one. A port that another process took in between is a reason to try once more.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with_grace(GRACE).await
    }

    /// With so long from a kubelet's last renewal of its Lease to `Ready=Unknown`.
    pub async fn start_with_grace(grace: Duration) -> anyhow::Result<Self> {
        Self::start_of(Kubernetes::Newest, grace).await
    }

    /// Of the oldest Kubernetes that the chart takes, and its API server alone: controllers may not be newer.
    pub async fn start_floor() -> anyhow::Result<Self> {
        Self::start_of(Kubernetes::Floor, GRACE).await
    }

    async fn start_of(kubernetes: Kubernetes, grace: Duration) -> anyhow::Result<Self> {
        match Self::start_once(kubernetes, grace).await {
            Ok(control_plane) => Ok(control_plane),
            Err(error) if format!("{error:#}").contains("address already in use") => {
                Self::start_once(kubernetes, grace).await
            }
            Err(error) => Err(error),
        }
        .context("start a control plane")
    }

    /// The cluster of a kubeconfig, only if its API server is on loopback: what runs here creates
    /// and deletes Nodes.
    pub async fn existing(kubeconfig: &Path) -> anyhow::Result<Self> {
        let cluster = kubeconfig::current_cluster(kubeconfig)?;
        let server = kubeconfig::server(&cluster)?;
        ensure!(
            kubeconfig::is_loopback(server),
            "{} points to {server}, which is not on loopback: use kind or minikube, or no --kubeconfig",
            kubeconfig.display()
        );
        let admin = client(kubeconfig).await?;
        admin
            .apiserver_version()
            .await
            .with_context(|| format!("reach the API server {server}"))?;
        let dir = TempDir::new().context("make a temporary folder")?;
        Ok(Self {
            cluster,
            admin,
            admin_kubeconfig: kubeconfig.to_owned(),
            servers: None,
            dir,
        })
    }

    async fn start_once(kubernetes: Kubernetes, grace: Duration) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("nodemend-").context("make a temporary folder")?;
        let pki = Pki::create(&dir.path().join("pki"))?;
        let tokens = kubeconfig::Tokens::create(dir.path())?;
        let [etcd_port, peer_port, port, controller_port, scheduler_port] = free_ports()?;
        let server = format!("https://127.0.0.1:{port}");
        let cluster = kubeconfig::cluster(&server, &pki.ca_cert);
        let write = |name, token: &str| kubeconfig::write(&dir.path().join(name), &cluster, token);
        let admin_kubeconfig = write("admin.kubeconfig", &tokens.admin)?;
        let controller_kubeconfig =
            write("controller-manager.kubeconfig", &tokens.controller_manager)?;
        let scheduler_kubeconfig = write("scheduler.kubeconfig", &tokens.scheduler)?;
        let start = |name, args: &[String]| Server::start(name, args, dir.path());

        let mut servers = Servers {
            etcd: start("etcd", &etcd_args(dir.path(), etcd_port, peer_port))?,
            apiserver: start(
                kubernetes.apiserver(),
                &[
                    apiserver_args(&pki, &tokens.file, etcd_port, port),
                    traffic::apiserver_args(dir.path())?,
                ]
                .concat(),
            )?,
            controller_manager: None,
            scheduler: None,
        };
        let admin = client(&admin_kubeconfig).await?;
        servers
            .wait("the API server to be ready", async || {
                let request = http_get("/readyz")?;
                Ok((admin.request_text(request).await? == "ok").then_some(()))
            })
            .await?;
        if kubernetes == Kubernetes::Floor {
            return Ok(Self {
                cluster,
                admin,
                admin_kubeconfig,
                servers: Some(servers),
                dir,
            });
        }
        // Started before the API server serves, it exits at once.
        servers.controller_manager = Some(start(
            "kube-controller-manager",
            &controller_manager_args(
                &pki,
                &controller_kubeconfig,
                dir.path(),
                controller_port,
                grace,
            ),
        )?);
        servers.scheduler = Some(start(
            "kube-scheduler",
            &scheduler_args(&scheduler_kubeconfig, dir.path(), scheduler_port),
        )?);
        let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
        servers
            .wait("the service account default/default", async || {
                Ok(accounts.get_opt("default").await?.map(drop))
            })
            .await?;
        Ok(Self {
            cluster,
            admin,
            admin_kubeconfig,
            servers: Some(servers),
            dir,
        })
    }

    /// A client that may do everything.
    pub fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// Kills the API server, and starts it again over the same etcd.
    pub async fn restart_apiserver(&mut self) -> anyhow::Result<()> {
        let servers = self
            .servers
            .as_mut()
            .context("restart an API server of somebody else")?;
        servers.apiserver.restart()?;
        let admin = self.admin.clone();
        servers
            .wait("the API server to be ready again", async || {
                let answer = admin.request_text(http_get("/readyz")?).await;
                Ok(answer.is_ok_and(|text| text == "ok").then_some(()))
            })
            .await
    }

    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    pub fn server_url(&self) -> anyhow::Result<&str> {
        kubeconfig::server(&self.cluster)
    }

    /// Applies every document of a YAML file or of a folder of them, and waits until CRDs are served.
    pub async fn apply(&self, path: &Path) -> anyhow::Result<()> {
        apply::apply(&self.admin, path).await
    }

    /// Deletes what `apply` made of the same path; what is not there is left out.
    pub async fn delete(&self, path: &Path) -> anyhow::Result<()> {
        apply::delete(&self.admin, path).await
    }

    /// A kubeconfig with a fresh token of a service account, so that RBAC holds as in a Pod.
    pub async fn kubeconfig_for_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        self.kubeconfig_bound_to(namespace, name, None).await
    }

    /// With the token that a kubelet fetches for a Pod: it says on which Node that is.
    pub async fn kubeconfig_of_pod(&self, pod: &Pod) -> anyhow::Result<PathBuf> {
        let namespace = pod.metadata.namespace.as_deref();
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref());
        let bound = bound("Pod", &pod.metadata);
        self.kubeconfig_bound_to(
            namespace.context("a pod has no namespace")?,
            account.context("a pod has no account")?,
            Some(bound),
        )
        .await
    }

    /// With a token that says the same without a Pod.
    pub async fn kubeconfig_on_node(
        &self,
        namespace: &str,
        name: &str,
        node: &str,
    ) -> anyhow::Result<PathBuf> {
        let nodes: Api<Node> = Api::all(self.admin());
        let node = nodes.get(node).await.context("read a Node")?;
        let bound = bound("Node", &node.metadata);
        self.kubeconfig_bound_to(namespace, name, Some(bound)).await
    }

    async fn kubeconfig_bound_to(
        &self,
        namespace: &str,
        name: &str,
        bound: Option<BoundObjectReference>,
    ) -> anyhow::Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin(), namespace);
        let to = bound.as_ref().and_then(|bound| bound.name.clone());
        let spec = TokenRequestSpec {
            expiration_seconds: Some(4 * 3600),
            bound_object_ref: bound,
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let token = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("request a token for service account {namespace}/{name}"))?
            .status
            .context("read the token")?
            .token;
        kubeconfig::write(
            &self.dir.path().join(format!(
                "{namespace}-{name}-{}.kubeconfig",
                to.unwrap_or_default()
            )),
            &self.cluster,
            &token,
        )
    }

    pub async fn client_for_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<Client> {
        client(&self.kubeconfig_for_service_account(namespace, name).await?).await
    }

    /// The same user and certificate authority through a `Link`.
    pub fn kubeconfig_through(&self, link: &Link, kubeconfig: &Path) -> anyhow::Result<PathBuf> {
        let name = format!("{}-{}", link.address().port(), file_name(kubeconfig)?);
        let mut cluster = self.cluster.clone();
        cluster["server"] = Value::from(format!("https://{}", link.address()));
        kubeconfig::write_with_cluster(&self.dir.path().join(name), kubeconfig, &cluster)
    }

    /// The same user at another address, that of an `ApiProxy`.
    pub fn kubeconfig_via(&self, proxy_url: &str, kubeconfig: &Path) -> anyhow::Result<PathBuf> {
        let name = format!("proxied-{}", file_name(kubeconfig)?);
        kubeconfig::write_with_cluster(
            &self.dir.path().join(name),
            kubeconfig,
            &json!({"server": proxy_url}),
        )
    }

    /// A client that adds no identity of its own: the proxy passes on that of its caller.
    pub(crate) async fn client_without_identity(&self) -> anyhow::Result<Client> {
        let path = kubeconfig::write(
            &self.dir.path().join("nobody.kubeconfig"),
            &self.cluster,
            "",
        )?;
        client(&path).await
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        traffic::keep(self.dir.path());
    }
}

impl Servers {
    /// Waits for `ready`, but not longer than the servers live.
    async fn wait(
        &mut self,
        what: &str,
        ready: impl AsyncFnMut() -> anyhow::Result<Option<()>>,
    ) -> anyhow::Result<()> {
        let died = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let Self {
                    scheduler,
                    controller_manager,
                    apiserver,
                    etcd,
                } = self;
                let mut all = [
                    Some(etcd),
                    Some(apiserver),
                    controller_manager.as_mut(),
                    scheduler.as_mut(),
                ];
                for server in all.iter_mut().flatten() {
                    if let Err(error) = server.check_running() {
                        return error;
                    }
                }
            }
        };
        let waited = tokio::select! {
            error = died => return Err(error),
            waited = until(START_TIMEOUT, what, ready) => waited,
        };
        waited.with_context(|| self.apiserver.last_lines())
    }
}

fn bound(kind: &str, object: &ObjectMeta) -> BoundObjectReference {
    BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: object.name.clone(),
        uid: object.uid.clone(),
    }
}

fn file_name(path: &Path) -> anyhow::Result<String> {
    Ok(path
        .file_name()
        .context("name a kubeconfig")?
        .to_string_lossy()
        .into_owned())
}

fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        // Held until all are chosen, so that they differ.
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        *port = listener.local_addr().context("read a port")?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

fn http_get(path: &str) -> anyhow::Result<axum::http::Request<Vec<u8>>> {
    axum::http::Request::get(path)
        .body(Vec::new())
        .context("make a request")
}

fn etcd_args(dir: &Path, port: u16, peer: u16) -> Vec<String> {
    vec![
        "--name=nodemend".to_owned(),
        format!("--data-dir={}", dir.join("etcd").display()),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls=http://127.0.0.1:{port}"),
        format!("--advertise-client-urls=http://127.0.0.1:{port}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster=nodemend=http://127.0.0.1:{peer}"),
    ]
}

fn apiserver_args(pki: &Pki, tokens: &Path, etcd: u16, port: u16) -> Vec<String> {
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        // A loopback address is no Endpoint of the Service `kubernetes`.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", pki.server_cert.display()),
        format!("--tls-private-key-file={}", pki.server_key.display()),
        format!("--client-ca-file={}", pki.ca_cert.display()),
        format!("--token-auth-file={}", tokens.display()),
        "--anonymous-auth=false".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!(
            "--service-account-key-file={}",
            pki.service_account_public.display()
        ),
        format!(
            "--service-account-signing-key-file={}",
            pki.service_account_key.display()
        ),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn controller_manager_args(
    pki: &Pki,
    kubeconfig: &Path,
    dir: &Path,
    port: u16,
    grace: Duration,
) -> Vec<String> {
    let kubeconfig = kubeconfig.display();
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", dir.join("controller-manager").display()),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        // The default of 20 a second makes the start twice as long.
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=1000".to_owned(),
        format!(
            "--service-account-private-key-file={}",
            pki.service_account_key.display()
        ),
        format!("--root-ca-file={}", pki.ca_cert.display()),
        format!("--cluster-signing-cert-file={}", pki.ca_cert.display()),
        format!("--cluster-signing-key-file={}", pki.ca_key.display()),
        // Its default is a folder in /usr that it would create.
        format!("--flex-volume-plugin-dir={}", dir.join("flex").display()),
        "--node-monitor-period=1s".to_owned(),
        format!("--node-monitor-grace-period={}s", grace.as_secs()),
        "--profiling=false".to_owned(),
    ]
}

fn scheduler_args(kubeconfig: &Path, dir: &Path, port: u16) -> Vec<String> {
    let kubeconfig = kubeconfig.display();
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", dir.join("scheduler").display()),
        "--leader-elect=false".to_owned(),
        "--profiling=false".to_owned(),
    ]
}
