//! The detector against the real API server, under the RBAC that `deploy/rbac/detector.yaml` ships.

mod agent;
mod away;
mod events;
mod restart;
mod setup;
mod writers;

use std::sync::Arc;

use libtest_mimic::Trial;

use crate::suite::Suite;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial(
            "detector::two_condition_writers_never_undo_each_other",
            writers::never_undo_each_other,
        ),
        suite.trial(
            "detector::an_event_carries_the_uid_of_the_node_and_names_the_pod",
            events::names_node_and_pod,
        ),
        suite.trial(
            "detector::an_event_of_an_unknown_pod_says_its_uid",
            events::unknown_pod,
        ),
        suite.trial(
            "detector::its_service_account_may_do_nothing_else",
            events::may_do_nothing_else,
        ),
        suite.trial(
            "detector::a_fault_during_an_outage_keeps_its_time",
            away::outage,
        ),
        suite.trial(
            "detector::a_fault_before_the_first_contact_is_reported",
            away::before_first_contact,
        ),
        suite.trial(
            "detector::a_silent_api_server_is_asked_again",
            away::silence,
        ),
        suite.trial(
            "detector::a_dead_connection_is_replaced",
            away::dead_connection,
        ),
        suite.trial(
            "detector::a_missing_node_is_waited_for",
            setup::missing_node,
        ),
        suite.trial(
            "detector::without_rbac_the_log_names_the_manifest",
            setup::without_rbac,
        ),
        suite.trial("detector::an_unknown_token_is_named", setup::unknown_token),
        suite.trial(
            "detector::an_unusable_kubeconfig_ends_it",
            setup::unusable_kubeconfig,
        ),
        suite.trial_alone(
            "detector::wrong_arguments_are_named",
            setup::wrong_arguments,
        ),
        suite.trial("detector::a_restart_makes_no_flap", restart::no_flap),
        suite.trial("detector::sigterm_leaves_the_conditions", restart::sigterm),
    ]
}
