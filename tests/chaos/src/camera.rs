//! What the simulated encoder makes: small H.264 pictures and G.711 sounds whose octets tell which frame they are, and their sums.

use camagent_core::{Codec, Framing, TrackDescription};

use crate::{chance::Chance, log::Digest};

/// Parameter sets of a real encoder: 64 by 48, High profile.
const SPS: &[u8] = &[
    0x67, 0x64, 0x00, 0x0a, 0xac, 0xd9, 0x44, 0x3f, 0x96, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x01,
    0x40, 0xf1, 0x22, 0x59, 0x60,
];
const PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];
const START: &[u8] = &[0, 0, 0, 1];

/// What a track is.
pub fn describe(track: u32, is_video: bool) -> TrackDescription {
    let source = if track == 1 { "sub" } else { "main" };
    match is_video {
        true => TrackDescription::video(source, Codec::H264, Framing::AnnexB),
        false => TrackDescription::audio(source, Codec::Pcma, Framing::Raw, 8_000, 1),
    }
}

/// A picture of about `octets` octets; `salt` makes it unlike all others.
pub fn picture(salt: u64, key: bool, octets: usize, into: &mut Vec<u8>) {
    into.clear();
    if key {
        for set in [SPS, PPS] {
            into.extend_from_slice(START);
            into.extend_from_slice(set);
        }
    }
    into.extend_from_slice(START);
    into.push(if key { 0x65 } else { 0x41 });
    // first_mb_in_slice 0, a slice of all the picture.
    into.push(0x88);
    fill(salt, octets, into);
}

/// A sound of `octets` octets.
pub fn sound(salt: u64, octets: usize, into: &mut Vec<u8>) {
    into.clear();
    fill(salt, octets, into);
}

/// Octets without a zero among them: nothing in them looks like a start code.
fn fill(salt: u64, octets: usize, into: &mut Vec<u8>) {
    let mut chance = Chance::new(salt);
    let end = into.len() + octets;
    while into.len() < end {
        into.extend_from_slice(&(chance.number() | 0x0101_0101_0101_0101).to_le_bytes());
    }
    into.truncate(end);
}

/// The sum of a frame's octets: eight at a time, so that it costs nearly nothing.
pub fn digest(octets: &[u8]) -> Digest {
    let mut sum = 0x9e37_79b9_7f4a_7c15_u64 ^ octets.len() as u64;
    let mut chunks = octets.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight octets"));
        sum = (sum ^ word).wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(29);
    }
    for octet in chunks.remainder() {
        sum = (sum ^ u64::from(*octet)).wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(29);
    }
    Digest(sum ^ (sum >> 31))
}
