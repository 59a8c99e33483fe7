//! The detector against the test cases of other node agents (`tests/peers/`).

use nodemend_tests::{peers, repo};

/// Every disagreement is explained, none that is over still is, and the page says what is so.
#[test]
fn the_page_about_other_agents_cases_is_what_the_detector_makes_of_them() {
    let repo = repo();
    let page = peers::page(&repo).unwrap();
    let committed = peers::committed(&repo).unwrap();
    let differs = (1..)
        .zip(page.lines().zip(committed.lines()))
        .find(|(_, (now, then))| now != then);
    assert!(
        page == committed,
        "{} is out of date (first difference: {differs:?}): run `cargo xtask peers` and commit the result",
        peers::PAGE
    );
}
