//! The network between a daemon and the API server: down (connections are refused), up, or silent
//! (connections stay open and nothing comes through).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::control_plane::ControlPlane;

/// One address on loopback for as long as it lives; passes bytes, so TLS goes from end to end.
pub struct Link {
    upstream: SocketAddr,
    address: SocketAddr,
    /// While it is down: bound, so that nobody else takes the port, but not listening.
    reserved: Option<TcpSocket>,
    /// While it is up.
    passing: Option<Passing>,
}

struct Passing {
    task: JoinHandle<()>,
    flow: watch::Sender<Flow>,
}

#[derive(Clone, Copy)]
struct Flow {
    flows: bool,
    /// Connections of earlier generations are forgotten.
    generation: u32,
}

impl Link {
    /// Starts down.
    pub fn new(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let url = control_plane.server_url()?;
        let upstream = url
            .trim_start_matches("https://")
            .parse()
            .with_context(|| format!("read the address of {url}"))?;
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = socket.local_addr().context("read a port")?;
        Ok(Self {
            upstream,
            address,
            reserved: Some(socket),
            passing: None,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections come through, also those that were silent.
    pub fn up(&mut self) -> anyhow::Result<()> {
        if let Some(socket) = self.reserved.take() {
            let listener = socket
                .listen(64)
                .with_context(|| format!("listen on {}", self.address))?;
            let (flow, receiver) = watch::channel(Flow {
                flows: true,
                generation: 0,
            });
            self.passing = Some(Passing {
                task: tokio::spawn(pass_all(listener, self.upstream, receiver)),
                flow,
            });
        }
        self.change(|flow| flow.flows = true);
        Ok(())
    }

    /// Connections stay open, new ones are taken, nothing comes through.
    pub fn silence(&self) {
        self.change(|flow| flow.flows = false);
    }

    /// What a gateway does that restarts: the connections that are open are silent for ever, new
    /// ones come through.
    pub fn forget_connections(&self) {
        self.change(|flow| flow.generation += 1);
    }

    /// Connections are cut and new ones refused.
    pub async fn down(&mut self) -> anyhow::Result<()> {
        if let Some(passing) = self.passing.take() {
            passing.task.abort();
            // It ends by the abort; then its sockets are closed.
            let _aborted = passing.task.await;
            self.reserved = Some(bind_again(self.address).await?);
        }
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Flow)) {
        if let Some(passing) = &self.passing {
            passing.flow.send_modify(change);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(passing) = &self.passing {
            passing.task.abort();
        }
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let socket = TcpSocket::new_v4().context("make a socket")?;
    // Cut connections linger on the port.
    socket.set_reuseaddr(true).context("make a socket")?;
    socket
        .bind(address)
        .with_context(|| format!("bind {address}"))?;
    Ok(socket)
}

/// A process that is being started has copies of all sockets until it is the new program.
async fn bind_again(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    const TRIES: u32 = 200;
    for _ in 1..TRIES {
        if let Ok(socket) = bind(address) {
            return Ok(socket);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bind(address)
}

/// Connections end with the returned future.
async fn pass_all(listener: TcpListener, upstream: SocketAddr, flow: watch::Receiver<Flow>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let flow = flow.clone();
        connections.spawn(async move {
            // What fails here is seen by the two ends.
            if let Ok(far) = TcpStream::connect(upstream).await {
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                tokio::select! {
                    _ = pass(near_in, far_out, flow.clone()) => {}
                    _ = pass(far_in, near_out, flow) => {}
                }
            }
        });
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
) -> anyhow::Result<()> {
    let generation = flow.borrow().generation;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        flow.wait_for(|flow| flow.flows && flow.generation == generation)
            .await?;
        to.write_all(&buffer[..length]).await?;
    }
}
