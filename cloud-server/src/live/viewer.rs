//! A viewer is a cursor into the shared frame log. It takes frames in batches, as fast as its own connection drains;
//! when it is too late it continues at the newest key frame. It holds nothing but the batch it is writing.

use std::sync::Arc;

use tokio::sync::watch;

use super::demand::Interest;
use super::frame_log::{Frame, FrameLog};
use super::source::{Shared, Source};

/// A batch ends at the frame that passes one of these; one vectored write carries a batch.
const BATCH_FRAMES: usize = 48;
const BATCH_BYTES: usize = 256 << 10;

/// A reader of one source.
pub struct Viewer {
    source: Arc<Source>,
    changed: watch::Receiver<()>,
    tracks: u32,
    with_video: bool,
    layout: u32,
    cursor: Option<u64>,
    steps: u32,
    sent: Vec<(u32, u32)>,
    _interest: Interest,
}

/// Where a track of a viewer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The track.
    pub track: usize,
    /// Sequence number of the first packet this viewer gets.
    pub sequence: u16,
    /// RTP time of that packet; none while it does not exist yet.
    pub rtp_time: Option<u32>,
}

/// What an RTCP sender report says about one track of one viewer (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The track.
    pub track: usize,
    /// Its synchronization source.
    pub ssrc: u32,
    /// A moment in UTC, microseconds since 1970.
    pub utc_us: i64,
    /// The same moment on the track's RTP clock.
    pub rtp_time: u32,
    /// Packets sent to this viewer.
    pub packets: u32,
    /// Payload octets sent to this viewer.
    pub octets: u32,
}

/// How many frames were left out for a viewer that was too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Frames of all tracks.
    pub frames: u32,
}

/// Why a viewer gets no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The tracks are others now; the player must describe the source anew.
    FormatChanged,
    /// The camera did not come back within the offline patience.
    CameraGone,
    /// The camera does not exist any more.
    CameraRemoved,
}

impl Source {
    /// Starts reading the given tracks (a bit each) at the newest key frame.
    #[must_use]
    pub fn join(self: &Arc<Self>, tracks: u32) -> Viewer {
        let interest = self.demand.interest();
        let changed = self.subscribe();
        let mut shared = self.lock();
        shared.viewers += 1;
        // Pictures from before a pause of the source are not live: its next key frame is what to wait for.
        if shared.newest_at.elapsed() > self.limits.max_viewer_lag {
            shared.log.end_group();
        }
        let with_video = shared
            .tracks
            .iter()
            .enumerate()
            .any(|(index, track)| tracks & bit(index) != 0 && track.announced && track.is_video());
        let cursor = entry(&shared.log, with_video || !shared.has_video());
        let viewer = Viewer {
            changed,
            tracks,
            with_video: with_video || !shared.has_video(),
            layout: shared.layout,
            cursor,
            // A report is due from the beginning.
            steps: shared.steps.wrapping_sub(1),
            sent: vec![(0, 0); shared.tracks.len()],
            _interest: interest,
            source: Arc::clone(self),
        };
        drop(shared);
        if cursor.is_none() {
            self.demand.request_key_frame();
        }
        viewer
    }
}

impl Viewer {
    /// Which set of tracks it sees: that of the [`super::Presentation`] it was described by, if nothing changed since.
    #[must_use]
    pub fn layout(&self) -> u32 {
        self.layout
    }

    /// Where each track begins, as RTP-Info tells it (RFC 2326 12.33). Empty when nothing is there to begin with.
    #[must_use]
    pub fn starts(&self) -> Vec<Start> {
        let shared = self.source.lock();
        let Some(cursor) = self.cursor else { return Vec::new() };
        let chosen = shared.tracks.iter().enumerate().filter(|(index, _)| self.tracks & bit(*index) != 0);
        chosen
            .map(|(index, track)| {
                let first = shared.log.from(cursor).find(|frame| usize::from(frame.track) == index);
                Start {
                    track: index,
                    sequence: first.map_or(track.next_sequence(), |frame| frame.first_sequence),
                    rtp_time: first.map(|frame| frame.rtp_time),
                }
            })
            .collect()
    }

    /// Waits for frames and puts them into `batch`, which it empties first. Cancel safe.
    pub async fn next(&mut self, batch: &mut Vec<Frame>) -> Result<Option<Skip>, Ended> {
        batch.clear();
        loop {
            self.changed.mark_unchanged();
            let (skip, offline_since) = self.take(batch)?;
            if !batch.is_empty() || skip.is_some() {
                return Ok(skip);
            }
            let Some(since) = offline_since else {
                // The sender lives in the source this viewer holds.
                let _ = self.changed.changed().await;
                continue;
            };
            let deadline = since + self.source.limits.offline_patience;
            if tokio::time::timeout_at(deadline, self.changed.changed()).await.is_err() && !self.source.is_online() {
                return Err(Ended::CameraGone);
            }
        }
    }

