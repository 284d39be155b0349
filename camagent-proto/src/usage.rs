//! What the octets that an agent sends are for: live video of which source, the past of which, a tunnel of which service, control; and of those that it
//! gets, which are a tunnel's.
//!
//! Records are read once more on their way out, and in, by their frames' heads only: whoever fills them need not know of this. What was chosen counts
//! when it has left ([`Usage::left`]), so that all causes together are never more than what the socket sent; the rest is overhead: TLS,
//! WebSocket and HTTP. Counting allocates nothing once the names are known.

use alloc::{string::String, vec::Vec};

use bytes::Bytes;

use crate::{
    frame::{Body, Data, FIRST_LANE, Frame, FrameMore, FrameStart, Journal, Open, Reader},
    stats::DataUse,
    time::{Duration, Instant},
    varint,
};

/// A frame that leaves so long after its arrival is not live any more: it is what an outage left behind, or a recording.
const LIVE: Duration = Duration::from_secs(10);
/// Sources that are counted by name. More are counted together with control.
const MAX_SOURCES: usize = 4_096;
/// Streams whose service is known; no agent takes more.
const MAX_STREAMS: usize = 4_096;
/// Octets of names that one report has room for beside everything else in a control message.
const MAX_NAMES: usize = 1_700;
/// Octets of JSON around a name: quotes, colon, comma and a number.
const AROUND_A_NAME: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Live(usize),
    /// Of a source, where that is known.
    Backfill(Option<usize>),
    Tunnel(usize),
    Control,
}

#[derive(Debug)]
struct Part {
    /// `camera/source`, or `camera/service`.
    name: String,
    octets: u64,
    told: u64,
}

impl Part {
    fn new(name: String) -> Self {
        Self { name, octets: 0, told: 0 }
    }
}

#[derive(Debug)]
struct Track {
    number: u32,
    source: usize,
    is_late: bool,
}

/// Octets by cause since the agent started.
#[derive(Debug, Default)]
pub struct Usage {
    sources: Vec<Part>,
    services: Vec<Part>,
    tracks: Vec<Track>,
    /// What left late of each source, in the order of the sources.
    past: Vec<Part>,
    /// What came for each service, in the order of the services.
    came: Vec<Part>,
    /// The source of each lane of this session.
    lanes: Vec<(u32, usize)>,
    /// The service of each stream.
    streams: Vec<(u64, usize)>,
    backfill: u64,
    control: u64,
    /// What was chosen and has not left yet.
    chosen: Vec<(Cause, u64)>,
}

