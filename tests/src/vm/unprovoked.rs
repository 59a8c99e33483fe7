//! The hooks that no fault of the suite makes speak, with the reason of each: `tests/vm/unprovoked.tsv`.
//! The list may only shrink.

use anyhow::bail;

const FILE: &str = "tests/vm/unprovoked.tsv";
const TEXT: &str = include_str!("../../vm/unprovoked.tsv");

pub(super) struct Unprovoked {
    pub hook: &'static str,
    /// The file of the kernel suite whose fault makes it speak on the running kernel, or `-`.
    pub shown_by: &'static str,
    pub why: &'static str,
}

pub(super) fn read() -> anyhow::Result<Vec<Unprovoked>> {
    let hook = |line: &'static str| {
        let fields: Vec<_> = line.split('\t').collect();
        let &[hook, shown_by, why] = fields.as_slice() else {
            bail!("{FILE}: {line:?} is not hook, shown by, why");
        };
        Ok(Unprovoked {
            hook,
            shown_by,
            why,
        })
    };
    TEXT.lines().skip(1).map(hook).collect()
}
