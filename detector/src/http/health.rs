//! PURE. Whether this agent is alive. An API server that is away is no illness of the agent: a restart
//! would not bring it back.

use std::time::Duration;

use serde_json::json;

use crate::metrics::Exporting;

pub(super) struct Vitals {
    pub(super) now: Duration,
    pub(super) reader_answers: bool,
    pub(super) exporting: Exporting,
}

impl Vitals {
    pub(super) fn healthy(&self) -> bool {
        self.reader_answers && !self.exporter_hangs()
    }

    fn exporter_hangs(&self) -> bool {
        self.exporting
            .back_by
            .is_some_and(|back_by| back_by < self.now)
    }

    pub(super) fn json(&self) -> String {
        let seconds = |at: Duration| self.now.saturating_sub(at).as_secs();
        let wrote = self.exporting.wrote.map(|wrote| seconds(wrote.boot));
        let reader = if self.reader_answers {
            "alive"
        } else {
            "does not answer"
        };
        let exporter = if self.exporter_hangs() {
            "hangs"
        } else {
            "alive"
        };
        let value = json!({
            "healthy": self.healthy(),
            "reader": reader,
            "exporter": exporter,
            "secondsSinceConditionsWritten": wrote,
            "apiServer": self.exporting.failed,
        });
        format!("{value}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vitals(reader_answers: bool, back_by: u64) -> Vitals {
        Vitals {
            now: Duration::from_secs(100),
            reader_answers,
            exporting: Exporting {
                back_by: Some(Duration::from_secs(back_by)),
                failed: Some("patch status of Node: refused".to_owned()),
                ..Exporting::default()
            },
        }
    }

    #[test]
    fn an_api_server_that_is_away_makes_nobody_sick() {
        assert!(vitals(true, 101).healthy());
        assert!(
            vitals(true, 101)
                .json()
                .contains("patch status of Node: refused")
        );
    }

    #[test]
    fn a_reader_that_does_not_answer_or_an_exporter_that_hangs_is_sick() {
        assert!(!vitals(false, 101).healthy());
        assert!(!vitals(true, 99).healthy());
    }
}
