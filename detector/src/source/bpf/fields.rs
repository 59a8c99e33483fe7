//! PURE. The record of a tracepoint, read by the layout that tracefs gives: total over any bytes.

use std::collections::HashMap;

use thiserror::Error;

use crate::text;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub offset: u32,
    pub size: u32,
    /// A location inside the record instead of the bytes themselves.
    pub dynamic: bool,
}

/// The `format` file of an event.
#[derive(Debug, Default)]
pub(super) struct Format {
    fields: HashMap<String, Field>,
    /// What the kernel calls the values of a field (`__print_symbolic`).
    symbols: HashMap<String, HashMap<u64, String>>,
}

impl Format {
    /// `field:__data_loc char[] comm; offset:8; size:4; signed:0;` for each field, then
    /// `print fmt: "...", __print_symbolic(REC->type, { 0, "reserved kernel page" }, ...)`.
    pub(super) fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(field).collect();
        let symbols = text
            .split("__print_symbolic(REC->")
            .skip(1)
            .filter_map(|rest| {
                let (name, rest) = rest.split_once(',')?;
                Some((name.to_owned(), symbols(rest)))
            })
            .collect();
        Self { fields, symbols }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub(super) fn field(&self, name: &str) -> Option<Field> {
        self.fields.get(name).copied()
    }
}

fn field(line: &str) -> Option<(String, Field)> {
    let mut parts = line.trim().split(';').map(str::trim);
    let declaration = parts.next()?.strip_prefix("field:")?;
    let offset = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
    let size = parts.next()?.strip_prefix("size:")?.parse().ok()?;
    let name = declaration.rsplit([' ', '*']).next()?;
    let name = name.split('[').next()?.to_owned();
    let dynamic = declaration.starts_with("__data_loc");
    let field = Field {
        offset,
        size,
        dynamic,
    };
    Some((name, field))
}

/// `{ 0, "reserved kernel page" }, { 1, "x" })`, up to the bracket that ends the call.
fn symbols(mut rest: &str) -> HashMap<u64, String> {
    let mut found = HashMap::new();
    while let Some(group) = rest.trim_start_matches([',', ' ']).strip_prefix('{') {
        let Some((pair, after)) = group.split_once('}') else {
            break;
        };
        if let Some((value, name)) = pair.split_once(',')
            && let Ok(value) = value.trim().parse()
        {
            found.insert(value, name.trim().trim_matches('"').to_owned());
        }
        rest = after;
    }
    found
}

/// A record that the layout does not fit.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("its field `{0}` lies outside the record or is not there")]
pub(super) struct Unreadable(pub(super) &'static str);

/// One record of an event.
pub(super) struct Values<'a> {
    pub format: &'a Format,
    pub data: &'a [u8],
}

