//! PURE. XIDs 144 to 150, the errors of NVLink 5: which unit had which error, by two numbers of the
//! line. `RLW_REMAP Nonfatal XC1 i0 Link 10 (0x00000004 0x00000040 0x00000000 ...)`: the first word
//! has unit and sub-code, the second the error.

use super::Action;
use crate::reason::Severity;

/// The first of these XIDs.
const FIRST: u32 = 144;
const LAST: u32 = 150;

/// What the catalogue calls fatal, each by unit as both layouts number it, and the errors.
struct Unit {
    name: &'static str,
    xid: u32,
    /// Drivers before R575: bits 9 to 5.
    before_r575: u32,
    /// Since: bits 6 to 0.
    since_r575: u32,
    fatal: Fatal,
}

enum Fatal {
    None,
    /// Any of these bits in the error.
    Bits(u32),
    /// The error is one of these numbers.
    Numbers(&'static [u32]),
    /// Whatever the error says.
    All,
}

#[rustfmt::skip]
const UNITS: [Unit; 19] = [
    unit("SAW_MVB",         144,  1,  1, Fatal::Bits(0x12)),
    unit("RLW_CTRL",        145,  3,  3, Fatal::None),
    unit("RLW_REMAP",       145,  4,  4, Fatal::Bits(0xc0)),
    unit("RLW_RSPCOL",      145,  5,  5, Fatal::Bits(0x2)),
    unit("RLW_RXPIPE",      145,  6,  6, Fatal::None),
    unit("RLW_SRC_TRACK",   145,  7,  7, Fatal::Bits(0x31)),
    unit("RLW_TAGSTATE",    145,  8,  8, Fatal::Bits(0x0012_0002)),
    unit("TLW_CTRL",        146,  9,  9, Fatal::Bits(0x4)),
    unit("TLW_RX_PIPE0",    146, 10, 10, Fatal::Bits(0x4)),
    unit("TLW_RX_PIPE1",    146, 10, 11, Fatal::Bits(0x4)),
    unit("TLW_TX_PIPE0",    146, 11, 12, Fatal::Bits(0x4)),
    unit("TLW_TX_PIPE1",    146, 11, 13, Fatal::Bits(0x4)),
    unit("TREX",            147, 12, 14, Fatal::None),
    unit("NVLPW_CTRL",      148,  0, 15, Fatal::None),
    unit("NETIR_INT",       149,  0, 24, Fatal::All),
    unit("NETIR_BER_EVENT", 149, 17, 19, Fatal::None),
    unit("NETIR_LINK_DOWN", 149, 14, 17, Fatal::All),
    unit("NETIR_MFDE",      149, 18, 20, Fatal::Numbers(&[1, 4, 5, 7])),
    unit("MSE_WATCHDOG",    150,  0,  0, Fatal::All),
];

/// Link-down sub-codes that a reset does not mend: a cartridge, a PHY that does not train.
const LINK_DOWN_INSPECT: [u32; 2] = [4, 10];
/// Those that software or the host asked for.
const LINK_DOWN_WANTED: [u32; 2] = [38, 40];

const fn unit(
    name: &'static str,
    xid: u32,
    before_r575: u32,
    since_r575: u32,
    fatal: Fatal,
) -> Unit {
    Unit {
        name,
        xid,
        before_r575,
        since_r575,
        fatal,
    }
}

/// What a line of such an XID says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Empty for a unit that is not in the table.
    pub unit: &'static str,
    pub severity: Severity,
    pub action: Action,
}

/// Whether lines of this XID say themselves how bad it is.
pub(crate) fn is_decoded(xid: u32) -> bool {
    (FIRST..=LAST).contains(&xid)
}

/// By its text behind the number; nothing where it is of another XID or form.
pub(crate) fn decode(xid: u32, text: &str) -> Option<Decoded> {
    if !is_decoded(xid) {
        return None;
    }
    let mut words = text.split(' ');
    let said_fatal = words.find_map(|word| match word {
        "Fatal" => Some(true),
        "Nonfatal" | "Non-fatal" => Some(false),
        _ => None,
    })?;
    let (_, numbers) = text.split_once('(')?;
    let mut numbers = numbers.split([' ', ')']).map(hex);
    let (info, error) = (numbers.next()??, numbers.next()??);
    let Some(unit) = find(xid, info) else {
        // Not in the catalogue: the line's own word.
        return Some(decoded("", said_fatal));
    };
    let listed = match unit.fatal {
        Fatal::None => false,
        Fatal::Bits(bits) => error & bits != 0,
        Fatal::Numbers(numbers) => numbers.contains(&error),
        Fatal::All => true,
    };
    let link_down = (unit.name == "NETIR_LINK_DOWN").then_some((info >> 20) & 0x3f);
    let wanted = link_down.is_some_and(|subcode| LINK_DOWN_WANTED.contains(&subcode));
    let inspect = link_down.is_some_and(|subcode| LINK_DOWN_INSPECT.contains(&subcode));
    let fatal = said_fatal && listed && !wanted;
    Some(Decoded {
        action: if fatal && inspect {
            Action::Inspect
        } else {
            decoded("", fatal).action
        },
        ..decoded(unit.name, fatal)
    })
}

