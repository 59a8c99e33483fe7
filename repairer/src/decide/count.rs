//! PURE. Shares of a group. Whole numbers only: no rounding to argue about.

use super::tally::Share;
use crate::api::policy::{Comparison, UnhealthyThreshold, Zones};

const DEFAULT_PERCENTAGE: u32 = 20;

pub(super) fn percentage(threshold: &UnhealthyThreshold) -> u32 {
    threshold.percentage.unwrap_or(DEFAULT_PERCENTAGE)
}

/// One unhealthy node alone passes no limit.
pub(super) fn exceeded(threshold: &UnhealthyThreshold, share: Share) -> bool {
    let Share { nodes, unhealthy } = share;
    if unhealthy <= 1 || nodes < threshold.min_nodes as usize {
        return false;
    }
    let over = |left: usize, right: usize| match threshold.comparison {
        Comparison::AtLeast => left >= right,
        Comparison::Above => left > right,
    };
    match threshold.count {
        Some(count) => over(unhealthy, count as usize),
        None => over(unhealthy * 100, percentage(threshold) as usize * nodes),
    }
}

pub(super) fn zone_exceeded(zones: &Zones, share: Share) -> bool {
    share.unhealthy > 1
        && share.nodes >= zones.min_nodes as usize
        && share.unhealthy * 100 >= zones.max_unhealthy_percentage as usize * share.nodes
}

/// For people; cut off, not rounded, after a tenth.
pub(super) fn percent(part: usize, whole: usize) -> String {
    let Some(tenths) = (part * 1000).checked_div(whole) else {
        return "0 %".to_owned();
    };
    match tenths % 10 {
        0 => format!("{} %", tenths / 10),
        tenth => format!("{}.{tenth} %", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_told_in_percent() {
        assert_eq!(percent(3, 10), "30 %");
        assert_eq!(percent(2, 11), "18.1 %");
        assert_eq!(percent(0, 0), "0 %");
    }
}