    /// Goes on with fewer tracks.
    pub fn keep(&mut self, tracks: u32) {
        self.tracks &= tracks;
    }

    /// True when everything that is there was taken: the burst at the beginning is over.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.cursor == Some(self.source.lock().log.end())
    }

    /// True when a sender report should go out at once: at the beginning, and after a step of the camera's clock.
    #[must_use]
    pub fn is_report_due(&self) -> bool {
        self.source.lock().steps != self.steps
    }

    /// Reports for all tracks, all of one moment: that of the newest frame. Empty before the first frame.
    pub fn reports(&mut self) -> Vec<Report> {
        let shared = self.source.lock();
        let Some(media_us) = shared.log.newest().map(|frame| frame.media_us) else { return Vec::new() };
        let Some(utc_us) = shared.timeline.utc_us(media_us) else { return Vec::new() };
        self.steps = shared.steps;
        let chosen = shared.tracks.iter().enumerate().filter(|(index, _)| self.tracks & bit(*index) != 0);
        chosen
            .map(|(index, track)| {
                let (packets, octets) = self.sent.get(index).copied().unwrap_or_default();
                Report { track: index, ssrc: track.ssrc, utc_us, rtp_time: track.rtp_time(media_us), packets, octets }
            })
            .collect()
    }

    /// The source that is read.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    fn take(&mut self, batch: &mut Vec<Frame>) -> Result<(Option<Skip>, Option<tokio::time::Instant>), Ended> {
        let source = Arc::clone(&self.source);
        let mut shared = source.lock();
        if shared.removed {
            return Err(Ended::CameraRemoved);
        }
        if shared.layout != self.layout {
            return Err(Ended::FormatChanged);
        }
        let skip = self.catch_up(&mut shared);
        let Some(mut cursor) = self.cursor else { return Ok((skip, shared.offline_since)) };
        let mut bytes = 0;
        for frame in shared.log.from(cursor) {
            cursor += 1;
            if self.tracks & bit(usize::from(frame.track)) == 0 {
                continue;
            }
            if let Some((packets, octets)) = self.sent.get_mut(usize::from(frame.track)) {
                *packets = packets.wrapping_add(frame.packets);
                *octets = octets.wrapping_add(frame.octets);
            }
            bytes += frame.data.len();
            batch.push(frame.clone());
            if batch.len() >= BATCH_FRAMES || bytes >= BATCH_BYTES {
                break;
            }
        }
        self.cursor = Some(cursor);
        Ok((skip, shared.offline_since))
    }

    /// Moves a cursor that has no place yet, fell out of the log or is too late.
    fn catch_up(&mut self, shared: &mut Shared) -> Option<Skip> {
        let log = &shared.log;
        let Some(cursor) = self.cursor else {
            self.cursor = entry(log, self.with_video);
            return None;
        };
        let fell_out = cursor < log.first();
        let lag_us = match (log.get(cursor), log.newest()) {
            (Some(next), Some(newest)) => newest.media_us.saturating_sub(next.media_us),
            _ => 0,
        };
        let too_late = i128::from(lag_us) > i128::try_from(self.source.limits.max_viewer_lag.as_micros()).unwrap_or(0);
        if !fell_out && !too_late {
            return None;
        }
        let target = entry(log, self.with_video).filter(|target| *target > cursor);
        if target.is_none() && !fell_out {
            // Late, but there is nothing newer to begin with: frames in order are the best there is.
            return None;
        }
        let frames = target.unwrap_or(log.first()).saturating_sub(cursor);
        self.cursor = target;
        shared.skips = shared.skips.wrapping_add(1);
        if target.is_none() {
            self.source.demand.request_key_frame();
        }
        Some(Skip { frames: u32::try_from(frames).unwrap_or(u32::MAX) })
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut shared = self.source.lock();
        shared.viewers = shared.viewers.saturating_sub(1);
    }
}

/// Where a viewer may begin: at the newest key frame, or, without video, with what comes next.
fn entry(log: &FrameLog, at_key: bool) -> Option<u64> {
    if at_key { log.newest_key() } else { Some(log.end()) }
}

const fn bit(track: usize) -> u32 {
    1 << (track & 31)
}
