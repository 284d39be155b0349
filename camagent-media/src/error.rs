//! The one error of this crate: bytes that are not what their format says.
//!
//! Every error names the place, what was expected there and what came, so that a firmware engineer can find the byte
//! in a dump. Callers only pass it on, hence a struct and no variants to match.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt::{self, Write};

/// What was wrong with the bytes: "`place`: expected `expected`, got `got`".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaError {
    /// Where, in the words of the standard: "H.264 SPS, pic_width_in_mbs_minus1".
    pub place: Cow<'static, str>,
    /// What the standard, or this crate's limit, wants there.
    pub expected: Cow<'static, str>,
    /// What was there instead. Never longer than a line: byte dumps are cut.
    pub got: Cow<'static, str>,
}

impl MediaError {
    /// An error from its three parts.
    pub fn new(
        place: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
        got: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { place: place.into(), expected: expected.into(), got: got.into() }
    }
}

impl fmt::Display for MediaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, got {}", self.place, self.expected, self.got)
    }
}

impl core::error::Error for MediaError {}

/// The first bytes of `data` for an error text: "00 00 00 01 67 … (1204 bytes)".
pub(crate) fn dump(data: &[u8]) -> String {
    const SHOWN: usize = 8;
    let mut text = String::new();
    for byte in data.iter().take(SHOWN) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x} ");
    }
    if data.len() > SHOWN {
        text.push_str("… ");
    }
    let _ = write!(text, "({} bytes)", data.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn reads_as_one_sentence() {
        let error = MediaError::new("Annex B frame", "a start code", dump(&[0xff, 0xd8]));
        assert_eq!(error.to_string(), "Annex B frame: expected a start code, got ff d8 (2 bytes)");
    }

    #[test]
    fn dumps_are_cut() {
        assert_eq!(dump(&[]), "(0 bytes)");
        assert_eq!(dump(&[7; 100]), "07 07 07 07 07 07 07 07 … (100 bytes)");
    }
}
