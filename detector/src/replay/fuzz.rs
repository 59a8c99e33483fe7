//! A saved log of any form.

use super::*;
use crate::fuzz;
use crate::reason::Severity;
use crate::rules::LogRules;

/// The whole file; where a line is no line, the rest is not read.
pub(crate) fn saved(bytes: &[u8]) {
    let mut lines = Vec::new();
    for line in Saved::new(bytes) {
        match line {
            Ok(line) => lines.push(line),
            Err(_cut) => break,
        }
    }
    let text: usize = lines.iter().map(|line| line.text.len()).sum();
    // What is no UTF-8 becomes a character of three bytes.
    assert!(text <= 3 * bytes.len());
    let config = Config {
        rules: LogRules::default().with_host_logs().into(),
        ..Config::default()
    };
    for evidence in [false, true] {
        let mut replay = Replay::new(&config, evidence);
        let mut last = 0;
        for line in &lines {
            assert!(line.number >= last, "{} after {last}", line.number);
            last = line.number;
            for said in replay.read(line) {
                let finding = &said.transition.finding;
                assert!(
                    evidence || finding.severity != Severity::Fatal,
                    "by a text: {finding:?}"
                );
                fuzz::assert_plain(&finding.message, 1024);
                fuzz::assert_plain(&said.text(), 4096);
                said.json();
            }
        }
        replay.pass(replay.now + Duration::from_secs(86_400));
    }
}
