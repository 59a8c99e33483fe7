//! PURE. Log lines as JSON objects: nodemend's own form, and that of `journalctl -o json`.

use std::time::Duration;

use serde_json::{Map, Value};

use super::console;
use super::export::Entry;
use super::saved::SavedLine;
use crate::rules::{Origin, unit_name};

/// None where the object is not such a line.
pub(super) fn read(line: &str, number: u64) -> Option<SavedLine> {
    let Ok(Value::Object(object)) = serde_json::from_str(line) else {
        // A log line may begin with a brace.
        return console::read(line, number);
    };
    if object.contains_key("MESSAGE") {
        return journal(&object, number);
    }
    let string = |key: &str| object.get(key).and_then(Value::as_str);
    let text = string("line")?;
    let at = object
        .get("at")
        .and_then(Value::as_f64)
        .and_then(|at| console::seconds(&at.to_string()));
    match string("source")? {
        "kmsg" => {
            let saved = console::read(text, number)?;
            Some(SavedLine {
                at: at.or(saved.at),
                ..saved
            })
        }
        "journal" => {
            let unit = unit_name(string("unit").unwrap_or_default());
            Some(of(Origin::Journal { unit }, at, text, number))
        }
        "file" => {
            let path = string("path").unwrap_or_default().to_owned();
            Some(of(Origin::File { path }, at, text, number))
        }
        _other => None,
    }
}

fn of(origin: Origin, at: Option<Duration>, text: &str, number: u64) -> SavedLine {
    SavedLine {
        origin,
        also: None,
        facility: 0,
        level: None,
        at,
        text: text.to_owned(),
        number,
    }
}

fn journal(object: &Map<String, Value>, number: u64) -> Option<SavedLine> {
    let mut entry = Entry::default();
    for (name, value) in object {
        match value {
            Value::String(text) => entry.field(name.as_bytes(), text.as_bytes(), number),
            // Bytes that are no UTF-8.
            Value::Array(bytes) => {
                let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
                let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
                entry.field(name.as_bytes(), &bytes, number);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
        }
    }
    entry.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_name_their_source() {
        let read = |line| read(line, 3).unwrap();
        let kernel = read(r#"{"source":"kmsg","line":"2,1,5000000,-;x","at":12.5}"#);
        assert_eq!(kernel.origin, Origin::KernelLog);
        assert_eq!(
            (kernel.level, kernel.at),
            (Some(2), Some(Duration::from_millis(12_500)))
        );
        let journal = read(r#"{"source":"journal","unit":"kubelet","line":"x"}"#);
        let unit = "kubelet.service".to_owned();
        assert_eq!(journal.origin, Origin::Journal { unit });
        let file = read(r#"{"source":"file","path":"/var/log/x.log","line":"x"}"#);
        let path = "/var/log/x.log".to_owned();
        assert_eq!(file.origin, Origin::File { path });
    }

    #[test]
    fn a_line_of_the_journal_as_json_is_read() {
        let line = r#"{"MESSAGE":[120,255],"_TRANSPORT":"kernel","PRIORITY":"2","__MONOTONIC_TIMESTAMP":"7000000"}"#;
        let read = read(line, 3).unwrap();
        assert_eq!(read.origin, Origin::KernelLog);
        assert_eq!(read.text, "x\u{fffd}");
        assert_eq!(read.at, Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_only_looks_like_json_is_the_kernels_text() {
        assert_eq!(read("{oops", 1).unwrap().text, "{oops");
        assert_eq!(read(r#"{"source":"mars","line":"x"}"#, 1), None);
        assert_eq!(read(r#"{"line":1}"#, 1), None);
    }
}
