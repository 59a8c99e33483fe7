//! What kube-proxy's pods write of resources that the API server does not have.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::Files;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;
use crate::text;

const PODS: &str = "pods/*_kube-proxy-*/kube-proxy/";
/// Of one file between two looks; what is before that is left out.
const MOST_READ: u64 = 256 << 10;
const MOST_FILES: usize = 16;

pub(super) struct KubeProxy {
    pods: PathBuf,
    /// How far each file has been read, by device and inode: a rotated one keeps its own.
    read: BTreeMap<(u64, u64), u64>,
    /// What was there at the first look is of before the agent's start.
    started: bool,
}

impl KubeProxy {
    pub(super) fn new(pods: PathBuf) -> Self {
        Self {
            pods,
            read: BTreeMap::new(),
            started: false,
        }
    }
}

impl Counter for KubeProxy {
    fn name(&self) -> &'static str {
        "kube-proxy-log"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[PODS]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let mut read = BTreeMap::new();
        let mut found = Vec::new();
        for names in files.all(PODS).files.keys() {
            let Some(pod) = names.first() else {
                continue;
            };
            let folder = self.pods.join(pod).join("kube-proxy");
            for path in logs(&folder) {
                // Gone by now, or not to be read: the next look says.
                let Ok((identity, offset, lines)) = self.new_lines(&path) else {
                    continue;
                };
                read.insert(identity, offset);
                let told: Vec<&str> = lines.lines().filter(|line| is_missing(line)).collect();
                if let Some(last) = told.last() {
                    let message = text::part(last, 256);
                    let fault = told::fault(Reason::KubeProxyNotReady, "kube-proxy", message);
                    found.push(told::times(fault, told.len() as u64));
                }
            }
        }
        self.read = read;
        self.started = true;
        found
    }
}

impl KubeProxy {
    /// Whole lines that are new.
    fn new_lines(&self, path: &Path) -> io::Result<((u64, u64), u64, String)> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        let end = metadata.len();
        let before = self.read.get(&identity).copied();
        let before = before.unwrap_or(if self.started { 0 } else { end });
        // Shorter than it was: it was cut, and begins anew.
        let begin = if before > end { 0 } else { before };
        let begin = begin.max(end.saturating_sub(MOST_READ));
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::new();
        file.take(end - begin).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(whole.map_or(0, |last| last + 1));
        let offset = begin + bytes.len() as u64;
        Ok((
            identity,
            offset,
            String::from_utf8_lossy(&bytes).into_owned(),
        ))
    }
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let logs = paths.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.take(MOST_FILES).collect()
}

/// `Failed to watch *v1.X: failed to list *v1.X: the server could not find the requested resource`, and
/// since client-go 0.34 `"Failed to watch" err="failed to list *v1.X: ..."`.
fn is_missing(line: &str) -> bool {
    line.split_once("Failed to watch").is_some_and(|(_, rest)| {
        rest.contains("failed to list ")
            && rest.contains("the server could not find the requested resource")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    const OLD: &str = "2026-01-01T00:00:00Z stderr F W0101 reflector.go:539] informers/factory.go:160: Failed to watch *v1.EndpointSlice: failed to list *v1.EndpointSlice: the server could not find the requested resource\n";
    const NEW: &str = "2026-01-01T00:00:00Z stderr F E0101 reflector.go:205] \"Failed to watch\" err=\"failed to list *v1.ServiceCIDR: the server could not find the requested resource\" type=\"*v1.ServiceCIDR\"\n";
    const OTHER: &str = "2026-01-01T00:00:00Z stderr F I0101 proxier.go:1] \"Failed to watch\" err=\"connection refused\"\n";
    const POD: &str = "kube-system_kube-proxy-x_uid";

    fn look(counter: &mut KubeProxy) -> u64 {
        let files = Files::of(&[(PODS, &[POD], "")]);
        let found = summary(&counter.look(&files, Duration::ZERO));
        found.iter().map(|(_, _, count)| count).sum()
    }

    #[test]
    fn both_wordings_are_counted_once_each_and_only_what_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join(POD).join("kube-proxy");
        fs::create_dir_all(&logs).unwrap();
        let log = logs.join("0.log");
        fs::write(&log, OLD).unwrap();
        let mut counter = KubeProxy::new(folder.path().to_owned());
        assert_eq!(look(&mut counter), 0, "of before the start");
        let text = [OLD, OLD, NEW, OTHER, "cut off: Failed to watch"].concat();
        fs::write(&log, &text).unwrap();
        assert_eq!(look(&mut counter), 2);
        assert_eq!(look(&mut counter), 0);
        // Rotated, and a new one begun.
        fs::rename(&log, logs.join("0.log.20260101")).unwrap();
        fs::write(&log, NEW).unwrap();
        assert_eq!(look(&mut counter), 1);
        // Cut.
        fs::write(&log, "").unwrap();
        assert_eq!(look(&mut counter), 0);
        fs::write(&log, OLD).unwrap();
        assert_eq!(look(&mut counter), 1);
    }

    #[test]
    fn of_a_gigabyte_only_the_end_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join(POD).join("kube-proxy");
        fs::create_dir_all(&logs).unwrap();
        let mut counter = KubeProxy::new(folder.path().to_owned());
        assert_eq!(look(&mut counter), 0);
        let log = File::create(logs.join("0.log")).unwrap();
        log.set_len(1 << 30).unwrap();
        drop(log);
        let before = fs::OpenOptions::new().append(true).open(logs.join("0.log"));
        io::Write::write_all(&mut before.unwrap(), format!("\n{NEW}").as_bytes()).unwrap();
        assert_eq!(look(&mut counter), 1);
    }
}
