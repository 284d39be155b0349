//! The samples in `tests/data/wire/`, and frames as the readable fields that stand in them.

use std::path::PathBuf;

use bytes::Bytes;
use camagent_proto::frame::{
    Arrived, Data, EndReason, EpochEnd, Frame, FrameAbort, FrameHead, FrameMore, FrameStart, Journal, MAX_RECORD, Mack,
    MaxData, MaxStreamData, MaxStreams, Open, OpenOutcome, OpenResult, RecordReader, RecordWriter, ResetStream,
    ReturnStreamData, Skip, SkipReason, StopSending, StreamError, Tack, TrackInfo,
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
            json!({
                "kind": "MACK", "track": mack.track, "epoch": mack.epoch, "received": mack.received,
                "persisted": mack.persisted,
            })
        }
        Frame::Journal(journal) => {
            let mut means = readable(&Frame::Track(journal.info.clone()));
            means["kind"] = json!("JOURNAL");
            means["lane"] = json!(journal.lane);
            means["boot"] = json!(hex(&journal.boot));
            means["end"] = json!(journal.end);
            means["clock_us"] = json!(journal.clock_us);
            means["utc_us"] = json!(journal.utc_us);
            means
        }
        Frame::EpochEnd(end) => {
            json!({"kind": "EPOCH_END", "lane": end.lane, "next": end.next, "cause": match end.cause {
                EndReason::Other(number) => json!(number),
                known => json!(known.name()),
            }})
        }
        Frame::Arrived(arrived) => json!({"kind": "ARRIVED", "octets": arrived.octets, "at_ms": arrived.at_ms}),
        Frame::Open(open) => json!({
            "kind": "OPEN", "stream": open.stream, "camera": open.camera, "service": open.service, "visitor": open.visitor,
        }),
        Frame::OpenResult(result) => json!({
            "kind": "OPEN_RESULT", "stream": result.stream, "detail": result.detail,
            "outcome": match result.outcome { OpenOutcome::Other(number) => json!(number), known => json!(known.name()) },
        }),
        Frame::Data(data) => {
            json!({"kind": "DATA", "stream": data.stream, "fin": data.fin, "octets": hex(&data.octets)})
        }
        Frame::ResetStream(reset) => json!({
            "kind": "RESET_STREAM", "stream": reset.stream, "error": stream_error(reset.error),
            "final_size": reset.final_size,
        }),
        Frame::StopSending(stop) => {
            json!({"kind": "STOP_SENDING", "stream": stop.stream, "error": stream_error(stop.error)})
        }
        Frame::MaxData(max) => json!({"kind": "MAX_DATA", "limit": max.limit}),
        Frame::MaxStreamData(max) => json!({"kind": "MAX_STREAM_DATA", "stream": max.stream, "limit": max.limit}),
        Frame::MaxStreams(max) => json!({"kind": "MAX_STREAMS", "limit": max.limit}),
        Frame::ReturnStreamData(back) => {
            json!({"kind": "RETURN_STREAM_DATA", "stream": back.stream, "octets": back.octets})
        }
        Frame::Tack(tack) => json!({"kind": "TACK", "received": tack.received}),
    }
}

