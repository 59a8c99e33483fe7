//! `tests/vm/seen.tsv` and `tests/vm/hooks.tsv`, what was seen on each kernel when it was last run, and
//! how each hook was attached; and the tables of docs/kernels.md that are made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use super::configurations;
use super::holes::Holes;
use super::outcome::{Outcome, Shown};
use super::unprovoked::{self, Unprovoked};
use super::{KERNELS, RUNNING, Way};

const BEGIN: &str = "<!-- `cargo xtask vm` writes what follows. -->\n";
const END: &str = "<!-- End of what `cargo xtask vm` writes. -->\n";
const HEADER: &str = "kernel\tclass\tby hooks\tby log\twithin\tnames\n";

/// Of the tables.
const COLUMNS: [&str; KERNELS.len() + 1] = {
    let [a, b, c, d] = KERNELS;
    [a, b, c, d, RUNNING]
};

const HOOKS_HEADER: &str = "kernel\thook\tusing\n";

#[derive(Default)]
pub struct Page {
    packages: BTreeMap<String, String>,
    /// By kernel and class.
    rows: BTreeMap<(String, String), Row>,
    /// By kernel and hook; `-` where it was not attached.
    hooks: BTreeMap<(String, String), String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// What saw it with the kernel log off, or `-`.
    hooks: String,
    /// What saw it with the hooks off, or `-`.
    log: String,
    /// Of one of [`LIMITS`]: how soon it was told in the slowest of the runs of this package.
    within: Option<u64>,
    names: String,
}

