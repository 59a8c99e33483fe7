//! `tests/vm/seen.tsv`, what was seen on each kernel when it was last run, and the table of
//! docs/kernels.md that is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use super::configurations;
use super::holes::Holes;
use super::outcome::Outcome;
use super::{KERNELS, Way};

const BEGIN: &str = "<!-- `cargo xtask vm` writes what follows. -->\n";
const END: &str = "<!-- End of what `cargo xtask vm` writes. -->\n";
const HEADER: &str = "kernel\tclass\tby hooks\tby log\twithin\tnames\n";

/// By kernel and class.
#[derive(Default)]
pub struct Page {
    packages: BTreeMap<String, String>,
    rows: BTreeMap<(String, String), Row>,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// What saw it with the kernel log off, or `-`.
    hooks: String,
    /// What saw it with the hooks off, or `-`.
    log: String,
    within: String,
    names: String,
}

impl Page {
    pub fn read() -> anyhow::Result<Self> {
        let path = seen();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(package) = line.strip_prefix("# ") {
                let (kernel, package) = package
                    .split_once(": ")
                    .with_context(|| format!("read {line:?}"))?;
                page.packages.insert(kernel.to_owned(), package.to_owned());
            } else if !HEADER.starts_with(line) {
                let fields: Vec<_> = line.split('\t').map(str::to_owned).collect();
                let Ok([kernel, class, hooks, log, within, names]) =
                    <[String; 6]>::try_from(fields)
                else {
                    anyhow::bail!("{}: {line:?} has not 6 fields", path.display());
                };
                let row = Row {
                    hooks,
                    log,
                    within,
                    names,
                };
                page.rows.insert((kernel, class), row);
            }
        }
        Ok(page)
    }

    /// Takes the place of what that kernel showed before.
    pub fn put(&mut self, kernel: &str, package: &str, outcomes: &BTreeMap<String, Outcome>) {
        self.packages.insert(kernel.to_owned(), package.to_owned());
        self.rows.retain(|(of, _), _| of != kernel);
        for (class, outcome) in outcomes {
            self.rows
                .insert((kernel.to_owned(), class.clone()), Row::of(outcome));
        }
    }

    pub fn write(&self) -> anyhow::Result<()> {
        fs::write(seen(), self.data()).context("write tests/vm/seen.tsv")?;
        let path = crate::repo().join("docs/kernels.md");
        let text = fs::read_to_string(&path).context("read docs/kernels.md")?;
        let text = replaced(&text, BEGIN, &self.table(&Holes::read()?)?, END)?;
        let needs = configurations::table()?;
        let text = replaced(&text, configurations::BEGIN, &needs, configurations::END)?;
        fs::write(&path, text).context("write docs/kernels.md")
    }

    /// An error if the page says something else than the data.
    pub fn check(&self) -> anyhow::Result<()> {
        let text = fs::read_to_string(crate::repo().join("docs/kernels.md"))
            .context("read docs/kernels.md")?;
        ensure!(
            text.contains(&format!("{BEGIN}{}{END}", self.table(&Holes::read()?)?)),
            "the table of docs/kernels.md is not that of tests/vm/seen.tsv: run `cargo xtask vm`"
        );
        let (begin, end) = (configurations::BEGIN, configurations::END);
        ensure!(
            text.contains(&format!("{begin}{}{end}", configurations::table()?)),
            "a table of docs/kernels.md is not that of tests/vm/configurations.tsv: run `cargo xtask vm`"
        );
        Ok(())
    }

    fn data(&self) -> String {
        let packages = self
            .packages
            .iter()
            .map(|(kernel, package)| format!("# {kernel}: {package}\n"));
        let rows = self.rows.iter().map(|((kernel, class), row)| {
            format!(
                "{kernel}\t{class}\t{}\t{}\t{}\t{}\n",
                row.hooks, row.log, row.within, row.names
            )
        });
        packages.chain([HEADER.to_owned()]).chain(rows).collect()
    }

    fn table(&self, holes: &Holes) -> anyhow::Result<String> {
        let mut text = String::new();
        let classes: BTreeSet<&String> = self.rows.keys().map(|(_, class)| class).collect();
        writeln!(text, "\n| class | {} | names |", KERNELS.join(" | "))?;
        writeln!(text, "|---|{}---|", "---|".repeat(KERNELS.len()))?;
        for &class in &classes {
            let of = |kernel: &&str| self.rows.get(&((*kernel).to_owned(), class.clone()));
            let cells: Vec<_> = KERNELS
                .iter()
                .map(|kernel| of(kernel).map_or_else(|| "not run".to_owned(), Row::cell))
                .collect();
            let names: BTreeSet<_> = KERNELS
                .iter()
                .filter_map(of)
                .flat_map(|row| row.names.split(", "))
                .filter(|name| *name != "-")
                .collect();
            let names: Vec<_> = names.into_iter().collect();
            writeln!(
                text,
                "| {class} | {} | {} |",
                cells.join(" | "),
                names.join(", ")
            )?;
        }
        writeln!(text)?;
        for (kernel, package) in &self.packages {
            writeln!(text, "- Linux {kernel}: Debian's {package}")?;
        }
        writeln!(text, "\nWhat is missing, and why:\n")?;
        for hole in holes.all() {
            writeln!(text, "- {hole}")?;
        }
        writeln!(text)?;
        Ok(text)
    }
}

