//! PURE. Matches and targets of x_tables, which the old tables and iptables-nft have in the same form.

use super::rule::{Does, Rule};

/// `struct xt_tcp` and `xt_udp`: ports of the source, then of the destination, from first to last.
const DESTINATION_PORTS: usize = 4;
/// `XT_CONNTRACK_STATE`, and its only state `XT_CONNTRACK_STATE_INVALID`.
const STATE: u16 = 1;
/// In `struct xt_conntrack_mtinfo1` and later: what is compared, what is inverted, the states.
const CONNTRACK: [usize; 3] = [146, 148, 150];

impl Rule {
    pub(super) fn add_match(&mut self, name: &str, revision: u8, info: &[u8]) {
        match name {
            "comment" => self.comments.push(text(info)),
            "tcp" | "udp" => {
                let first = number(info, DESTINATION_PORTS);
                let last = number(info, DESTINATION_PORTS + 2);
                self.ports = first.zip(last).or(self.ports);
            }
            "conntrack" if revision > 0 => {
                let [compared, inverted, states] = CONNTRACK.map(|place| number(info, place));
                let states =
                    states.map(|states| if revision == 1 { states & 0xff } else { states });
                self.invalid_only |= compared.is_some_and(|flags| flags & STATE != 0)
                    && inverted.is_some_and(|flags| flags & STATE == 0)
                    && states == Some(1);
            }
            _ => {}
        }
    }

    /// `verdict` is of the target without a name, the standard one.
    pub(super) fn set_target(&mut self, name: &str, verdict: Option<i32>) {
        // `-NF_DROP - 1`
        let drops = name.is_empty() && verdict == Some(-1);
        self.does = match name {
            "REJECT" | "DROP" => Does::Refuse,
            "DNAT" | "REDIRECT" => Does::Redirect,
            _ if drops => Does::Refuse,
            _ => Does::Other,
        };
    }
}

fn number(bytes: &[u8], place: usize) -> Option<u16> {
    let bytes = bytes.get(place..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// Up to the first NUL.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = &bytes[..end.unwrap_or(bytes.len())];
    crate::text::part(text, 256)
}