/// In seconds. Coarse, and never lowered by a faster run: the next run says the same on a host that is busier or less.
const LIMITS: [u64; 3] = [3, 10, 40];

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
                    within: seconds(&within).with_context(|| format!("read {line:?}"))?,
                    names,
                };
                page.rows.insert((kernel, class), row);
            }
        }
        let path = hooks();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for line in text.lines().skip(1) {
            let fields: Vec<_> = line.split('\t').collect();
            let &[kernel, hook, using] = fields.as_slice() else {
                anyhow::bail!("{}: {line:?} has not 3 fields", path.display());
            };
            let of = (kernel.to_owned(), hook.to_owned());
            page.hooks.insert(of, using.to_owned());
        }
        Ok(page)
    }

    /// Takes the place of what that kernel showed before.
    pub fn put(&mut self, kernel: &str, package: &str, shown: &Shown) -> anyhow::Result<()> {
        let silent: Vec<_> = unprovoked::read()?
            .iter()
            .filter_map(|hook| shown.hooks.get(hook.hook)?.as_deref())
            .collect();
        let last = self.packages.insert(kernel.to_owned(), package.to_owned());
        let same_package = last.as_deref() == Some(package);
        let before = self.rows.extract_if(.., |(of, _), _| of == kernel);
        let before: BTreeMap<_, _> = before.collect();
        for (class, outcome) in &shown.outcomes {
            let of = (kernel.to_owned(), class.clone());
            let mut row = Row::of(outcome, &silent);
            if same_package && row.within.is_some() {
                row.within = row.within.max(before.get(&of).and_then(|row| row.within));
            }
            self.rows.insert(of, row);
        }
        self.hooks.retain(|(of, _), _| of != kernel);
        self.hooks.extend(shown.hooks.iter().map(|(hook, using)| {
            let using = using.as_deref().unwrap_or("-");
            ((kernel.to_owned(), hook.clone()), using.to_owned())
        }));
        Ok(())
    }

    pub fn write(&self) -> anyhow::Result<()> {
        fs::write(seen(), self.data()).context("write tests/vm/seen.tsv")?;
        fs::write(hooks(), self.hook_data()).context("write tests/vm/hooks.tsv")?;
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
                row.hooks,
                row.log,
                row.within(),
                row.names
            )
        });
        packages.chain([HEADER.to_owned()]).chain(rows).collect()
    }

    fn hook_data(&self) -> String {
        let rows = self
            .hooks
            .iter()
            .map(|((kernel, hook), using)| format!("{kernel}\t{hook}\t{using}\n"));
        [HOOKS_HEADER.to_owned()].into_iter().chain(rows).collect()
    }

    fn table(&self, holes: &Holes) -> anyhow::Result<String> {
        let mut text = String::new();
        let classes: BTreeSet<&String> = self.rows.keys().map(|(_, class)| class).collect();
        let kernels = self.kernels();
        writeln!(text, "\n| class | {} | names |", kernels.join(" | "))?;
        writeln!(text, "|---|{}---|", "---|".repeat(kernels.len()))?;
        for &class in &classes {
            let of = |kernel: &&str| self.rows.get(&((*kernel).to_owned(), class.clone()));
            let cells: Vec<_> = COLUMNS
                .iter()
                .map(|kernel| of(kernel).map_or_else(|| "not run".to_owned(), Row::cell))
                .collect();
            let names: BTreeSet<_> = COLUMNS
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
            if kernel == RUNNING {
                writeln!(
                    text,
                    "- Linux {package}: no virtual machine, and only the faults that leave a host as it was"
                )?;
            } else {
                writeln!(text, "- Linux {kernel}: Debian's {package}")?;
            }
        }
        writeln!(text, "\nWhat is missing, and why:\n")?;
        for hole in holes.all() {
            writeln!(text, "- {hole}")?;
        }
        writeln!(
            text,
            "\nHooks that none of these faults makes speak (`tests/vm/unprovoked.tsv`), where they were attached all the same, and why they are kept:\n"
        )?;
        writeln!(
            text,
            "| hook | {} | real, on the running kernel | why |",
            kernels.join(" | ")
        )?;
        writeln!(text, "|---|{}---|---|", "---|".repeat(kernels.len()))?;
        for hook in unprovoked::read()? {
            writeln!(text, "{}", self.silent(&hook))?;
        }
        writeln!(text)?;
        Ok(text)
    }

    /// The titles of the columns.
    fn kernels(&self) -> Vec<String> {
        let title = |kernel: &str| match self.packages.get(kernel) {
            Some(release) if kernel == RUNNING => format!("{release} (running)"),
            _ => kernel.to_owned(),
        };
        COLUMNS.map(title).to_vec()
    }

    fn silent(&self, hook: &Unprovoked) -> String {
        let cells = COLUMNS.map(|kernel| {
            let using = self.hooks.get(&(kernel.to_owned(), hook.hook.to_owned()));
            match using.map(String::as_str) {
                None => "not run",
                Some("-") => "absent",
                Some(_) => "attached",
            }
        });
        let shown_by = match hook.shown_by {
            "-" => "no".to_owned(),
            file => format!("`{file}`"),
        };
        let cells = cells.join(" | ");
        format!("| `{}` | {cells} | {shown_by} | {} |", hook.hook, hook.why)
    }
}

