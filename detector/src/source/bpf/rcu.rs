//! PURE. The two texts of `rcu:rcu_stall_warning`.

use detector_ebpf::RCU_TEXT;

use crate::reason::Reason;
use crate::signal::LogFault;
use crate::text;

/// kernel/rcu/tree_stall.h, tree_exp.h.
pub(super) fn stall(data: &[u8]) -> LogFault {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0);
        text::part(&bytes[..end.unwrap_or(bytes.len())], RCU_TEXT)
    };
    let (name, rest) = data.split_at(RCU_TEXT.min(data.len()));
    let (flavor, message) = (text(name), text(&rest[..RCU_TEXT.min(rest.len())]));
    let whose = match message.as_str() {
        "SelfDetected" => "a CPU found itself stalled",
        "StallDetected" => "CPUs or tasks are stalled",
        "ExpeditedStall" => "CPUs or tasks are stalled (expedited)",
        _ => message.as_str(),
    };
    let message = format!("a grace period of {flavor} does not end: {whose}");
    LogFault::new(Reason::RcuStall, flavor, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_told_in_the_words_of_its_line() {
        let mut data = [0; 3 * RCU_TEXT];
        data[..11].copy_from_slice(b"rcu_preempt");
        data[RCU_TEXT..RCU_TEXT + 13].copy_from_slice(b"StallDetected");
        let fault = stall(&data);
        assert_eq!(fault.entity, "rcu_preempt");
        assert_eq!(
            fault.message,
            "a grace period of rcu_preempt does not end: CPUs or tasks are stalled"
        );
        assert_eq!(stall(b"rcu").entity, "rcu");
    }
}
