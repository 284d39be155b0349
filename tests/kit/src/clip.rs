//! The bundled clips, cut into what an encoder hands out: access units, ADTS frames, 20 ms of samples.

use std::path::PathBuf;

use camagent_core::Codec;

use crate::nal;

/// The octets of a file of `tests/data/clips`.
pub fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/clips").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One coded picture: its NAL units without start codes, and whether decoding can start there.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Its units in order: delimiter, parameter sets, messages, slices.
    pub units: Vec<Vec<u8>>,
    /// Whether it is a key frame.
    pub key: bool,
}

/// The access units of an Annex B stream.
pub fn pictures(codec: Codec, stream: &[u8]) -> Vec<Picture> {
    let mut pictures: Vec<Picture> = Vec::new();
    let mut head: Vec<Vec<u8>> = Vec::new();
    for unit in nal::units(stream) {
        if !nal::is_slice(codec, unit) {
            head.push(unit.to_vec());
        } else if nal::begins_picture(codec, unit) {
            let mut units = std::mem::take(&mut head);
            units.push(unit.to_vec());
            pictures.push(Picture { units, key: nal::is_key(codec, unit) });
        } else if let Some(picture) = pictures.last_mut() {
            picture.units.push(unit.to_vec());
        }
    }
    pictures
}

/// The whole frames of an ADTS stream (ISO/IEC 14496-3 1.A.2.2), headers included.
pub fn adts_frames(stream: &[u8]) -> Vec<Vec<u8>> {
    let (mut frames, mut rest) = (Vec::new(), stream);
    while rest.len() > 7 {
        assert_eq!((rest[0], rest[1] & 0xf6), (0xff, 0xf0), "an ADTS header");
        let length = usize::from(rest[3] & 3) << 11 | usize::from(rest[4]) << 3 | usize::from(rest[5]) >> 5;
        let Some((frame, behind)) = rest.split_at_checked(length) else { break };
        frames.push(frame.to_vec());
        rest = behind;
    }
    frames
}

/// An ADTS frame without its header.
pub fn without_adts_header(frame: &[u8]) -> &[u8] {
    // protection_absent leaves the checksum out.
    let header = if frame[1] & 1 == 1 { 7 } else { 9 };
    &frame[header..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clips_are_what_their_readme_says() {
        for (codec, name) in [(Codec::H264, "main.h264"), (Codec::H265, "second.h265")] {
            let pictures = pictures(codec, &read(name));
            assert_eq!(pictures.len(), 200);
            let keys: Vec<_> = (0..200).filter(|at| pictures[*at].key).collect();
            assert_eq!(keys, [0, 50, 100, 150]);
        }
        assert_eq!(adts_frames(&read("main.aac")).len(), 376);
        assert_eq!(read("second.alaw").len(), 64_000);
    }
}
