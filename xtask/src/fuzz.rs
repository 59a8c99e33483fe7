//! `cargo xtask fuzz`: searches for bytes that break a parser, by the seeds of `tests/fuzz/seeds` and by
//! what the compiler tells of the ways through the code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::cache;

const CARGO_FUZZ: &str = "0.13.2";
/// Of what is parsed; a larger file is read in parts that are.
const LONGEST: usize = 64 << 10;
const MEMORY_MIB: u32 = 2048;
/// Of one input, in seconds.
const SLOW: u32 = 10;

/// Whose parsers.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Daemon {
    Detector,
    /// Its first build, the AWS SDK with instrumentation, takes 20 minutes of a CPU and 13 GB of memory
    Repairer,
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Self::Detector => "detector",
            Self::Repairer => "repairer",
        }
    }
}

pub(crate) fn run(
    repo: &Path,
    daemon: Daemon,
    seconds: u32,
    wanted: &[String],
) -> anyhow::Result<()> {
    let fuzzer = Fuzzer {
        tool: cache::cargo_tool("cargo-fuzz", CARGO_FUZZ, "")?,
        cache: cache::dir()?.join("fuzz"),
        folder: repo.join("tests/fuzz"),
        daemon,
    };
    let all = targets(repo, daemon)?;
    for name in wanted {
        if !all.contains(name) {
            bail!("there is no target {name}; there are {}", all.join(", "));
        }
    }
    fuzzer.build()?;
    for target in all
        .iter()
        .filter(|target| wanted.is_empty() || wanted.contains(target))
    {
        fuzzer.run(target, seconds)?;
    }
    Ok(())
}

/// As they stand in `TARGETS`, each a line that begins with its name.
fn targets(repo: &Path, daemon: Daemon) -> anyhow::Result<Vec<String>> {
    let path = repo.join(daemon.name()).join("src/fuzz.rs");
    let source = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let list = source
        .split("TARGETS: ")
        .nth(1)
        .and_then(|rest| rest.split("];").next());
    let names = list.unwrap_or_default().lines().filter_map(|line| {
        let rest = line.trim().strip_prefix("(\"")?;
        Some(rest.split_once('"')?.0.to_owned())
    });
    Ok(names.collect())
}

struct Fuzzer {
    tool: PathBuf,
    cache: PathBuf,
    folder: PathBuf,
    daemon: Daemon,
}

impl Fuzzer {
    /// `-s none`: sanitizers need a compiler that is not stable; what is `unsafe` parses nothing.
    fn command(&self, task: &str) -> Command {
        let mut command = Command::new(&self.tool);
        command
            .current_dir(&self.folder)
            .args([task, "-s", "none", "--features", self.daemon.name()])
            .arg("--fuzz-dir")
            .arg(&self.folder)
            .arg(self.daemon.name())
            .env("CARGO_TARGET_DIR", self.cache.join("target"))
            // As for [`crate::cargo::command`].
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("RUSTFLAGS");
        command
    }

    fn build(&self) -> anyhow::Result<()> {
        eprintln!("building the {} with instrumentation", self.daemon.name());
        let status = self.command("build").status().context("start cargo fuzz")?;
        if !status.success() {
            bail!("cargo fuzz build failed ({status})");
        }
        Ok(())
    }

    fn run(&self, target: &str, seconds: u32) -> anyhow::Result<()> {
        let corpus = self.cache.join("corpus").join(target);
        let found = self.cache.join("found").join(target);
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let log = found.join("log");
        let output = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let status = self
            .command("run")
            .arg(&corpus)
            .arg(self.folder.join("seeds").join(target))
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={LONGEST}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-timeout={SLOW}"))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .env("NODEMEND_FUZZ_TARGET", target)
            .stderr(output)
            .status()
            .context("start cargo fuzz")?;
        let text = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
        if !status.success() {
            let input = written(&text).unwrap_or("none was kept");
            bail!(
                "{target}: {}; the input: {input}; all that was said: {}",
                said(&text).unwrap_or("it failed"),
                log.display()
            );
        }
        println!("{target}: {}", done(&text).unwrap_or("done"));
        Ok(())
    }
}

/// `Done 123456 runs in 31 second(s)`
fn done(log: &str) -> Option<&str> {
    log.lines().rev().find(|line| line.starts_with("Done "))
}

/// `artifact_prefix='...'; Test unit written to /path/crash-...`
fn written(log: &str) -> Option<&str> {
    let (_, path) = log.split_once("Test unit written to ")?;
    path.lines().next()
}

/// The line after `thread '<unnamed>' panicked at ...`, or libFuzzer's own word.
fn said(log: &str) -> Option<&str> {
    let mut lines = log.lines();
    let panicked = lines.by_ref().find(|line| line.contains("panicked at"));
    panicked.and_then(|_| lines.next()).or_else(|| {
        log.lines()
            .find_map(|line| line.split_once("ERROR: libFuzzer: ").map(|(_, what)| what))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_of_both_daemons_has_seeds_and_no_other_has() {
        let repo = crate::repo();
        let mut targets: Vec<_> = [Daemon::Detector, Daemon::Repairer]
            .into_iter()
            .flat_map(|daemon| targets(&repo, daemon).unwrap())
            .collect();
        let seeds = fs::read_dir(repo.join("tests/fuzz/seeds")).unwrap();
        let mut folders: Vec<_> = seeds
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        targets.sort();
        folders.sort();
        assert_eq!(targets, folders);
    }

    #[test]
    fn a_failure_is_told_with_its_input() {
        let log = "INFO: seed\n\nthread '<unnamed>' (7) panicked at x.rs:1:2:\nit is too long\nnote: x\n\
            artifact_prefix='/c/'; Test unit written to /c/crash-1\nBase64: eA==\n";
        assert_eq!(said(log), Some("it is too long"));
        assert_eq!(written(log), Some("/c/crash-1"));
        let log = "==1== ERROR: libFuzzer: timeout after 10 seconds\n";
        assert_eq!(said(log), Some("timeout after 10 seconds"));
        assert_eq!(
            done("a\nDone 5 runs in 1 second(s)\n"),
            Some("Done 5 runs in 1 second(s)")
        );
    }
}
