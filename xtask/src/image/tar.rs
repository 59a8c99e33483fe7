//! A tar archive (ustar) that depends on its files alone: sorted, of root, of no time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

const BLOCK: usize = 512;

#[derive(Default)]
pub(super) struct Tar(BTreeMap<PathBuf, (u32, Vec<u8>)>);

impl Tar {
    /// An absolute path; its folders come by themselves.
    pub(super) fn file(&mut self, path: &Path, mode: u32, bytes: Vec<u8>) -> anyhow::Result<()> {
        let path = path
            .strip_prefix("/")
            .with_context(|| format!("{} is not absolute", path.display()))?;
        self.0.insert(path.to_owned(), (mode, bytes));
        Ok(())
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.0
            .iter()
            .map(|(path, (_, bytes))| (path.as_path(), bytes.as_slice()))
    }

    /// Of all files, the outer ones first.
    pub(super) fn folders(&self) -> BTreeSet<&Path> {
        self.0.keys().flat_map(|path| above(path)).collect()
    }

    pub(super) fn finish(&self) -> anyhow::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut folders = Vec::new();
        for (path, (mode, bytes)) in &self.0 {
            let mut above: Vec<_> = above(path).collect();
            above.reverse();
            for folder in above {
                if !folders.contains(&folder) {
                    out.extend(header(&format!("{}/", folder.display()), 0o755, 0, b'5')?);
                    folders.push(folder);
                }
            }
            out.extend(header(
                &path.display().to_string(),
                *mode,
                bytes.len(),
                b'0',
            )?);
            out.extend(bytes);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
        // Two empty blocks are its end.
        out.resize(out.len() + 2 * BLOCK, 0);
        Ok(out)
    }
}

/// The innermost first.
fn above(path: &Path) -> impl Iterator<Item = &Path> {
    let folders = path.ancestors().skip(1);
    folders.filter(|folder| !folder.as_os_str().is_empty())
}

/// The fields and their places are POSIX's (pax, "ustar Interchange Format").
fn header(name: &str, mode: u32, size: usize, kind: u8) -> anyhow::Result<[u8; BLOCK]> {
    ensure!(name.len() < 100, "{name} is too long for a tar header");
    let mut block = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(257, "ustar");
    put(263, "00");
    // The sum is taken with its own field blank.
    put(148, "        ");
    block[156] = kind;
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}
