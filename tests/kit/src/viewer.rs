//! A viewer: plays a URL and keeps every unit with its RTP time, and every sender report.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camagent_core::Codec;
use tokio::task::JoinHandle;

use crate::depacketize::Depacketizer;
use crate::nal::{self, Digest};
use crate::rtsp::{Connection, Incoming, Track};
use crate::wait;

/// A unit that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its name.
    pub digest: Digest,
    /// Its RTP time.
    pub time: u32,
    /// Whether decoding can start there.
    pub key: bool,
}

/// A sender report (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// UTC as seconds since 1900, with 32 bits behind the point.
    pub ntp: u64,
    /// The same moment on the track's RTP clock.
    pub rtp_time: u32,
}

/// What arrived of one track.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The track as it was described.
    pub track: Track,
    /// Units that count, in order.
    pub units: Vec<Received>,
    /// Sender reports in order.
    pub reports: Vec<Report>,
    /// Holes in the sequence numbers.
    pub holes: u32,
}

impl Seen {
    /// The names of the units.
    pub fn digests(&self) -> Vec<Digest> {
        self.units.iter().map(|unit| unit.digest).collect()
    }
}

#[derive(Debug, Default)]
struct State {
    tracks: Vec<Seen>,
    /// Why nothing more comes.
    ended: Option<String>,
    /// What no server may send.
    faults: Vec<String>,
}

/// A viewer that plays. Ends with the value.
pub struct Viewer {
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Viewer {
    /// Plays a URL; the error is what the server said.
    pub async fn try_play(url: &str) -> Result<Self, String> {
        let mut connection = Connection::open(url, None).await.map_err(|error| error.to_string())?;
        let tracks = connection.play().await?;
        Ok(Self::read(connection, tracks))
    }

    /// Plays a URL that must play at once.
    pub async fn play(url: &str) -> Self {
        match wait::within(url, wait::SOON, Self::try_play(url)).await {
            Ok(viewer) => viewer,
            Err(error) => panic!("{url}: {error}"),
        }
    }

    /// Asks again and again, as players do, until the URL plays.
    pub async fn play_again(url: &str, longest: Duration) -> Self {
        let ask = async {
            loop {
                if let Ok(viewer) = Self::try_play(url).await {
                    return viewer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        wait::within(url, longest, ask).await
    }

    /// Reads a connection that plays.
    pub fn read(mut connection: Connection, tracks: Vec<Track>) -> Self {
        let mut readers: Vec<_> = tracks.iter().map(|track| Depacketizer::new(track.codec)).collect();
        let seen =
            tracks.into_iter().map(|track| Seen { track, units: Vec::new(), reports: Vec::new(), holes: 0 }).collect();
        let state = Arc::new(Mutex::new(State { tracks: seen, ..State::default() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let incoming = connection.next().await;
                let mut state = lock(&shared);
                match incoming {
                    Ok(Incoming::Packet(channel, packet)) => state.take(&mut readers, channel, &packet),
                    Ok(Incoming::Response(..)) => {}
                    Err(error) => {
                        state.ended = Some(error.to_string());
                        return;
                    }
                }
            }
        });
        Self { state, task }
    }

    /// What arrived so far of the track with this index.
    pub fn seen(&self, track: usize) -> Seen {
        self.healthy().tracks[track].clone()
    }

    /// The tracks.
    pub fn tracks(&self) -> Vec<Track> {
        self.healthy().tracks.iter().map(|seen| seen.track.clone()).collect()
    }

    /// How many units of a track arrived so far.
    pub fn count(&self, track: usize) -> usize {
        self.healthy().tracks[track].units.len()
    }

    /// Whether a unit arrived.
    pub fn has(&self, track: usize, unit: Digest) -> bool {
        self.healthy().tracks[track].units.iter().rev().any(|received| received.digest == unit)
    }

    /// Why nothing more comes, once that is so.
    pub fn ended(&self) -> Option<String> {
        lock(&self.state).ended.clone()
    }

    /// Waits until so many units of a track arrived.
    pub async fn wait_count(&self, track: usize, count: usize, longest: Duration) {
        wait::until(&format!("{count} units of track {track} at a viewer"), longest, || self.count(track) >= count)
            .await;
    }

    /// Waits until a unit arrived.
    pub async fn wait_unit(&self, track: usize, unit: Digest, longest: Duration) {
        wait::until(&format!("unit {unit:?} of track {track} at a viewer"), longest, || self.has(track, unit)).await;
    }

    /// What arrived when it goes to the end of `units`, or all that came within `longest`. A unit alone does not tell: clips come round again.
    pub async fn wait_end(&self, track: usize, units: &[Digest], longest: Duration) -> Seen {
        let is_at_end = || {
            let digests = self.seen(track).digests();
            nal::find_run(units, &digests).is_ok_and(|start| start + digests.len() == units.len())
        };
        wait::at_most(longest, is_at_end).await;
        self.seen(track)
    }

    /// The state, unless the server did what no server may do.
    fn healthy(&self) -> MutexGuard<'_, State> {
        let state = lock(&self.state);
        assert!(state.faults.is_empty(), "what a viewer got is broken: {:?}", state.faults);
        state
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn take(&mut self, readers: &mut [Depacketizer], channel: u8, packet: &[u8]) {
        let index = usize::from(channel / 2);
        let (Some(seen), Some(reader)) = (self.tracks.get_mut(index), readers.get_mut(index)) else {
            self.faults.push(format!("a packet on channel {channel}"));
            return;
        };
        if channel % 2 == 1 {
            match read_report(packet) {
                Some(report) => seen.reports.push(report),
                None => self.faults.push(format!("RTCP that does not begin with a sender report: {packet:02x?}")),
            }
            return;
        }
        match reader.take(packet) {
            Ok(units) => seen.units.extend(units.into_iter().filter_map(|(time, unit)| {
                let codec = seen.track.codec;
                let is_video = matches!(codec, Codec::H264 | Codec::H265);
                let key = is_video && nal::is_key(codec, &unit);
                nal::counts(codec, &unit).then(|| Received { digest: Digest::of(&unit), time, key })
            })),
            Err(fault) => self.faults.push(fault),
        }
        seen.holes = reader.holes();
    }
}

fn read_report(packet: &[u8]) -> Option<Report> {
    let [0x80, 200, _, _, _, _, _, _, rest @ ..] = packet else { return None };
    let (ntp, rest) = rest.split_first_chunk()?;
    let (rtp_time, _) = rest.split_first_chunk()?;
    Some(Report { ntp: u64::from_be_bytes(*ntp), rtp_time: u32::from_be_bytes(*rtp_time) })
}
