//! The detector against the real API server, under the RBAC that `deploy/rbac/detector.yaml` ships.

mod agent;
mod away;
mod coexistence;
mod events;
mod flood;
mod front;
mod frozen;
pub(crate) mod http;
mod killed;
mod memory;
mod own_node;
mod restart;
mod retries;
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
        suite.trial_alone(
            "detector::it_may_change_its_own_conditions_of_its_own_node_alone",
            own_node::alone,
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
        suite.trial(
            "detector::killed_a_thousand_times_it_forgets_and_invents_nothing",
            killed::a_thousand_times,
        ),
        suite.trial(
            "detector::a_flood_is_counted_and_holds_up_nothing",
            flood::counted_and_survived,
        ),
        suite.trial(
            "detector::with_its_disks_frozen_it_reports_and_ends",
            frozen::disks,
        ),
        suite.trial(
            "detector::without_a_place_for_its_state_it_says_so_and_goes_on",
            memory::nowhere,
        ),
        suite.trial(
            "detector::a_damaged_state_is_set_aside_and_told",
            memory::damaged,
        ),
        suite.trial(
            "detector::a_boot_that_nobody_asked_for_is_told_once",
            memory::unexpected_boot,
        ),
        suite.trial("detector::sigterm_leaves_the_conditions", restart::sigterm),
        suite.trial(
            "detector::an_event_is_also_about_the_pod_in_its_namespace",
            events::on_the_pod,
        ),
        suite.trial(
            "detector::a_repeat_is_counted_on_its_first_event_while_that_lives",
            events::repeats,
        ),
        suite.trial(
            "detector::a_busy_api_server_is_left_alone_for_as_long_as_it_asks",
            retries::busy,
        ),
        suite.trial(
            "detector::errors_of_the_api_server_are_tried_again",
            retries::errors,
        ),
        suite.trial(
            "detector::an_answer_that_trickles_is_given_up",
            retries::trickle,
        ),
        suite.trial(
            "detector::an_invalid_event_holds_up_no_other",
            retries::invalid_event,
        ),
        suite.trial(
            "detector::an_event_whose_answer_was_lost_is_told_once",
            retries::lost_answer,
        ),
        suite.trial(
            "detector::an_expired_token_is_read_again_at_once",
            retries::expired_token,
        ),
        suite.trial(
            "detector::a_node_that_was_created_again_gets_its_conditions_and_events",
            retries::created_again,
        ),
        suite.trial(
            "detector::a_broken_api_server_is_not_stormed",
            retries::no_storm,
        ),
        suite.trial(
            "detector::another_writer_of_its_conditions_is_left_alone",
            coexistence::shadow,
        ),
        suite.trial(
            "detector::beside_another_writer_it_can_refuse_to_write",
            coexistence::refuse,
        ),
        suite.trial(
            "detector::another_writer_that_was_there_first_is_never_overwritten",
            coexistence::there_before,
        ),
        suite.trial(
            "detector::edits_of_a_condition_are_put_right",
            coexistence::edits,
        ),
        suite.trial(
            "detector::its_pages_show_findings_health_and_metrics",
            http::pages,
        ),
        suite.trial(
            "detector::an_outage_is_shown_and_makes_it_not_sick",
            http::outage,
        ),
        suite.trial(
            "detector::silent_clients_hold_up_nobody",
            http::slow_clients,
        ),
        suite.trial(
            "detector::another_writer_is_noticed_where_nobody_tracks_who_writes",
            coexistence::untracked,
        ),
    ]
}