impl Row {
    fn of(outcome: &Outcome) -> Self {
        let none = || "-".to_owned();
        let hooks = outcome.seen.get(&Way::Hooks).map_or_else(none, |_| {
            let using = outcome.using.split(", ");
            let hooks: Vec<_> = using
                .clone()
                .filter(|name| {
                    ["tp_btf ", "tracepoint ", "iter "]
                        .iter()
                        .any(|kind| name.starts_with(kind))
                })
                .collect();
            let counters: Vec<_> = using.filter(|name| name.starts_with("counter ")).collect();
            if hooks.is_empty() { counters } else { hooks }.join(", ")
        });
        let log = outcome
            .seen
            .get(&Way::Log)
            .map_or_else(none, |_| "log".to_owned());
        let fastest = outcome.seen.values().map(|seen| seen.milliseconds).min();
        let within = fastest.map_or_else(none, |milliseconds| {
            let seconds = [1, 10]
                .into_iter()
                .find(|limit| milliseconds < limit * 1000);
            format!("{} s", seconds.unwrap_or(30))
        });
        let names: BTreeSet<_> = outcome
            .seen
            .values()
            .flat_map(|seen| seen.subject.iter().map(String::as_str))
            .collect();
        let names: Vec<_> = names.into_iter().collect();
        Self {
            hooks,
            log,
            within,
            names: if names.is_empty() {
                none()
            } else {
                names.join(", ")
            },
        }
    }

    fn cell(&self) -> String {
        let by: Vec<_> = [&self.hooks, &self.log]
            .into_iter()
            .filter(|by| *by != "-")
            .map(String::as_str)
            .collect();
        if by.is_empty() {
            "no".to_owned()
        } else {
            format!("{}; {}", by.join("; "), self.within)
        }
    }
}

/// What is between the two lines.
fn replaced(text: &str, begin: &str, by: &str, end: &str) -> anyhow::Result<String> {
    let find = |text, line| {
        let halves = str::split_once(text, line);
        halves.with_context(|| format!("find {line:?} in docs/kernels.md"))
    };
    let (before, rest) = find(text, begin)?;
    let (_, after) = find(rest, end)?;
    Ok(format!("{before}{begin}{by}{end}{after}"))
}

fn seen() -> PathBuf {
    crate::repo().join("tests/vm/seen.tsv")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_was_seen() {
        Page::read().unwrap().check().unwrap();
    }

    #[test]
    fn the_data_is_read_as_it_was_written() {
        let page = Page::read().unwrap();
        assert_eq!(fs::read_to_string(seen()).unwrap(), page.data());
    }
}
