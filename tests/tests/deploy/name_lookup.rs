//! A static program has no `nsswitch.conf` and none of its libraries: that it still asks the name
//! server of its `resolv.conf`, as in a pod.

use std::fs;
use std::path::Path;
use std::pin::pin;

use anyhow::{Context, ensure};
use nodemend_tests::terminal::Terminal;
use tokio::net::{TcpListener, UdpSocket};

const BINARY: &str = "/usr/bin/nodemend-repairer";
/// On loopback, and nobody else's.
const NAME_SERVER: &str = "127.83.5.3";
const NAME: &str = "api.nodemend.test";

/// `root` holds the image's files.
pub(crate) async fn works(terminal: &Terminal, root: &Path) -> anyhow::Result<()> {
    let names = UdpSocket::bind((NAME_SERVER, 53))
        .await
        .with_context(|| format!("be the name server at {NAME_SERVER}"))?;
    let api = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
    let port = api.local_addr().context("read a port")?.port();
    let kubeconfig = format!(
        "{{apiVersion: v1, kind: Config, current-context: c,
          clusters: [{{name: c, cluster: {{server: 'http://{NAME}:{port}'}}}}],
          users: [{{name: c, user: {{}}}}], contexts: [{{name: c, context: {{cluster: c, user: c}}}}]}}"
    );
    fs::write(root.join("kubeconfig"), kubeconfig).context("write a kubeconfig")?;
    let resolver = format!("nameserver {NAME_SERVER}\n");
    fs::write(root.join("etc/resolv.conf"), resolver).context("write a resolv.conf")?;
    let asks = format!(
        "chroot {} {BINARY} cleanup --kubeconfig /kubeconfig",
        root.display()
    );
    // It fails: each connection that it makes is closed at once.
    let mut asks = pin!(terminal.fails(&asks));
    let mut answering = pin!(answer(&names));
    let mut came = 0;
    let said = loop {
        tokio::select! {
            said = &mut asks => break said?,
            connection = api.accept() => {
                drop(connection.context("accept a connection")?);
                came += 1;
            }
            never = &mut answering => return Err(never),
        }
    };
    ensure!(came > 0, "nobody came: {said}");
    Ok(())
}

/// One address for the name, to each question for it.
async fn answer(names: &UdpSocket) -> anyhow::Error {
    let mut buffer = [0; 512];
    loop {
        let answered = async {
            let (length, from) = names.recv_from(&mut buffer).await?;
            names.send_to(&reply(&buffer[..length])?, from).await?;
            anyhow::Ok(())
        };
        if let Err(error) = answered.await {
            return error.context("answer a question for a name");
        }
    }
}

/// By RFC 1035, section 4.
fn reply(question: &[u8]) -> anyhow::Result<Vec<u8>> {
    const HEADER: usize = 12;
    const A: [u8; 4] = [0, 1, 0, 1];
    let mut labels = Vec::new();
    for label in NAME.split('.') {
        labels.push(u8::try_from(label.len())?);
        labels.extend(label.as_bytes());
    }
    labels.push(0);
    let end = HEADER + labels.len() + A.len();
    let asked = question.get(HEADER..end).context("a short question")?;
    let known = asked.starts_with(&labels);
    let address = known && asked.ends_with(&A);
    let mut reply = question[..2].to_vec();
    // An authority's answer; no such name where it is another one.
    reply.extend([0x85, if known { 0x80 } else { 0x83 }]);
    reply.extend([0, 1, 0, u8::from(address), 0, 0, 0, 0]);
    reply.extend(asked);
    if address {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Ok(reply)
}
