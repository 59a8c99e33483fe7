//! The chart's README: its values as a table, from the comments of `values.yaml`. `# -- TEXT` says what
//! the next key is for; comment lines that follow go on with it.

use std::fmt::Write as _;

use anyhow::ensure;

const HEAD: &str = "\
# nodemend: Helm chart

Installing it, its two steps and taking it away again: [README](../../README.md) and [docs/install.md](../../docs/install.md).
What may be in a value says `values.schema.json`; an unknown or wrong one is refused by name.

| value | default | |
|---|---|---|
";

struct Row {
    path: String,
    default: String,
    text: String,
}

pub(super) fn page(values: &str) -> anyhow::Result<String> {
    let rows = rows(values);
    ensure!(!rows.is_empty(), "values.yaml has no values");
    let mut page = HEAD.to_owned();
    for Row {
        path,
        default,
        text,
    } in rows
    {
        // Writing to a String cannot fail.
        let _written = writeln!(page, "| `{path}` | {default} | {text} |");
    }
    Ok(page)
}

fn rows(values: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    // The keys that the next line is under, with how far each is indented.
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut text: Option<String> = None;
    // What is under a key that has its own row is part of its default.
    let mut inside: Option<usize> = None;
    for line in values.lines().filter(|line| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start().len();
        if inside.is_some_and(|at| indent > at) {
            continue;
        }
        inside = None;
        let line = line.trim();
        if let Some(begin) = line.strip_prefix("# -- ") {
            text = Some(begin.to_owned());
        } else if let Some(more) = line.strip_prefix("# ") {
            if let Some(text) = &mut text {
                text.push(' ');
                text.push_str(more);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            above.retain(|(at, _)| *at < indent);
            above.push((indent, key.to_owned()));
            let path: Vec<_> = above.iter().map(|(_, key)| key.as_str()).collect();
            let (path, value) = (path.join("."), value.trim());
            if !value.is_empty() {
                let default = format!("`{value}`");
                let text = text.take().unwrap_or_default();
                rows.push(Row {
                    path,
                    default,
                    text,
                });
            } else if let Some(text) = text.take() {
                inside = Some(indent);
                let default = "see `values.yaml`".to_owned();
                rows.push(Row {
                    path,
                    default,
                    text,
                });
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each_value_with_its_comment() {
        let values = "a:\n  # -- What b is for,\n  # and why\n  b: 5m\n\n  c: {}\n# -- Nodes\nd:\n  e:\n    - f: 1\ng: \"\"\n";
        let page = page(values).unwrap();
        let rows: Vec<_> = page
            .lines()
            .skip_while(|line| !line.starts_with("|---"))
            .skip(1)
            .collect();
        assert_eq!(
            rows,
            [
                "| `a.b` | `5m` | What b is for, and why |",
                "| `a.c` | `{}` |  |",
                "| `d` | see `values.yaml` | Nodes |",
                "| `g` | `\"\"` |  |",
            ]
        );
    }
}
