//! PURE. Whether the host forwards packets between its pods and the world.

use std::time::Duration;

use super::files::Files;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{HOST, What};

const FORWARDS: &str = "proc/sys/net/ipv4/ip_forward";

/// A node that does not forward yet gets its pods' network later.
#[derive(Default)]
pub(super) struct Forwarding {
    off: bool,
    forwarded: bool,
    told: bool,
}

impl Counter for Forwarding {
    fn name(&self) -> &'static str {
        "ip-forward"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[FORWARDS]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let fault = |text: &str| told::fault(Reason::NetworkSysctl, HOST, text.to_owned());
        match files.one(FORWARDS).map(str::trim) {
            Some("0") if self.forwarded && std::mem::replace(&mut self.off, true) => {
                self.told = true;
                vec![told::still(fault(
                    "net.ipv4.ip_forward is 0, and was 1: pods reach nothing outside of their node",
                ))]
            }
            Some("1") => {
                (self.off, self.forwarded) = (false, true);
                let over = std::mem::take(&mut self.told);
                let over = over.then(|| told::over(fault("net.ipv4.ip_forward is 1")));
                over.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Counted;

    #[test]
    fn what_forwarded_and_does_not_in_two_readings_is_told_until_it_does() {
        let mut counter = Forwarding::default();
        let mut look = |text| {
            let found = counter.look(&Files::of(&[(FORWARDS, &[], text)]), Duration::ZERO);
            let found = found.into_iter().map(|what| match what {
                What::Counted { counted, .. } => counted,
                other => panic!("{other:?}"),
            });
            found.collect::<Vec<_>>()
        };
        assert_eq!(look("0\n"), []);
        assert_eq!(look("0\n"), [], "not yet");
        assert_eq!(look("1\n"), []);
        assert_eq!(look("0\n"), []);
        assert_eq!(look("0\n"), [Counted::Still]);
        assert_eq!(look("x\n"), []);
        assert_eq!(look("1\n"), [Counted::Over]);
        assert_eq!(look("1\n"), []);
    }
}
