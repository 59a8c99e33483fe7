//! PURE. The network policy agent where it is a service of the host (EKS Auto Mode): systemd takes the
//! cgroup of a service away when that ends.

use std::time::Duration;

use super::files::Files;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;

const UNITS: [&str; 2] = [
    "root/usr/lib/systemd/system/aws-network-policy-agent.service",
    "root/etc/systemd/system/aws-network-policy-agent.service",
];
const RUNS: [&str; 2] = [
    "cgroup/*.slice/aws-network-policy-agent.service/",
    "cgroup/systemd/*.slice/aws-network-policy-agent.service/",
];
/// As EKS's agent has it.
const PATIENCE: Duration = Duration::from_secs(900);

/// One that has not run yet may be one that nobody starts.
#[derive(Default)]
pub(super) struct PolicyAgent {
    ran: bool,
    missing: Option<Duration>,
    told: bool,
}

impl Counter for PolicyAgent {
    fn name(&self) -> &'static str {
        "network-policy-agent"
    }

    fn wants(&self) -> &'static [&'static str] {
        const ALL: [&str; 4] = [UNITS[0], UNITS[1], RUNS[0], RUNS[1]];
        &ALL
    }

    fn look(&mut self, files: &Files, at: Duration) -> Vec<What> {
        let fault = |message: String| {
            told::fault(Reason::NpaNotRunning, "aws-network-policy-agent", message)
        };
        let installed = UNITS.iter().any(|unit| files.one(unit).is_some());
        let found = RUNS.map(|pattern| files.all(pattern));
        let runs = found.iter().any(|found| !found.files.is_empty());
        if runs || !installed {
            (self.ran, self.missing) = (runs, None);
            let over = std::mem::take(&mut self.told);
            let over = over.then(|| told::over(fault("the network policy agent runs".to_owned())));
            return over.into_iter().collect();
        }
        if !self.ran || found.iter().any(|found| found.cut) {
            return Vec::new();
        }
        let missing = at.saturating_sub(*self.missing.get_or_insert(at));
        if missing < PATIENCE {
            return Vec::new();
        }
        self.told = true;
        let minutes = missing.as_secs() / 60;
        let message = format!("the network policy agent has not run for {minutes} minutes");
        vec![told::still(fault(message))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Counted;

    fn look(agent: &mut PolicyAgent, installed: bool, runs: bool, seconds: u64) -> Vec<Counted> {
        let mut files: Vec<(&'static str, &[&str], &str)> = Vec::new();
        if installed {
            files.push((UNITS[0], &[], "[Unit]"));
        }
        if runs {
            files.push((RUNS[0], &["system.slice"], ""));
        }
        let found = agent.look(&Files::of(&files), Duration::from_secs(seconds));
        let found = found.into_iter().map(|what| match what {
            What::Counted { counted, .. } => counted,
            other => panic!("{other:?}"),
        });
        found.collect()
    }

    #[test]
    fn an_agent_that_ran_is_missed_after_a_quarter_of_an_hour_until_it_runs() {
        let mut agent = PolicyAgent::default();
        assert_eq!(look(&mut agent, true, true, 0), []);
        assert_eq!(look(&mut agent, true, false, 30), []);
        assert_eq!(look(&mut agent, true, true, 600), [], "recovered");
        assert_eq!(look(&mut agent, true, false, 630), []);
        assert_eq!(look(&mut agent, true, false, 1529), []);
        assert_eq!(look(&mut agent, true, false, 1530), [Counted::Still]);
        assert_eq!(look(&mut agent, true, true, 1560), [Counted::Over]);
        assert_eq!(look(&mut agent, true, true, 1590), []);
    }

    #[test]
    fn an_agent_that_is_not_installed_or_was_never_started_is_not_missed() {
        let mut agent = PolicyAgent::default();
        for seconds in [0, 1000, 2000] {
            assert_eq!(look(&mut agent, false, false, seconds), []);
        }
        for seconds in [3000, 4000, 5000] {
            assert_eq!(look(&mut agent, true, false, seconds), []);
        }
    }
}
