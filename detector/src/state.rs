//! PURE. What an agent leaves for the next one in the same boot, and how that is read: by the next
//! release and by the previous one, so what one does not know it leaves out.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::finding::{Change, Now, Subject};
use crate::reason::Severity;
use crate::signal::{GpuState, Workload};

pub(crate) mod file;

/// Raised when an older agent would misread what is written; fields may come without it.
const FORMAT: u32 = 1;
/// More is no state of ours.
const SIZE_LIMIT: usize = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    pub format: u32,
    pub version: String,
    pub boot_id: String,
    /// When this was so.
    pub saved: SavedTime,
    /// Since when an agent has been watching in this boot: what is older is historic.
    pub first_start: Duration,
    /// Where each source has read to.
    pub positions: BTreeMap<String, u64>,
    pub findings: Vec<SavedFinding>,
    pub openings: Vec<SavedOpenings>,
    pub below_threshold: Vec<SavedFaults>,
    /// Devices that are said to be read-only.
    pub suspects: Vec<String>,
    pub gpus: BTreeMap<String, GpuState>,
    /// What systemd said last of its services' restarts.
    pub restarts: Option<SavedRestarts>,
    pub conditions: Vec<SavedCondition>,
    /// What the API server has not been told yet.
    pub untold: Vec<SavedTransition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedTime {
    pub boot: Duration,
    pub wall: Timestamp,
}

