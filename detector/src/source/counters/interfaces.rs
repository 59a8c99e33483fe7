//! PURE. The host's loopback and network cards: set down, or without a link.
//!
//! A card that has never been up is one that nobody uses. Bridges, tunnels and the ends of pods have
//! no hardware; IP over InfiniBand is used by few of those who have it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::again::Again;
use super::files::Files;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, What};

const FLAGS: &str = "net/*/flags";
const STATE: &str = "net/*/operstate";
const TYPE: &str = "net/*/type";
const HARDWARE: &str = "net/*/device/";
const ROUTES: &str = "proc/1/net/route";

const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
/// `ARPHRD_ETHER`.
const ETHERNET: &str = "1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Fine,
    Down,
    NotRunning,
}

#[derive(Default)]
pub(super) struct Interfaces {
    /// Network cards that have been fine.
    used: BTreeSet<String>,
    /// Of those, which had the default route.
    uplinks: BTreeSet<String>,
    wrong: Again<(Reason, String)>,
}

impl Counter for Interfaces {
    fn name(&self) -> &'static str {
        "interfaces"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[FLAGS, STATE, TYPE, HARDWARE, ROUTES]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let flags = files.all(FLAGS);
        // A list that is not whole says nothing of what is missing.
        if flags.cut || flags.files.is_empty() {
            return Vec::new();
        }
        let of = |pattern, name: &str| {
            let names = [name.to_owned()];
            let text = files.all(pattern).files.get(names.as_slice());
            text.map(|text| text.trim())
        };
        let mut links: BTreeMap<&str, (Link, bool)> = BTreeMap::new();
        for (names, text) in &flags.files {
            let (Some(name), Some(flags)) = (names.first(), hex(text)) else {
                continue;
            };
            let loopback = flags & IFF_LOOPBACK != 0;
            let card = of(HARDWARE, name).is_some() && of(TYPE, name) == Some(ETHERNET);
            if !(loopback || card) {
                continue;
            }
            let running = matches!(of(STATE, name), Some("up" | "unknown"));
            let link = match (flags & IFF_UP != 0, running) {
                (true, true) => Link::Fine,
                (true, false) => Link::NotRunning,
                (false, _) => Link::Down,
            };
            links.insert(name, (link, loopback));
        }
        let mut wrong: BTreeMap<(Reason, String), LogFault> = BTreeMap::new();
        let mut add = |fault: LogFault| wrong.insert((fault.reason, fault.entity.clone()), fault);
        if !links.values().any(|(_, loopback)| *loopback) {
            let message = "the host has no loopback interface".to_owned();
            add(told::fault(Reason::MissingLoopbackInterface, "lo", message));
        }
        for (&name, &(link, loopback)) in &links {
            if link == Link::Fine {
                self.used.insert(name.to_owned());
            }
            let (reason, what) = match link {
                Link::Fine => continue,
                Link::Down => (Reason::InterfaceNotUp, "is set down"),
                Link::NotRunning => (Reason::InterfaceNotRunning, "has no link"),
            };
            let uplink = self.uplinks.contains(name);
            if loopback || self.used.contains(name) {
                let route = if uplink {
                    ", and had the default route"
                } else {
                    ""
                };
                let message = format!("{name} {what}{route}");
                let fault = LogFault::on_interface(reason, name.to_owned(), message);
                let mild = !(loopback || uplink);
                add(LogFault { mild, ..fault });
            }
        }
        self.remember(files, links.keys().copied());
        self.tell(wrong)
    }
}

