//! PURE. How the kernel writes its counters.

/// One number in a file of its own.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `0x1f`, as `iotmo_cnt` is written.
pub(super) fn prefixed_hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

pub(super) fn numbers(text: &str) -> Vec<u64> {
    let words = text.split_ascii_whitespace();
    words.map_while(|word| word.parse().ok()).collect()
}

/// A column of a table of `/proc/net/stat`, one row for each CPU, in hexadecimal digits.
pub(super) fn column(text: &str, name: &str) -> Option<Vec<u64>> {
    let mut lines = text.lines();
    let mut names = lines.next()?.split_ascii_whitespace();
    let index = names.position(|column| column == name)?;
    let cells = lines.map_while(|line| {
        let word = line.split_ascii_whitespace().nth(index)?;
        u64::from_str_radix(word, 16).ok()
    });
    Some(cells.collect())
}

/// Whether `used` is at least that many hundredths of `limit`.
pub(super) fn is_share(used: u64, limit: u64, percent: u32) -> bool {
    limit > 0 && u128::from(used) * 100 >= u128::from(limit) * u128::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_found_by_its_name() {
        let table =
            "entries  drop early_drop\n0000000a 00000010 00000000\n0000000a 000000ff 00000001\n";
        assert_eq!(column(table, "drop"), Some(vec![16, 255]));
        assert_eq!(column(table, "early_drop"), Some(vec![0, 1]));
        assert_eq!(column(table, "table_fulls"), None);
        assert_eq!(column("", "drop"), None);
        // Cut off, or damaged.
        assert_eq!(column("a drop\n1 2\n3", "drop"), Some(vec![2]));
        assert_eq!(column("a drop\n1 x\n3 4", "drop"), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_number_is_none() {
        assert_eq!(number(" 12\n"), Some(12));
        assert_eq!(number("-1"), None);
        assert_eq!(number("99999999999999999999999"), None);
        assert_eq!(prefixed_hex("0x1f\n"), Some(31));
        assert_eq!(prefixed_hex("1f"), None);
        assert_eq!(numbers("1 2\t3 x 4"), [1, 2, 3]);
    }

    #[test]
    fn shares_of_any_limit_can_be_computed() {
        assert!(is_share(95, 100, 95) && !is_share(94, 100, 95));
        assert!(!is_share(1, 0, 95));
        assert!(!is_share(10, i64::MAX.unsigned_abs(), 95));
        assert!(is_share(u64::MAX, u64::MAX, 95));
    }
}
