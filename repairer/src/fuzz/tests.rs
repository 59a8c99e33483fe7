//! A short form of `cargo xtask fuzz`.

use super::TARGETS;

#[path = "../../../tests/fuzz/smoke.rs"]
mod smoke;

#[test]
fn what_is_near_the_seeds_is_parsed_or_refused() {
    smoke::every_target(TARGETS);
}
