//! The bodies of the fuzz targets, and the test that replays their corpora.
//!
//! Each takes any bytes, and checks more than "no crash": it panics where something that must hold does not. A body lives
//! here and not with the targets, so that the ordinary tests run it too.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::annexb;
use crate::codec::aac::{AdtsHeader, AudioSpecificConfig};
use crate::codec::{self, Codec, Framing, h264, h265};
use crate::fmp4;
use crate::rtp::depacketize::{Packet, depacketize};
use crate::rtp::{Packetizer, payload_type};
use crate::sdp::{Media, Session};
use crate::track::TrackReader;

/// Splitting: units are not empty, hold no start code, and come back after joining, by either framing.
pub fn annexb(data: &[u8]) {
    if let Ok(parts) = annexb::split(&Bytes::copy_from_slice(data)) {
        for part in &parts {
            assert!(part.last().is_some_and(|byte| *byte != 0), "a unit is not empty and ends with no zero");
            assert!(!part.windows(3).any(|window| window == [0, 0, 1]), "a unit holds no start code");
        }
        let carried = parts.iter().map(Bytes::len).sum::<usize>();
        let outside = data.len() - carried;
        assert!(outside >= parts.len() * 3, "each unit has a start code");
        if !parts.is_empty() {
            assert_eq!(annexb::split(&annexb::join(&parts).into()), Ok(parts.clone()), "joining and splitting again");
        }
        assert_eq!(lengths(&join_lengths(&parts)), Some(parts), "length-prefixed and back");
    }
    if let Some(parts) = lengths(data) {
        assert!(parts.iter().all(|part| !part.is_empty()));
        assert_eq!(lengths(&join_lengths(&parts)), Some(parts));
    }
    for codec in [Codec::H264, Codec::H265] {
        for framing in Framing::ALL {
            codec::is_key(codec, framing, data);
        }
    }
}

fn lengths(data: &[u8]) -> Option<Vec<Bytes>> {
    annexb::length_prefixed(data).map(|range| Some(Bytes::copy_from_slice(&data[range.ok()?]))).collect()
}

