//! The samples in `tests/data/wire/`, and frames as the readable fields that stand in them.

use std::path::PathBuf;

use bytes::Bytes;
use camagent_proto::frame::{
    Frame, FrameAbort, FrameHead, FrameMore, FrameStart, MAX_RECORD, Mack, RecordReader, RecordWriter, Skip,
    SkipReason, TrackInfo,
};
use serde_json::{Value, json};

/// One file; a list when it holds several samples.
pub(crate) fn file(name: &str) -> Value {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All samples of a folder, each with the name of its file.
pub(crate) fn all(part: &str) -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(folder().join(part)).expect("the samples are there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("can be listed").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let mut samples = Vec::new();
    for name in names {
        match file(&format!("{part}/{name}")) {
            Value::Array(several) => samples.extend(several.into_iter().map(|sample| (name.clone(), sample))),
            one => samples.push((name, one)),
        }
    }
    samples
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/wire")
}

/// Octets from hexadecimal digits; blanks and bars are for the eye.
pub(crate) fn octets(hex: &Value) -> Bytes {
    let digits: Vec<u8> = text(hex)
        .chars()
        .filter(|c| !matches!(c, ' ' | '|' | '\n'))
        .map(|c| c.to_digit(16).expect("hexadecimal digits") as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2), "half an octet in {hex}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The octets of a text, as hexadecimal digits.
fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The frames of a record, and how many unknown ones were passed over.
pub(crate) fn read(record: Bytes) -> Result<(Vec<Frame>, u64), camagent_proto::Error> {
    let mut reader = RecordReader::new(record)?;
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        frames.push(frame);
    }
    Ok((frames, reader.skipped()))
}

/// A record of these frames.
pub(crate) fn write(frames: &[Frame]) -> Bytes {
    let mut record = RecordWriter::new(MAX_RECORD);
    for frame in frames {
        assert!(record.push(frame), "the sample fits into a record");
    }
    record.finish()
}

/// A frame as its readable fields, in the order of the wire.
pub(crate) fn readable(frame: &Frame) -> Value {
    match frame {
        Frame::Track(track) => json!({
            "kind": "TRACK", "track": track.track, "epoch": track.epoch, "next": track.next, "camera": track.camera,
            "source": track.source, "codec": track.codec, "framing": track.framing, "sample_rate": track.sample_rate,
            "channels": track.channels, "config": hex(&track.config),
        }),
        Frame::Frame(start) => json!({
            "kind": "FRAME", "track": start.track, "sequence": start.sequence, "pts_us": start.head.pts_us,
            "pts_minus_dts_us": start.head.pts_us - start.head.dts_us, "arrival_us": start.head.arrival_us,
            "flags": flags(&start.head), "total": start.total, "payload": hex(&start.payload),
        }),
        Frame::FrameMore(more) => json!({"kind": "FRAME_MORE", "track": more.track, "payload": hex(&more.payload)}),
        Frame::FrameAbort(abort) => json!({"kind": "FRAME_ABORT", "track": abort.track, "sequence": abort.sequence}),
        Frame::Skip(skip) => json!({
            "kind": "SKIP", "track": skip.track, "first": skip.first, "last": skip.last,
            "reason": match skip.reason { SkipReason::Other(number) => json!(number), known => json!(known.name()) },
        }),
        Frame::Mack(mack) => {
            json!({"kind": "MACK", "track": mack.track, "epoch": mack.epoch, "received": mack.received})
        }
        other => panic!("no sample of {other:?} yet"),
    }
}

/// The frame of readable fields.
pub(crate) fn frame(means: &Value) -> Frame {
    let track = number32(&means["track"]);
    match text(&means["kind"]) {
        "TRACK" => Frame::Track(TrackInfo {
            track,
            epoch: number(&means["epoch"]),
            next: number(&means["next"]),
            camera: text(&means["camera"]).into(),
            source: text(&means["source"]).into(),
            codec: number(&means["codec"]) as u8,
            framing: number(&means["framing"]) as u8,
            sample_rate: number32(&means["sample_rate"]),
            channels: number(&means["channels"]) as u8,
            config: octets(&means["config"]),
        }),
        "FRAME" => {
            let pts_us = means["pts_us"].as_i64().expect("an integer");
            let has = |flag: &str| means["flags"].as_array().expect("a list").iter().any(|other| other == flag);
            let head = FrameHead {
                pts_us,
                dts_us: pts_us - means["pts_minus_dts_us"].as_i64().expect("an integer"),
                arrival_us: number(&means["arrival_us"]),
                key: has("key"),
                disposable: has("disposable"),
                discontinuity: has("discontinuity"),
            };
            let (sequence, total) = (number(&means["sequence"]), number(&means["total"]));
            Frame::Frame(FrameStart { track, sequence, head, total, payload: octets(&means["payload"]) })
        }
        "FRAME_MORE" => Frame::FrameMore(FrameMore { track, payload: octets(&means["payload"]) }),
        "FRAME_ABORT" => Frame::FrameAbort(FrameAbort { track, sequence: number(&means["sequence"]) }),
        "SKIP" => {
            let reason = match &means["reason"] {
                Value::String(name) if name == "over_budget" => SkipReason::OverBudget,
                Value::String(name) if name == "too_large" => SkipReason::TooLarge,
                other => SkipReason::Other(number(other)),
            };
            Frame::Skip(Skip { track, first: number(&means["first"]), last: number(&means["last"]), reason })
        }
        "MACK" => Frame::Mack(Mack { track, epoch: number(&means["epoch"]), received: number(&means["received"]) }),
        other => panic!("a sample of a {other}"),
    }
}

fn flags(head: &FrameHead) -> Vec<&'static str> {
    let all = [("key", head.key), ("disposable", head.disposable), ("discontinuity", head.discontinuity)];
    all.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no integer"))
}

fn number32(value: &Value) -> u32 {
    u32::try_from(number(value)).expect("32 bits")
}
