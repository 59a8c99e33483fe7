//! PURE. `{include: [...], exclude: [...]}`: which names count. `*` stands for any letters.

use super::error::Errors;
use super::item::Item;

/// Without `include` every name counts; what is excluded never does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    include: Vec<String>,
    exclude: Vec<String>,
}

const MOST_PATTERNS: usize = 256;

pub(super) fn read(item: &Item<'_>, errors: &mut Errors) -> Filter {
    let object = item.object(&["include", "exclude"], errors);
    let mut patterns = |key| {
        object
            .get(key)
            .map(|item| item.texts(MOST_PATTERNS, errors))
            .unwrap_or_default()
    };
    Filter {
        include: patterns("include"),
        exclude: patterns("exclude"),
    }
}

impl Filter {
    pub(super) fn admits(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Each part between two `*` is taken as early as possible: later ones have the most room then.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.split_once(part) {
            Some((_, after)) => name = after,
            None => return false,
        }
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, name, expected) in [
            ("loop*", "loop12", true),
            ("loop*", "xloop1", false),
            ("*p1", "nvme0n1p1", true),
            ("nvme*n1*", "nvme0n1p1", true),
            ("a*a", "a", false),
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn exclusion_beats_inclusion() {
        let filter = Filter {
            include: vec!["eth*".to_owned()],
            exclude: vec!["eth9".to_owned()],
        };
        let admitted = ["eth0", "eth9", "lo"].map(|name| filter.admits(name));
        assert_eq!(admitted, [true, false, false]);
    }
}
