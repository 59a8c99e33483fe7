//! PURE. Reads the kernel's type information (BTF): member offsets, enum values and the arguments
//! of tracepoints. aya exposes type ids only.
//!
//! Every length and index is checked: a cut or strange file is an error, never a panic.

use std::collections::HashMap;

use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum BtfError {
    #[error("BTF is damaged: {0}")]
    Damaged(&'static str),
    #[error("the kernel's BTF has no `{0}`")]
    Absent(String),
}

const MAGIC: u16 = 0xeb9f;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pointer,
    Composite,
    Enum,
    Enum64,
    Typedef,
    /// const, volatile, restrict, type tag: looks through to another type.
    Modifier,
    FunctionPrototype,
    Other,
}

struct Type<'a> {
    name: u32,
    kind: Kind,
    /// Size or id of another type, by kind.
    target: u32,
    bitfields: bool,
    /// The records that follow, `stride` bytes each.
    members: &'a [u8],
}

pub(super) struct Btf<'a> {
    strings: &'a [u8],
    types: Vec<Type<'a>>,
    by_name: HashMap<&'a [u8], Vec<usize>>,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

impl<'a> Btf<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let header = |at| {
            u32_at(bytes, at)
                .map(|v| v as usize)
                .ok_or(BtfError::Damaged("the header is cut"))
        };
        let magic = bytes.get(..2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        if magic != Some(MAGIC) {
            return Err(BtfError::Damaged("wrong magic number"));
        }
        let start = header(4)?;
        let section = |offset: usize, len: usize| {
            let from = start.checked_add(offset)?;
            bytes.get(from..from.checked_add(len)?)
        };
        let type_bytes = section(header(8)?, header(12)?)
            .ok_or(BtfError::Damaged("the types lie outside the file"))?;
        let strings = section(header(16)?, header(20)?)
            .ok_or(BtfError::Damaged("the strings lie outside the file"))?;

        let mut btf = Self {
            strings,
            types: vec![Type::void()],
            by_name: HashMap::new(),
        };
        let mut rest = type_bytes;
        while !rest.is_empty() {
            let (parsed, after) = Type::parse(rest).ok_or(BtfError::Damaged("a type is cut"))?;
            let name = btf.string(parsed.name);
            if !name.is_empty() {
                btf.by_name.entry(name).or_default().push(btf.types.len());
            }
            btf.types.push(parsed);
            rest = after;
        }
        Ok(btf)
    }

    /// Offset in bytes of `path` inside `structure`, looking into anonymous members.
    pub(super) fn offset(&self, structure: &str, path: &[&str]) -> Result<u32, BtfError> {
        let absent = || BtfError::Absent(format!("{structure}.{}", path.join(".")));
        let mut current = self.find(structure, Kind::Composite).ok_or_else(absent)?;
        let mut bits = 0u32;
        for name in path {
            let (offset, target) = self
                .member(current, name.as_bytes(), 0)
                .ok_or_else(absent)?;
            bits = bits.checked_add(offset).ok_or_else(absent)?;
            current = target;
        }
        Ok(bits / 8)
    }

    /// Names and values of an enum, in its order.
    pub(super) fn enum_values(&self, name: &str) -> Result<Vec<(String, u64)>, BtfError> {
        let absent = || BtfError::Absent(format!("enum {name}"));
        let (index, stride) = self
            .find(name, Kind::Enum)
            .map(|index| (index, 8))
            .or_else(|| Some((self.find(name, Kind::Enum64)?, 12)))
            .ok_or_else(absent)?;
        let values = self.types[index]
            .members
            .chunks_exact(stride)
            .map(|member| {
                let name = String::from_utf8_lossy(self.string(u32_at(member, 0).unwrap_or(0)))
                    .into_owned();
                let low = u64::from(u32_at(member, 4).unwrap_or(0));
                let high = u64::from(u32_at(member, 8).unwrap_or(0));
                (name, high << 32 | low)
            });
        Ok(values.collect())
    }

    /// The arguments of a tracepoint: for each the struct that it points to, if it does.
    pub(super) fn tracepoint_arguments(
        &self,
        event: &str,
    ) -> Result<Vec<Option<String>>, BtfError> {
        let name = format!("btf_trace_{event}");
        let absent = || BtfError::Absent(name.clone());
        let typedef = self.find(&name, Kind::Typedef).ok_or_else(absent)?;
        let pointer = self
            .resolve(self.types[typedef].target)
            .ok_or_else(absent)?;
        let prototype = self
            .resolve(self.types[pointer].target)
            .ok_or_else(absent)?;
        if self.types[prototype].kind != Kind::FunctionPrototype {
            return Err(absent());
        }
        // The first parameter is the tracepoint's own data.
        let parameters = self.types[prototype].members.chunks_exact(8).skip(1);
        Ok(parameters
            .map(|parameter| self.pointee(u32_at(parameter, 4)?))
            .collect())
    }

    fn pointee(&self, id: u32) -> Option<String> {
        let pointer = &self.types[self.resolve(id)?];
        if pointer.kind != Kind::Pointer {
            return None;
        }
        let target = &self.types[self.resolve(pointer.target)?];
        (target.kind == Kind::Composite)
            .then(|| String::from_utf8_lossy(self.string(target.name)).into_owned())
    }

    /// Index of a type with modifiers and typedefs looked through. Bounded: ids may form a loop.
    fn resolve(&self, id: u32) -> Option<usize> {
        let mut id = id as usize;
        for _ in 0..32 {
            let found = self.types.get(id)?;
            match found.kind {
                Kind::Modifier | Kind::Typedef => id = found.target as usize,
                Kind::Pointer
                | Kind::Composite
                | Kind::Enum
                | Kind::Enum64
                | Kind::FunctionPrototype
                | Kind::Other => {
                    return Some(id);
                }
            }
        }
        None
    }

    fn find(&self, name: &str, kind: Kind) -> Option<usize> {
        // A forward declaration or a cut copy may share the name: the one with members is meant.
        self.by_name
            .get(name.as_bytes())?
            .iter()
            .copied()
            .filter(|&index| self.types[index].kind == kind)
            .max_by_key(|&index| self.types[index].members.len())
    }

    fn member(&self, composite: usize, name: &[u8], depth: u32) -> Option<(u32, usize)> {
        if depth > 8 {
            return None;
        }
        let composite = &self.types[composite];
        for member in composite.members.chunks_exact(12) {
            let (member_name, id, raw) =
                (u32_at(member, 0)?, u32_at(member, 4)?, u32_at(member, 8)?);
            // With bit fields in the struct the upper eight bits are the size of the field.
            let bits = if composite.bitfields {
                raw & 0x00ff_ffff
            } else {
                raw
            };
            let Some(target) = self.resolve(id) else {
                continue;
            };
            let found = self.string(member_name);
            if found == name {
                return Some((bits, target));
            }
            if found.is_empty()
                && self.types[target].kind == Kind::Composite
                && let Some((inner, target)) = self.member(target, name, depth + 1)
            {
                return Some((bits.checked_add(inner)?, target));
            }
        }
        None
    }

    fn string(&self, offset: u32) -> &'a [u8] {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        tail.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

