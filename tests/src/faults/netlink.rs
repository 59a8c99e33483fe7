//! Messages to the kernel's netfilter, as bytes.

/// Header, general part (`struct nfgenmsg`), attributes. `flags` beside `NLM_F_REQUEST`.
pub(super) fn message(kind: u16, flags: u16, general: [u8; 4], attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | 1).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(general);
    message.extend(attributes);
    message
}

/// Length and kind, padded to four bytes.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(super) fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | 0x8000, &parts.concat())
}
