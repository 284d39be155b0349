//! A cursor over the octets of a record. Slices share the record's memory.

use alloc::{format, string::String};

use bytes::Bytes;

use crate::{error::Error, varint};

/// Reads fields one after another; each read names its place, so that an error can say where.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// Octets that are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// One integer (RFC 9000 section 16).
    pub fn integer(&mut self, place: &'static str) -> Result<u64, Error> {
        let (value, length) =
            varint::get(&self.bytes[self.at..]).ok_or_else(|| self.cut(place, "a variable-length integer"))?;
        self.at += length;
        Ok(value)
    }

    /// One integer that must fit into 32 bits.
    pub fn integer32(&mut self, place: &'static str) -> Result<u32, Error> {
        let value = self.integer(place)?;
        u32::try_from(value).map_err(|_| violation(place, "a number below 2^32", format!("{value}")))
    }

    /// One signed integer, zigzag encoded.
    pub fn signed(&mut self, place: &'static str) -> Result<i64, Error> {
        self.integer(place).map(varint::unzigzag)
    }

    /// The next `length` octets.
    pub fn take(&mut self, length: usize, place: &'static str) -> Result<Bytes, Error> {
        if length > self.remaining() {
            return Err(self.cut(place, "as many octets as its length says"));
        }
        let taken = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(taken)
    }

    /// Octets behind a length of their own, at most `most` of them.
    pub fn octets(&mut self, most: usize, place: &'static str) -> Result<Bytes, Error> {
        let length = self.integer(place)?;
        if length > most as u64 {
            return Err(Error::Limit { limit: place, allowed: most as u64, got: length });
        }
        self.take(length as usize, place)
    }

    /// Text behind a length of its own, at most `most` octets of UTF-8.
    pub fn text(&mut self, most: usize, place: &'static str) -> Result<String, Error> {
        let octets = self.octets(most, place)?;
        match core::str::from_utf8(&octets) {
            Ok(text) => Ok(text.into()),
            Err(error) => Err(violation(place, "UTF-8", format!("{error}"))),
        }
    }

    /// All that is left.
    pub fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..);
        self.at = self.bytes.len();
        rest
    }

    fn cut(&self, place: &'static str, expected: &'static str) -> Error {
        violation(place, expected, format!("the end, {} octets before it", self.remaining()))
    }
}

/// Shorthand for what a reader of a body reports.
pub(crate) fn violation(place: &'static str, expected: &'static str, got: String) -> Error {
    Error::Violation { place, expected, got }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_end_is_an_error_that_names_its_place() {
        let mut reader = Reader::new(Bytes::from_static(&[5, b'a']));
        let error = reader.text(16, "TRACK source").unwrap_err();
        assert!(matches!(error, Error::Violation { place: "TRACK source", .. }), "{error}");
        let mut reader = Reader::new(Bytes::from_static(&[17]));
        assert!(matches!(reader.text(16, "TRACK source"), Err(Error::Limit { allowed: 16, got: 17, .. })));
    }
}
