//! PURE. AWS's own accelerators: `NEURON_HW_ERR=DMA_ERROR instance-id=i-0 hostname=h nd-id=0 nc-id=1
//! serial-num=1f action=TERMINATE_INSTANCE`, mostly behind a time stamp. The runtime has its driver
//! print it.

use super::fault::{digits, on};
use super::words::only;
use super::{Record, What};
use crate::reason::Reason;

const LONGEST: usize = 512;
const KEYS: [&str; 6] = [
    "instance-id",
    "hostname",
    "nd-id",
    "nc-id",
    "serial-num",
    "action",
];

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    if record.level.is_some_and(|level| !(3..=6).contains(&level)) || record.text.len() > LONGEST {
        return None;
    }
    let line = match record.text.split_once(" NEURON_HW_ERR=") {
        Some((time, line)) if is_time(time) => line,
        Some(_) => return None,
        None => record.text.strip_prefix("NEURON_HW_ERR=")?,
    };
    let (error, about) = line.split_once(' ')?;
    let reason = match error {
        "SRAM_UNCORRECTABLE_ERROR" => Reason::NeuronSramUncorrectableError,
        "NC_UNCORRECTABLE_ERROR" => Reason::NeuronNcUncorrectableError,
        "HBM_UNCORRECTABLE_ERROR" => Reason::NeuronHbmUncorrectableError,
        "DMA_ERROR" => Reason::NeuronDmaError,
        _ => return None,
    };
    about.split(' ').all(is_pair).then_some(())?;
    let device = about
        .split(' ')
        .find_map(|pair| pair.strip_prefix("nd-id="))
        .filter(|id| digits(id) && id.len() <= 4);
    let entity = device.map_or_else(|| "neuron".to_owned(), |id| format!("neuron{id}"));
    let message = format!("Neuron device {entity} reported {error}: {about}");
    Some(on(reason, entity, &message))
}

/// `2025-01-01T00:00:00Z`, with a fraction or an offset as well.
fn is_time(text: &str) -> bool {
    text.len() >= 19
        && text.len() <= 40
        && text.as_bytes().get(10) == Some(&b'T')
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"-:.,TZ+".contains(&b))
}

fn is_pair(text: &str) -> bool {
    text.split_once('=').is_some_and(|(key, value)| {
        let fits = |text: &str| only(text, |b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
        KEYS.contains(&key) && fits(value)
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    const ABOUT: &str = "instance-id=i-0592464924bd45322 hostname=ip-172-31-61-252 nd-id=3 nc-id=0 serial-num=19fcda00f5ff6eb9 action=TERMINATE_INSTANCE";

    #[test]
    fn each_error_counts_with_and_without_a_time_stamp_and_at_any_of_its_levels() {
        for (error, reason) in [
            (
                "SRAM_UNCORRECTABLE_ERROR",
                Reason::NeuronSramUncorrectableError,
            ),
            ("NC_UNCORRECTABLE_ERROR", Reason::NeuronNcUncorrectableError),
            (
                "HBM_UNCORRECTABLE_ERROR",
                Reason::NeuronHbmUncorrectableError,
            ),
            ("DMA_ERROR", Reason::NeuronDmaError),
        ] {
            for level in 3..=6 {
                for time in [
                    "",
                    "2025-01-01T00:00:00Z ",
                    "2025-01-01T00:00:00.123456+00:00 ",
                ] {
                    let text = format!("{time}NEURON_HW_ERR={error} {ABOUT}");
                    let fault = reads(level, read, &text);
                    assert_eq!((fault.reason, fault.entity.as_str()), (reason, "neuron3"));
                }
            }
        }
        let short = reads(
            3,
            read,
            "NEURON_HW_ERR=DMA_ERROR instance-id=i-0123456789abcdef0",
        );
        assert_eq!(short.entity, "neuron");
    }

    #[test]
    fn what_is_not_whole_does_not_count() {
        for text in [
            "NEURON_HW_ERR=DMA_ERROR",
            "NEURON_HW_ERR=DMA_ERROR ",
            "NEURON_HW_ERR=OTHER_ERROR instance-id=i-0",
            "NEURON_HW_ERR=DMA_ERROR affecting neuron devices",
            "kernel: NEURON_HW_ERR=DMA_ERROR instance-id=i-0",
            "x NEURON_HW_ERR=DMA_ERROR instance-id=i-0",
            "NEURON_HW_ERR=DMA_ERROR instance-id=i-0;x",
        ] {
            nothing(3, read, text);
        }
        nothing(2, read, "NEURON_HW_ERR=DMA_ERROR instance-id=i-0");
        forged_by_names(read, &["NEURON_HW_ERR=", "NEURON_HW_ERR=DMA_ERROR a=b "]);
    }
}