impl Usage {
    /// Nothing was sent. `services` are those that tunnels may lead to: camera and service.
    pub fn new<'a>(services: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let services: Vec<String> = services.into_iter().map(|(camera, service)| joined(camera, service)).collect();
        let parts = || services.iter().cloned().map(Part::new).collect();
        Self { services: parts(), came: parts(), ..Self::default() }
    }

    /// A track is of that source.
    pub fn track(&mut self, number: u32, camera: &str, source: &str) {
        let Some(source) = self.source(camera, source) else { return };
        match self.tracks.iter_mut().find(|track| track.number == number) {
            Some(track) => track.source = source,
            None => self.tracks.push(Track { number, source, is_late: false }),
        }
    }

    /// The number of a source, which is a new one or not.
    fn source(&mut self, camera: &str, source: &str) -> Option<usize> {
        let name = joined(camera, source);
        if let Some(at) = self.sources.iter().position(|known| known.name == name) {
            return Some(at);
        }
        if self.sources.len() == MAX_SOURCES {
            return None;
        }
        self.past.push(Part::new(name.clone()));
        self.sources.push(Part::new(name));
        Some(self.sources.len() - 1)
    }

    /// A stream is opened to a service; an unknown one is counted with control.
    pub fn opened(&mut self, stream: u64, camera: &str, service: &str) {
        self.closed(stream);
        let is_of = |part: &Part| {
            part.name.strip_prefix(camera).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| rest == service)
        };
        let Some(at) = self.services.iter().position(is_of) else { return };
        if self.streams.len() == MAX_STREAMS {
            self.streams.remove(0);
        }
        self.streams.push((stream, at));
    }

    /// A stream is over.
    pub fn closed(&mut self, stream: u64) {
        self.streams.retain(|(known, _)| *known != stream);
    }

    /// A control message was chosen to be sent.
    pub fn text(&mut self, octets: usize) {
        self.choose(Cause::Control, octets as u64);
    }

    /// A record was chosen to be sent.
    pub fn record(&mut self, now: Instant, record: &[u8]) {
        let mut rest = record;
        while !rest.is_empty() {
            let Some((kind, body, octets)) = frame(rest) else {
                // No record of ours.
                return self.choose(Cause::Control, rest.len() as u64);
            };
            let cause = self.cause(now, kind, body);
            self.choose(cause, octets as u64);
            rest = &rest[octets..];
        }
    }

    /// A record has come.
    pub fn came(&mut self, record: &[u8]) {
        let mut rest = record;
        while let Some((kind, body, octets)) = frame(rest) {
            match kind {
                // Its first octets may come in the same record.
                Open::NUMBER => {
                    if let Ok(open) = Open::read(&mut Reader::new(Bytes::copy_from_slice(body))) {
                        self.opened(open.stream, &open.camera, &open.service);
                    }
                }
                Data::NUMBER => {
                    let service = varint::get(body).and_then(|(stream, _)| self.service(stream));
                    if let Some(service) = service {
                        self.came[service].octets += octets as u64;
                    }
                }
                _ => {}
            }
            rest = &rest[octets..];
        }
    }

    /// All that was chosen has left.
    pub fn left(&mut self) {
        for (cause, octets) in self.chosen.drain(..) {
            match cause {
                Cause::Live(source) => self.sources[source].octets += octets,
                Cause::Tunnel(service) => self.services[service].octets += octets,
                Cause::Backfill(source) => {
                    self.backfill += octets;
                    if let Some(source) = source {
                        self.past[source].octets += octets;
                    }
                }
                Cause::Control => self.control += octets,
            }
        }
    }

    /// The connection broke: what was chosen may have left or not.
    pub fn lost(&mut self) {
        self.chosen.clear();
    }

    /// The numbers for the statistics, when `sent` and `received` octets went over the agent's sockets. As many names as a control message has room
    /// for, those that changed first; the second value says whether others have to follow.
    pub fn report(&mut self, sent: u64, received: u64) -> (DataUse, bool) {
        let parts = || self.sources.iter().chain(&self.services);
        let named = parts().map(|part| part.octets).sum::<u64>() + self.backfill + self.control;
        let mut data = DataUse {
            backfill: self.backfill,
            control: self.control,
            overhead: sent.saturating_sub(named),
            received,
            ..DataUse::default()
        };
        let (mut room, mut is_whole) = (MAX_NAMES, true);
        for (parts, into) in [
            (&mut self.sources, &mut data.live),
            (&mut self.services, &mut data.tunnels),
            (&mut self.past, &mut data.backfill_of),
            (&mut self.came, &mut data.received_of),
        ] {
            for part in parts.iter_mut().filter(|part| part.octets > part.told) {
                let Some(left) = room.checked_sub(part.name.len() + AROUND_A_NAME) else {
                    is_whole = false;
                    continue;
                };
                room = left;
                part.told = part.octets;
                into.insert(part.name.clone(), part.octets);
            }
        }
        (data, !is_whole)
    }

    /// A session begins: everything is told again, because the server may be another one.
    pub fn begin(&mut self) {
        let parts = self.sources.iter_mut().chain(&mut self.services).chain(&mut self.past).chain(&mut self.came);
        parts.for_each(|part| part.told = 0);
        self.lanes.clear();
    }

    fn cause(&mut self, now: Instant, kind: u64, body: &[u8]) -> Cause {
        let Some((number, length)) = varint::get(body) else { return Cause::Control };
        match kind {
            Data::NUMBER => self.service(number).map_or(Cause::Control, Cause::Tunnel),
            // A lane carries frames of the past and nothing else.
            FrameStart::NUMBER | FrameMore::NUMBER if number >= u64::from(FIRST_LANE) => {
                let lane = self.lanes.iter().find(|(lane, _)| u64::from(*lane) == number);
                Cause::Backfill(lane.map(|(_, source)| *source))
            }
            Journal::NUMBER => {
                self.lane(body);
                Cause::Control
            }
            FrameStart::NUMBER | FrameMore::NUMBER => {
                let Some(track) = self.tracks.iter_mut().find(|track| u64::from(track.number) == number) else {
                    return Cause::Control;
                };
                if kind == FrameStart::NUMBER
                    && let Some(arrival_us) = arrival(&body[length..])
                {
                    track.is_late = now.saturating_since(Instant::from_micros(arrival_us)) > LIVE;
                }
                if track.is_late { Cause::Backfill(Some(track.source)) } else { Cause::Live(track.source) }
            }
            _ => Cause::Control,
        }
    }

    /// A lane begins, or goes on.
    fn lane(&mut self, body: &[u8]) {
        let Ok(journal) = Journal::read(&mut Reader::new(Bytes::copy_from_slice(body))) else { return };
        self.lanes.retain(|(lane, _)| *lane != journal.lane);
        if self.lanes.len() < MAX_SOURCES
            && let Some(source) = self.source(&journal.info.camera, &journal.info.source)
        {
            self.lanes.push((journal.lane, source));
        }
    }

    fn service(&self, stream: u64) -> Option<usize> {
        self.streams.iter().find(|(known, _)| *known == stream).map(|(_, service)| *service)
    }

    fn choose(&mut self, cause: Cause, octets: u64) {
        match self.chosen.last_mut() {
            Some((last, sum)) if *last == cause => *sum += octets,
            _ => self.chosen.push((cause, octets)),
        }
    }
}

