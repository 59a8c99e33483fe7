//! Rules of the host's packet filters that nobody who writes such rules on nodes is known for: packets
//! that are refused, and kubelet's port that is given to another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::debug;

use super::asked::Asked;
use super::files::Files;
use super::netlink::NetworkOfHost;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;

mod legacy;
mod nft;
mod rule;
mod xt;

use self::legacy::{Family, Shape};
use self::rule::{Does, Rule};

/// Looks after which the old tables are read again even if nothing seems to have changed.
const RARELY: u32 = 10;
/// Findings of one reading.
const MOST_TOLD: usize = 16;

type Rules = Result<Vec<Rule>, String>;

pub(super) struct Firewall {
    proc: PathBuf,
    sys: PathBuf,
    /// The kernel has nftables, whether or not a module of it is shown.
    nft_built_in: bool,
    kernel: Option<Asked<Rules>>,
    judge: Judge,
}

struct Judge {
    /// `table/chain` of rules that are as the node's owner wants them.
    allowed: Vec<String>,
    told: BTreeSet<(Reason, String)>,
}

impl Firewall {
    pub(super) fn new(proc: PathBuf, sys: PathBuf, allowed: Vec<String>) -> Self {
        let nft_built_in = nft_built_in(&proc);
        let told = BTreeSet::new();
        Self {
            proc,
            sys,
            nft_built_in,
            kernel: None,
            judge: Judge { allowed, told },
        }
    }
}

/// To ask a kernel that has it as a module would load that.
fn nft_built_in(proc: &Path) -> bool {
    if !Path::new("/proc/modules").exists() {
        return true;
    }
    let list = fs::read_to_string("/proc/sys/kernel/osrelease").and_then(|release| {
        let list = format!("1/root/lib/modules/{}/modules.builtin", release.trim());
        fs::read_to_string(proc.join(list))
    });
    match list {
        Ok(list) => list.lines().any(|module| module.ends_with("/nf_tables.ko")),
        Err(error) => {
            debug!(%error, "what is built into the kernel is not known: nftables is asked if sysfs has it");
            false
        }
    }
}

impl Counter for Firewall {
    fn name(&self) -> &'static str {
        "packet-filter"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[
            "proc/1/net/ip_tables_names",
            "proc/1/net/ip6_tables_names",
            "sys/module/nf_tables/",
        ]
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.kernel.as_ref())
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        if !files.any() && !self.nft_built_in {
            return Vec::new();
        }
        let kernel = Asked::started(&mut self.kernel, "packet-filter", || {
            let mut reader = Reader::new(self.proc.clone(), self.nft_built_in, &self.sys);
            move || reader.read()
        });
        let rules = kernel.and_then(|kernel| kernel.take_well("the packet filters' rules"));
        rules.map_or_else(Vec::new, |rules| self.judge.look(&rules))
    }
}

impl Judge {
    fn look(&mut self, rules: &[Rule]) -> Vec<What> {
        let mut found: BTreeMap<(Reason, String), usize> = BTreeMap::new();
        for rule in rules {
            if rule.refuses_unexpectedly(&self.allowed) {
                let key = (Reason::UnexpectedRejectRule, rule.place());
                *found.entry(key).or_default() += 1;
            }
            if rule.takes_kubelets_port() {
                let key = (Reason::PortConflict, rule.place());
                *found.entry(key).or_default() += 1;
            }
        }
        let over = self.told.extract_if(.., |key| !found.contains_key(key));
        let over: Vec<_> = over.collect();
        let still = found.into_iter().take(MOST_TOLD).map(|(key, count)| {
            self.told.insert(key.clone());
            let (reason, place) = key;
            let message = match reason {
                Reason::PortConflict => format!(
                    "{place} sends packets to port {}, which is kubelet's, elsewhere",
                    rule::KUBELET
                ),
                _ => format!("{place} refuses packets, by {count} rules of an unknown owner"),
            };
            told::still(told::fault(reason, &place, message))
        });
        let over = over.into_iter().map(|(reason, place)| {
            let message = format!("{place} does not any more");
            told::over(told::fault(reason, &place, message))
        });
        let still: Vec<_> = still.collect();
        still.into_iter().chain(over).collect()
    }
}

/// What was read before, for as long as nothing seems to have changed.
struct Reader {
    proc: PathBuf,
    nft_module: PathBuf,
    nft_built_in: bool,
    network: NetworkOfHost,
    nft: Option<(Option<u32>, Vec<Rule>)>,
    legacy: BTreeMap<(Family, String), (Shape, Vec<Rule>)>,
    looks: u32,
}

