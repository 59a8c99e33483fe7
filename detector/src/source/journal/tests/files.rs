//! Files as bytes: those that systemd made, and what is left of them when they are damaged.

use std::io::Read as _;
use std::sync::LazyLock;

use proptest::prelude::*;
use ruzstd::decoding::StreamingDecoder;

use super::super::entry::{Line, Loss};
use super::super::fuzz::{BOOT, open, read};
use super::super::log::Now;
use super::super::payload::Compression;
use super::super::place;
use super::*;

/// Of `system.export`, by systemd 252:
/// `SYSTEMD_JOURNAL_COMPACT=1 SYSTEMD_JOURNAL_KEYED_HASH=1 systemd-journal-remote --compress
/// -o compact.journal system.export`, the other with 0 for 1; then `zstd -19`, for 8 MiB of zeros.
const COMPACT_FILE: &[u8] = include_bytes!("compact.journal.zst");
const PLAIN_FILE: &[u8] = include_bytes!("plain.journal.zst");

/// A file of systemd, and where there is something in it: most of it is an empty hash table.
struct Fixture {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

static COMPACT: LazyLock<Fixture> = LazyLock::new(|| Fixture::new(COMPACT_FILE));
static PLAIN: LazyLock<Fixture> = LazyLock::new(|| Fixture::new(PLAIN_FILE));

impl Fixture {
    fn new(packed: &[u8]) -> Self {
        let bytes = unpacked(packed);
        let filled = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
        let places = filled.map(|(at, _)| at).collect();
        Self { bytes, places }
    }

    fn of(compact: bool) -> &'static Self {
        if compact { &COMPACT } else { &PLAIN }
    }

    fn place(&self, index: prop::sample::Index) -> usize {
        self.places[index.index(self.places.len())]
    }
}

/// Up to the last byte that is not 0: offsets stay as they are.
fn unpacked(fixture: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut decoder = StreamingDecoder::new(fixture).unwrap();
    decoder.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 8 << 20);
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    bytes.truncate(end.next_multiple_of(8));
    bytes
}

fn messages(lines: &[Line]) -> Vec<String> {
    let text = |line: &Line| String::from_utf8_lossy(&line.message).into_owned();
    lines.iter().map(text).collect()
}

#[test]
fn files_of_systemd_are_read_in_both_forms() {
    let long = (0..1500).map(|i| format!("word{} ", i * i % 97));
    let long = format!("long {}", long.collect::<String>());
    for compact in [true, false] {
        let bytes = Fixture::of(compact).bytes.clone();
        assert_eq!(open(bytes.clone()).unwrap().header().compact, compact);
        let (lines, lost, _) = read(bytes, &["kubelet.service"]).unwrap();
        let mut expected = vec!["Started kubelet.service.".to_owned()];
        expected.extend((2..12).map(|n| format!("broken {n}")));
        expected.push("two\nlines \u{fffd}".to_owned());
        expected.push(long[..8192].to_owned());
        assert_eq!(messages(&lines), expected);
        assert_eq!(lost, 0);
        assert_eq!(lines.last().unwrap().lost, Some(Loss::Cut));
    }
}

#[test]
fn a_line_of_systemd_about_a_unit_is_its_own_and_the_units() {
    let units = ["init.scope", "kubelet.service"];
    let (lines, _, _) = read(PLAIN.bytes.clone(), &units).unwrap();
    assert_eq!(lines[0].units, units);
    assert_eq!(lines[1].units, units[1..]);
    let (lines, _, _) = read(PLAIN.bytes.clone(), &["evil.service"]).unwrap();
    assert_eq!(messages(&lines), ["forged"]);
}

#[test]
fn another_boots_entries_are_not_read() {
    let mut log = open(PLAIN.bytes.clone()).unwrap();
    let now = Now {
        boot: [1; 16],
        monotonic: u64::MAX,
    };
    let mut place = None;
    let more = log.read(now, &mut place, |_| true, &mut |seen| panic!("{seen:?}"));
    assert!(!more.unwrap());
    assert_eq!(place, None);
}

#[test]
fn an_entry_with_a_time_or_number_to_come_is_damaged_and_hides_none_after_it() {
    let bytes = PLAIN.bytes.clone();
    let third = entry_offsets(&bytes)[2];
    for at in [16, 32] {
        let mut bytes = bytes.clone();
        bytes[third + at + 7] = 1;
        let (lines, lost, _) = read(bytes, &["kubelet.service"]).unwrap();
        assert_eq!((lines.len(), lost), (12, 1));
        assert!(messages(&lines).contains(&"broken 11".to_owned()));
    }
}

