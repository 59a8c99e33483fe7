//! The pages of a daemon, as Prometheus and kubelet get them.

use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// Status line and body.
pub async fn get(address: &str, path: &str) -> anyhow::Result<(String, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(SOON, exchange)
        .await
        .with_context(|| format!("wait for {path}"))?
        .with_context(|| format!("get {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("read an answer")?;
    Ok((
        head.lines().next().unwrap_or_default().to_owned(),
        body.to_owned(),
    ))
}
