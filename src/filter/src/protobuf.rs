//! As much of protobuf's wire format as the filter meets: reading fields, writing byte fields.
//! Whatever cannot be read reads as `None`.

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// A varint: numbers, booleans, enums.
    Number(u64),
    /// Eight bytes: a double.
    Fixed64([u8; 8]),
    /// Four bytes.
    Fixed32,
    /// Bytes, a string or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message in order; `None` when any of them cannot be read.
pub(crate) fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Content<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (tag, rest) = varint(bytes)?;
        let (content, rest) = match tag & 7 {
            0 => varint(rest).map(|(number, rest)| (Content::Number(number), rest))?,
            1 => {
                let (eight, rest) = rest.split_first_chunk::<8>()?;
                (Content::Fixed64(*eight), rest)
            }
            2 => {
                let (size, rest) = varint(rest)?;
                let (bytes, rest) = rest.split_at_checked(usize::try_from(size).ok()?)?;
                (Content::Bytes(bytes), rest)
            }
            5 => (Content::Fixed32, rest.get(4..)?),
            _ => return None,
        };
        found.push((tag >> 3, content));
        bytes = rest;
    }
    Some(found)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in (0_u32..).zip(bytes.iter().take(10)) {
        value |= u64::from(byte & 0x7f).checked_shl(index * 7)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index as usize + 1..)?));
        }
    }
    None
}

/// A message of byte fields numbered from 1.
pub(crate) fn message(contents: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(contents.iter().map(|bytes| bytes.len() + 12).sum());
    for (number, bytes) in (1_u64..).zip(contents) {
        write_varint(&mut out, number << 3 | 2);
        write_varint(&mut out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
    out
}

fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let long = [7_u8; 200];
        let bytes = message(&[b"sha256", b"", &long]);
        assert!(bytes.starts_with(b"\x0a\x06sha256\x12\x00\x1a\xc8\x01"));
        let expected = vec![
            (1, Content::Bytes(b"sha256")),
            (2, Content::Bytes(b"")),
            (3, Content::Bytes(&long)),
        ];
        assert_eq!(fields(&bytes), Some(expected));
    }

    #[test]
    fn every_wire_type_is_read_and_nothing_else() {
        let bytes = [8, 0x96, 1, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x1d, 1, 2, 3, 4];
        let expected = vec![
            (1, Content::Number(150)),
            (2, Content::Fixed64([1, 2, 3, 4, 5, 6, 7, 8])),
            (3, Content::Fixed32),
        ];
        assert_eq!(fields(&bytes), Some(expected));
        for cut in [1, 2, 4, 9, 13, 16] {
            assert_eq!(fields(&bytes[..cut]), None, "{cut}");
        }
        for broken in [&[3][..], &[0xff; 12], &[10, 9], &[10, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert_eq!(fields(broken), None, "{broken:?}");
        }
    }
}