#[test]
fn a_file_of_a_systemd_to_come_is_refused_with_what_to_do() {
    let mut bytes = PLAIN.bytes.clone();
    bytes[12] |= 32;
    let error = open(bytes).err().unwrap().to_string();
    assert!(error.contains("0x20") && error.contains("newer"), "{error}");
}

#[test]
fn a_message_that_cannot_be_unpacked_is_counted() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("x.journal");
    let mut writer = Writer::create(&path, [1; 16], [2; 16], writer::PLAIN, 0).unwrap();
    let when = When {
        monotonic: 1,
        realtime: 1,
        boot: place::id(BOOT).unwrap(),
    };
    let unit: &[&[u8]] = &[b"_SYSTEMD_UNIT=a.service"];
    for flag in [1, 4, 8] {
        writer
            .append_compressed(when, unit, flag, b"no such thing")
            .unwrap();
    }
    let lz4 = b"\x0a\0\0\0\0\0\0\0\xa0MESSAGE=ok";
    writer.append_compressed(when, unit, 2, lz4).unwrap();
    let (lines, lost, _) = read(fs::read(path).unwrap(), &["a.service"]).unwrap();
    assert_eq!(lost, 0);
    let how: Vec<_> = lines.iter().map(|line| line.lost).collect();
    let expected = [Compression::Xz, Compression::Zstd, Compression::Unknown]
        .map(|how| Some(Loss::Compressed(how)));
    assert_eq!(how[..3], expected);
    assert_eq!(
        (how[3], messages(&lines[3..])),
        (None, vec!["ok".to_owned()])
    );
}

#[test]
fn lists_that_lead_back_end() {
    let mut bytes = PLAIN.bytes.clone();
    let offset = |bytes: &[u8], at: usize| {
        usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
    };
    let first = offset(&bytes, 176);
    let second = offset(&bytes, first + 16);
    let back = u64::try_from(first).unwrap().to_le_bytes();
    bytes[second + 16..second + 24].copy_from_slice(&back);
    // Four entries are in the first, eight in the second.
    let (lines, lost, reads) = read(bytes, &["kubelet.service"]).unwrap();
    assert_eq!((lines.len(), lost), (11, 3));
    assert!(reads < MOST_READS, "{reads}");
}

/// The fixtures' entries need a few hundred.
const MOST_READS: usize = 2000;

fn entry_offsets(bytes: &[u8]) -> Vec<usize> {
    let at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut array = usize::try_from(at(176)).unwrap();
    let mut offsets = Vec::new();
    while array != 0 {
        let items = (usize::try_from(at(array + 8)).unwrap() - 24) / 8;
        let offset = |item| usize::try_from(at(array + 24 + item * 8)).unwrap();
        offsets.extend((0..items).map(offset).filter(|&offset| offset != 0));
        array = usize::try_from(at(array + 16)).unwrap();
    }
    offsets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_file_that_was_cut_anywhere_is_read_within_bounds(
        compact in any::<bool>(), place in any::<prop::sample::Index>(),
    ) {
        let fixture = Fixture::of(compact);
        let bytes = fixture.bytes[..fixture.place(place)].to_vec();
        if let Ok((lines, lost, reads)) = read(bytes, &["kubelet.service"]) {
            prop_assert!(lines.len() as u64 + lost <= 15, "{lost} lost");
            prop_assert!(reads < MOST_READS, "{reads}");
        }
    }

    #[test]
    fn a_file_with_other_bytes_anywhere_is_read_within_bounds(
        compact in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let fixture = Fixture::of(compact);
        let mut bytes = fixture.bytes.clone();
        for (place, byte) in changes {
            bytes[fixture.place(place)] = byte;
        }
        if let Ok((lines, _, reads)) = read(bytes, &["kubelet.service", "init.scope"]) {
            for line in lines {
                prop_assert!(line.message.len() <= 8192);
            }
            prop_assert!(reads < 20 * MOST_READS, "{reads}");
        }
    }

    #[test]
    fn any_numbers_in_the_places_of_offsets_are_read_within_bounds(
        numbers in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u64>(), 0u64..10_000_000, Just(u64::MAX), Just(0),
        ]), 1..5),
    ) {
        let mut bytes = PLAIN.bytes.clone();
        for (place, number) in numbers {
            let at = PLAIN.place(place) / 8 * 8;
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        if let Ok((_, _, reads)) = read(bytes, &["kubelet.service"]) {
            prop_assert!(reads < 20 * MOST_READS, "{reads}");
        }
    }
}
