//! Until when kubelet's certificates are good: it renews them long before, or cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use x509_cert::Certificate;
use x509_cert::der::DecodePem;

use super::asked::Asked;
use super::files::Files;
use super::{Counter, told};
use crate::clock;
use crate::reason::Reason;
use crate::signal::{LogFault, What};
use crate::source::within;

const FOLDER: &str = "root/var/lib/kubelet/pki/";
/// Looks between two readings.
const EVERY: u32 = 20;
/// Of a client and of a server; each holds its key as well, which is not looked at.
const FILES: [&str; 2] = ["kubelet-client-current.pem", "kubelet-server-current.pem"];
const LARGEST: u64 = 64 << 10;
/// Of its lifetime, in hundredths.
const LITTLE: i64 = 5;

/// From when and until when, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity {
    from: i64,
    until: i64,
}

/// By file; those that are not there are left out.
type Found = BTreeMap<&'static str, Validity>;

pub(super) struct KubeletCertificate {
    proc: PathBuf,
    disk: Option<Asked<Result<Found, String>>>,
    judge: Judge,
}

/// Those that were told; all at the start, for what an agent before this one told.
struct Judge(BTreeSet<&'static str>);

impl KubeletCertificate {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self {
            proc,
            disk: None,
            judge: Judge(FILES.into()),
        }
    }
}

impl Counter for KubeletCertificate {
    fn name(&self) -> &'static str {
        "kubelet-certificate"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[FOLDER]
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.disk.as_ref())
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        if !files.any() {
            return self.judge.look(&Found::new(), clock::now().wall);
        }
        let disk = Asked::started(&mut self.disk, "kubelet-certificate", || {
            let root = self.proc.join("1/root");
            move || read(&root)
        });
        let found = disk.and_then(|disk| disk.take_well_each(EVERY, "a certificate of kubelet"));
        found.map_or_else(Vec::new, |found| self.judge.look(&found, clock::now().wall))
    }
}

impl Judge {
    fn look(&mut self, found: &Found, now: Timestamp) -> Vec<What> {
        let now = now.as_second();
        let mut told = Vec::new();
        for name in FILES {
            let fault = |message| {
                LogFault::new(Reason::KubeletCertificateExpired, name.to_owned(), message)
            };
            let old = found.get(name).filter(|validity| validity.is_old(now));
            if let Some(validity) = old {
                let until = Timestamp::from_second(validity.until).unwrap_or_default();
                let message = if validity.until <= now {
                    format!("{name} of kubelet has expired at {until}")
                } else {
                    format!("{name} of kubelet has not been renewed, and expires at {until}")
                };
                self.0.insert(name);
                told.push(told::still(fault(message)));
            } else if self.0.remove(name) {
                told.push(told::over(fault(format!("{name} of kubelet is good"))));
            }
        }
        told
    }
}

impl Validity {
    fn is_old(self, now: i64) -> bool {
        let lifetime = self.until.saturating_sub(self.from).max(0);
        self.until.saturating_sub(now) < lifetime / 100 * LITTLE
    }
}

/// kubelet's links name whole paths of the host.
fn read(root: &Path) -> Result<Found, String> {
    let root = within::root(root).map_err(|error| format!("{error:#}"))?;
    let mut found = Found::new();
    for name in FILES {
        let path = format!("/var/lib/kubelet/pki/{name}");
        let file = within::open_file(&root, &path).map_err(|error| format!("{path}: {error}"))?;
        let Some(file) = file else {
            continue;
        };
        let mut pem = Vec::new();
        file.take(LARGEST)
            .read_to_end(&mut pem)
            .map_err(|error| format!("{path}: {error}"))?;
        let validity = validity(&pem).map_err(|error| format!("{path}: {error}"))?;
        found.insert(name, validity);
    }
    Ok(found)
}

/// Of the first certificate: kubelet puts its own before those that signed it.
fn validity(pem: &[u8]) -> Result<Validity, String> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|part| part == what);
    let begin = find(pem, BEGIN).ok_or("no certificate is in it")?;
    let rest = &pem[begin..];
    let end = find(rest, END).ok_or("its certificate is cut off")?;
    let certificate = Certificate::from_pem(&rest[..end + END.len()]);
    let certificate = certificate.map_err(|error| format!("its certificate: {error}"))?;
    let seconds = |time: x509_cert::time::Time| {
        i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
    };
    let validity = certificate.tbs_certificate.validity;
    Ok(Validity {
        from: seconds(validity.not_before),
        until: seconds(validity.not_after),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::signal::Counted;

    const DAY: i64 = 86_400;

    fn now(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// Good for 100 days.
    fn good() -> Validity {
        Validity {
            from: 0,
            until: 100 * DAY,
        }
    }

    fn look(judge: &mut Judge, found: &Found, day: i64) -> Vec<(String, Counted)> {
        let told = judge.look(found, now(day * DAY)).into_iter();
        let told = told.map(|what| match what {
            What::Counted { fault, counted } => (fault.entity, counted),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    #[test]
    fn a_certificate_that_is_not_renewed_is_told_until_it_is() {
        let found = Found::from([(FILES[0], good())]);
        let mut judge = Judge(BTreeSet::new());
        assert_eq!(look(&mut judge, &found, 95), []);
        let still = [(FILES[0].to_owned(), Counted::Still)];
        assert_eq!(look(&mut judge, &found, 96), still);
        assert_eq!(look(&mut judge, &found, 101), still);
        let renewed = Found::from([(
            FILES[0],
            Validity {
                from: 100 * DAY,
                until: 200 * DAY,
            },
        )]);
        let over = [(FILES[0].to_owned(), Counted::Over)];
        assert_eq!(look(&mut judge, &renewed, 101), over);
        assert_eq!(look(&mut judge, &renewed, 102), []);
    }

    #[test]
    fn a_certificate_that_is_not_there_is_none_that_has_expired() {
        let mut judge = Judge(FILES.into());
        let over: Vec<_> = FILES.map(|name| (name.to_owned(), Counted::Over)).into();
        assert_eq!(look(&mut judge, &Found::new(), 0), over);
        assert_eq!(look(&mut judge, &Found::new(), 500), []);
    }

    #[test]
    fn a_real_certificate_is_read_through_a_link_of_the_host_and_beside_its_key() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("var/lib/kubelet/pki");
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(["n".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let both = key.serialize_pem() + &certificate;
        fs::write(folder.join("kubelet-client-2026.pem"), both).unwrap();
        symlink(
            "/var/lib/kubelet/pki/kubelet-client-2026.pem",
            folder.join(FILES[0]),
        )
        .unwrap();
        let second = |text: &str| text.parse::<Timestamp>().unwrap().as_second();
        let validity = Validity {
            from: second("2026-01-01T00:00:00Z"),
            until: second("2027-01-01T00:00:00Z"),
        };
        assert_eq!(read(root.path()), Ok(Found::from([(FILES[0], validity)])));
        for broken in [
            "",
            "-----BEGIN CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(folder.join(FILES[1]), broken).unwrap();
            let error = read(root.path()).unwrap_err();
            assert!(error.contains(FILES[1]), "{error}");
        }
    }
}
