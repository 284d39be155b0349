//! The layout of every box (ISO/IEC 14496-12, 4.2): size, kind, body; and the few field types that bodies share.

use alloc::format;
use alloc::vec::Vec;

use crate::error::{MediaError, dump};

/// Appends a box whose body `write` appends.
pub(super) fn put(out: &mut Vec<u8>, kind: &[u8; 4], write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    write(out);
    let size = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a box that begins with a version and 24 flags (4.2, FullBox).
pub(super) fn put_full(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, flags: u32, write: impl FnOnce(&mut Vec<u8>)) {
    put(out, kind, |out| {
        u32_(out, u32::from(version) << 24 | flags & 0xff_ffff);
        write(out);
    });
}

/// Appends a box of somebody's own (4.2, `uuid`): whoever does not know the type passes over it.
pub fn put_uuid(out: &mut Vec<u8>, uuid: &[u8; 16], body: &[u8]) {
    put(out, b"uuid", |out| {
        out.extend_from_slice(uuid);
        out.extend_from_slice(body);
    });
}

pub(super) fn u8_(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

pub(super) fn u16_(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn u32_(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn u64_(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn i32_(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn zeros(out: &mut Vec<u8>, count: usize) {
    out.resize(out.len() + count, 0);
}

/// The unity matrix of `mvhd` and `tkhd`.
pub(super) fn matrix(out: &mut Vec<u8>) {
    for value in [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000] {
        u32_(out, value);
    }
}

/// Kind and size of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoxHead {
    /// The four letters.
    pub kind: [u8; 4],
    /// Bytes before the body, 8 or 16.
    pub head_bytes: usize,
    /// Bytes of the whole box.
    pub bytes: u64,
}

/// The head of the box that begins at the start of `data`; None when it is cut off. A box that reaches to the end of its file
/// (size 0) has no place in a file that is still written, and is an error.
pub fn box_head(data: &[u8]) -> Result<Option<BoxHead>, MediaError> {
    let Some((size, rest)) = data.split_first_chunk::<4>() else { return Ok(None) };
    let Some((kind, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let (head_bytes, bytes) = match u32::from_be_bytes(*size) {
        1 => match rest.first_chunk::<8>() {
            Some(large) => (16, u64::from_be_bytes(*large)),
            None => return Ok(None),
        },
        size => (8, u64::from(size)),
    };
    if bytes < head_bytes as u64 || !kind.iter().all(|letter| (0x20..0x7f).contains(letter)) {
        let expected = "a size of at least its head, and a kind of four letters";
        return Err(MediaError::new("MP4 box", expected, dump(data)));
    }
    Ok(Some(BoxHead { kind: *kind, head_bytes, bytes }))
}

/// The boxes of a body, one after the other.
pub(super) struct Children<'a> {
    rest: &'a [u8],
}

pub(super) const fn children(body: &[u8]) -> Children<'_> {
    Children { rest: body }
}

impl<'a> Iterator for Children<'a> {
    type Item = Result<([u8; 4], &'a [u8]), MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = match box_head(self.rest) {
            Err(error) => Err(error),
            Ok(head) => head
                .filter(|head| head.bytes <= self.rest.len() as u64)
                // Not longer than a slice, so the cast loses nothing.
                .map(|head| (head, head.bytes as usize))
                .ok_or_else(|| MediaError::new("MP4 box", "a whole box", dump(self.rest))),
        };
        match whole {
            Ok((head, bytes)) => {
                let body = &self.rest[head.head_bytes..bytes];
                self.rest = &self.rest[bytes..];
                Some(Ok((head.kind, body)))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// The first box of a kind in a body.
pub(super) fn child<'a>(body: &'a [u8], kind: &[u8; 4]) -> Result<&'a [u8], MediaError> {
    for found in children(body) {
        let (found, body) = found?;
        if found == *kind {
            return Ok(body);
        }
    }
    let name = core::str::from_utf8(kind).unwrap_or_default();
    Err(MediaError::new("MP4", format!("a box \"{name}\""), "none"))
}

/// Big-endian fields, one after the other.
pub(super) struct Fields<'a> {
    place: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) const fn new(place: &'static str, rest: &'a [u8]) -> Self {
        Self { place, rest }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], MediaError> {
        let Some((found, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(MediaError::new(self.place, format!("{N} more bytes"), dump(self.rest)));
        };
        self.rest = rest;
        Ok(*found)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], MediaError> {
        if count > self.rest.len() {
            return Err(MediaError::new(self.place, format!("{count} more bytes"), dump(self.rest)));
        }
        let (found, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(found)
    }

    pub(super) fn u8(&mut self) -> Result<u8, MediaError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, MediaError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, MediaError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, MediaError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Version and flags of a full box.
    pub(super) fn full(&mut self) -> Result<(u8, u32), MediaError> {
        self.u32().map(|word| ((word >> 24) as u8, word & 0xff_ffff))
    }

    pub(super) const fn remaining(&self) -> usize {
        self.rest.len()
    }
}