impl Row {
    /// Without the hooks that are `silent` beside another one.
    fn of(outcome: &Outcome, silent: &[&str]) -> Self {
        let none = || "-".to_owned();
        let hooks = outcome.seen.get(&Way::Hooks).map_or_else(none, |_| {
            let using = outcome.using.split(", ");
            let (mut hooks, not_these): (Vec<_>, Vec<_>) = using
                .clone()
                .filter(|name| {
                    ["tp_btf ", "tracepoint ", "iter "]
                        .iter()
                        .any(|kind| name.starts_with(kind))
                })
                .partition(|name| !silent.contains(name));
            // The only hook of a class is what saw it, whatever the list says.
            if hooks.is_empty() {
                hooks = not_these;
            }
            let counters: Vec<_> = using.filter(|name| name.starts_with("counter ")).collect();
            if hooks.is_empty() { counters } else { hooks }.join(", ")
        });
        let log = outcome
            .seen
            .get(&Way::Log)
            .map_or_else(none, |_| "log".to_owned());
        let fastest = outcome.seen.values().map(|seen| seen.milliseconds).min();
        let within = fastest.map(|milliseconds| {
            let limit = LIMITS
                .into_iter()
                .find(|limit| milliseconds <= limit * 1000);
            limit.unwrap_or(milliseconds.div_ceil(1000))
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
            format!("{}; {}", by.join("; "), self.within())
        }
    }

    fn within(&self) -> String {
        self.within
            .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"))
    }
}

/// As [`Row::within`] writes it.
fn seconds(within: &str) -> anyhow::Result<Option<u64>> {
    if within == "-" {
        return Ok(None);
    }
    let seconds = within.strip_suffix(" s").and_then(|text| text.parse().ok());
    seconds
        .map(Some)
        .context("`within` is neither `-` nor as `10 s`")
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

fn hooks() -> PathBuf {
    crate::repo().join("tests/vm/hooks.tsv")
}

#[cfg(test)]
mod tests {
    use super::super::Seen;
    use super::*;

    #[test]
    fn the_page_shows_what_was_seen() {
        Page::read().unwrap().check().unwrap();
    }

    #[test]
    fn the_data_is_read_as_it_was_written() {
        let page = Page::read().unwrap();
        assert_eq!(fs::read_to_string(seen()).unwrap(), page.data());
        assert_eq!(fs::read_to_string(hooks()).unwrap(), page.hook_data());
    }

    #[test]
    fn a_run_says_the_same_whether_its_host_is_busy_or_not() {
        let shown = |milliseconds| {
            let seen = Seen {
                reason: "SoftLockup".to_owned(),
                milliseconds,
                subject: Vec::new(),
            };
            let outcome = Outcome {
                seen: BTreeMap::from([(Way::Log, seen)]),
                ..Outcome::default()
            };
            Shown {
                outcomes: BTreeMap::from([("soft lockup".to_owned(), outcome)]),
                hooks: BTreeMap::new(),
            }
        };
        let mut page = Page::default();
        let mut within = |package, milliseconds| {
            page.put("6.12", package, &shown(milliseconds)).unwrap();
            page.rows.values().next().and_then(|row| row.within)
        };
        assert_eq!(within("linux-image 1", 900), Some(3));
        assert_eq!(within("linux-image 1", 9_000), Some(10));
        assert_eq!(within("linux-image 1", 900), Some(10));
        assert_eq!(within("linux-image 2", 900), Some(3), "another kernel");
        assert_eq!(within("linux-image 2", 50_100), Some(51), "as it is");
    }

    #[test]
    fn every_hook_has_told_of_a_fault_on_some_kernel_or_is_on_the_list() {
        let page = Page::read().unwrap();
        let has_told = |hook: &str| {
            page.hooks.iter().any(|((kernel, of), using)| {
                let mut rows = page.rows.iter().filter(|((on, _), _)| on == kernel);
                of == hook && using != "-" && rows.any(|(_, row)| row.hooks.contains(using))
            })
        };
        let listed: BTreeSet<_> = unprovoked::read()
            .unwrap()
            .iter()
            .map(|hook| hook.hook)
            .collect();
        let hooks: BTreeSet<_> = page.hooks.keys().map(|(_, hook)| hook.as_str()).collect();
        let silent = hooks
            .iter()
            .copied()
            .filter(|hook| !has_told(hook))
            .collect();
        assert_eq!(listed, silent, "tests/vm/unprovoked.tsv on the left");
    }

    #[test]
    fn where_a_silent_hook_is_shown_is_a_file_of_the_kernel_suite() {
        for hook in unprovoked::read().unwrap() {
            let file = crate::repo().join("tests/tests/kernel").join(hook.shown_by);
            assert!(hook.shown_by == "-" || file.is_file(), "{}", file.display());
        }
    }
}
