//! What the simulated encoder makes: small H.264 pictures and G.711 sounds whose octets tell which frame they are, and their sums.

use camagent_core::{Codec, Framing, TrackDescription};

use crate::{chance::Chance, log::Digest};

/// Parameter sets of a real encoder (`tests/data/clips/main.h264`).
const SPS: &[u8] = &[
    0x67, 0x64, 0x00, 0x1e, 0xac, 0xb3, 0x01, 0x40, 0x5f, 0xf2, 0xe0, 0x22, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00, 0x00,
    0x03, 0x00, 0x64, 0x1e, 0x2c, 0x5c, 0xd0,
];
const PPS: &[u8] = &[0x68, 0xe9, 0x73, 0x2c, 0x8b];
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

/// The sum of a frame as it was pushed: of a picture its coded slice, because parameter sets may be stored elsewhere.
pub fn digest(octets: &[u8]) -> Digest {
    match octets.strip_prefix(START) {
        // The slice is the last unit, and the only one that is long: nothing in it looks like a start code.
        Some(_) => {
            let last = octets.windows(START.len()).take(PPS.len() + SPS.len() + 16).rposition(|window| window == START);
            sum(&octets[last.unwrap_or(0) + START.len()..])
        }
        None => sum(octets),
    }
}

/// The sum of a frame as it is stored: units behind their lengths.
pub fn digest_stored(octets: &[u8], is_video: bool) -> Digest {
    let mut rest = octets;
    while is_video
        && let Some((length, behind)) = rest.split_first_chunk::<4>()
        && let Some((_, next)) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)
    {
        if next.is_empty() {
            return sum(behind);
        }
        rest = next;
    }
    sum(rest)
}

/// The sum of octets: eight at a time, so that it costs nearly nothing.
fn sum(octets: &[u8]) -> Digest {
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
