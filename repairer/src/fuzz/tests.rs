//! A short form of `cargo xtask fuzz`.

use std::fs;

use super::TARGETS;
use crate::aws;

#[path = "../../../tests/fuzz/smoke.rs"]
mod smoke;

#[test]
fn what_is_near_the_seeds_is_parsed_or_refused() {
    smoke::every_target(TARGETS);
}

/// Otherwise the target would look at refusals alone.
#[test]
fn each_answer_of_aws_among_the_seeds_is_read() {
    for path in smoke::paths("aws-answer") {
        let read = aws::fuzz::answers(&fs::read(&path).unwrap(), super::now());
        assert_eq!(read, !path.ends_with("refused"), "{path:?}");
    }
}
