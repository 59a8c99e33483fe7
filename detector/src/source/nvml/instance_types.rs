//! PURE. How many GPUs of NVIDIA the instance types of EC2 have.

/// Family, and by size; the sizes that are not named have one. As AWS's page of accelerated computing
/// and the tables of cluster-autoscaler and HyperPod have them. Families that share a GPU among
/// instances (g6f, gr6f) have none of their own; for p2, whose boards have two, the tables disagree.
const FAMILIES: [(&str, &[(&str, usize)]); 18] = [
    ("p3", &[("8xlarge", 4), ("16xlarge", 8)]),
    ("p3dn", &[("24xlarge", 8)]),
    ("p4d", &[("24xlarge", 8)]),
    ("p4de", &[("24xlarge", 8)]),
    ("p5", &[("48xlarge", 8)]),
    ("p5e", &[("48xlarge", 8)]),
    ("p5en", &[("48xlarge", 8)]),
    ("p6-b200", &[("48xlarge", 8)]),
    ("p6-b300", &[("48xlarge", 8)]),
    ("p6e-gb200", &[("36xlarge", 4)]),
    ("g3", &[("8xlarge", 2), ("16xlarge", 4)]),
    ("g3s", &[]),
    ("g4dn", &[("12xlarge", 4), ("metal", 8)]),
    ("g5", &[("12xlarge", 4), ("24xlarge", 4), ("48xlarge", 8)]),
    ("g5g", &[("16xlarge", 2), ("metal", 2)]),
    ("g6", &[("12xlarge", 4), ("24xlarge", 4), ("48xlarge", 8)]),
    ("gr6", &[]),
    ("g6e", &[("12xlarge", 4), ("24xlarge", 4), ("48xlarge", 8)]),
];

/// Nothing for a type that is not known: it may have any number.
pub(super) fn gpus(instance_type: &str) -> Option<usize> {
    let (family, size) = instance_type.split_once('.')?;
    let (_, sizes) = FAMILIES.iter().find(|(name, _)| *name == family)?;
    let named = sizes.iter().find(|(name, _)| *name == size);
    Some(named.map_or(1, |(_, gpus)| *gpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_what_its_size_says_and_one_that_is_not_known_says_nothing() {
        for (name, wanted) in [
            ("p5.48xlarge", Some(8)),
            ("p5.4xlarge", Some(1)),
            ("p2.16xlarge", None),
            ("p3.16xlarge", Some(8)),
            ("gr6.4xlarge", Some(1)),
            ("p4d.24xlarge", Some(8)),
            ("p6-b200.48xlarge", Some(8)),
            ("g4dn.metal", Some(8)),
            ("g5.xlarge", Some(1)),
            ("g6e.12xlarge", Some(4)),
            ("g6f.large", None),
            ("m7i.large", None),
            ("g4ad.xlarge", None),
            ("", None),
            ("Standard PC (Q35 + ICH9, 2009)", None),
        ] {
            assert_eq!(gpus(name), wanted, "{name}");
        }
    }
}
