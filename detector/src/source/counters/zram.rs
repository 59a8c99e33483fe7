//! PURE. Swap in compressed memory that is used.

use std::time::Duration;

use super::files::Files;
use super::text::{is_share, number, numbers};
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, What};

const USED: &str = "sys/block/zram*/mm_stat";
const SIZE: &str = "sys/block/zram*/disksize";
/// As EKS's agent has it.
const MUCH: u32 = 10;

pub(super) struct Zram;

impl Counter for Zram {
    fn name(&self) -> &'static str {
        "zram"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[USED, SIZE]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let devices = files.all(USED).files.iter().filter_map(|(names, text)| {
            let size = files
                .all(SIZE)
                .files
                .get(names)
                .and_then(|text| number(text))?;
            // Before and after compression, and the memory with what the allocator needs.
            let &[original, _, memory, ..] = numbers(text).as_slice() else {
                return None;
            };
            let name = names.first()?;
            let message = format!(
                "{name} holds {} MiB of {} MiB, in {} MiB of memory",
                original >> 20,
                size >> 20,
                memory >> 20
            );
            let fault = LogFault::on_device(Reason::ZramHighUsage, name.clone(), message);
            // EKS: more than, not as much as.
            (original > 0 && is_share(original - 1, size, MUCH)).then(|| told::still(fault))
        });
        devices.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    #[test]
    fn a_tenth_of_the_device_is_much() {
        for (original, size, told) in [
            (150_u64 << 20, 1_u64 << 30, true),
            (50 << 20, 1 << 30, false),
            (100 << 20, 1000 << 20, false),
            ((100 << 20) + 1, 1000 << 20, true),
            (0, 0, false),
        ] {
            let used = format!("{original} 1000 2000 0 2000 0 0 0 0\n");
            let size = format!("{size}\n");
            let files = Files::of(&[(USED, &["zram0"], &used), (SIZE, &["zram0"], &size)]);
            let found = summary(&Zram.look(&files, Duration::ZERO));
            let expected = told.then(|| (Reason::ZramHighUsage, "zram0".to_owned(), 0));
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{used}");
        }
        let files = Files::of(&[(USED, &["zram0"], "1"), (SIZE, &["zram0"], "x")]);
        assert_eq!(Zram.look(&files, Duration::ZERO), []);
    }
}
