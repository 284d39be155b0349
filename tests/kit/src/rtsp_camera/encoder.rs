//! What one path of a camera shows: an encoder that runs in real time whether somebody watches or not, and the record of
//! what it made.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use camagent_media::{Parameters, TrackReader, rtp, sdp};
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::{Description, Encoded, Traffic};
use crate::script::{Piece, Script};

/// Frames that wait for a connection that is slow; more are lost to it.
const QUEUE: usize = 256;
/// Frames that the record keeps: at 70 a second more than four minutes.
const RECORD: usize = 20_000;

/// A frame on its way to the connections.
#[derive(Debug)]
pub(super) struct Live {
    /// The index of its track in the description.
    pub(super) track: usize,
    pub(super) is_video: bool,
    pub(super) key: bool,
    /// Time since the encoder began.
    pub(super) time_us: i64,
    pub(super) parts: Vec<Bytes>,
}

/// A track as connections need it.
#[derive(Clone, Debug)]
pub(super) struct LiveTrack {
    pub(super) parameters: Parameters,
    pub(super) payload_type: u8,
}

struct Track {
    number: u32,
    is_video: bool,
    reader: TrackReader,
}

struct Machine {
    script: Script,
    tracks: Vec<Track>,
    /// When the encoder made the frame of time 0.
    began: Instant,
    began_unix_us: i64,
}

/// The encoder of one path.
pub(super) struct Encoder {
    pub(super) path: &'static str,
    machine: Mutex<Machine>,
    sender: broadcast::Sender<Arc<Live>>,
    record: Mutex<VecDeque<Encoded>>,
    traffic: Mutex<Traffic>,
}

impl Encoder {
    pub(super) fn new(path: &'static str, script: Script) -> Self {
        Self {
            path,
            machine: Mutex::new(Machine::new(script)),
            sender: broadcast::Sender::new(QUEUE),
            record: Mutex::default(),
            traffic: Mutex::default(),
        }
    }

    /// Shows something else from now on.
    pub(super) fn replace(&self, script: Script) {
        let mut machine = Machine::new(script);
        machine.begin();
        *self.machine() = machine;
    }

    /// Makes frames at their times, for ever.
    pub(super) async fn run(&self) {
        self.machine().begin();
        loop {
            let due = {
                let machine = self.machine();
                machine.began + Duration::from_micros(machine.script.next_time_us().unsigned_abs())
            };
            tokio::time::sleep_until(due).await;
            let (live, encoded) = self.machine().make();
            {
                let mut record = lock(&self.record);
                if record.len() == RECORD {
                    record.pop_front();
                }
                record.push_back(encoded);
            }
            // Nobody watching is no error.
            let _ = self.sender.send(Arc::new(live));
        }
    }

    /// The frames from now on.
    pub(super) fn watch(&self) -> broadcast::Receiver<Arc<Live>> {
        self.sender.subscribe()
    }

    pub(super) fn tracks(&self) -> Vec<LiveTrack> {
        self.machine().live_tracks()
    }

    /// UTC of a frame's time, in microseconds since 1970.
    pub(super) fn unix_us(&self, time_us: i64) -> i64 {
        self.machine().began_unix_us + time_us
    }

    /// The time of the next frame.
    pub(super) fn now_us(&self) -> i64 {
        self.machine().script.next_time_us()
    }

    pub(super) fn record(&self) -> Vec<Encoded> {
        lock(&self.record).iter().cloned().collect()
    }

    pub(super) fn traffic(&self) -> Traffic {
        *lock(&self.traffic)
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Traffic)) {
        change(&mut lock(&self.traffic));
    }

    /// The session description (RFC 8866).
    pub(super) fn describe(&self, how: Description) -> String {
        let tracks = self.tracks();
        let controls: Vec<_> = (0..tracks.len()).map(|index| format!("trackID={index}")).collect();
        let media = tracks.iter().zip(&controls).map(|(track, control)| sdp::Media {
            parameters: &track.parameters,
            payload_type: track.payload_type,
            control,
        });
        let session = sdp::Session { id: 2_229_784_200, name: "Media Server", media: media.collect() };
        let honest = session.to_string();
        if how == Description::Honest {
            return honest;
        }
        honest.lines().map(|line| format!("{}\r\n", spoiled(line, how))).collect()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.machine)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line of the description with its parameter sets left out or made nonsense.