fn decoded(unit: &'static str, fatal: bool) -> Decoded {
    let (severity, action) = if fatal {
        (Severity::Fatal, Action::ResetGpu)
    } else {
        (Severity::Warning, Action::None)
    };
    Decoded {
        unit,
        severity,
        action,
    }
}

/// In the layout before R575 the lowest five bits are the XID's own number; no unit of the other
/// layout looks like that.
fn find(xid: u32, info: u32) -> Option<&'static Unit> {
    let group = xid - FIRST + 1;
    let of = |number: u32, layout: fn(&Unit) -> u32| {
        UNITS
            .iter()
            .find(|unit| unit.xid == xid && layout(unit) == number)
    };
    let before = (info & 0x1f == group)
        .then(|| of((info >> 5) & 0x1f, |unit| unit.before_r575))
        .flatten();
    before.or_else(|| of(info & 0x7f, |unit| unit.since_r575))
}

fn hex(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x")?;
    let fits =
        (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(word: &str, info: u32, error: u32) -> String {
        format!("X {word} XC0 i0 Link 00 (0x{info:08x} 0x{error:08x} 0x00000000 0x00000000)")
    }

    #[test]
    fn both_layouts_name_the_same_unit() {
        for unit in &UNITS {
            let group = unit.xid - FIRST + 1;
            let before = unit.before_r575 << 5 | group;
            let found = find(unit.xid, before).unwrap();
            // The layout before R575 has one number for both pipes.
            assert_eq!(
                found.name.trim_end_matches(['0', '1']),
                unit.name.trim_end_matches(['0', '1'])
            );
            // Bits above the unit's are not its.
            for noise in [0, 1 << 7, 0x3f << 20, 0xffff_ff80] {
                let found = find(unit.xid, unit.since_r575 | noise).unwrap();
                assert_eq!(found.name, unit.name);
            }
        }
    }

    #[test]
    fn an_error_is_fatal_where_line_and_table_say_so() {
        for (xid, info, error, fatal) in [
            (144, 1, 1, false),
            (144, 1, 2, true),
            (144, 0x21, 2, true),
            (145, 5, 2, true),
            (145, 6, 1, false),
            (145, 7, 1, true),
            (145, 7, 4, false),
            (146, 10, 1, false),
            (146, 10, 4, true),
            (147, 14, 1, false),
            (148, 15, 0x8000_0000, false),
            (149, 24, 0, true),
            (149, 19, 1, false),
            (149, 20, 1, true),
            (149, 20, 3, false),
            (149, 17, 0, true),
            (150, 0, 0, true),
        ] {
            let of = |word| decode(xid, &line(word, info, error)).unwrap().severity;
            let expected = if fatal {
                Severity::Fatal
            } else {
                Severity::Warning
            };
            assert_eq!(of("Fatal"), expected, "{xid} {info:x} {error:x}");
            assert_eq!(
                of("Nonfatal"),
                Severity::Warning,
                "{xid} {info:x} {error:x}"
            );
        }
    }

    #[test]
    fn a_cartridge_that_is_out_wants_a_person() {
        let link_down = |subcode: u32| decode(149, &line("Fatal", subcode << 20 | 17, 0)).unwrap();
        assert_eq!(link_down(2).action, Action::ResetGpu);
        assert_eq!(link_down(4).action, Action::Inspect);
        assert_eq!(link_down(4).severity, Severity::Fatal);
        assert_eq!(link_down(38).severity, Severity::Warning);
    }

    #[test]
    fn a_unit_that_is_not_known_is_as_bad_as_the_line_says() {
        assert_eq!(
            decode(145, &line("Fatal", 0x7e, 1)).unwrap().severity,
            Severity::Fatal
        );
    }

    proptest! {
        #[test]
        fn any_text_is_decoded_or_not(xid in 140..155_u32, text in r"(X (Fatal|Nonfatal) )?\PC{0,80}") {
            let decoded = decode(xid, &text);
            prop_assert!(decoded.is_none() || (FIRST..=LAST).contains(&xid));
        }
    }
}
