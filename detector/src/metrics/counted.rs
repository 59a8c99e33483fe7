//! A source whose signals are counted on their way to the core.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::Metrics;
use crate::rules::LogRules;
use crate::signal::{Signal, SourceName};
use crate::source::Source;

struct Counted {
    source: Box<dyn Source + Send>,
    metrics: Arc<Metrics>,
}

pub(crate) fn all(
    sources: Vec<Box<dyn Source + Send>>,
    metrics: &Arc<Metrics>,
) -> Vec<Box<dyn Source + Send>> {
    let counted = |source| -> Box<dyn Source + Send> {
        Box::new(Counted {
            source,
            metrics: Arc::clone(metrics),
        })
    };
    sources.into_iter().map(counted).collect()
}

impl Source for Counted {
    fn name(&self) -> SourceName {
        self.source.name()
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.source.fds()
    }

    fn positions(&self) -> BTreeMap<String, u64> {
        self.source.positions()
    }

    fn resume(&mut self, since: Duration, positions: &BTreeMap<String, u64>) {
        self.source.resume(since, positions);
    }

    fn configure(&mut self, rules: &Arc<LogRules>) {
        self.source.configure(rules);
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        let (name, metrics) = (self.source.name(), &self.metrics);
        let drained = self.source.drain(&mut |signal| {
            metrics.signal(name, &signal);
            emit(signal);
        });
        if drained.is_err() {
            metrics.source_down(name);
        }
        drained
    }
}
