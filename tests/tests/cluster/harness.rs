//! What every other test stands on: the control plane, the nodes and the cloud behave as the real
//! ones do, and nothing of them outlives the program that started them.

#![expect(
    clippy::disallowed_methods,
    reason = "this runs itself as another process, to see how that ends"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::Trial;
use nodemend_tests::cloud::Cloud;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::fleet::{Fleet, World};
use nodemend_tests::wait::until;

use crate::suite::{SOON, Suite, condition};

const ROLE: &str = "--hold-a-control-plane";

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial_alone(
            "harness::four_nodes_a_workload_and_a_replaced_instance",
            four_nodes,
        ),
        suite.trial_alone("harness::nothing_outlives_a_panic", async || {
            nothing_outlives(How::Panic).await
        }),
        suite.trial_alone("harness::nothing_outlives_a_sigkill", async || {
            nothing_outlives(How::SigKill).await
        }),
    ]
}

async fn four_nodes() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    let fleet = Fleet::start(&control_plane).await?;
    let cloud = Cloud::start().await?;
    let zones = ["us-west-2a", "us-west-2a", "us-west-2b", "us-west-2b"];
    let instances = cloud.create_group("workers", &zones);
    for (index, (instance, zone)) in instances.iter().zip(zones).enumerate() {
        fleet
            .create_node(&format!("node-{index}"), instance, zone)
            .await?;
    }
    fleet.wait_ready(4).await?;
    fleet.deployment("web", 4, 3).await?;
    let pods: Api<Pod> = Api::namespaced(control_plane.admin(), "default");
    let used: BTreeSet<_> = pods
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .filter_map(|pod| pod.spec?.node_name)
        .collect();
    ensure!(used.len() == 4, "four pods run on {used:?}");

    let nodes: Api<Node> = Api::all(control_plane.admin());
    fleet.lose_node("node-0").await?;
    until(
        Duration::from_secs(40),
        "the lost node is Unknown",
        async || {
            let node = nodes.get("node-0").await?;
            Ok(condition(&node, "Ready")
                .filter(|ready| ready.status == "Unknown")
                .map(drop))
        },
    )
    .await?;
    fleet.recover_node("node-0").await?;
    fleet.wait_ready(4).await?;

    let _world = World::run(control_plane.admin(), cloud.clone(), fleet.clone());
    terminate(&cloud, &instances[3]).await?;
    until(
        SOON,
        "the node of the terminated instance is gone, a new one is Ready",
        async || {
            let list = nodes.list(&ListParams::default()).await?.items;
            let old = list
                .iter()
                .any(|node| node.metadata.name.as_deref() == Some("node-3"));
            let ready =
                |node: &&Node| condition(node, "Ready").is_some_and(|ready| ready.status == "True");
            Ok((!old && list.iter().filter(ready).count() == 4).then_some(()))
        },
    )
    .await
}

/// As the AWS SDK would ask; the signature is not looked at.
async fn terminate(cloud: &Cloud, instance: &str) -> anyhow::Result<()> {
    let body = format!(
        "Action=TerminateInstanceInAutoScalingGroup&Version=2011-01-01&InstanceId={instance}&ShouldDecrementDesiredCapacity=false"
    );
    let address = cloud.url().trim_start_matches("http://").to_owned();
    let answer = tokio::task::spawn_blocking(move || -> anyhow::Result<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&address).context("reach the local AWS")?;
        let length = body.len();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .await??;
    ensure!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("<ActivityId>"),
        "{answer}"
    );
    Ok(())
}

/// Whether this process is the one that is meant to end.
pub(crate) fn is_holder() -> bool {
    env::args().nth(1).is_some_and(|arg| arg == ROLE)
}

/// Starts a control plane and kwok, says so, and panics at a line on standard input.
pub(crate) fn hold_a_control_plane() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let control_plane = ControlPlane::start().await.unwrap();
        let _fleet = Fleet::start(&control_plane).await.unwrap();
        println!("up");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        panic!("as told");
    })
}

#[derive(Clone, Copy)]
enum How {
    Panic,
    SigKill,
}

async fn nothing_outlives(how: How) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().context("make a folder")?;
        let mut holder = Command::new(env::current_exe()?)
            .arg(ROLE)
            .env("TMPDIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start another process of this program")?;
        let mut line = String::new();
        let stdout = holder
            .stdout
            .take()
            .context("read the output of the other process")?;
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("read the output of the other process")?;
        let children = children_of(holder.id());
        match how {
            How::Panic => drop(holder.stdin.take()),
            How::SigKill => holder.kill().context("kill the other process")?,
        }
        holder.wait().context("wait for the other process")?;
        ensure!(line == "up\n", "the other process did not come up");
        ensure!(children.len() == 5, "its children were {children:?}");
        for _ in 0..100 {
            let alive: Vec<_> = children.iter().filter(|pid| is_alive(**pid)).collect();
            if alive.is_empty() {
                let files = fs::read_dir(folder.path())
                    .context("list a folder")?
                    .count();
                // Nobody is left to remove them after a SIGKILL.
                ensure!(
                    matches!(how, How::SigKill) || files == 0,
                    "{files} files are still there"
                );
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("some of the processes {children:?} are still there")
    })
    .await?
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|fields| fields[1] == parent.to_string()))
        .collect()
}

/// A zombie waits for its new parent and runs no more.
fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z")
}

/// State and parent, and what follows in proc(5).
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, also a parenthesis.
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}