impl<'a> Type<'a> {
    fn void() -> Self {
        Self {
            name: 0,
            kind: Kind::Other,
            target: 0,
            bitfields: false,
            members: &[],
        }
    }

    fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (name, info, target) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?, u32_at(bytes, 8)?);
        let count = (info & 0xffff) as usize;
        // Numbers of include/uapi/linux/btf.h.
        let (kind, length) = match (info >> 24) & 0x1f {
            1 | 14 | 17 => (Kind::Other, 4),
            2 => (Kind::Pointer, 0),
            3 => (Kind::Other, 12),
            4 | 5 => (Kind::Composite, count * 12),
            6 => (Kind::Enum, count * 8),
            7 | 12 | 16 => (Kind::Other, 0),
            8 => (Kind::Typedef, 0),
            9 | 10 | 11 | 18 => (Kind::Modifier, 0),
            13 => (Kind::FunctionPrototype, count * 8),
            15 => (Kind::Other, count * 12),
            19 => (Kind::Enum64, count * 12),
            // A kind of a later kernel: its length is unknown, so nothing after it can be read.
            _ => return None,
        };
        let members = bytes.get(12..12 + length)?;
        Some((
            Self {
                name,
                kind,
                target,
                bitfields: info >> 31 == 1,
                members,
            },
            &bytes[12 + length..],
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct outer { int pad; union { struct inner *p; }; }`, an enum, and a tracepoint with
    /// `(void *, struct outer *, int)`.
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0pad\0p\0inner\0colour\0RED\0BLUE\0btf_trace_ev\0int\0";
        let at = |name: &str| {
            let needle: Vec<u8> = [name.as_bytes(), b"\0"].concat();
            u32::try_from(
                strings
                    .windows(needle.len())
                    .position(|w| w == needle)
                    .unwrap(),
            )
            .unwrap()
        };
        let mut types = Vec::new();
        let mut push = |words: &[u32]| words.iter().for_each(|w| types.extend(w.to_le_bytes()));
        push(&[at("int"), 1 << 24, 4, 32]); // 1
        push(&[at("inner"), 4 << 24, 0]); // 2
        push(&[0, 2 << 24, 2]); // 3: inner *
        push(&[0, 5 << 24 | 1, 8, at("p"), 3, 0]); // 4: anonymous union
        push(&[at("outer"), 4 << 24 | 2, 16, at("pad"), 1, 0, 0, 4, 64]); // 5
        push(&[at("colour"), 6 << 24 | 2, 4, at("RED"), 3, at("BLUE"), 7]); // 6
        push(&[0, 2 << 24, 0]); // 7: void *
        push(&[0, 2 << 24, 5]); // 8: outer *
        push(&[0, 13 << 24 | 3, 0, 0, 7, 0, 8, 0, 1]); // 9: prototype
        push(&[0, 2 << 24, 9]); // 10
        push(&[at("btf_trace_ev"), 8 << 24, 10]); // 11
        let mut file = Vec::new();
        file.extend(MAGIC.to_le_bytes());
        file.extend([1, 0]);
        let (types_len, strings_len) = (
            u32::try_from(types.len()).unwrap(),
            u32::try_from(strings.len()).unwrap(),
        );
        for word in [24, 0, types_len, types_len, strings_len] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend(types);
        file.extend(strings);
        file
    }

    #[test]
    fn finds_a_member_of_an_anonymous_union() {
        let file = sample();
        let btf = Btf::parse(&file).unwrap();
        assert_eq!(btf.offset("outer", &["p"]), Ok(8));
        assert_eq!(
            btf.offset("outer", &["q"]),
            Err(BtfError::Absent("outer.q".to_owned()))
        );
    }

    #[test]
    fn reads_enums_and_tracepoint_arguments() {
        let file = sample();
        let btf = Btf::parse(&file).unwrap();
        assert_eq!(
            btf.enum_values("colour").unwrap(),
            [("RED".to_owned(), 3), ("BLUE".to_owned(), 7)]
        );
        assert_eq!(
            btf.tracepoint_arguments("ev").unwrap(),
            [Some("outer".to_owned()), None]
        );
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(cut in 0usize..400, flips in prop::collection::vec((0usize..400, any::<u8>()), 0..20)) {
            let mut file = sample();
            for (at, value) in flips {
                if let Some(byte) = file.get_mut(at) {
                    *byte = value;
                }
            }
            file.truncate(cut);
            if let Ok(btf) = Btf::parse(&file) {
                let _ = (btf.offset("outer", &["p"]), btf.enum_values("colour"), btf.tracepoint_arguments("ev"));
            }
        }
    }
}
