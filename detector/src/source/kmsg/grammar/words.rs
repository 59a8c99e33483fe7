//! PURE. What the rules of more than one family are made of.

use crate::text;

/// nftables and iptables begin a packet's line with a prefix of up to 127 characters of their
/// user's choice, at a level of that choice, and go on like this (net/netfilter/nf_log_syslog.c).
pub(super) fn is_packet(line: &str) -> bool {
    line.split_once("IN=")
        .is_some_and(|(_, rest)| rest.contains(" OUT="))
}

/// The name of a process: 15 bytes, of which the log shows control characters as `\xNN`.
pub(super) fn comm(text: &str) -> Option<String> {
    (1..=60).contains(&text.len()).then(|| text::part(text, 64))
}

/// Digits of `%x`, without a prefix.
pub(super) fn hex(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
}

/// Not empty, and of these bytes only.
pub(super) fn only(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(fits)
}

/// A word of the kernel's own: `rcu_sched`, `hpet`, `slab-use-after-free`.
pub(super) fn is_word(text: &str) -> bool {
    text.len() <= 64 && only(text, |b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

/// Some of them: `Physical Layer`.
pub(super) fn are_words(text: &str) -> bool {
    text.len() <= 128 && text.split(' ').all(is_word)
}

/// `%s:%d` of `__FILE__` and `__LINE__`.
pub(super) fn is_place(text: &str) -> bool {
    let Some((file, line)) = text.rsplit_once(':') else {
        return false;
    };
    let source = [".c", ".h", ".S", ".rs"];
    file.len() <= 160
        && source.iter().any(|end| file.ends_with(end))
        && only(file, |b| {
            b.is_ascii_alphanumeric() || b"/._-+~".contains(&b)
        })
        && super::number(line).is_some()
}

/// The function of `%pS`: `name+0x12/0x34`, with ` [module]` (and its build id) behind it, or the
/// address alone where the kernel has no names.
pub(super) fn function(text: &str) -> Option<&str> {
    let (symbol, module) = match text.split_once(" [") {
        Some((symbol, module)) => (symbol, Some(module.strip_suffix(']')?)),
        None => (text, None),
    };
    if !module.is_none_or(are_words) {
        return None;
    }
    if let Some(address) = symbol.strip_prefix("0x") {
        hex(address)?;
        return Some(symbol);
    }
    let (name, place) = symbol.split_once("+0x")?;
    let (offset, size) = place.split_once("/0x")?;
    hex(offset)?;
    hex(size)?;
    let fits =
        name.len() <= 128 && only(name, |b| b.is_ascii_alphanumeric() || b"_.$".contains(&b));
    fits.then_some(name)
}

/// `%s:%d` of a process.
pub(super) fn process(text: &str, separator: char) -> Option<(String, u32)> {
    let (name, pid) = text.rsplit_once(separator)?;
    Some((comm(name)?, super::number(pid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_gives_its_function() {
        for (text, name) in [
            ("foo_bar+0x1/0x2", Some("foo_bar")),
            ("foo.isra.0+0x1a/0x2f [nvidia]", Some("foo.isra.0")),
            ("0xffffffffc0de0001", Some("0xffffffffc0de0001")),
            ("foo+0x1/0x2 [nvidia] and more", None),
            ("foo+0x1", None),
            ("foo bar+0x1/0x2", None),
            ("", None),
        ] {
            assert_eq!(function(text), name, "{text}");
        }
    }

    #[test]
    fn a_place_is_a_file_of_source_and_a_line() {
        assert!(is_place("net/sched/sch_generic.c:525"));
        assert!(is_place("/build/linux-aBc/linux-5.4.0/rust/kernel/x.rs:1"));
        for text in [
            "net/core/dev.c",
            "net/core/dev.c:",
            "x y.c:1",
            "passwd:1",
            ":1",
        ] {
            assert!(!is_place(text), "{text}");
        }
    }
}
