//! Reading the named fields of a header, so that every error says which field of which header it was.

use alloc::format;

use crate::bits::{Bits, NoValue};
use crate::error::MediaError;

/// A bit reader that knows what it reads: "H.264 SPS".
pub(crate) struct Fields<'a> {
    bits: Bits<'a>,
    header: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(header: &'static str, bits: Bits<'a>) -> Self {
        Self { bits, header }
    }

    /// `u(1)`.
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, MediaError> {
        self.bits.flag().map_err(|missing| self.missing(name, missing))
    }

    /// `u(n)` with at most 32 bits.
    pub(crate) fn bits(&mut self, count: u32, name: &'static str) -> Result<u32, MediaError> {
        self.bits.bits(count).map_err(|missing| self.missing(name, missing))
    }

    /// `u(8)`.
    pub(crate) fn byte(&mut self, name: &'static str) -> Result<u8, MediaError> {
        self.bits.byte().map_err(|missing| self.missing(name, missing))
    }

    /// Passes over `count` bits.
    pub(crate) fn skip(&mut self, count: usize, name: &'static str) -> Result<(), MediaError> {
        self.bits.skip(count).map_err(|missing| self.missing(name, missing))
    }

    /// `ue(v)` that may not exceed `most`.
    pub(crate) fn ue(&mut self, most: u32, name: &'static str) -> Result<u32, MediaError> {
        let value = self.bits.ue().map_err(|missing| self.missing(name, missing))?;
        if value > most { Err(self.wrong(name, format!("at most {most}"), format!("{value}"))) } else { Ok(value) }
    }

    /// `se(v)`.
    pub(crate) fn se(&mut self, name: &'static str) -> Result<i32, MediaError> {
        self.bits.se().map_err(|missing| self.missing(name, missing))
    }

    /// The error for a field whose value cannot be.
    pub(crate) fn wrong(
        &self,
        name: &'static str,
        expected: impl Into<alloc::borrow::Cow<'static, str>>,
        got: impl Into<alloc::borrow::Cow<'static, str>>,
    ) -> MediaError {
        MediaError::new(format!("{}, {name}", self.header), expected, got)
    }

    fn missing(&self, name: &'static str, missing: NoValue) -> MediaError {
        self.wrong(name, "a value", format!("the end of the data behind bit {}", missing.at_bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn errors_name_the_field() {
        let mut fields = Fields::new("H.264 SPS", Bits::plain(&[0b0010_1000]));
        assert_eq!(
            fields.ue(3, "chroma_format_idc").unwrap_err().to_string(),
            "H.264 SPS, chroma_format_idc: expected at most 3, got 4"
        );
        assert_eq!(
            fields.bits(4, "level_idc").unwrap_err().to_string(),
            "H.264 SPS, level_idc: expected a value, got the end of the data behind bit 5"
        );
    }
}
