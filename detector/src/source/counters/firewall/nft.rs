//! Rules of nftables, those that iptables-nft writes among them.

use std::io;

use netlink_packet_core::{NlaBuffer, NlasIterator};
use rustix::net::netlink::NETFILTER;

use super::rule::{Does, Rule};
use super::xt::text;
use crate::source::counters::netlink;

const SUBSYSTEM: u16 = 10 << 8;
const NFT_MSG_GETRULE: u16 = SUBSYSTEM | 7;
const NFT_MSG_GETGEN: u16 = SUBSYSTEM | 16;
/// `struct nfgenmsg`: family, version, and a number.
const HEADER: usize = 4;

const NFTA_GEN_ID: u16 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTNL_UDATA_RULE_COMMENT: u8 = 0;
/// Of an expression, and of a match or target: what it is called, and what it says.
const NAME: u16 = 1;
const DATA: u16 = 2;
const REVISION: u16 = 2;
const INFO: u16 = 3;

/// A number that changes with each change of the rules.
pub(super) fn generation() -> io::Result<Option<u32>> {
    let answer = netlink::one(Some(NETFILTER), NFT_MSG_GETGEN, &[0; HEADER])?;
    Ok(answer.and_then(|(_, message)| be32(message.get(HEADER..)?, NFTA_GEN_ID)))
}

pub(super) fn read() -> io::Result<Vec<Rule>> {
    let messages = netlink::dump(Some(NETFILTER), NFT_MSG_GETRULE, &[0; HEADER])?;
    Ok(messages
        .iter()
        .filter_map(|(_, message)| rule(message))
        .collect())
}

fn rule(message: &[u8]) -> Option<Rule> {
    let family = i32::from(*message.first()?);
    let attributes = message.get(HEADER..)?;
    let table = text(&value(attributes, NFTA_RULE_TABLE)?);
    let mut rule = Rule {
        table: match family {
            libc::AF_INET | libc::AF_INET6 => table,
            // `NFPROTO_INET`, arp, netdev, bridge.
            1 => format!("inet {table}"),
            other => format!("family {other} {table}"),
        },
        chain: text(&value(attributes, NFTA_RULE_CHAIN)?),
        comments: Vec::new(),
        invalid_only: false,
        ports: None,
        does: Does::Other,
    };
    if let Some(data) = value(attributes, NFTA_RULE_USERDATA) {
        rule.comments.extend(comment(&data));
    }
    let mut loaded = Loaded::Other;
    let expressions = value(attributes, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    for expression in nested(&expressions) {
        let name = value(expression.value(), NAME).map(|name| text(&name));
        let data = value(expression.value(), DATA).unwrap_or_default();
        loaded = rule.add_expression(&name.unwrap_or_default(), &data, loaded);
    }
    Some(rule)
}

/// What the expressions before have put into the register that the next one looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    DestinationPort,
    ConntrackState,
    ConntrackInvalid,
    Other,
}

impl Rule {
    fn add_expression(&mut self, name: &str, data: &[u8], loaded: Loaded) -> Loaded {
        match name {
            // Base, offset and length: two bytes at 2 of the transport header.
            "payload" if [2, 3, 4].map(|kind| be32(data, kind)) == [Some(2); 3] => {
                return Loaded::DestinationPort;
            }
            // Register, key: `NFT_CT_STATE`.
            "ct" if be32(data, 2) == Some(0) => return Loaded::ConntrackState,
            "bitwise" if loaded == Loaded::ConntrackState => {
                const MASK: u16 = 4;
                let invalid = value(data, MASK).and_then(|mask| value(&mask, 1));
                if invalid.as_deref() == Some(&1_u32.to_ne_bytes()) {
                    return Loaded::ConntrackInvalid;
                }
            }
            "cmp" => {
                const OPERATION: u16 = 2;
                const AGAINST: u16 = 3;
                let equal = be32(data, OPERATION) == Some(0);
                let against = value(data, AGAINST).and_then(|data| value(&data, 1));
                match loaded {
                    Loaded::DestinationPort if equal => {
                        let port = against.and_then(|bytes| bytes.first_chunk().copied());
                        self.ports = port.map(u16::from_be_bytes).map(|port| (port, port));
                    }
                    // `ct state invalid`: what is left of the mask is not zero.
                    Loaded::ConntrackInvalid if !equal => self.invalid_only = true,
                    _ => {}
                }
            }
            "match" => {
                let revision = be32(data, REVISION).and_then(|number| number.try_into().ok());
                let name = value(data, NAME)
                    .map(|name| text(&name))
                    .unwrap_or_default();
                let info = value(data, INFO).unwrap_or_default();
                self.add_match(&name, revision.unwrap_or(0), &info);
            }
            "target" => {
                let name = value(data, NAME)
                    .map(|name| text(&name))
                    .unwrap_or_default();
                self.set_target(&name, None);
            }
            "reject" => self.does = Does::Refuse,
            "redir" => self.does = Does::Redirect,
            // `NFT_NAT_DNAT`
            "nat" if be32(data, 1) == Some(1) => self.does = Does::Redirect,
            "immediate" => {
                const VALUE: u16 = 2;
                const VERDICT: u16 = 2;
                const CODE: u16 = 1;
                let verdict = value(data, VALUE).and_then(|data| value(&data, VERDICT));
                // `NF_DROP`
                if verdict.and_then(|verdict| be32(&verdict, CODE)) == Some(0) {
                    self.does = Does::Refuse;
                }
            }
            _ => {}
        }
        Loaded::Other
    }
}

fn nested(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    // What is damaged ends it.
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn value(bytes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = nested(bytes);
    let found = attributes.find(|attribute| attribute.kind() == kind)?;
    Some(found.value().to_vec())
}

fn be32(bytes: &[u8], kind: u16) -> Option<u32> {
    let value = value(bytes, kind)?;
    Some(u32::from_be_bytes(*value.first_chunk()?))
}

/// Type, length and value, again and again.
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == NFTNL_UDATA_RULE_COMMENT {
            return Some(text(value));
        }
        data = &rest[value.len()..];
    }
    None
}

#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(message: &[u8]) -> Option<Rule> {
    rule(message)
}
