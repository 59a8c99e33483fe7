//! `tests/vm/configurations.tsv`: the options of a kernel that the hooks need, and what distributions have of
//! them, each with its source; and the table of docs/kernels.md that is made of it.

use std::fmt::Write as _;

use anyhow::ensure;

const FILE: &str = "tests/vm/configurations.tsv";
const TEXT: &str = include_str!("../../vm/configurations.tsv");

pub(super) const BEGIN: &str = "<!-- Of tests/vm/configurations.tsv. -->\n";
pub(super) const END: &str = "<!-- End of it. -->\n";

pub(super) fn table() -> anyhow::Result<String> {
    let (sources, rows): (Vec<_>, Vec<_>) = TEXT.lines().partition(|line| line.starts_with("# "));
    let columns = |line: &str| line.split('\t').count();
    let first = rows.first().map_or(0, |line| columns(line));
    let mut text = "\n".to_owned();
    for (index, line) in rows.into_iter().enumerate() {
        ensure!(
            columns(line) == first,
            "{FILE}: {line:?} has not {first} fields"
        );
        writeln!(text, "| {} |", line.replace('\t', " | "))?;
        if index == 0 {
            writeln!(text, "|{}", "---|".repeat(first))?;
        }
    }
    writeln!(text)?;
    for source in sources {
        writeln!(text, "- {}", source.trim_start_matches("# "))?;
    }
    writeln!(text)?;
    Ok(text)
}
