//! The cargo that builds, whoever has started this program.

use std::env;
use std::process::Command;

/// What `cargo run` tells this program about its own package is taken away again. Build scripts of
/// dependencies (ring's) run anew whenever `CARGO_MANIFEST_DIR` differs, and everything that needs
/// them is compiled again: at each turn from `cargo xtask` to plain `cargo`, and in each checkout.
pub(crate) fn command() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in env::vars_os() {
        let of_a_package = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if name
            .to_str()
            .is_some_and(|name| of_a_package.iter().any(|prefix| name.starts_with(prefix)))
        {
            cargo.env_remove(name);
        }
    }
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_of_no_package() {
        // `cargo test` names this one in the environment of its tests, as `cargo run` does.
        assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
        let cargo = command();
        let removed: Vec<_> = cargo
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .collect();
        assert!(
            removed
                .iter()
                .any(|(name, _)| *name == "CARGO_MANIFEST_DIR")
        );
        assert!(removed.iter().any(|(name, _)| *name == "CARGO_PKG_NAME"));
    }
}