impl Interfaces {
    /// A card that is gone takes what is known of it along: another one may get its name.
    fn remember<'a>(&mut self, files: &Files, there: impl Iterator<Item = &'a str>) {
        let there: BTreeSet<&str> = there.collect();
        self.used.retain(|name| there.contains(name.as_str()));
        let routes = default_routes(files.one(ROUTES).unwrap_or_default());
        // Its routes go with it when a card is set down: so the last that had one keeps it.
        if routes.iter().any(|name| there.contains(name.as_str())) {
            self.uplinks = routes;
        }
    }

    fn tell(&mut self, wrong: BTreeMap<(Reason, String), LogFault>) -> Vec<What> {
        let (still, over) = self.wrong.step(wrong);
        let still = still.into_values().map(told::still);
        let over = over.into_iter().map(|(reason, name)| {
            let message = format!("{name} is well again");
            told::over(LogFault::on_interface(reason, name, message))
        });
        still.chain(over).collect()
    }
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`
fn default_routes(text: &str) -> BTreeSet<String> {
    let routes = text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        let destination = fields.next()?;
        let mask = fields.nth(5)?;
        (destination == "00000000" && mask == "00000000").then(|| name.to_owned())
    });
    routes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Counted;

    const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0114A8C0\t0003\t0\t0\t512\t00000000\t0\t0\t0\n\
        eth1\t0014A8C0\t00000000\t0001\t0\t0\t512\t00FFFFFF\t0\t0\t0\n";

    struct Host {
        counter: Interfaces,
        /// Name, flags, operstate, type, hardware.
        links: Vec<(&'static str, &'static str, &'static str, &'static str, bool)>,
        routes: &'static str,
    }

    impl Host {
        fn new() -> Self {
            let mut host = Self {
                counter: Interfaces::default(),
                links: vec![
                    ("lo", "0x9", "unknown", "772", false),
                    ("eth0", "0x1003", "up", "1", true),
                    ("eth1", "0x1003", "up", "1", true),
                    // Never used, without hardware, and IP over InfiniBand.
                    ("eth2", "0x1002", "down", "1", true),
                    ("docker0", "0x1003", "down", "1", false),
                    ("ib0", "0x1002", "down", "32", true),
                ],
                routes: ROUTE,
            };
            assert_eq!(host.look(), []);
            assert_eq!(host.look(), []);
            host
        }

        fn set(&mut self, name: &str, flags: &'static str, state: &'static str) {
            let link = self.links.iter_mut().find(|link| link.0 == name).unwrap();
            (link.1, link.2) = (flags, state);
        }

        fn look(&mut self) -> Vec<(Reason, String, Counted, bool)> {
            let names: Vec<[&str; 1]> = self.links.iter().map(|link| [link.0]).collect();
            let mut files: Vec<(&'static str, &[&str], &str)> = vec![(ROUTES, &[], self.routes)];
            for ((_, flags, state, kind, hardware), name) in self.links.iter().zip(&names) {
                files.push((FLAGS, name, flags));
                files.push((STATE, name, state));
                files.push((TYPE, name, kind));
                if *hardware {
                    files.push((HARDWARE, name, ""));
                }
            }
            let found = self.counter.look(&Files::of(&files), Duration::ZERO);
            let found = found.into_iter().map(|what| match what {
                What::Counted { fault, counted } => {
                    (fault.reason, fault.entity, counted, fault.mild)
                }
                other => panic!("{other:?}"),
            });
            found.collect()
        }
    }

    fn still(reason: Reason, name: &str, mild: bool) -> (Reason, String, Counted, bool) {
        (reason, name.to_owned(), Counted::Still, mild)
    }

    fn over(reason: Reason, name: &str) -> (Reason, String, Counted, bool) {
        (reason, name.to_owned(), Counted::Over, false)
    }

    #[test]
    fn the_uplink_that_is_set_down_breaks_the_node_until_it_is_up_again() {
        let mut host = Host::new();
        host.set("eth0", "0x1002", "down");
        host.routes = "Iface\tDestination\n";
        assert_eq!(host.look(), [], "once is not for sure");
        for _ in 0..2 {
            let down = still(Reason::InterfaceNotUp, "eth0", false);
            assert_eq!(host.look(), [down]);
        }
        host.set("eth0", "0x1003", "up");
        assert_eq!(host.look(), [over(Reason::InterfaceNotUp, "eth0")]);
        assert_eq!(host.look(), []);
    }

    #[test]
    fn another_card_that_loses_its_link_is_a_warning() {
        let mut host = Host::new();
        host.set("eth1", "0x1003", "down");
        host.look();
        assert_eq!(
            host.look(),
            [still(Reason::InterfaceNotRunning, "eth1", true)]
        );
    }

    #[test]
    fn a_loopback_that_is_down_or_gone_breaks_the_node() {
        let mut host = Host::new();
        host.set("lo", "0x8", "down");
        host.look();
        assert_eq!(host.look(), [still(Reason::InterfaceNotUp, "lo", false)]);
        host.links.remove(0);
        assert_eq!(host.look(), [over(Reason::InterfaceNotUp, "lo")]);
        let missing = still(Reason::MissingLoopbackInterface, "lo", false);
        assert_eq!(host.look(), [missing]);
    }

    #[test]
    fn bridges_of_no_pod_and_infiniband_are_nobodys_uplink() {
        let mut host = Host::new();
        // They were up, and are not any more: the last pod has gone, a port was unplugged.
        let links = [
            ("cni0", "1", false),
            ("nodelocaldns", "1", false),
            ("veth1", "1", false),
            ("ibp115s0f0", "32", true),
        ];
        let up = links.map(|(name, kind, hardware)| (name, "0x1003", "up", kind, hardware));
        host.links.extend(up);
        assert_eq!(host.look(), []);
        for (flags, state) in [("0x1003", "down"), ("0x1002", "down")] {
            for (name, ..) in links {
                host.set(name, flags, state);
            }
            assert_eq!(host.look(), []);
            assert_eq!(host.look(), []);
        }
    }

    #[test]
    fn a_card_that_was_detached_is_not_down() {
        let mut host = Host::new();
        host.links.retain(|link| link.0 != "eth1");
        assert_eq!(host.look(), []);
        assert_eq!(host.look(), []);
    }

    #[test]
    fn a_list_that_is_not_whole_says_nothing() {
        let mut counter = Interfaces::default();
        let files = || Files::of(&[(FLAGS, &["eth0"], "0x1003")]).cut();
        assert_eq!(counter.look(&files(), Duration::ZERO), []);
        assert_eq!(counter.look(&files(), Duration::ZERO), []);
    }
}
