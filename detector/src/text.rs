//! PURE. Makes bytes that a stranger chose fit to be shown: bounded, one line, no terminal escapes.

/// At most `limit` characters of `bytes`; control characters and invalid UTF-8 appear as escapes.
pub(crate) fn printable(bytes: &[u8], limit: usize) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || is_format(c) {
                out.extend(c.escape_unicode());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
        if out.len() > limit {
            break;
        }
    }
    bounded(&out, limit)
}

/// The same, for one part of a condition's message: `; ` divides those, and the next agent reads them.
pub(crate) fn part(bytes: impl AsRef<[u8]>, limit: usize) -> String {
    printable(bytes.as_ref(), limit).replace(';', ",")
}

/// Cuts at a character boundary and shows that it did.
pub(crate) fn bounded(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub(3);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

/// Invisible characters that reorder or hide what follows (bidirectional overrides and the like).
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_and_newlines_are_shown_not_sent() {
        assert_eq!(printable(b"a\x1b[31mb\nc", 100), "a\\u{1b}[31mb\\u{a}c");
        assert_eq!(printable("x\u{202e}y".as_bytes(), 100), "x\\u{202e}y");
        assert_eq!(printable(b"\xff!", 100), "\\xff!");
    }

    #[test]
    fn a_name_divides_no_message() {
        assert_eq!(part("a; KernelReady\n", 100), "a, KernelReady\\u{a}");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(bounded("ääääää", 8), "ää...");
        assert!(printable(&[b'x'; 10_000], 64).len() <= 64);
    }
}
