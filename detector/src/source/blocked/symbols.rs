//! Names of the kernel's functions, by `/proc/kallsyms`: hundreds of thousands of lines, of which only
//! those that are asked for are kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use anyhow::Context;

use crate::text;

const PATH: &str = "/proc/kallsyms";
/// A kernel with many modules has 20 MiB.
const LIMIT: u64 = 128 << 20;
/// Addresses whose names are kept at a time.
const MOST: usize = 8192;
/// No function is larger: what lies further behind a symbol is not of it.
const LARGEST: u64 = 1 << 20;

/// Names of addresses, while somebody needs them. An address without a name is an empty one.
#[derive(Default)]
pub(super) struct Symbols {
    names: BTreeMap<u64, String>,
}

impl Symbols {
    /// Gets the names of those that are new.
    pub(super) fn find(&mut self, addresses: impl Iterator<Item = u64>) -> Result<(), String> {
        let mut new: Vec<_> = addresses
            .filter(|address| !self.names.contains_key(address))
            .collect();
        new.sort_unstable();
        new.dedup();
        new.truncate(MOST.saturating_sub(self.names.len()));
        if new.is_empty() {
            return Ok(());
        }
        let file = File::open(PATH).with_context(|| format!("open {PATH}"));
        let names = file
            .and_then(|file| names(BufReader::new(file.take(LIMIT)), &new))
            .map_err(|error| format!("{error:#}"))?;
        self.names.extend(new.into_iter().zip(names));
        Ok(())
    }

    pub(super) fn name(&self, address: u64) -> Option<&str> {
        let name = self.names.get(&address)?;
        (!name.is_empty()).then_some(name)
    }

    pub(super) fn forget(&mut self) {
        self.names = BTreeMap::new();
    }
}

/// The functions that the addresses, in ascending order, return into: `name` or `name [module]`.
fn names(mut symbols: impl BufRead, addresses: &[u64]) -> anyhow::Result<Vec<String>> {
    // Of each address the nearest symbol below it that no lower address is nearer to.
    let mut nearest: Vec<(u64, Vec<u8>)> = vec![(0, Vec::new()); addresses.len()];
    let mut line = Vec::new();
    let (mut lines, mut hidden) = (0u64, 0u64);
    loop {
        line.clear();
        let read = symbols.by_ref().take(1024).read_until(b'\n', &mut line);
        if read.with_context(|| format!("read {PATH}"))? == 0 {
            break;
        }
        let Some((at, name)) = function(&line) else {
            continue;
        };
        lines += 1;
        hidden += u64::from(at == 0);
        // A return address at a function's beginning is behind the end of the one before it.
        let index = addresses.partition_point(|&address| address <= at);
        if let Some(best) = nearest.get_mut(index)
            && best.0 < at
        {
            // Most lines are nearer than the ones before: the space is used again.
            best.0 = at;
            best.1.clear();
            best.1.extend_from_slice(name);
        }
    }
    anyhow::ensure!(
        lines > hidden,
        "{PATH} hides the addresses (kernel.kptr_restrict, or CAP_SYSLOG is missing)"
    );
    for index in 1..nearest.len() {
        if nearest[index].0 < nearest[index - 1].0 {
            nearest[index] = nearest[index - 1].clone();
        }
    }
    let named = addresses.iter().zip(nearest);
    Ok(named
        .map(|(address, (at, name))| {
            if address - at <= LARGEST {
                shown(&name)
            } else {
                String::new()
            }
        })
        .collect())
}

/// A module's name stands behind a tab.
fn shown(name: &[u8]) -> String {
    let words: Vec<_> = name
        .splitn(2, |&byte| byte == b'\t')
        .map(|word| text::printable(word, 64))
        .collect();
    words.join(" ")
}

/// `ffffffff81000000 T name` or `... t name\t[module]`, if it is a function.
fn function(line: &[u8]) -> Option<(u64, &[u8])> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let at = std::str::from_utf8(parts.next()?).ok()?;
    let at = u64::from_str_radix(at, 16).ok()?;
    matches!(parts.next()?, b"t" | b"T" | b"w" | b"W").then_some((at, parts.next()?))
}

#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let addresses = [0, 1, 0xffff_ffff_8100_0000, u64::MAX];
    let Ok(names) = names(bytes, &addresses) else {
        return;
    };
    assert_eq!(names.len(), addresses.len());
    for name in names {
        crate::fuzz::assert_plain(&name, 129);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
ffffffff81000000 T _stext
ffffffff81000100 t vfs_write
ffffffff81000100 t vfs_write_alias
ffffffff81000200 T ksys_write
ffffffff81000210 d some_data
ffffffffc0000000 t nfs_wait_bit_killable\t[nfs]
ffffffffc0000040 t rpc_run_task\t[sunrpc]
garbage
ffffffff81000180 T out_of_order
";

    fn of(addresses: &[u64]) -> Vec<String> {
        names(TABLE.as_bytes(), addresses).unwrap()
    }

    #[test]
    fn an_address_is_of_the_function_that_begins_before_it() {
        assert_eq!(
            of(&[
                0xffff_ffff_8100_0101,
                0xffff_ffff_8100_0170,
                0xffff_ffff_8100_0190,
                // The call was the last instruction of the function before.
                0xffff_ffff_8100_0200,
                0xffff_ffff_8100_0230,
                0xffff_ffff_c000_0008,
            ]),
            [
                "vfs_write",
                "vfs_write",
                "out_of_order",
                "out_of_order",
                "ksys_write",
                "nfs_wait_bit_killable [nfs]"
            ]
        );
    }

    #[test]
    fn a_name_of_many_words_is_bounded() {
        let table = format!("ffffffff81000000 T {}\n", "a\t".repeat(400));
        let name = &names(table.as_bytes(), &[0xffff_ffff_8100_0001]).unwrap()[0];
        assert!(name.len() <= 129, "{name}");
    }

    #[test]
    fn what_is_of_no_function_has_no_name() {
        assert_eq!(of(&[0x1000, 0xffff_ffff_a000_0000]), ["", ""]);
    }

    #[test]
    fn hidden_addresses_are_said_to_be_hidden() {
        let table = "0000000000000000 T _stext\n0000000000000000 t vfs_write\n";
        let error = names(table.as_bytes(), &[1]).unwrap_err().to_string();
        assert!(error.contains("kptr_restrict"), "{error}");
        assert!(names(&b""[..], &[1]).is_err());
    }

    #[test]
    fn the_running_kernel_names_its_functions() {
        // Readable everywhere; where the addresses are hidden that is what must be said.
        let table = std::fs::read_to_string(PATH).unwrap();
        let line = table.lines().find(|line| line.ends_with(" T vfs_read"));
        let Some((at, _)) = line.and_then(|line| function(line.as_bytes())) else {
            panic!("no vfs_read in {PATH}");
        };
        let mut symbols = Symbols::default();
        let found = symbols.find([at + 4].into_iter());
        if at == 0 {
            assert!(found.unwrap_err().contains("hides"));
        } else {
            found.unwrap();
            assert_eq!(symbols.name(at + 4), Some("vfs_read"));
        }
    }
}