fn join_lengths(parts: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Every parser of a parameter set or header, on the same bytes: what is accepted makes sense, and bytes behind change
/// nothing.
pub fn parameter_sets(data: &[u8]) {
    let rate_makes_sense =
        |rate: Option<(u32, u32)>| rate.is_none_or(|(pictures, seconds)| pictures > 0 && seconds > 0);
    if let Ok(sps) = h264::Sps::parse(data) {
        assert!((1..=131_072).contains(&sps.width) && (1..=131_072).contains(&sps.height));
        assert!(sps.id <= 31 && rate_makes_sense(sps.frame_rate));
    }
    if let Ok(pps) = h264::Pps::parse(data) {
        assert!(pps.sps_id <= 31);
    }
    if let Ok(sps) = h265::Sps::parse(data) {
        assert!((1..=65_536).contains(&sps.width) && (1..=65_536).contains(&sps.height));
        assert!(sps.id <= 15 && sps.vps_id <= 15 && rate_makes_sense(sps.frame_rate));
    }
    if let Ok(pps) = h265::Pps::parse(data) {
        assert!(pps.id <= 63 && pps.sps_id <= 15);
    }
    if let Ok(vps) = h265::Vps::parse(data) {
        assert!(vps.id <= 15 && rate_makes_sense(vps.frame_rate));
    }
    if let Ok(config) = AudioSpecificConfig::parse(data) {
        assert!(config.sample_rate > 0 && config.channels != Some(0));
        let longer = [data, &[0xff; 4]].concat();
        assert_eq!(AudioSpecificConfig::parse(&longer), Ok(config), "bytes behind the config change nothing");
    }
    if let Ok(header) = AdtsHeader::parse(data, 0) {
        assert!(header.header_bytes < header.frame_bytes && header.frame_bytes <= data.len());
        let config = AudioSpecificConfig::parse(&header.config()).map(|config| config.sample_rate);
        assert_eq!(config, Ok(header.sample_rate), "the config says what the header says");
    }
    h264::slice_pps_id(data);
    h265::slice_pps_id(data);
    // As the config of a track: all the way to the SDP.
    for (codec, framing) in TRACKS {
        if let Ok(reader) = TrackReader::new(codec, framing, data, 8_000, 1) {
            describe(&reader);
        }
    }
}

/// Frames through a reader and a packetizer, and back: the same units. The first byte chooses the track, the second the
/// packet size; then each frame is a length of two bytes and its bytes, the first one the config.
pub fn track_reader(data: &[u8]) {
    let Some((&[choice, size], mut rest)) = data.split_first_chunk::<2>() else { return };
    let (codec, framing) = TRACKS[usize::from(choice) % TRACKS.len()];
    let Ok(mut reader) = TrackReader::new(codec, framing, next_frame(&mut rest), 8_000, 1 + u16::from(choice >> 6))
    else {
        return;
    };
    let max_payload = 32 + usize::from(size);
    let channels = reader.parameters().and_then(|parameters| parameters.channels()).unwrap_or(1);
    let mut packetizer = Packetizer::new(codec, 96, 1, 0xfffe, max_payload).with_channels(channels);
    while !rest.is_empty() {
        let frame = Bytes::copy_from_slice(next_frame(&mut rest));
        let before = reader.clone();
        let Ok(unit) = reader.read(&frame) else {
            assert_eq!(reader.parameters(), before.parameters(), "a refused frame changes nothing");
            continue;
        };
        assert_eq!(reader.parameters() != before.parameters(), unit.parameters_changed);
        assert_eq!(unit.key, codec::is_key(codec, framing, &frame), "both ways to see a key frame agree");
        assert!(unit.parts.iter().all(|part| !part.is_empty()));
        assert_eq!(
            reader.clone().read(&frame).map(|again| again.parameters_changed),
            Ok(false),
            "repeating is no change"
        );
        describe(&reader);
        round_trip(codec, &mut packetizer, &unit.parts, max_payload);
    }
}

fn round_trip(codec: Codec, packetizer: &mut Packetizer, parts: &[Bytes], max_payload: usize) {
    let mut packets = Vec::new();
    let mut sequence = packetizer.next_sequence();
    packetizer.packetize(parts, 0xffff_ff00, &mut |header, pieces| packets.push(Packet::new(header, pieces)));
    for packet in &packets {
        assert_eq!(packet.sequence, sequence);
        sequence = sequence.wrapping_add(1);
        assert!(!packet.payload.is_empty() && packet.payload.len() <= max_payload);
    }
    assert_eq!(packetizer.next_sequence(), sequence);
    if codec.is_video() {
        let marked = packets.iter().filter(|packet| packet.marker).count();
        assert!(
            marked == 0 || marked == 1 && packets.last().is_some_and(|packet| packet.marker),
            "one marker, at the end"
        );
    }
    let units = depacketize(codec, &packets).into_iter().map(|(_, unit)| unit);
    if matches!(codec, Codec::Pcma | Codec::Pcmu) {
        assert_eq!(units.collect::<Vec<_>>().concat(), parts.concat(), "the same samples");
    } else {
        assert_eq!(units.collect::<Vec<_>>(), parts, "the same units");
    }
}

/// The session description has lines of the right form, whatever the camera said.
fn describe(reader: &TrackReader) {
    let Some(parameters) = reader.parameters() else { return };
    assert!(!parameters.rfc6381().is_empty());
    let media = vec![Media { parameters, payload_type: payload_type(parameters, 96), control: "trackID=0" }];
    let sdp = Session { id: 1, name: "", media }.to_string();
    for line in sdp.split_terminator("\r\n") {
        assert!(line.len() > 2 && line.as_bytes()[1] == b'=' && !line.contains(['\r', '\n']), "{line:?}");
    }
}

const TRACKS: [(Codec, Framing); 8] = [
    (Codec::H264, Framing::AnnexB),
    (Codec::H264, Framing::Length4),
    (Codec::H265, Framing::AnnexB),
    (Codec::H265, Framing::Length4),
    (Codec::Aac, Framing::Adts),
    (Codec::Aac, Framing::Raw),
    (Codec::Pcma, Framing::Raw),
    (Codec::Pcmu, Framing::Raw),
];

/// Reading files: cutting one behind its last whole part changes nothing before it, and what a head says can be written again.
pub fn mp4(data: &[u8]) {
    let parts = |data: &[u8]| {
        let mut parts = Vec::new();
        let whole = fmp4::whole_parts(data, |at, found| {
            if let fmp4::Found::Part(part, bytes) = found {
                assert!(part.bytes == bytes.len() as u64 && at + bytes.len() <= data.len());
                let media: u64 = part.samples.iter().map(|sample| u64::from(sample.size)).sum();
                assert!(part.data_at + media <= part.bytes, "samples lie within their part");
                parts.push((at, part.clone()));
            }
            true
        });
        (whole, parts)
    };
    let (whole, found) = parts(data);
    if let Ok(Some(end)) = whole {
        assert!(end <= data.len());
        assert_eq!(
            parts(&data[..end]),
            (Ok(Some(end)), found),
            "what is behind the last whole part counts for nothing"
        );
    }
    if let Ok(Err(cut)) = fmp4::read_init(data) {
        assert!(cut.needed > data.len() as u64, "a file that is cut lacks something");
    }
    if let Ok(Err(cut)) = fmp4::read_part(data) {
        assert!(cut.needed > data.len() as u64, "a part that is cut lacks something");
    }
    if let Ok(Ok(init)) = fmp4::read_init(data) {
        for (id, _, parameters) in &init.tracks {
            let head = fmp4::init(&[fmp4::InitTrack { id: *id, parameters }]);
            let again = fmp4::read_init(&head).expect("reads what it wrote").expect("whole");
            assert_eq!(again.tracks.len(), 1);
            assert_eq!(again.tracks[0].2.codec(), parameters.codec());
        }
    }
}

/// Takes a length of two bytes and as much of it as there is.
fn next_frame<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, behind)) = rest.split_first_chunk::<2>() else { return core::mem::take(rest) };
    let (frame, next) = behind.split_at(usize::from(u16::from_be_bytes(*length)).min(behind.len()));
    *rest = next;
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn replay(name: &str, body: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(name);
        let seeds: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(seeds.len() >= 5, "the corpus is in {}", folder.display());
        for seed in seeds {
            let data = std::fs::read(&seed).unwrap();
            // Whole, cut anywhere, and with each byte changed: cheap neighbours of what real encoders write.
            body(&data);
            for at in 0..data.len() {
                body(&data[..at]);
                let mut changed = data.clone();
                changed[at] ^= 1 << (at % 8);
                body(&changed);
                changed[at] = [0, 1, 0xff][at % 3];
                body(&changed);
            }
        }
    }

    #[test]
    fn annexb_corpus() {
        replay("annexb", annexb);
    }

    #[test]
    fn parameter_sets_corpus() {
        replay("parameter_sets", parameter_sets);
    }

    #[test]
    fn mp4_corpus() {
        replay("mp4", mp4);
    }

    #[test]
    fn track_reader_corpus() {
        replay("track_reader", track_reader);
    }
}