impl Values<'_> {
    fn bytes(&self, name: &'static str) -> Result<&[u8], Unreadable> {
        let cut = |offset: usize, size: usize| self.data.get(offset..offset.checked_add(size)?);
        let field = self.format.field(name).ok_or(Unreadable(name))?;
        let bytes = cut(field.offset as usize, field.size as usize);
        let bytes = if field.dynamic {
            // The low half is the offset from the record's start, the high half the length.
            bytes
                .and_then(|location| location.try_into().ok())
                .map(u32::from_ne_bytes)
                .and_then(|location| cut((location & 0xffff) as usize, (location >> 16) as usize))
        } else {
            bytes
        };
        bytes.ok_or(Unreadable(name))
    }

    /// Without its sign.
    pub(super) fn number(&self, name: &'static str) -> Result<u64, Unreadable> {
        let bytes = self.bytes(name)?;
        let mut whole = [0; 8];
        whole
            .get_mut(..bytes.len())
            .ok_or(Unreadable(name))?
            .copy_from_slice(bytes);
        if cfg!(target_endian = "big") {
            whole.rotate_left(bytes.len() % 8);
        }
        Ok(u64::from_ne_bytes(whole))
    }

    /// The low 32 bits of it.
    #[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
    pub(super) fn word(&self, name: &'static str) -> Result<u32, Unreadable> {
        self.number(name).map(|number| number as u32)
    }

    /// Up to the first NUL.
    pub(super) fn text(&self, name: &'static str) -> Result<String, Unreadable> {
        let bytes = self.bytes(name)?;
        let end = bytes.iter().position(|&byte| byte == 0);
        Ok(text::part(&bytes[..end.unwrap_or(bytes.len())], 120))
    }

    /// Major and minor number; the kernel's own `dev_t` has 20 bits of minor.
    pub(super) fn device(&self, name: &'static str) -> Result<(u32, u32), Unreadable> {
        let number = self.word(name)?;
        Ok((number >> 20, number & 0xf_ffff))
    }

    /// What the kernel calls the field's value.
    pub(super) fn symbol(&self, name: &'static str) -> Result<String, Unreadable> {
        let value = self.number(name)?;
        let known = self.format.symbols.get(name).and_then(|of| of.get(&value));
        Ok(known.cloned().unwrap_or_else(|| format!("{value}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMAT: &str = "name: memory_failure_event\nID: 1\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:__data_loc char[] comm;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:char rwbs[10];\toffset:34;\tsize:10;\tsigned:0;\n\
        \tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;\n\
        \tfield:const char * function;\toffset:16;\tsize:8;\tsigned:0;\n\n\
        print fmt: \"%s %s\", __print_symbolic(REC->pid, { 0, \"reserved kernel page\" }, { 7, \"clean, LRU\" }), \
        __print_symbolic(REC->function, { 3, \"Recovered\" })\n";

    #[test]
    fn fields_lie_in_place_or_elsewhere() {
        let format = Format::parse(FORMAT);
        let field = |offset, size, dynamic| {
            Some(Field {
                offset,
                size,
                dynamic,
            })
        };
        assert_eq!(format.field("comm"), field(8, 4, true));
        assert_eq!(format.field("rwbs"), field(34, 10, false));
        assert_eq!(format.field("pid"), field(12, 4, false));
        assert_eq!(format.field("function"), field(16, 8, false));
        assert_eq!(format.field("absent"), None);
    }

    #[test]
    fn an_empty_or_strange_format_has_no_field() {
        for text in [
            "",
            "field:;offset:x;\nfield",
            "field:int x;offset:8;",
            "__print_symbolic(REC->x",
            "__print_symbolic(REC->x, { 1",
        ] {
            assert!(Format::parse(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn values_have_the_kernels_names() {
        let format = Format::parse(FORMAT);
        let mut data = [0; 64];
        data[8..12].copy_from_slice(&(44_u32 | 5 << 16).to_ne_bytes());
        data[12] = 7;
        data[16] = 9;
        data[44..49].copy_from_slice(b"a;b\0c");
        let values = Values {
            format: &format,
            data: &data,
        };
        assert_eq!(values.text("comm"), Ok("a,b".to_owned()));
        assert_eq!(values.number("pid"), Ok(7));
        assert_eq!(values.symbol("pid"), Ok("clean, LRU".to_owned()));
        assert_eq!(values.symbol("function"), Ok("9".to_owned()));
        assert_eq!(values.number("x"), Err(Unreadable("x")));
        assert_eq!(values.number("rwbs"), Err(Unreadable("rwbs")));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(text in ".{0,400}", data in prop::collection::vec(any::<u8>(), 0..80)) {
            Format::parse(&text);
            let format = Format::parse(FORMAT);
            let values = Values { format: &format, data: &data };
            for name in ["comm", "rwbs", "pid", "function"] {
                let _ = values.number(name);
                if let Ok(text) = values.text(name) {
                    prop_assert!(text.len() <= 120);
                }
            }
        }
    }
}
