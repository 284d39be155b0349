use std::vec;
use std::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::codec::test_data;
use crate::codec::{Codec, Framing};
use crate::track::TrackReader;

fn h264() -> Parameters {
    let sets = test_data::H264_1920X1080.map(|set| Bytes::from(test_data::hex(set)));
    let config = crate::annexb::join(&sets);
    TrackReader::new(Codec::H264, Framing::AnnexB, &config, 0, 0).unwrap().parameters().unwrap().clone()
}

fn h265() -> Parameters {
    let sets = test_data::H265_2688X1520.map(|set| Bytes::from(test_data::hex(set)));
    let config = crate::annexb::join(&sets);
    TrackReader::new(Codec::H265, Framing::AnnexB, &config, 0, 0).unwrap().parameters().unwrap().clone()
}

fn sound(codec: Codec, rate: u32) -> Parameters {
    TrackReader::new(codec, Framing::Raw, &[], rate, 1).unwrap().parameters().unwrap().clone()
}

fn sample(size: u32, key: bool) -> Sample {
    Sample { duration: 3_600, composition: if key { 0 } else { -1_800 }, size, key }
}

fn file() -> Vec<u8> {
    let parameters = h264();
    let mut out = init(&[InitTrack { id: 1, parameters: &parameters }]);
    part(&mut out, 1, 1, 0, &[sample(3, true), sample(2, false)], b"abcde");
    put_uuid(&mut out, &[7; 16], b"between");
    part(&mut out, 2, 1, u64::from(u32::MAX) + 7_200, &[sample(4, false)], b"fghi");
    out
}

#[test]
fn a_head_says_again_what_went_into_it() {
    for parameters in [h264(), h265(), sound(Codec::Aac, 48_000), sound(Codec::Pcma, 8_000), sound(Codec::Pcmu, 16_000)]
    {
        let head = init(&[InitTrack { id: 3, parameters: &parameters }]);
        let read = read_init(&head).unwrap().unwrap();
        assert_eq!(read, Init { bytes: head.len(), tracks: vec![(3, timescale(&parameters), parameters)] });
    }
}

#[test]
fn parts_come_back() {
    let file = file();
    let init = read_init(&file).unwrap().unwrap();
    let first = read_part(&file[init.bytes..]).unwrap().unwrap();
    assert_eq!((first.sequence, first.track, first.decode_time), (1, 1, 0));
    assert_eq!(first.samples, [sample(3, true), sample(2, false)]);
    assert_eq!(&file[init.bytes + first.data_at as usize..][..5], b"abcde");
    let mut seen = Vec::new();
    let whole = whole_parts(&file, |at, found| {
        seen.push(match found {
            Found::Part(part, bytes) => (at, part.decode_time, bytes.len()),
            Found::Other(kind, body) => {
                assert_eq!((kind, body), (*b"uuid", [&[7; 16][..], b"between"].concat().as_slice()));
                (at, 0, 0)
            }
        });
        true
    });
    assert_eq!(whole, Ok(Some(file.len())));
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[2].1, u64::from(u32::MAX) + 7_200, "decoding times have 64 bits");
}

#[test]
fn a_file_that_is_cut_anywhere_ends_behind_its_last_whole_part() {
    let file = file();
    let head = read_init(&file).unwrap().unwrap().bytes;
    let first = head + read_part(&file[head..]).unwrap().unwrap().bytes as usize;
    for cut in 0..=file.len() {
        let expected = match cut {
            cut if cut < head => None,
            cut if cut < first => Some(head),
            cut if cut < file.len() => Some(first),
            _ => Some(file.len()),
        };
        assert_eq!(whole_parts(&file[..cut], |_, _| true), Ok(expected), "cut at {cut}");
    }
    // Where blocks of a file were lost there are zeros.
    let mut holed = file.clone();
    holed[first..].fill(0);
    assert_eq!(whole_parts(&holed, |_, _| true), Ok(Some(first)));
    assert_eq!(whole_parts(&file, |at, _| at < first), Ok(Some(first)), "a part that is turned down ends the file");
    assert!(whole_parts(b"RIFF\0\0\0\0WAVEfmt ", |_, _| true).is_err());
}

#[test]
fn a_cut_says_how_much_it_takes() {
    let file = file();
    for (start, read) in [(0, true), (read_init(&file).unwrap().unwrap().bytes, false)] {
        let mut have = 0;
        loop {
            let data = &file[start..][..have];
            let cut = if read { read_init(data).unwrap().err() } else { read_part(data).unwrap().err() };
            let Some(cut) = cut else { break };
            assert!(cut.needed as usize > have && cut.needed as usize <= file.len() - start + 16);
            have = (cut.needed as usize).min(file.len() - start);
        }
    }
}

#[test]
fn a_movie_knows_the_size_of_its_head() {
    let track = |parameters: Parameters, samples: usize| MovieTrack {
        timescale: timescale(&parameters),
        entries: vec![parameters],
        samples: (0..samples)
            .map(|index| MovieSample { duration: 3_600, composition: 0, size: 10, key: index % 5 == 0 })
            .collect(),
        delay: 0,
        skip: 0,
    };
    let chunks = vec![
        Chunk { track: 0, samples: 4, bytes: 40, entry: 0 },
        Chunk { track: 1, samples: 2, bytes: 20, entry: 0 },
        Chunk { track: 0, samples: 6, bytes: 60, entry: 0 },
    ];
    let movie =
        Movie { tracks: vec![track(h264(), 10), track(sound(Codec::Pcma, 8_000), 2)], chunks, duration: 36_000 };
    let head = movie.head();
    assert_eq!(movie.media_bytes(), 120);
    let read = read_init(&head).unwrap().unwrap();
    assert_eq!(read.tracks.len(), 2);
    let mdat = box_head(&head[read.bytes..]).unwrap().unwrap();
    assert_eq!((mdat.kind, mdat.bytes, read.bytes + mdat.head_bytes), (*b"mdat", 136, head.len()));
}