/// Reasons are kept by their names: another release has others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedFinding {
    pub reason: String,
    pub entity: String,
    pub seen: Severity,
    pub message: String,
    pub subject: SavedSubject,
    pub count: u64,
    pub flaps: usize,
    pub opened: SavedTime,
    pub last_seen: Duration,
    pub announced: Duration,
    pub announced_count: u64,
    #[serde(default)]
    pub historic: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedSubject {
    #[serde(flatten)]
    pub subject: Subject,
    #[serde(default)]
    pub workload: Option<Workload>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedOpenings {
    pub reason: String,
    pub entity: String,
    pub at: Vec<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedFaults {
    pub reason: String,
    pub entity: String,
    pub at: Vec<(Duration, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedRestarts {
    pub first: Duration,
    pub at: Duration,
    pub units: BTreeMap<String, u64>,
    /// What the journal has told of since.
    pub lines: BTreeMap<String, Vec<Duration>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedCondition {
    pub kind: String,
    pub healthy: bool,
    pub transition: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedTransition {
    pub change: Change,
    pub finding: SavedFinding,
    pub fault: Duration,
    pub found: SavedTime,
}

/// What was read, and how many of its parts this release does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub state: State,
    pub left_out: usize,
}

impl State {
    pub(crate) fn new(boot_id: String, now: Now, first_start: Duration) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id,
            saved: now.into(),
            first_start,
            positions: BTreeMap::new(),
            findings: Vec::new(),
            openings: Vec::new(),
            below_threshold: Vec::new(),
            suspects: Vec::new(),
            gpus: BTreeMap::new(),
            restarts: None,
            conditions: Vec::new(),
            untold: Vec::new(),
        }
    }

    /// None: it is from another boot.
    pub(crate) fn parse(bytes: &[u8], boot_id: &str) -> anyhow::Result<Option<Read>> {
        ensure!(bytes.len() <= SIZE_LIMIT, "it has {} bytes", bytes.len());
        let mut fields: BTreeMap<String, Value> =
            serde_json::from_slice(bytes).context("it is not a JSON object")?;
        let format: u32 = required(&mut fields, "format")?;
        ensure!(
            format <= FORMAT,
            "its format {format} is newer than this release's {FORMAT}"
        );
        let written_in: String = required(&mut fields, "bootId")?;
        if written_in != boot_id {
            return Ok(None);
        }
        let mut left_out = 0;
        let state = Self {
            format,
            version: required(&mut fields, "version")?,
            boot_id: written_in,
            saved: required(&mut fields, "saved")?,
            first_start: required(&mut fields, "firstStart")?,
            positions: optional(&mut fields, "positions")?,
            findings: known(&mut fields, "findings", &mut left_out)?,
            openings: known(&mut fields, "openings", &mut left_out)?,
            below_threshold: known(&mut fields, "belowThreshold", &mut left_out)?,
            suspects: known(&mut fields, "suspects", &mut left_out)?,
            gpus: known_by_name(&mut fields, "gpus", &mut left_out)?,
            restarts: optional(&mut fields, "restarts")?,
            conditions: known(&mut fields, "conditions", &mut left_out)?,
            untold: known(&mut fields, "untold", &mut left_out)?,
        };
        Ok(Some(Read { state, left_out }))
    }
}

fn required<T: DeserializeOwned>(
    fields: &mut BTreeMap<String, Value>,
    name: &str,
) -> anyhow::Result<T> {
    let value = fields
        .remove(name)
        .with_context(|| format!("it has no field `{name}`"))?;
    serde_json::from_value(value).with_context(|| format!("its field `{name}` is malformed"))
}

fn optional<T: DeserializeOwned + Default>(
    fields: &mut BTreeMap<String, Value>,
    name: &str,
) -> anyhow::Result<T> {
    let value = fields.remove(name).map(serde_json::from_value).transpose();
    let value = value.with_context(|| format!("its field `{name}` is malformed"))?;
    Ok(value.unwrap_or_default())
}

/// The elements of a list that this release knows.
fn known<T: DeserializeOwned>(
    fields: &mut BTreeMap<String, Value>,
    name: &str,
    left_out: &mut usize,
) -> anyhow::Result<Vec<T>> {
    let elements: Vec<Value> = optional(fields, name)?;
    let mut read = Vec::with_capacity(elements.len());
    for element in elements {
        match serde_json::from_value(element) {
            Ok(element) => read.push(element),
            Err(_of_another_release) => *left_out += 1,
        }
    }
    Ok(read)
}

/// The same of a map.
fn known_by_name<T: DeserializeOwned>(
    fields: &mut BTreeMap<String, Value>,
    name: &str,
    left_out: &mut usize,
) -> anyhow::Result<BTreeMap<String, T>> {
    let elements: BTreeMap<String, Value> = optional(fields, name)?;
    let mut read = BTreeMap::new();
    for (name, element) in elements {
        match serde_json::from_value(element) {
            Ok(element) => drop(read.insert(name, element)),
            Err(_of_another_release) => *left_out += 1,
        }
    }
    Ok(read)
}

impl From<Now> for SavedTime {
    fn from(now: Now) -> Self {
        Self {
            boot: now.boot,
            wall: now.wall,
        }
    }
}

impl From<SavedTime> for Now {
    fn from(saved: SavedTime) -> Self {
        Self {
            boot: saved.boot,
            wall: saved.wall,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const BOOT: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";

    fn state() -> State {
        let now = Now {
            boot: Duration::from_secs(90),
            wall: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        };
        let mut state = State::new(BOOT.to_owned(), now, Duration::from_secs(7));
        state.positions.insert("kernelLog".to_owned(), 4711);
        state.findings.push(SavedFinding {
            reason: "OOMKilling".to_owned(),
            entity: "pid 7".to_owned(),
            seen: Severity::Warning,
            message: "m".to_owned(),
            subject: SavedSubject {
                subject: Subject {
                    pid: Some(7),
                    ..Subject::default()
                },
                workload: Some(Workload {
                    cgroup: "c".to_owned(),
                    ..Workload::default()
                }),
            },
            count: 3,
            flaps: 1,
            opened: now.into(),
            last_seen: now.boot,
            announced: now.boot,
            announced_count: 1,
            historic: false,
        });
        state
    }

    fn read(value: &Value) -> anyhow::Result<Option<Read>> {
        State::parse(value.to_string().as_bytes(), BOOT)
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let read = read(&serde_json::to_value(state()).unwrap()).unwrap();
        assert_eq!(
            read,
            Some(Read {
                state: state(),
                left_out: 0
            })
        );
    }

    #[test]
    fn fields_and_elements_of_another_release_are_left_out_and_counted() {
        let mut value = serde_json::to_value(state()).unwrap();
        value["tomorrow"] = json!({"x": 1});
        value["findings"][0]["tomorrow"] = json!(2);
        value["findings"]
            .as_array_mut()
            .unwrap()
            .push(json!({"seen": "Catastrophic"}));
        value["gpus"]["0000:00:1e.0"] = json!({"recovery": "Tomorrow"});
        let Read {
            state: found,
            left_out,
        } = read(&value).unwrap().unwrap();
        assert_eq!((found, left_out), (state(), 2));
    }

    /// So that an upgrade forgets nothing, and a rollback neither.
    #[test]
    fn what_the_first_release_wrote_is_read_whole_and_still_written() {
        let first: Value = serde_json::from_str(include_str!("state/first_release.json")).unwrap();
        let Read { state, left_out } = read(&first).unwrap().unwrap();
        assert_eq!(left_out, 0);
        let mut missing = Vec::new();
        differences(
            "",
            &first,
            &serde_json::to_value(&state).unwrap(),
            &mut missing,
        );
        assert_eq!(missing, Vec::<String>::new());
    }

    /// What is in `first` and not the same in `now`; more may be there.
    fn differences(path: &str, first: &Value, now: &Value, found: &mut Vec<String>) {
        match (first, now) {
            (Value::Object(first), Value::Object(now)) => {
                for (name, value) in first {
                    let now = now.get(name).unwrap_or(&Value::Null);
                    differences(&format!("{path}/{name}"), value, now, found);
                }
            }
            (Value::Array(first), Value::Array(now)) if first.len() == now.len() => {
                for (index, (first, now)) in first.iter().zip(now).enumerate() {
                    differences(&format!("{path}/{index}"), first, now, found);
                }
            }
            (first, now) if first == now => {}
            (first, now) => found.push(format!("{path} was {first} and is {now}")),
        }
    }

    #[test]
    fn a_list_that_the_previous_release_did_not_have_is_empty() {
        let mut value = serde_json::to_value(state()).unwrap();
        value.as_object_mut().unwrap().remove("belowThreshold");
        assert_eq!(read(&value).unwrap().unwrap().state, state());
    }

    #[test]
    fn a_state_of_another_boot_is_none() {
        let bytes = serde_json::to_vec(&state()).unwrap();
        assert_eq!(State::parse(&bytes, "another").unwrap(), None);
    }

    #[test]
    fn a_damaged_state_names_what_is_wrong() {
        let mut value = serde_json::to_value(state()).unwrap();
        value["saved"] = json!("yesterday");
        let error = |value: &Value| format!("{:#}", read(value).unwrap_err());
        assert!(error(&value).contains("field `saved`"), "{}", error(&value));
        value.as_object_mut().unwrap().remove("saved");
        assert!(
            error(&value).contains("no field `saved`"),
            "{}",
            error(&value)
        );
        value["format"] = json!(2);
        assert!(error(&value).contains("newer"), "{}", error(&value));
    }

    proptest! {
        #[test]
        fn a_state_that_was_cut_or_changed_anywhere_is_an_error_or_a_state(
            place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut bytes = serde_json::to_vec(&state()).unwrap();
            let place = place.index(bytes.len());
            if cut { bytes.truncate(place) } else { bytes[place] = byte }
            let _ = State::parse(&bytes, BOOT);
        }
    }
}
