//! What users install: the chart with Helm on the real control plane, the images, and every command
//! of the README's installation.

mod accepted;
mod chart;
mod commands;
mod container;
mod documents;
mod floor;
mod images;
mod install;
mod missing_crds;
mod name_lookup;
mod operating;
mod patched;
mod profiles;
mod readme;
mod real_node;
mod real_pod;
mod rolling;
mod scene;
mod values;

use std::process::ExitCode;
use std::thread;

use libtest_mimic::{Arguments, Completion, Trial};
use nodemend_tests::{control_plane, faults, terminal};

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    if args.test_threads.is_none() {
        // They wait more than they work.
        args.test_threads = thread::available_parallelism()
            .ok()
            .map(|cpus| 2 * cpus.get());
    }
    let trials = vec![
        // First, because they take longest.
        trial(
            "install::as_the_readme_says_and_nothing_of_ours_stays_on_a_node",
            install::as_the_readme_says,
        ),
        trial(
            "upgrade::a_rolling_restart_and_a_rollback_of_the_fleet_move_no_transition_time",
            rolling::moves_no_transition_time,
        ),
        trial("chart::helm_lint_finds_nothing", chart::lint),
        trial("chart::its_rules_are_those_of_deploy_rbac", chart::rules),
        trial(
            "chart::only_the_detector_is_privileged",
            chart::only_the_detector_is_privileged,
        ),
        trial(
            "chart::the_daemons_know_what_they_are_told",
            chart::known_to_the_daemons,
        ),
        trial(
            "images::the_repairer_is_static_and_runs_and_looks_up_names_in_an_empty_root",
            images::repairer_is_static,
        ),
        trial_unless(
            images::not_cross_built(),
            "images::those_for_arm64_are_whole_and_of_that_architecture",
            images::are_of_arm64,
        ),
        trial_unless(
            images::no_engine(),
            "images::a_container_engine_gets_them_too",
            images::are_given_to_the_engine,
        ),
        trial_unless(
            container::unavailable(),
            "profiles::the_privileged_container_sees_what_the_host_shows",
            profiles::privileged,
        ),
        trial_unless(
            container::unavailable(),
            "profiles::the_hardened_container_loses_what_it_says",
            profiles::hardened,
        ),
        trial_unless(
            container::unavailable(),
            "profiles::each_refusal_is_named_and_survived",
            profiles::each_refusal,
        ),
        trial_unless(
            container::unavailable(),
            "profiles::the_pod_of_the_chart_reports_a_fault_of_this_host_in_either",
            real_pod::reports,
        ),
        trial_unless(
            real_node::unavailable(),
            "node::a_real_kubelet_runs_the_chart_and_its_node_is_watched_and_cordoned",
            real_node::is_watched_and_cordoned,
        ),
        trial_unless(
            operating::no_promtool(),
            "operating::each_alert_fires_where_it_should_and_is_silent_elsewhere",
            operating::alerts_fire_and_are_silent,
        ),
        trial(
            "operating::each_alert_and_each_gate_has_its_runbook",
            operating::runbooks,
        ),
        trial(
            "operating::alerts_and_dashboard_ask_for_metrics_that_exist",
            operating::metrics_exist,
        ),
        trial(
            "operating::alerts_name_gates_that_exist",
            operating::gates_of_alerts_are_gates,
        ),
        trial_unless(
            accepted::no_validator(),
            "chart::the_schemas_of_five_kubernetes_versions_know_every_field",
            accepted::by_the_schemas_of_five_versions,
        ),
        trial(
            "chart::a_real_api_server_takes_it_once_and_says_what_is_missing",
            accepted::by_a_real_api_server,
        ),
        trial_unless(
            floor::unavailable(),
            "chart::the_oldest_kubernetes_takes_it_and_both_daemons_work_there",
            floor::works,
        ),
        trial(
            "chart::an_older_kubernetes_is_refused",
            accepted::not_below_the_floor,
        ),
        trial(
            "chart::the_prometheus_operator_gets_what_it_can_reach",
            accepted::with_the_operator,
        ),
        trial(
            "documents::each_object_applies_and_is_sound",
            documents::objects_apply,
        ),
        trial(
            "documents::an_upgrade_over_older_crds_goes_as_the_page_says",
            documents::upgrade,
        ),
        trial("documents::each_command_is_typed", commands::typed),
        trial(
            "documents::each_transcript_is_what_is_printed",
            commands::transcripts,
        ),
        trial("documents::each_link_leads_somewhere", documents::links),
        trial(
            "documents::each_threat_has_a_test_that_there_is",
            documents::threats_are_tested,
        ),
        trial("values::a_wrong_value_is_named_by_its_key", values::wrong),
        trial(
            "values::every_value_reaches_the_manifest",
            values::every_value,
        ),
        trial(
            "install::without_crds_the_missing_kind_is_named",
            missing_crds::named,
        ),
        trial(
            "upgrade::a_mode_that_a_person_has_patched_is_not_overruled",
            patched::is_not_overruled,
        ),
    ];
    libtest_mimic::run(&args, trials).exit_code()
}

fn trial<F>(name: &str, test: F) -> Trial
where
    F: AsyncFnOnce() -> anyhow::Result<()> + Send + 'static,
{
    trial_unless(None, name, test)
}

/// Skipped for a reason.
fn trial_unless<F>(reason: Option<&'static str>, name: &str, test: F) -> Trial
where
    F: AsyncFnOnce() -> anyhow::Result<()> + Send + 'static,
{
    Trial::ignorable_test(name, move || {
        if let Some(reason) = reason.or_else(faults::unavailable) {
            return Ok(Completion::ignored_with(reason));
        }
        if let Err(error) = control_plane::all_there().and_then(|()| terminal::helm().map(drop)) {
            return Ok(Completion::ignored_with(format!("{error:#}")));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime
            .block_on(test())
            .map_err(|error| format!("{error:#}"))?;
        Ok(Completion::Completed)
    })
}
