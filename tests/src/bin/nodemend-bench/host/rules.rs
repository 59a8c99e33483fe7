//! Rules of the host's own packet filter, of which one is new each second, as where pods come and go.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nodemend_tests::faults::PacketFilter;

/// No packet comes to its chain.
const TABLE: &str = "nodemend-bench";
const CHAIN: &str = "pods";

pub(super) struct Rules(Option<(Sender<()>, JoinHandle<()>)>);

impl Rules {
    pub(super) fn make(count: u32) -> anyhow::Result<Self> {
        filter().accept_by_nft(TABLE, CHAIN, count)?;
        let (end, ended) = mpsc::channel();
        let work = move || {
            while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = filter().accept_by_nft(TABLE, CHAIN, 1) {
                    eprintln!("no new rule: {error:#}");
                }
            }
        };
        Ok(Self(Some((end, thread::spawn(work)))))
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.0.take() {
            drop(end);
            let _panicked = thread.join();
        }
        if let Err(error) = filter().delete_nft_table(TABLE) {
            eprintln!("{error:#}");
        }
    }
}

fn filter() -> PacketFilter {
    PacketFilter::of(std::process::id())
}
