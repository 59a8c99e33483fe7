//! What a dynamic ELF binary needs to run: its loader, and the libraries that it and they name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// No loader and no library, at least none that it names.
pub(super) fn is_static(binary: &[u8]) -> anyhow::Result<bool> {
    let (interpreter, needed) = read(binary)?;
    Ok(interpreter.is_none() && needed.is_empty())
}

/// Path and bytes of each. `more` are libraries by name that are loaded later.
pub(super) fn closure(
    binary: &[u8],
    more: &[&str],
    libraries: &Libraries,
) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let (interpreter, mut wanted) = read(binary)?;
    let loader = PathBuf::from(interpreter.context("it names no loader: it is static")?);
    let loader_name = loader.file_name().map(ToOwned::to_owned);
    found.insert(loader.clone(), libraries.loader(&loader)?);
    wanted.extend(more.iter().map(|&name| name.to_owned()));
    while let Some(name) = wanted.pop() {
        if loader_name.as_deref() == Some(name.as_ref()) {
            continue;
        }
        let (path, file) = libraries.find(&name)?;
        if found.contains_key(&path) {
            continue;
        }
        let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        wanted.extend(
            read(&bytes)
                .with_context(|| format!("read {}", path.display()))?
                .1,
        );
        found.insert(path, bytes);
    }
    Ok(found)
}

/// Where libraries are, here and in the image.
pub(super) enum Libraries {
    /// Where this system's own loader looks without a cache, which the image does not have.
    OfThisSystem,
    /// Of another architecture, in a folder; by Debian's name of it.
    Foreign {
        folder: PathBuf,
        multiarch: &'static str,
    },
}

impl Libraries {
    fn loader(&self, path: &Path) -> anyhow::Result<Vec<u8>> {
        let file = match self {
            Self::OfThisSystem => path.to_owned(),
            Self::Foreign { folder, .. } => folder.join(path.file_name().unwrap_or_default()),
        };
        fs::read(&file).with_context(|| format!("read {}", file.display()))
    }

    /// Its path in the image, and where it is here.
    fn find(&self, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let Self::Foreign { folder, multiarch } = self else {
            let path = library(name)?;
            return Ok((path.clone(), path));
        };
        let file = folder.join(name);
        ensure!(
            file.is_file(),
            "find the library {name} in {}",
            folder.display()
        );
        Ok((Path::new("/lib").join(multiarch).join(name), file))
    }
}

fn library(name: &str) -> anyhow::Result<PathBuf> {
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = [
        format!("/lib/{multiarch}"),
        format!("/usr/lib/{multiarch}"),
        "/lib64".to_owned(),
        "/usr/lib64".to_owned(),
        "/lib".to_owned(),
        "/usr/lib".to_owned(),
    ];
    folders
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("find the library {name} in {}", folders.join(", ")))
}

/// Interpreter and needed libraries of a 64-bit little-endian file (elf(5)).
fn read(file: &[u8]) -> anyhow::Result<(Option<String>, Vec<String>)> {
    ensure!(
        file.starts_with(b"\x7fELF\x02\x01"),
        "not a 64-bit little-endian ELF file"
    );
    let table = number(file, 32, 8)?;
    let (size, count) = (number(file, 54, 2)?, number(file, 56, 2)?);
    let mut segments = Vec::new();
    for index in 0..count {
        let at = usize::try_from(table + index * size).context("read a program header")?;
        let kind = u32::try_from(number(file, at, 4)?).context("read a program header")?;
        let offset = number(file, at + 8, 8)?;
        let address = number(file, at + 16, 8)?;
        let length = number(file, at + 32, 8)?;
        segments.push((kind, offset, address, length));
    }
    let find = |wanted| segments.iter().find(|(kind, ..)| *kind == wanted);
    let interpreter = match find(PT_INTERP) {
        Some((_, offset, ..)) => Some(string(file, *offset)?),
        None => None,
    };
    let mut needed = Vec::new();
    let Some((_, dynamic, _, length)) = find(PT_DYNAMIC) else {
        return Ok((interpreter, Vec::new()));
    };
    let mut strings = None;
    for index in 0..length / 16 {
        let at = usize::try_from(dynamic + index * 16).context("read the dynamic section")?;
        match (number(file, at, 8)?, number(file, at + 8, 8)?) {
            (DT_NEEDED, name) => needed.push(name),
            (DT_STRTAB, address) => strings = Some(address),
            (_other, _) => {}
        }
    }
    let Some(strings) = strings else {
        return Ok((interpreter, Vec::new()));
    };
    // An address in memory: the file has it in the segment that is loaded there.
    let (_, offset, address, _) = segments
        .iter()
        .find(|(kind, _, address, length)| {
            *kind == PT_LOAD && (*address..address + length).contains(&strings)
        })
        .context("find the string table")?;
    let strings = strings - address + offset;
    let names = needed.into_iter().map(|name| string(file, strings + name));
    Ok((interpreter, names.collect::<Result<_, _>>()?))
}

fn number(file: &[u8], at: usize, size: usize) -> anyhow::Result<u64> {
    let bytes = file.get(at..at + size).context("the file is cut off")?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

fn string(file: &[u8], at: u64) -> anyhow::Result<String> {
    let at = usize::try_from(at).context("read a string")?;
    let bytes = file.get(at..).context("the file is cut off")?;
    let end = bytes.iter().position(|&byte| byte == 0);
    let bytes = &bytes[..end.context("a string has no end")?];
    String::from_utf8(bytes.to_owned()).context("a string is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_needs_its_loader_and_its_libraries() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        let names: Vec<_> = closure(&this, &["libdl.so.2"], &Libraries::OfThisSystem)
            .unwrap()
            .into_keys()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        for part in ["ld-linux", "libc.so", "libdl.so"] {
            assert!(names.iter().any(|name| name.starts_with(part)), "{names:?}");
        }
    }

    #[test]
    fn this_test_is_not_static() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&this).unwrap());
        assert!(is_static(b"#!/bin/sh").is_err());
    }

    #[test]
    fn a_missing_library_and_a_file_that_is_none_are_named() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = closure(&this, &["libnone.so.9"], &Libraries::OfThisSystem)
            .unwrap_err()
            .to_string();
        assert!(error.contains("find the library libnone.so.9"), "{error}");
        assert!(closure(b"#!/bin/sh", &[], &Libraries::OfThisSystem).is_err());
        assert!(closure(&this[..100], &[], &Libraries::OfThisSystem).is_err());
    }
}
