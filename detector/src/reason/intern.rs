//! PURE. Names of custom reasons and of units, kept for the life of the process, so that a reason stays as cheap
//! to copy as a row of the table.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Over the life of a process, through every reload.
const MOST_NAMES: usize = 1024;
/// The API allows 1,024 characters in a condition's reason; people read fewer.
pub(crate) const LONGEST_NAME: usize = 64;

static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// None where it is no CamelCase name, or one too many.
pub(crate) fn intern(name: &str) -> Option<&'static str> {
    is_reason_name(name).then(|| keep(name)).flatten()
}

/// The name of a unit as it stands in a reason: `Kubelet`, `Nvidia-Persistenced`.
pub(crate) fn intern_unit(name: &str) -> Option<&'static str> {
    is_reason_name(&name.replace('-', ""))
        .then(|| keep(name))
        .flatten()
}

fn keep(name: &str) -> Option<&'static str> {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return Some(known);
    }
    if names.len() >= MOST_NAMES {
        return None;
    }
    // Bounded by the two limits above: 64 KiB in all.
    let name: &'static str = Box::leak(name.into());
    names.insert(name);
    Some(name)
}

pub(crate) fn is_reason_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        let first = intern("DiskCacheBroken").unwrap();
        let second = intern("DiskCacheBroken").unwrap();
        assert!(std::ptr::eq(first, second));
    }

    #[test]
    fn only_camel_case_is_a_name() {
        for name in [
            "",
            "lower",
            "With Space",
            "Dot.Ted",
            "Ünicode",
            &"A".repeat(65),
        ] {
            assert_eq!(intern(name), None, "{name}");
        }
    }
}