fn joined(camera: &str, name: &str) -> String {
    alloc::format!("{camera}/{name}")
}

/// The kind, the body and all octets of a record's first frame.
fn frame(record: &[u8]) -> Option<(u64, &[u8], usize)> {
    let (kind, kind_octets) = varint::get(record)?;
    let (length, length_octets) = varint::get(&record[kind_octets..])?;
    let from = kind_octets + length_octets;
    let to = from.checked_add(usize::try_from(length).ok()?)?;
    Some((kind, record.get(from..to)?, to))
}

/// The time of arrival in a FRAME, whose track was read already: behind sequence, pts and dts.
fn arrival(body: &[u8]) -> Option<u64> {
    let mut at = 0;
    for _ in 0..3 {
        at += varint::get(&body[at..])?.1;
    }
    varint::get(&body[at..]).map(|(arrival, _)| arrival)
}

/// How many kinds there are to tell apart: a new one has to be thought of here.
const _: () = assert!(Frame::KINDS.len() >= 14);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameHead, MAX_RECORD, MaxData, RecordWriter, TrackInfo};

    fn record(frames: &[Frame]) -> Bytes {
        let mut record = RecordWriter::new(MAX_RECORD);
        assert!(frames.iter().all(|frame| record.push(frame)));
        record.finish()
    }

    fn picture(track: u32, arrival_us: u64, octets: usize) -> Frame {
        let payload = Bytes::from(alloc::vec![7; octets]);
        let head = FrameHead { pts_us: -5, dts_us: -40_000, arrival_us, ..FrameHead::default() };
        Frame::Frame(FrameStart { track, sequence: 300, head, total: 2 * octets as u64, payload })
    }

    fn data(stream: u64, octets: usize) -> Frame {
        Frame::Data(Data { stream, fin: false, octets: Bytes::from(alloc::vec![7; octets]) })
    }

    #[test]
    fn every_octet_of_a_record_has_one_cause() {
        let mut usage = Usage::new([("gate", "http"), ("gate", "rtsp")]);
        usage.track(3, "gate", "main");
        usage.opened(5, "gate", "rtsp");
        usage.opened(9, "gate", "ssh");
        let now = Instant::from_micros(60_000_000);
        let rest = Frame::FrameMore(FrameMore { track: 3, payload: Bytes::from_static(&[7; 100]) });
        let lane = Frame::FrameMore(FrameMore { track: FIRST_LANE, payload: Bytes::from_static(&[7; 300]) });
        let all = [
            picture(3, 59_000_000, 100),
            rest.clone(),
            picture(3, 40_000_000, 50),
            rest,
            lane,
            data(5, 200),
            data(9, 10),
            Frame::MaxData(MaxData { limit: 1 << 20 }),
        ];
        let record = record(&all);
        usage.record(now, &record);
        usage.text(40);
        assert_eq!(usage.report(0, 0).0, DataUse::default(), "nothing has left");
        usage.left();
        let sent = record.len() as u64 + 40 + 500;
        let (data, more) = usage.report(sent, 77);
        assert!(!more);
        let (live, tunnel) = (data.live["gate/main"], data.tunnels["gate/rtsp"]);
        assert!((200..240).contains(&live) && (450..500).contains(&data.backfill), "{data:?}");
        assert!((200..206).contains(&tunnel) && (50..70).contains(&data.control), "{data:?}");
        assert_eq!((data.overhead, data.received), (500, 77));
        assert_eq!(live + tunnel + data.backfill + data.control + data.overhead, sent);
        assert!(usage.report(sent, 77).0.live.is_empty(), "told, and unchanged");
        usage.begin();
        assert_eq!(usage.report(sent, 77).0.live["gate/main"], live);
        usage.text(1_000);
        usage.lost();
        usage.left();
        assert_eq!(usage.report(sent, 77).0.control, data.control, "what was lost is overhead at most");
    }

    #[test]
    fn the_past_has_a_source_and_what_comes_a_service() {
        let mut usage = Usage::new([("gate", "http"), ("yard", "http")]);
        usage.track(3, "gate", "main");
        let now = Instant::from_micros(60_000_000);
        let journal = |lane: u32, camera: &str| {
            let info = TrackInfo {
                track: 3,
                epoch: 1,
                next: 0,
                camera: camera.into(),
                source: "main".into(),
                codec: 1,
                framing: 1,
                sample_rate: 0,
                channels: 0,
                config: Bytes::new(),
            };
            Frame::Journal(Journal { lane, boot: [7; 16], end: 90, clock_us: 0, utc_us: 0, info })
        };
        let of_lane = |lane| Frame::FrameMore(FrameMore { track: lane, payload: Bytes::from_static(&[7; 300]) });
        let past = [
            journal(FIRST_LANE, "gate"),
            journal(FIRST_LANE + 1, "yard"),
            of_lane(FIRST_LANE),
            of_lane(FIRST_LANE + 1),
        ];
        usage.record(now, &record(&past));
        // Late of its own track, and of a lane that was never opened.
        usage.record(now, &record(&[picture(3, 40_000_000, 100), of_lane(FIRST_LANE + 9)]));
        usage.left();
        let open = |stream, camera: &str| {
            Frame::Open(Open { stream, camera: camera.into(), service: "http".into(), visitor: String::new() })
        };
        usage.came(&record(&[open(1, "gate"), data(1, 500), open(5, "yard"), open(9, "none"), data(9, 700)]));
        usage.came(&record(&[data(5, 50), Frame::MaxData(MaxData { limit: 1 << 20 }), data(1, 10)]));
        usage.came(&[0xff; 3]);
        let (report, _) = usage.report(10_000, 5_000);
        let (gate, yard) = (report.backfill_of["gate/main"], report.backfill_of["yard/main"]);
        assert!((400..450).contains(&gate) && (300..310).contains(&yard), "{report:?}");
        assert!((gate + yard + 300..gate + yard + 320).contains(&report.backfill), "{report:?}");
        let (gate, yard) = (report.received_of["gate/http"], report.received_of["yard/http"]);
        assert!((510..520).contains(&gate) && (50..60).contains(&yard), "{report:?}");
        assert_eq!((report.received, report.tunnels.len(), report.received_of.len()), (5_000, 0, 2));
        let (again, _) = usage.report(10_000, 5_000);
        assert!(again.backfill_of.is_empty() && again.received_of.is_empty(), "told, and unchanged");
    }

    #[test]
    fn a_report_fits_and_the_rest_follows() {
        let mut usage = Usage::default();
        for number in 0..100 {
            usage.track(number, &"c".repeat(64), &alloc::format!("source{number}"));
            usage.record(Instant::ZERO, &record(&[picture(number, 0, 10)]));
        }
        usage.left();
        let mut told = 0;
        for round in 0.. {
            let (data, more) = usage.report(1 << 50, 1 << 50);
            assert!(serde_json::to_string(&data).unwrap().len() < 2_000);
            told += data.live.len();
            if !more {
                assert!(round > 1 && told == 100, "{told}");
                break;
            }
        }
    }
}