impl Reader {
    fn new(proc: PathBuf, nft_built_in: bool, sys: &Path) -> Self {
        Self {
            network: NetworkOfHost::new(&proc),
            proc,
            nft_module: sys.join("module/nf_tables"),
            nft_built_in,
            nft: None,
            legacy: BTreeMap::new(),
            looks: 0,
        }
    }

    fn read(&mut self) -> Rules {
        self.try_read().map_err(|error| error.to_string())
    }

    fn try_read(&mut self) -> io::Result<Vec<Rule>> {
        self.network.enter()?;
        if self.looks.is_multiple_of(RARELY) {
            self.legacy.clear();
        }
        self.looks = self.looks.wrapping_add(1);
        self.read_legacy()?;
        if self.nft_built_in || self.nft_module.exists() {
            self.read_nft()?;
        }
        let legacy = self.legacy.values().flat_map(|(_, rules)| rules);
        let nft = self.nft.iter().flat_map(|(_, rules)| rules);
        Ok(legacy.chain(nft).cloned().collect())
    }

    fn read_nft(&mut self) -> io::Result<()> {
        let generation = nft::generation()?;
        // A kernel that does not tell it may have changed them.
        let known = |(read, _): &(Option<u32>, _)| generation.is_some() && *read == generation;
        if !self.nft.as_ref().is_some_and(known) {
            self.nft = Some((generation, of_interest(nft::read()?)));
        }
        Ok(())
    }

    fn read_legacy(&mut self) -> io::Result<()> {
        let mut there = BTreeSet::new();
        for family in Family::ALL {
            let names = match fs::read_to_string(self.proc.join(family.list())) {
                // The kernel has no such tables.
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                names => names?,
            };
            for name in names.lines() {
                let key = (family, name.to_owned());
                let shape = legacy::shape(family, name)?;
                there.insert(key.clone());
                if self.legacy.get(&key).is_none_or(|(read, _)| *read != shape) {
                    let rules = of_interest(legacy::read(family, name)?);
                    self.legacy.insert(key, (shape, rules));
                }
            }
        }
        self.legacy.retain(|key, _| there.contains(key));
        Ok(())
    }
}

/// A node of many services has 40,000 others.
fn of_interest(mut rules: Vec<Rule>) -> Vec<Rule> {
    rules.retain(|rule| rule.does != Does::Other);
    rules
}

#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_rule(message: &[u8]) -> Vec<What> {
    Judge::unasked().look(nft::fuzz(message).as_slice())
}

#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_table(bytes: &[u8]) -> Vec<What> {
    Judge::unasked().look(&legacy::fuzz(bytes))
}

#[cfg(any(test, fuzzing))]
impl Judge {
    fn unasked() -> Self {
        Self {
            allowed: Vec::new(),
            told: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Counted;

    fn rule(chain: &str, does: Does) -> Rule {
        Rule {
            ports: Some((rule::KUBELET, rule::KUBELET)),
            ..Rule::of(chain, does)
        }
    }

    #[test]
    fn a_chain_is_told_once_with_the_number_of_its_rules_until_they_are_gone() {
        let mut judge = Judge {
            allowed: vec!["filter/MINE".to_owned()],
            told: BTreeSet::new(),
        };
        let mut look = |rules: &[Rule]| -> Vec<(Reason, String, Counted)> {
            let found = judge.look(rules).into_iter();
            let found = found.map(|what| match what {
                What::Counted { fault, counted } => (fault.reason, fault.entity, counted),
                other => panic!("{other:?}"),
            });
            found.collect()
        };
        let place = "filter/ATTACK".to_owned();
        let rules = [
            rule("ATTACK", Does::Refuse),
            rule("ATTACK", Does::Refuse),
            rule("KUBE-FIREWALL", Does::Refuse),
            rule("MINE", Does::Refuse),
        ];
        let reason = Reason::UnexpectedRejectRule;
        for _ in 0..2 {
            assert_eq!(look(&rules), [(reason, place.clone(), Counted::Still)]);
        }
        assert_eq!(look(&rules[2..]), [(reason, place, Counted::Over)]);
        assert_eq!(look(&rules[2..]), []);
        let redirect = [rule("CNI-DN-1", Does::Redirect)];
        let found = look(&redirect);
        assert_eq!(
            (found[0].0, found[0].2),
            (Reason::PortConflict, Counted::Still)
        );
        assert_eq!(look(&[])[0].2, Counted::Over);
    }
}