/// The frame of readable fields.
pub(crate) fn frame(means: &Value) -> Frame {
    let kind = text(&means["kind"]);
    if let Some(frame) = tunnel_frame(kind, means) {
        return frame;
    }
    if kind == "EPOCH_END" {
        let cause = match &means["cause"] {
            Value::String(name) if name == "stopped" => EndReason::Stopped,
            Value::String(name) if name == "power_cut" => EndReason::PowerCut,
            other => EndReason::Other(number(other)),
        };
        return Frame::EpochEnd(EpochEnd { lane: number32(&means["lane"]), next: number(&means["next"]), cause });
    }
    let track = number32(&means["track"]);
    match kind {
        "JOURNAL" => {
            let mut of_track = means.clone();
            of_track["kind"] = json!("TRACK");
            let Frame::Track(info) = frame(&of_track) else { unreachable!("it was asked for a TRACK") };
            let boot = octets(&means["boot"]);
            Frame::Journal(Journal {
                lane: number32(&means["lane"]),
                boot: std::array::from_fn(|at| boot[at]),
                end: number(&means["end"]),
                clock_us: number(&means["clock_us"]),
                utc_us: number(&means["utc_us"]),
                info,
            })
        }
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
                Value::String(name) if name == "late" => SkipReason::Late,
                Value::String(name) if name == "disposable" => SkipReason::Disposable,
                Value::String(name) if name == "corrupt" => SkipReason::Corrupt,
                Value::String(name) if name == "live" => SkipReason::Live,
                Value::String(name) if name == "thinned" => SkipReason::Thinned,
                Value::String(name) if name == "refused" => SkipReason::Refused,
                other => SkipReason::Other(number(other)),
            };
            Frame::Skip(Skip { track, first: number(&means["first"]), last: number(&means["last"]), reason })
        }
        "MACK" => Frame::Mack(Mack {
            track,
            epoch: number(&means["epoch"]),
            received: number(&means["received"]),
            persisted: number(&means["persisted"]),
        }),
        other => panic!("a sample of a {other}"),
    }
}

fn tunnel_frame(kind: &str, means: &Value) -> Option<Frame> {
    let stream = || number(&means["stream"]);
    let limit = || number(&means["limit"]);
    let words = |field: &str| text(&means[field]).to_owned();
    let error = || match &means["error"] {
        Value::String(name) if name == "cancelled" => StreamError::Cancelled,
        Value::String(name) if name == "broken" => StreamError::Broken,
        Value::String(name) if name == "stalled" => StreamError::Stalled,
        other => StreamError::Other(number(other)),
    };
    let outcome = || match &means["outcome"] {
        Value::String(name) if name == "connected" => OpenOutcome::Connected,
        Value::String(name) if name == "not_allowed" => OpenOutcome::NotAllowed,
        Value::String(name) if name == "unreachable" => OpenOutcome::Unreachable,
        Value::String(name) if name == "busy" => OpenOutcome::Busy,
        other => OpenOutcome::Other(number(other)),
    };
    Some(match kind {
        "OPEN" => Frame::Open(Open {
            stream: stream(),
            camera: words("camera"),
            service: words("service"),
            visitor: words("visitor"),
        }),
        "OPEN_RESULT" => {
            Frame::OpenResult(OpenResult { stream: stream(), outcome: outcome(), detail: words("detail") })
        }
        "DATA" => {
            let fin = means["fin"].as_bool().expect("true or false");
            Frame::Data(Data { stream: stream(), fin, octets: octets(&means["octets"]) })
        }
        "RESET_STREAM" => {
            let final_size = number(&means["final_size"]);
            Frame::ResetStream(ResetStream { stream: stream(), error: error(), final_size })
        }
        "STOP_SENDING" => Frame::StopSending(StopSending { stream: stream(), error: error() }),
        "MAX_DATA" => Frame::MaxData(MaxData { limit: limit() }),
        "MAX_STREAM_DATA" => Frame::MaxStreamData(MaxStreamData { stream: stream(), limit: limit() }),
        "RETURN_STREAM_DATA" => {
            Frame::ReturnStreamData(ReturnStreamData { stream: stream(), octets: number(&means["octets"]) })
        }
        "MAX_STREAMS" => Frame::MaxStreams(MaxStreams { limit: limit() }),
        "ARRIVED" => Frame::Arrived(Arrived { octets: number(&means["octets"]), at_ms: number(&means["at_ms"]) }),
        "TACK" => Frame::Tack(Tack { received: number(&means["received"]) }),
        _ => return None,
    })
}

fn stream_error(error: StreamError) -> Value {
    match error {
        StreamError::Other(number) => json!(number),
        known => json!(known.name()),
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
