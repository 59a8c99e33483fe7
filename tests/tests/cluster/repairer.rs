//! The repairer against the real API server and the local AWS, under the RBAC that
//! `deploy/rbac/repairer.yaml` ships.

mod constraints;
mod crash;
mod gates;
mod leader;
mod outcome;
mod scene;
mod schema;
mod setup;
mod told;
mod trust;

use std::sync::Arc;

use libtest_mimic::Trial;

use crate::suite::Suite;

/// Each brings its own control plane: a policy is for the nodes of a whole cluster.
pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        // First, because it takes longest.
        suite.trial_alone(
            "repairer::a_crash_at_any_call_repeats_nothing",
            crash::matrix,
        ),
        suite.trial_alone(
            "repairer::a_sick_node_is_drained_and_replaced_once",
            outcome::replaced,
        ),
        suite.trial_alone(
            "repairer::a_node_that_recovers_gets_back_what_we_took",
            outcome::recovered,
        ),
        suite.trial_alone(
            "repairer::a_node_that_a_person_uncordons_is_theirs",
            outcome::uncordoned,
        ),
        suite.trial_alone(
            "repairer::what_aws_refuses_is_told_and_given_up",
            outcome::refused,
        ),
        suite.trial_alone(
            "repairer::a_lost_answer_is_settled_by_looking",
            outcome::lost_answer,
        ),
        suite.trial_alone(
            "repairer::a_call_that_is_never_answered_is_made_again_only_after_a_look",
            outcome::no_answer,
        ),
        suite.trial_alone(
            "repairer::an_aws_that_does_not_answer_holds_everything",
            outcome::aws_away,
        ),
        suite.trial_alone(
            "repairer::nothing_is_touched_until_the_policy_is_enabled",
            gates::disabled,
        ),
        suite.trial_alone(
            "repairer::a_gate_that_closes_during_the_drain_stops_the_terminate",
            gates::closes,
        ),
        suite.trial_alone(
            "repairer::a_malformed_provider_id_is_named",
            gates::malformed_provider_id,
        ),
        suite.trial_alone(
            "repairer::a_crash_on_the_way_back_repeats_nothing",
            crash::way_back,
        ),
        suite.trial_alone(
            "repairer::one_replica_leads_and_the_other_takes_over",
            leader::takes_over,
        ),
        suite.trial_alone("repairer::a_replica_that_lost_its_lease_ends", leader::lost),
        suite.trial_alone(
            "repairer::a_wrong_policy_is_refused_with_the_name_of_the_field",
            schema::refused,
        ),
        suite.trial_alone(
            "repairer::every_constraint_is_the_api_server_s_and_check_s_in_the_same_words",
            constraints::every_one,
        ),
        suite.trial_alone(
            "repairer::the_shipped_policy_is_accepted_and_disabled",
            schema::shipped,
        ),
        suite.trial_alone(
            "repairer::a_silent_kubelet_is_believed_when_its_lease_grows_old",
            trust::lease,
        ),
        suite.trial_alone(
            "repairer::what_begins_while_the_api_server_does_not_answer_waits_anew",
            trust::unreachable,
        ),
        suite.trial_alone(
            "repairer::events_metrics_and_the_log_tell_each_decision",
            told::whole,
        ),
        suite.trial_alone("repairer::the_columns_tell_the_story", told::columns),
        suite.trial_alone(
            "repairer::a_finished_record_is_forgotten_when_there_are_too_many",
            told::forgotten,
        ),
        suite.trial_alone(
            "repairer::a_hold_that_comes_back_counts_in_the_series_of_its_event",
            told::series,
        ),
        suite.trial_alone(
            "repairer::without_the_right_to_write_events_it_goes_on",
            told::refused,
        ),
        suite.trial_alone(
            "repairer::what_is_missing_is_named_with_its_remedy",
            setup::missing,
        ),
        suite.trial_alone(
            "repairer::an_api_server_that_comes_late_is_waited_for",
            setup::late,
        ),
    ]
}
