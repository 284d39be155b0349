//! A camera's pictures with a number in each, so that whoever gets one knows when it was pushed. Parameter sets and slice
//! headers are those of a bundled clip; what follows them is filled up to the size that is asked for, because nobody
//! decodes it.

use camagent_testkit::core::Codec;
use camagent_testkit::{clip, nal};

/// The number stands in so many octets at a picture's end.
const NUMBER: usize = 8;
/// RFC 2326 10.12.
const PREFIX: usize = 4;

/// Makes them.
pub(super) struct Pictures {
    key: clip::Picture,
    other: clip::Picture,
    data: Vec<u8>,
}

impl Pictures {
    pub(super) fn new() -> Self {
        let pictures = clip::pictures(Codec::H264, &clip::read("main.h264"));
        let find = |key: bool| pictures.iter().find(|picture| picture.key == key).cloned().expect("in the clip");
        Self { key: find(true), other: find(false), data: Vec::new() }
    }

    /// The picture of this number, in so many octets or a few more.
    pub(super) fn make(&mut self, number: u32, is_key: bool, octets: usize) -> &[u8] {
        self.data.clear();
        for unit in if is_key { &self.key.units } else { &self.other.units } {
            let left = octets.saturating_sub(self.data.len() + 4).max(64);
            // Who only carries a picture need not find all of its slices.
            let length = if nal::is_slice(Codec::H264, unit) { unit.len().min(left) } else { unit.len() };
            self.data.extend_from_slice(&[0, 0, 0, 1]);
            self.data.extend_from_slice(&unit[..length]);
        }
        let length = self.data.len().max(octets.saturating_sub(NUMBER));
        self.data.resize(length, 0xa5);
        self.data.extend_from_slice(format!("{number:0NUMBER$x}").as_bytes());
        &self.data
    }
}

/// The number of a picture whose packets these are, as RTSP interleaves them: it is at the end of the last one.
pub(super) fn number(packets: &[u8]) -> Option<u32> {
    let text = packets.last_chunk::<NUMBER>().filter(|_| packets.len() > PREFIX)?;
    u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_their_size_and_number() {
        let mut pictures = Pictures::new();
        for (at, is_key, octets) in [(0, true, 60_000), (1, false, 5_000), (77_777, false, 900)] {
            let picture = pictures.make(at, is_key, octets);
            assert!((octets..octets + 200).contains(&picture.len()), "{} for {octets}", picture.len());
            assert_eq!(number(picture), Some(at));
        }
        assert_eq!(number(b"no number in here"), None);
    }
}
