//! The kernel's lockdown: in its mode confidentiality tracefs is empty, and no program may read the
//! kernel's memory. The mode integrity forbids nothing that is needed here.

use std::fs;
use std::path::Path;

pub(super) const REMEDY: &str = "the kernel is locked down in the mode confidentiality, which forbids tracepoints and BPF programs that read its memory: boot it with lockdown=integrity";

/// By the mode in force, or by the command line where the container does not see securityfs.
pub(super) fn is_confidentiality(host_sys: &Path, host_proc: &Path) -> bool {
    match fs::read_to_string(host_sys.join("kernel/security/lockdown")) {
        Ok(modes) => modes.contains("[confidentiality]"),
        Err(_no_securityfs) => fs::read_to_string(host_proc.join("cmdline")).is_ok_and(|line| {
            line.split_whitespace()
                .any(|word| word == "lockdown=confidentiality")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked_down(modes: Option<&str>, command_line: &str) -> bool {
        let host = tempfile::tempdir().unwrap();
        if let Some(modes) = modes {
            fs::create_dir_all(host.path().join("kernel/security")).unwrap();
            fs::write(host.path().join("kernel/security/lockdown"), modes).unwrap();
        }
        fs::write(host.path().join("cmdline"), command_line).unwrap();
        is_confidentiality(host.path(), host.path())
    }

    #[test]
    fn the_mode_in_force_counts() {
        assert!(locked_down(
            Some("none integrity [confidentiality]\n"),
            "quiet\n"
        ));
        let line = "lockdown=confidentiality\n";
        assert!(!locked_down(
            Some("none [integrity] confidentiality\n"),
            line
        ));
        assert!(!locked_down(
            Some("[none] integrity confidentiality\n"),
            line
        ));
    }

    #[test]
    fn without_securityfs_the_command_line_does() {
        assert!(locked_down(None, "quiet lockdown=confidentiality\n"));
        assert!(!locked_down(None, "quiet lockdown=integrity\n"));
    }
}
