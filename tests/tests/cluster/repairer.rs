//! The repairer against the real API server and the local AWS, under the RBAC that
//! `deploy/rbac/repairer.yaml` ships.

mod clouds;
mod constraints;
mod crash;
mod drain;
mod gates;
mod gpu;
mod karpenter;
mod leader;
mod outage;
mod outcome;
mod person;
mod reboot;
mod scene;
mod schema;
mod setup;
mod skew;
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
            "repairer::a_node_group_that_eks_repairs_is_left_to_it",
            clouds::stands_down_for_eks,
        ),
        suite.trial_alone(
            "repairer::what_eks_was_told_of_a_node_group_is_imported_and_done",
            clouds::imported,
        ),
        suite.trial_alone(
            "repairer::a_zonal_shift_holds_its_zone",
            clouds::zonal_shift,
        ),
        suite.trial_alone(
            "repairer::an_instance_that_fails_ec2s_checks_is_replaced",
            clouds::impaired,
        ),
        suite.trial_alone(
            "repairer::an_instance_that_never_became_a_node_is_replaced",
            clouds::never_joined,
        ),
        suite.trial_alone(
            "repairer::what_could_not_come_back_is_not_destroyed",
            clouds::no_way_to_replace,
        ),
        suite.trial_alone(
            "repairer::a_group_that_launches_first_is_told_of_the_health",
            clouds::by_instance_health,
        ),
        suite.trial_alone(
            "repairer::who_may_not_write_tries_once_and_reports",
            clouds::denied,
        ),
        suite.trial_alone(
            "repairer::a_node_of_karpenter_is_drained_and_its_claim_deleted",
            karpenter::replaced,
        ),
        suite.trial_alone(
            "repairer::a_crash_around_the_deletion_of_a_claim_repeats_nothing",
            karpenter::crashes,
        ),
        suite.trial_alone("repairer::check_names_who_else_repairs", karpenter::checked),
        suite.trial_alone(
            "repairer::what_karpenter_removes_is_left_to_it",
            karpenter::left_to_karpenter,
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
            "repairer::a_crash_around_a_reboot_makes_no_second_one",
            crash::reboot,
        ),
        suite.trial_alone(
            "repairer::a_drain_says_which_budget_blocks_and_whether_it_ever_clears",
            drain::budgets,
        ),
        suite.trial_alone(
            "repairer::a_drain_treats_each_kind_of_pod_as_its_own",
            drain::zoo,
        ),
        suite.trial_alone("repairer::two_hundred_pods_are_drained", drain::many),
        suite.trial_alone(
            "repairer::a_drain_is_forced_or_given_up_at_its_timeout",
            drain::at_timeout,
        ),
        suite.trial_alone(
            "repairer::nobody_waits_for_the_pods_of_a_dead_kubelet",
            drain::dead_kubelet,
        ),
        suite.trial_alone(
            "repairer::a_machine_that_is_off_is_out_of_service_until_it_is_back",
            drain::out_of_service,
        ),
        suite.trial_alone(
            "repairer::a_reboot_is_proven_by_another_boot",
            reboot::proven,
        ),
        suite.trial_alone(
            "repairer::a_reboot_that_does_not_help_is_followed_by_a_replacement",
            reboot::escalates,
        ),
        suite.trial_alone(
            "repairer::a_fault_of_a_gpu_is_repaired_as_the_detector_advises",
            gpu::as_advised,
        ),
        suite.trial_alone(
            "repairer::a_person_who_deletes_the_record_is_obeyed",
            person::deletes_the_record,
        ),
        suite.trial_alone(
            "repairer::others_are_kept_off_and_their_own_marks_stay",
            person::marks,
        ),
        suite.trial_alone(
            "repairer::a_drained_node_is_preserved_for_a_person",
            person::preserves,
        ),
        suite.trial_alone(
            "repairer::one_replica_leads_and_the_other_takes_over",
            leader::takes_over,
        ),
        suite.trial_alone("repairer::a_replica_that_lost_its_lease_ends", leader::lost),
        suite.trial_alone(
            "repairer::a_holder_of_the_lease_is_judged_by_no_clock_but_our_own",
            leader::clock,
        ),
        suite.trial_alone(
            "repairer::a_lease_that_is_lost_in_the_middle_of_a_call_repeats_nothing",
            leader::lost_in_a_call,
        ),
        suite.trial_alone(
            "repairer::of_two_that_have_led_only_the_later_one_calls",
            leader::two,
        ),
        suite.trial_alone(
            "repairer::its_own_pod_goes_last_when_another_one_leads",
            leader::own_pod,
        ),
        suite.trial_alone(
            "repairer::a_watch_that_is_gone_or_has_a_gap_is_listed_anew",
            outage::gone,
        ),
        suite.trial_alone(
            "repairer::an_api_server_that_restarts_in_the_middle_of_a_drain_repeats_nothing",
            outage::restarts,
        ),
        suite.trial_alone(
            "repairer::who_may_not_evict_holds_and_begins_nothing_else",
            gates::may_not_evict,
        ),
        suite.trial_alone(
            "repairer::a_wrong_policy_is_refused_with_the_name_of_the_field",
            schema::refused,
        ),
        suite.trial_alone(
            "repairer::every_constraint_is_the_api_server_s_and_check_s_in_the_same_words",
            constraints::every_one,
        ),
        suite.trial_alone(
            "repairer::what_the_first_release_wrote_is_kept_by_todays_crds",
            skew::first_release,
        ),
        suite.trial_alone(
            "repairer::after_a_rollback_it_passes_over_what_is_new_and_holds_for_what_it_cannot_read",
            skew::rolled_back,
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
