//! PURE. What the text of an XID's line says besides its number.

use super::{Action, recovery_action};
use crate::signal::Task;

const RECOVERY_ACTION_CHANGED: u32 = 154;

/// `pid=1234, name=python3, ...`; a process that is not known any more is `'<unknown>'`.
pub(crate) fn process(text: &str) -> Option<Task> {
    let (pid, rest) = text.strip_prefix("pid=")?.split_once(", name=")?;
    let (comm, _) = rest.split_once(", ")?;
    let digits = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
    Some(Task {
        pid: digits.then(|| pid.parse().ok()).flatten()?,
        comm: comm.to_owned(),
        workload: None,
    })
}

/// `GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)`; with NVML's numbers
/// (`nvmlDeviceGpuRecoveryAction_t`).
pub(crate) fn recovery(xid: u32, text: &str) -> Option<Action> {
    if xid != RECOVERY_ACTION_CHANGED {
        return None;
    }
    let (_, to) = text
        .split_once("GPU recovery action changed from 0x")?
        .1
        .split_once(" to 0x")?;
    let (number, _) = to.split_once(' ')?;
    recovery_action(number.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_names_its_process_if_the_driver_knows_it() {
        let task = process("pid=2024380, name=nvidia-smi, Timeout after 6s").unwrap();
        assert_eq!((task.pid, task.comm.as_str()), (2_024_380, "nvidia-smi"));
        for text in [
            "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            "pid=, name=x, y",
            "pid=99999999999999999999, name=x, y",
            "pid=7, name=x",
            "Channel 00000001",
        ] {
            assert_eq!(process(text), None, "{text}");
        }
    }

    #[test]
    fn xid_154_says_what_must_be_done() {
        for (number, words, wanted) in [
            ("0x0", "None", Some(Action::None)),
            ("0x1", "GPU Reset Required", Some(Action::ResetGpu)),
            ("0x2", "Node Reboot Required", Some(Action::Reboot)),
            ("0x3", "Drain P2P", Some(Action::RestartApplication)),
            ("0x4", "Drain and Reset", Some(Action::ResetGpu)),
            ("0x9", "?", None),
        ] {
            let text = format!("GPU recovery action changed from 0x7 (x) to {number} ({words})");
            assert_eq!(recovery(154, &text), wanted);
            assert_eq!(recovery(153, &text), None);
        }
    }

    proptest! {
        #[test]
        fn any_text_says_something_or_nothing(
            text in r"(pid=|GPU recovery action changed from 0x0 \(None\) to 0x)?\PC{0,60}",
        ) {
            let _ = process(&text);
            let _ = recovery(154, &text);
        }
    }
}
