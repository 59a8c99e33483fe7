//! What an image is made of: a bill of materials (CycloneDX 1.5) and a list of licences, by what cargo
//! has resolved for the binary and by the files beside it.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::layout;
use crate::crates;

pub(super) struct Contents {
    pub(super) cyclonedx: Vec<u8>,
    pub(super) licences: Vec<u8>,
}

/// `files` are those that are no crates: libraries, certificate authorities.
pub(super) fn of<'a>(
    repo: &Path,
    package: &str,
    platform: &str,
    files: impl Iterator<Item = (&'a Path, &'a [u8])>,
) -> anyhow::Result<Contents> {
    let mut licences = String::new();
    let mut components = Vec::new();
    for crates::Crate {
        name,
        version,
        licence,
        ..
    } in crates::linked(repo, package, platform)?
    {
        // Writing to a String cannot fail.
        let _written = writeln!(licences, "{name} {version}: {licence}");
        components.push(json!({
            "type": "library",
            "name": name,
            "version": version,
            "purl": format!("pkg:cargo/{name}@{version}"),
            "licenses": [{"expression": licence}],
        }));
    }
    for (path, bytes) in files {
        components.push(json!({
            "type": "file",
            "name": format!("/{}", path.display()),
            "hashes": [{"alg": "SHA-256", "content": layout::hex(bytes)?}],
        }));
    }
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "container", "name": package, "version": env!("CARGO_PKG_VERSION"),
        }},
        "components": components,
    });
    Ok(Contents {
        cyclonedx: bill.to_string().into_bytes(),
        licences: licences.into_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_is_not() {
        let repo = crate::repo();
        let file = (Path::new("lib/x.so"), b"x".as_slice());
        let contents = of(
            &repo,
            "nodemend-detector",
            "aarch64-unknown-linux-gnu",
            [file].into_iter(),
        )
        .unwrap();
        let licences = String::from_utf8(contents.licences).unwrap();
        assert!(licences.contains("\ntokio 1"), "{licences}");
        assert!(!licences.contains("proptest "), "{licences}");
        assert!(!licences.contains("aws-sdk-ec2"), "{licences}");
        let nameless: Vec<_> = licences
            .lines()
            .filter(|line| line.ends_with(": "))
            .collect();
        assert!(nameless.is_empty(), "without a licence: {nameless:?}");
        let bill: Value = serde_json::from_slice(&contents.cyclonedx).unwrap();
        assert_eq!(
            bill["components"].as_array().unwrap().last().unwrap()["name"],
            "/lib/x.so"
        );
    }
}
