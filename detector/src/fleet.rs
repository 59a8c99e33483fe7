//! Agents without sources, many in one process, for `nodemend-bench export`: what an agent asks of the
//! API server is its exporter's doing alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Config;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinHandle;

use crate::clock;
use crate::core::{Core, Evidence, Input, Output};
use crate::export::schedule::Intervals;
use crate::export::{Coexistence, Exporter, Options};
use crate::metrics::Metrics;
use crate::reason::ConditionType;
use crate::signal::{Signal, What};

const DEVICE: &str = "bench0";

pub struct Agent {
    reader: Option<Reader>,
    exporting: JoinHandle<()>,
    metrics: Arc<Metrics>,
}

/// What stands in for the reader thread.
#[derive(Clone)]
struct Reader {
    core: Arc<Mutex<Core>>,
    outputs: UnboundedSender<Output>,
}

impl Agent {
    /// `sick`: a file system that the node needs is read-only.
    pub fn start(
        config: Config,
        node: &str,
        heartbeat: Duration,
        sick: bool,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let options = Options {
            node: node.to_owned(),
            boot_id: "bench".to_owned(),
            pod_logs: "/nonexistent".into(),
            intervals: Intervals {
                heartbeat,
                fatal_heartbeat: heartbeat.min(Duration::from_secs(60)),
                text: Duration::from_secs(60),
            },
            status_burst: 5,
            coexistence: Coexistence::Shadow,
        };
        let exporter = Exporter::new(config, options, Arc::clone(&metrics), None, Vec::new())?;
        let (outputs, receiver) = mpsc::unbounded_channel();
        let monitored = vec![
            ConditionType::KernelReady,
            ConditionType::StorageReady,
            ConditionType::NetworkingReady,
        ];
        let reader = Reader {
            core: Arc::new(Mutex::new(Core::new(monitored))),
            outputs,
        };
        reader.step(Input::HistoryRead);
        if sick {
            reader.step(Input::Signal(Signal {
                at: clock::boot(),
                historic: false,
                what: What::RemountedReadOnly {
                    device: DEVICE.to_owned(),
                },
            }));
        }
        // It must not keep the way to the exporter open for ever.
        let (core, outputs) = (Arc::clone(&reader.core), reader.outputs.downgrade());
        let known = move |existing| {
            if let Some(outputs) = outputs.upgrade() {
                Reader { core, outputs }.step(Input::Existing(existing));
            }
        };
        // It has no kubelet.
        let exporting = tokio::spawn(exporter.run(receiver, known, drop));
        Ok(Self {
            reader: Some(reader),
            exporting,
            metrics,
        })
    }

    /// As SIGTERM does: what is left is written, the conditions stay.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.reader = None;
        Ok(self.exporting.await?)
    }

    /// Requests that were answered, and those that were not.
    pub fn requests(&self) -> (u64, u64) {
        self.metrics.requests()
    }

    /// When it wrote its conditions last (`CLOCK_BOOTTIME`).
    pub fn wrote(&self) -> Option<Duration> {
        self.metrics.exporting().wrote.map(|now| now.boot)
    }
}

impl Reader {
    fn step(&self, input: Input) {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in core.step(input, clock::now()) {
                if let Output::Probe { device } = output {
                    let evidence = Evidence::ReadOnly {
                        mount_point: "/".to_owned(),
                        critical: Some("/".to_owned()),
                    };
                    inputs.push(Input::Evidence { device, evidence });
                } else {
                    // An exporter that is gone is on its way out.
                    drop(self.outputs.send(output));
                }
            }
        }
    }
}
