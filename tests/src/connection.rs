//! The connection that a request of a local server came in on, so that a test can cut it:
//! an answer that never arrives is a case of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use rustix::net::Shutdown;
use tokio::net::TcpListener;

#[derive(Clone)]
pub(crate) struct Connection(Option<Arc<OwnedFd>>);

impl Connected<IncomingStream<'_, TcpListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(stream.io().as_fd().try_clone_to_owned().ok().map(Arc::new))
    }
}

impl Connection {
    /// Closes both directions at once; what the server answers after this goes nowhere.
    pub(crate) fn cut(&self) {
        if let Some(socket) = &self.0 {
            // The peer may have closed it first.
            let _closed = rustix::net::shutdown(socket, Shutdown::Both);
        }
    }
}
