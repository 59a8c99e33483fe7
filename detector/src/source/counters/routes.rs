//! The host's routing rules and routes, of all tables.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::Parseable;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};

use rustix::net::Protocol;

use super::netlink;

/// `NETLINK_ROUTE` is 0.
const ROUTE: Option<Protocol> = None;
const RTM_GETROUTE: u16 = 26;
const RTM_GETRULE: u16 = 34;
const FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];
/// `struct rtmsg` and `struct fib_rule_hdr`, of which the first byte is the family.
const HEADER: usize = 12;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Routing {
    pub rules: Vec<Rule>,
    pub routes: Vec<Route>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub priority: u32,
    /// Where it is about one address, not a network.
    pub from: Option<IpAddr>,
    pub to: Option<IpAddr>,
    pub table: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub table: u32,
    pub to: To,
    /// By an interface of the host, without a gateway.
    pub on_link: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    Everything,
    Host(IpAddr),
    Network,
}

pub(super) fn read() -> io::Result<Routing> {
    let mut routing = Routing::default();
    for family in FAMILIES {
        let mut payload = [0; HEADER];
        payload[0] = u8::try_from(family).unwrap_or_default();
        for (_, message) in netlink::dump(ROUTE, RTM_GETRULE, &payload)? {
            routing.rules.push(rule(&message)?);
        }
        for (_, message) in netlink::dump(ROUTE, RTM_GETROUTE, &payload)? {
            routing.routes.extend(route(&message)?);
        }
    }
    Ok(routing)
}

fn rule(message: &[u8]) -> io::Result<Rule> {
    let message = RuleMessage::parse(message).map_err(damaged)?;
    let header = &message.header;
    let mut rule = Rule {
        priority: 0,
        from: None,
        to: None,
        table: u32::from(header.table),
    };
    for attribute in &message.attributes {
        match *attribute {
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Table(table) => rule.table = table,
            RuleAttribute::Source(address) => rule.from = host(address, header.src_len),
            RuleAttribute::Destination(address) => rule.to = host(address, header.dst_len),
            _ => {}
        }
    }
    Ok(rule)
}

/// None of one that leads nowhere, or is not unicast.
fn route(message: &[u8]) -> io::Result<Option<Route>> {
    let message = RouteMessage::parse(message).map_err(damaged)?;
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return Ok(None);
    }
    let mut route = Route {
        table: u32::from(header.table),
        to: if header.destination_prefix_length == 0 {
            To::Everything
        } else {
            To::Network
        },
        on_link: true,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.on_link = false,
            RouteAttribute::Destination(address) => {
                let address = match *address {
                    RouteAddress::Inet(address) => IpAddr::V4(address),
                    RouteAddress::Inet6(address) => IpAddr::V6(address),
                    _ => continue,
                };
                if let Some(host) = host(address, header.destination_prefix_length) {
                    route.to = To::Host(host);
                }
            }
            _ => {}
        }
    }
    Ok(Some(route))
}

fn host(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let whole = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    (prefix == whole).then_some(address)
}

fn damaged(error: netlink_packet_core::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{error}"))
}

#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(message: &[u8]) {
    let (_rule, _route) = (rule(message), route(message));
}
