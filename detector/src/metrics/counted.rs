//! A source whose signals are counted on their way to the core.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Metrics, SourceCounts};
use crate::rules::LogRules;
use crate::signal::{Signal, SourceName};
use crate::source::Source;

struct Counted {
    source: Box<dyn Source + Send>,
    counts: Arc<SourceCounts>,
}

pub(crate) fn all(
    sources: Vec<Box<dyn Source + Send>>,
    metrics: &Metrics,
) -> Vec<Box<dyn Source + Send>> {
    let counted = |source: Box<dyn Source + Send>| -> Box<dyn Source + Send> {
        let counts = metrics.source(source.name());
        Box::new(Counted { source, counts })
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

    fn is_up(&self) -> bool {
        self.source.is_up()
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
        let counts = &self.counts;
        let drained = self.source.drain(&mut |signal| {
            counts.signal(&signal);
            emit(signal);
        });
        let up = drained.is_ok() && self.source.is_up();
        counts.up.store(up, Ordering::Relaxed);
        drained
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::signal::What;

    /// Waits for something that is not there.
    struct Waiting;

    impl Source for Waiting {
        fn name(&self) -> SourceName {
            SourceName::Journal
        }

        fn fds(&self) -> Vec<BorrowedFd<'_>> {
            Vec::new()
        }

        fn is_up(&self) -> bool {
            false
        }

        fn drain(&mut self, _emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_source_that_waits_for_what_it_looks_at_is_not_up() {
        let metrics = Metrics::default();
        let mut sources = all(vec![Box::new(Waiting)], &metrics);
        sources[0].drain(&mut |_| {}).unwrap();
        let text = metrics.text();
        assert!(text.contains("source_up{source=\"journal\"} 0\n"), "{text}");
    }

    /// Sees one fault and loses two, then breaks.
    struct Fake;

    impl Source for Fake {
        fn name(&self) -> SourceName {
            SourceName::Kmsg
        }

        fn fds(&self) -> Vec<BorrowedFd<'_>> {
            Vec::new()
        }

        fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
            let device = "sda1".to_owned();
            let source = self.name();
            for what in [
                What::RemountedReadOnly { device },
                What::Lost { source, count: 2 },
            ] {
                emit(Signal {
                    at: Duration::ZERO,
                    historic: false,
                    what,
                });
            }
            anyhow::bail!("broken")
        }
    }

    #[test]
    fn signals_losses_and_the_end_of_a_source_are_counted() {
        let metrics = Metrics::default();
        let mut sources = all(vec![Box::new(Fake)], &metrics);
        let mut handed_over = 0;
        let drained = sources[0].drain(&mut |_| handed_over += 1);
        assert!(drained.is_err());
        assert_eq!(handed_over, 2);
        let text = metrics.text();
        for line in [
            "signals_total{source=\"kmsg\"} 1\n",
            "signals_lost_total{source=\"kmsg\"} 2\n",
            "source_up{source=\"kmsg\"} 0\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
