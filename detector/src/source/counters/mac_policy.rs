//! PURE. Whether udev changes the hardware addresses of the VPC CNI's interfaces after it has made
//! them: then pods are sent packets that they refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::files::Files;
use super::pod_routes::CHECKPOINTS;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{HOST, What};
use crate::text;

/// What udev knows of an interface, the `.link` file that it went by among it.
const KNOWN: &str = "root/run/udev/data/n*";
/// The later ones go first.
const LINKS: [&str; 4] = [
    "root/usr/lib/systemd/network/*.link",
    "root/usr/local/lib/systemd/network/*.link",
    "root/run/systemd/network/*.link",
    "root/etc/systemd/network/*.link",
];
const DROP_INS: [&str; 4] = [
    "root/usr/lib/systemd/network/*.link.d/*.conf",
    "root/usr/local/lib/systemd/network/*.link.d/*.conf",
    "root/run/systemd/network/*.link.d/*.conf",
    "root/etc/systemd/network/*.link.d/*.conf",
];

#[derive(Default)]
pub(super) struct MacPolicy {
    told: bool,
}

impl Counter for MacPolicy {
    fn name(&self) -> &'static str {
        "mac-address-policy"
    }

    fn wants(&self) -> &'static [&'static str] {
        const ALL: [&str; 11] = [
            CHECKPOINTS[0],
            CHECKPOINTS[1],
            KNOWN,
            LINKS[0],
            LINKS[1],
            LINKS[2],
            LINKS[3],
            DROP_INS[0],
            DROP_INS[1],
            DROP_INS[2],
            DROP_INS[3],
        ];
        &ALL
    }

    fn every(&self) -> u32 {
        10
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let known = files.all(KNOWN);
        let of_pods = CHECKPOINTS.iter().any(|path| files.one(path).is_some());
        if !of_pods || known.cut {
            return Vec::new();
        }
        let used: BTreeSet<&str> = known
            .files
            .values()
            .filter(|text| property(text, "ID_NET_DRIVER") == Some("veth"))
            .filter_map(|text| property(text, "ID_NET_LINK_FILE")?.rsplit('/').next())
            .collect();
        let wrong = used.into_iter().find_map(|link| {
            let policy = policy(files, link)?;
            (!matches!(policy.as_str(), "" | "none")).then_some((link, policy))
        });
        let fault = |message| told::fault(Reason::MacAddressPolicyMisconfigured, HOST, message);
        let before = std::mem::replace(&mut self.told, wrong.is_some());
        match wrong {
            Some((link, policy)) => {
                let shown = text::part(format!("{link}: {policy}"), 128);
                let message = format!("udev changes the addresses of pods' interfaces ({shown})");
                vec![told::still(fault(message))]
            }
            None if before => vec![told::over(fault("udev leaves them alone".to_owned()))],
            None => Vec::new(),
        }
    }
}

/// `E:NAME=value`
fn property<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    lines.find_map(|line| {
        line.strip_prefix("E:")?
            .strip_prefix(name)?
            .strip_prefix('=')
    })
}

/// The last that the file and what is dropped in beside it say.
fn policy(files: &Files, link: &str) -> Option<String> {
    let file = |pattern| files.all(pattern).files.get([link.to_owned()].as_slice());
    let file = LINKS.iter().rev().find_map(|pattern| file(pattern));
    let folder = format!("{link}.d");
    // By their names; of one name the one of the folder that goes first.
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    for pattern in DROP_INS {
        for (names, text) in &files.all(pattern).files {
            if let [of, name] = names.as_slice()
                && *of == folder
            {
                added.insert(name, text);
            }
        }
    }
    let texts = file
        .map(String::as_str)
        .into_iter()
        .chain(added.into_values());
    let lines = texts.flat_map(str::lines);
    let mut values = lines.filter_map(|line| {
        line.trim()
            .strip_prefix("MACAddressPolicy")?
            .trim_start()
            .strip_prefix('=')
    });
    values.next_back().map(|value| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Counted;

    const VETH: &str =
        "I:1\nE:ID_NET_DRIVER=veth\nE:ID_NET_LINK_FILE=/usr/lib/systemd/network/99-default.link\n";
    const CARD: &str =
        "E:ID_NET_DRIVER=ena\nE:ID_NET_LINK_FILE=/usr/lib/systemd/network/50-card.link\n";
    const LINK: &[&str] = &["99-default.link"];
    const PERSISTENT: &str = "[Match]\nOriginalName=*\n\n[Link]\nMACAddressPolicy=persistent\n";

    fn look(counter: &mut MacPolicy, files: &[(&'static str, &[&str], &str)]) -> Vec<Counted> {
        let found = counter.look(&Files::of(files), Duration::ZERO).into_iter();
        let found = found.map(|what| match what {
            What::Counted { counted, .. } => counted,
            other => panic!("{other:?}"),
        });
        found.collect()
    }

    #[test]
    fn a_policy_that_udev_applies_to_pods_interfaces_is_told_until_it_does_not() {
        let mut counter = MacPolicy::default();
        let wrong: &[(&'static str, &[&str], &str)] = &[
            (CHECKPOINTS[0], &[], "{}"),
            (KNOWN, &["n7"], VETH),
            (LINKS[0], LINK, PERSISTENT),
        ];
        for _ in 0..2 {
            assert_eq!(look(&mut counter, wrong), [Counted::Still]);
        }
        let dropped: (&'static str, &[&str], &str) = (
            DROP_INS[3],
            &["99-default.link.d", "10-eks.conf"],
            "[Link]\nMACAddressPolicy = none\n",
        );
        let right = [wrong, &[dropped]].concat();
        assert_eq!(look(&mut counter, &right), [Counted::Over]);
        assert_eq!(look(&mut counter, &right), []);
    }

    #[test]
    fn a_host_without_the_vpc_cni_or_without_the_policy_is_left_alone() {
        for files in [
            // No VPC CNI.
            vec![(KNOWN, &["n7"][..], VETH), (LINKS[0], LINK, PERSISTENT)],
            // The policy of a card, not of a pod's interface.
            vec![
                (CHECKPOINTS[0], &[], "{}"),
                (KNOWN, &["n2"], CARD),
                (LINKS[0], &["50-card.link"], PERSISTENT),
            ],
            // None, empty, not there, and one of /etc before one of /usr.
            vec![
                (CHECKPOINTS[0], &[], "{}"),
                (KNOWN, &["n7"], VETH),
                (LINKS[0], LINK, PERSISTENT),
                (LINKS[3], LINK, "[Link]\nMACAddressPolicy=none\n"),
            ],
            vec![
                (CHECKPOINTS[0], &[], "{}"),
                (KNOWN, &["n7"], VETH),
                (LINKS[0], LINK, "[Link]\nMACAddressPolicy=\n"),
            ],
            vec![
                (CHECKPOINTS[0], &[], "{}"),
                (KNOWN, &["n7"], VETH),
                (LINKS[0], LINK, "[Link]\nNamePolicy=keep\n"),
            ],
        ] {
            assert_eq!(look(&mut MacPolicy::default(), &files), [], "{files:?}");
        }
    }
}