fn spoiled(line: &str, how: Description) -> String {
    let Some((head, parameters)) = line.strip_prefix("a=fmtp:").and_then(|rest| rest.split_once(' ')) else {
        return line.into();
    };
    let parameters = parameters.split(';').filter_map(|parameter| {
        let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
        match how {
            _ if !name.starts_with("sprop-") => Some(parameter.to_owned()),
            Description::Garbage => Some(format!("{name}=%%no-base64%%")),
            _ => None,
        }
    });
    format!("a=fmtp:{head} {}", parameters.collect::<Vec<_>>().join(";"))
}

impl Machine {
    fn new(script: Script) -> Self {
        let tracks = script.tracks("main").into_iter().map(|(number, track)| Track {
            number,
            is_video: track.codec.is_video(),
            reader: TrackReader::new(
                track.codec,
                track.framing,
                &track.config,
                track.sample_rate,
                track.channels.into(),
            )
            .expect("a good track"),
        });
        let mut machine =
            Self { tracks: tracks.collect(), script: script.clone(), began: Instant::now(), began_unix_us: 0 };
        // The description must be known before the first frame is due.
        let mut ahead = script;
        while machine.tracks.iter().any(|track| track.reader.parameters().is_none()) {
            machine.read(&ahead.next_piece());
        }
        machine
    }

    /// The next frame is due now.
    fn begin(&mut self) {
        let time_us = self.script.next_time_us();
        self.began = Instant::now() - Duration::from_micros(time_us.unsigned_abs());
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock behind 1970");
        self.began_unix_us = i64::try_from(unix.as_micros()).expect("a clock of this age") - time_us;
    }

    fn read(&mut self, piece: &Piece) -> (usize, Vec<Bytes>) {
        let index = self.tracks.iter().position(|track| track.number == piece.track).expect("a track of the script");
        let unit = self.tracks[index].reader.read(&piece.data).expect("a good clip");
        (index, unit.parts)
    }

    fn make(&mut self) -> (Live, Encoded) {
        let piece = self.script.next_piece();
        let (index, parts) = self.read(&piece);
        let is_video = self.tracks[index].is_video;
        let live = Live { track: index, is_video, key: piece.key, time_us: piece.time_us, parts };
        let encoded = Encoded { track: index, time_us: piece.time_us, key: piece.key, units: piece.units };
        (live, encoded)
    }

    fn live_tracks(&self) -> Vec<LiveTrack> {
        let tracks = self.tracks.iter().enumerate().map(|(index, track)| {
            let parameters = track.reader.parameters().expect("read at the beginning").clone();
            // 96 and 97 are for any use.
            let payload_type = rtp::payload_type(&parameters, 96 + index as u8);
            LiveTrack { parameters, payload_type }
        });
        tracks.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_good_and_bad() {
        let encoder = Encoder::new("/", Script::h265_pcma());
        let honest = encoder.describe(Description::Honest);
        assert!(
            honest.contains("H265/90000") && honest.contains("sprop-vps=") && honest.contains("m=audio 0 RTP/AVP 8")
        );
        let bare = encoder.describe(Description::WithoutParameterSets);
        assert!(!bare.contains("sprop-") && bare.contains("profile-id=1"), "{bare}");
        let garbage = encoder.describe(Description::Garbage);
        assert!(garbage.contains("sprop-sps=%%no-base64%%"), "{garbage}");
        let audio = Encoder::new("/", Script::h265_pcmu().without_video());
        assert_eq!(audio.tracks().len(), 1);
    }
}
