//! Each target of a daemon over its seeds, and over what is near them: the same inputs at each run.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::Target;

const CASES: usize = 600;
const LONGEST: usize = 64 << 10;
/// Of what takes milliseconds.
const SLOW: Duration = Duration::from_secs(3);

const SHOWN: usize = 4096;

/// What parsers stumble over.
const TOKENS: [&[u8]; 25] = [
    b";",
    b"; ",
    b": ",
    b",",
    b"=",
    b"/",
    b"\\",
    b"\"",
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\n",
    b"\0",
    b"\x1b[31m",
    "\u{202e}ä".as_bytes(),
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"0",
    b"-1",
    b"4294967296",
    b"18446744073709551615",
    b"1e400",
    b"9999-12-30T22:00:00Z",
];

pub(crate) fn every_target(targets: &[(&str, Target)]) {
    let broken = targets.iter().filter_map(|(name, target)| {
        let said = first_failure(&seeds(name), *target)?;
        Some(format!("target {name}, {said}"))
    });
    let broken: Vec<_> = broken.collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[expect(clippy::disallowed_methods, reason = "a test measures time")]
fn first_failure(seeds: &[Vec<u8>], target: Target) -> Option<String> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..seeds.len() + CASES).find_map(|case| {
        let input = match seeds.get(case) {
            Some(seed) => seed.clone(),
            None => near(seeds, &mut random),
        };
        let started = Instant::now();
        let holds = catch_unwind(|| target(&input)).is_ok();
        let took = started.elapsed();
        (!holds || took > SLOW).then(|| {
            format!(
                "case {case}, {took:?}, {} bytes: b\"{}\"",
                input.len(),
                input[..input.len().min(SHOWN)].escape_ascii()
            )
        })
    })
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let paths = paths(name).into_iter();
    paths.map(|path| fs::read(path).unwrap()).collect()
}

pub(crate) fn paths(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds");
    let folder = folder.join(name);
    let list = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = list.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder:?} is empty");
    paths
}

fn near(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        change(&mut input, seeds, random);
    }
    input.truncate(LONGEST);
    input
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = (at + random.below(32)).min(input.len());
    match random.below(8) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..end)),
        2 | 3 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        4 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        5 => {
            let part = input[at..end].to_vec();
            // Mostly a few times, at times up to the limit.
            let most = [4, 4, 4, LONGEST / part.len().max(1)][random.below(4)];
            drop(input.splice(at..at, part.repeat(random.below(most) + 1)));
        }
        6 => drop(input.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
        _ => drop(input.splice(at..end, TOKENS[random.below(TOKENS.len())].iter().copied())),
    }
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % end.max(1)
    }
}
