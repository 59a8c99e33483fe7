//! PURE. How far a log file has been read: what the next agent needs to go on from there.

use std::collections::BTreeMap;

use super::tail::Identity;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) identity: Identity,
    pub(super) offset: u64,
}

/// Before device, inode and path in the saved name.
const PREFIX: &str = "file ";

impl Place {
    /// As a named position of the state file. The identity is a part of the name: what is said about
    /// one file is not true of the next one at its path.
    pub(super) fn name(&self) -> String {
        let (device, inode) = self.identity;
        format!("{PREFIX}{device}:{inode} {}", self.path)
    }

    /// By path, from all of the saved positions.
    pub(super) fn of_all(positions: &BTreeMap<String, u64>) -> BTreeMap<String, Self> {
        let place = |(name, &offset): (&String, &u64)| {
            let (identity, path) = name.strip_prefix(PREFIX)?.split_once(' ')?;
            let (device, inode) = identity.split_once(':')?;
            let place = Self {
                path: path.to_owned(),
                identity: (device.parse().ok()?, inode.parse().ok()?),
                offset,
            };
            Some((path.to_owned(), place))
        };
        positions.iter().filter_map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_again_by_its_path() {
        let place = Place {
            path: "/var/log/with space.log".to_owned(),
            identity: (2049, 77),
            offset: 4711,
        };
        let saved = BTreeMap::from([
            (place.name(), place.offset),
            ("kernelLog".to_owned(), 9),
            ("file x:1 /a".to_owned(), 9),
            ("file 5".to_owned(), 9),
        ]);
        let found = Place::of_all(&saved);
        assert_eq!(found, BTreeMap::from([(place.path.clone(), place)]));
    }
}
