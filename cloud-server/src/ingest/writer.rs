//! One open segment: frames of one track in, parts out, each at most half a second long. Bytes are kept until they are safe, so
//! that a file that fails can be given up and its unsafe bytes written to another one.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use camagent_media::fmp4::{self, Sample};
use camagent_media::{Parameters, TrackReader, Unit};
use camagent_proto::frame::FrameHead;

use super::Flow;
use super::disk::Disk;
use super::segment::{self, PartHead, Run, SegmentHead, SegmentInfo, TRACK, extend_runs, run_of};

/// A part is not longer, in the camera's time …
const PART_US: i64 = 500_000;
/// … and does not grow beyond this many bytes by another frame.
const PART_BYTES: usize = 4 << 20;
/// A picture that lasts until nobody knows when: 25 in a second.
const NOMINAL_US: i64 = 40_000;
/// Sound whose time stamps are this near to what its samples add up to has no pause.
const SOUND_JITTER_US: i64 = 60_000;
/// Runs of a file: each hole in the numbers begins one.
pub(super) const MOST_RUNS: usize = 512;

/// One open segment.
pub(super) struct Writer<D: Disk> {
    pub(super) name: String,
    file: Option<D::File>,
    flow: Arc<Flow>,
    storage_epoch: [u8; 16],
    reader: TrackReader,
    parameters: Parameters,
    timescale: u32,
    /// The camera's decoding time at tick 0.
    base_us: i64,
    /// Steps of the source's clock when it began.
    pub(super) steps: u32,
    /// The number that continues it.
    pub(super) next: u64,
    part: OpenPart,
    parts: u32,
    last_tick: Option<i64>,
    last_duration: i64,
    /// Numbers are missing behind the last frame.
    is_behind_hole: bool,
    pub(super) last_us: i64,
    /// Bytes that are not known to be safe; the first `written` of them are in the file.
    unsafe_bytes: Vec<u8>,
    written: usize,
    /// Nothing is known to be safe of its name.
    is_new: bool,
    safe_bytes: u64,
    unsafe_runs: Vec<Run>,
    pub(super) runs: Vec<Run>,
    pub(super) closing: bool,
    /// Monotonic time of the last frame.
    pub(super) pushed_at: u64,
}

#[derive(Default)]
struct OpenPart {
    head: Option<PartHead>,
    start_us: i64,
    /// Ticks, and whether it is a key frame, of each sample; their bytes.
    samples: Vec<(i64, i32, u32, bool)>,
    payload: Vec<u8>,
    counts: Vec<u16>,
}

/// A frame that was read.
pub(super) struct ReadFrame {
    pub(super) sequence: u64,
    pub(super) head: FrameHead,
    pub(super) unit: Unit,
    /// UTC minus the camera's clock.
    pub(super) offset_us: i64,
}

impl<D: Disk> Writer<D> {
    /// Begins with a frame, which is not written by this.
    pub(super) fn new(
        name: String,
        flow: Arc<Flow>,
        storage_epoch: [u8; 16],
        reader: TrackReader,
        parameters: Parameters,
        first: &ReadFrame,
        steps: u32,
    ) -> Self {
        Self {
            unsafe_bytes: segment::head(&flow, &parameters, &storage_epoch),
            name,
            file: None,
            flow,
            storage_epoch,
            reader,
            timescale: fmp4::timescale(&parameters).max(1),
            parameters,
            base_us: first.head.dts_us,
            steps,
            next: first.sequence,
            part: OpenPart::default(),
            parts: 0,
            last_tick: None,
            last_duration: 0,
            is_behind_hole: false,
            last_us: first.head.dts_us,
            written: 0,
            is_new: false,
            safe_bytes: 0,
            unsafe_runs: Vec::new(),
            runs: Vec::new(),
            closing: false,
            pushed_at: 0,
        }
    }

    /// Reads a frame with what this file knows of the track.
    pub(super) fn read(&mut self, payload: &Bytes) -> Result<Unit, camagent_media::MediaError> {
        self.reader.read(payload)
    }

    /// The reader as it is now, to go on with in another file.
    pub(super) fn reader(&self) -> TrackReader {
        self.reader.clone()
    }

    /// How much the file holds, safe or not.
    pub(super) fn bytes(&self) -> u64 {
        self.safe_bytes + (self.unsafe_bytes.len() + self.part.payload.len()) as u64
    }

    /// How long it is when it ends before a frame of this time.
    pub(super) fn until_us(&self, dts_us: i64) -> i64 {
        dts_us.saturating_sub(self.base_us)
    }

    /// Whether a frame may follow here: time goes on as it should.
    pub(super) fn takes(&self, head: &FrameHead, steps: u32) -> bool {
        let ahead = head.dts_us.saturating_sub(self.last_us);
        !self.closing
            && self.steps == steps
            && (-1_000_000..=10_000_000).contains(&ahead)
            && self.runs.len() + self.unsafe_runs.len() < MOST_RUNS
    }

    /// Numbers up to `next` will never come; those before are whole.
    pub(super) fn skip_to(&mut self, next: u64) {
        self.flush(None);
        self.next = next;
        self.is_behind_hole = true;
    }

    /// Takes the next frame.
    pub(super) fn push(&mut self, frame: &ReadFrame) {
        let is_video = self.flow.codec.is_video();
        let dts_us = frame.head.dts_us;
        let mut tick = self.tick(dts_us);
        if let Some(last) = self.last_tick {
            let expected = last + self.last_duration;
            let jitter = SOUND_JITTER_US * i64::from(self.timescale) / 1_000_000;
            if !is_video && (tick - expected).abs() <= jitter.max(self.last_duration) {
                tick = expected;
            } else if !is_video {
                tick = tick.max(expected);
                self.flush(None);
            }
            tick = tick.max(last + 1);
        }
        let is_long = dts_us.saturating_sub(self.part.start_us) >= PART_US
            || self.part.payload.len() + frame.unit.parts.iter().map(Bytes::len).sum::<usize>() > PART_BYTES;
        if self.part.head.is_some() && is_long {
            self.flush(Some(tick));
        }
        let part = &mut self.part;
        let head = part.head.get_or_insert_with(|| {
            part.start_us = dts_us;
            PartHead {
                first: frame.sequence,
                frames: 0,
                utc_us: frame.offset_us.saturating_add(self.base_us).saturating_add(micros(tick, self.timescale)),
                pts_us: frame.head.pts_us,
                samples: Vec::new(),
            }
        });
        head.frames += 1;
        let before = part.samples.len();
        let composition = scaled(frame.head.pts_us.saturating_sub(dts_us), self.timescale);
        // What was moved to keep decoding times in order is given back to the time of the picture.
        let moved = if is_video { self.tick(dts_us) - tick } else { 0 };
        let composition = i32::try_from(if is_video { composition + moved } else { 0 }).unwrap_or(0);
        let part = &mut self.part;
        if is_video && !frame.unit.parts.is_empty() {
            let bytes = fmp4::length_prefixed(&frame.unit.parts);
            part.samples.push((tick, composition, size(&bytes), frame.unit.key));
            part.payload.extend_from_slice(&bytes);
            // Who was before the hole does not tell how long a picture lasts: one that is alone would cover the next hole.
            if let Some(last) = self.last_tick.filter(|_| !self.is_behind_hole) {
                self.last_duration = (tick - last).clamp(1, i64::from(self.timescale));
            }
            self.last_tick = Some(tick);
        } else if !is_video {
            for bytes in &frame.unit.parts {
                part.samples.push((tick, 0, size(bytes), true));
                part.payload.extend_from_slice(bytes);
                self.last_tick = Some(tick);
                self.last_duration = sound_ticks(&self.parameters, bytes);
                tick += self.last_duration;
            }
        }
        let count = part.samples.len() - before;
        part.counts.push(u16::try_from(count).unwrap_or(u16::MAX));
        self.last_us = self.last_us.max(dts_us);
        self.next = frame.sequence + 1;
        self.is_behind_hole = false;
    }

    /// Ends the open part. `until` is where the next sample begins, when it is known.
    pub(super) fn flush(&mut self, until: Option<i64>) {
        let OpenPart { head, samples, payload, counts, .. } = std::mem::take(&mut self.part);
        let Some(mut head) = head else { return };
        let is_video = self.flow.codec.is_video();
        if counts.iter().any(|count| *count != 1) {
            head.samples = counts;
        }
        let nominal = match self.last_duration {
            0 => NOMINAL_US * i64::from(self.timescale) / 1_000_000,
            known => known,
        };
        let mut table = Vec::with_capacity(samples.len());
        for (index, (tick, composition, size, key)) in samples.iter().enumerate() {
            let next = samples.get(index + 1).map(|sample| sample.0).or(until.filter(|_| is_video));
            let lasts = next.map_or(nominal, |next| next - tick).clamp(1, i64::from(self.timescale) * 10);
            table.push(Sample {
                duration: u32::try_from(lasts).unwrap_or(1),
                composition: *composition,
                size: *size,
                key: *key,
            });
        }
        self.parts += 1;
        let start = samples.first().map_or_else(|| self.last_tick.unwrap_or(0), |sample| sample.0);
        let mut media = Vec::with_capacity(payload.len() + 128 + table.len() * 16);
        fmp4::part(&mut media, self.parts, TRACK, u64::try_from(start).unwrap_or(0), &table, &payload);
        segment::put_part(&mut self.unsafe_bytes, &head, &media);
        if let Ok(Ok(part)) = fmp4::read_part(&media) {
            extend_runs(&mut self.unsafe_runs, run_of(&head, &part, self.timescale));
        }
    }

    /// Whether something of it is not safe yet.
    pub(super) fn is_dirty(&self) -> bool {
        self.part.head.is_some() || !self.unsafe_runs.is_empty()
    }

    /// Writes what is not written; [`Writer::sync`] makes it safe.
    pub(super) fn write(&mut self, disk: &mut D) -> io::Result<()> {
        self.flush(None);
        if self.unsafe_runs.is_empty() {
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(disk.create(&self.name)?);
            self.is_new = true;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        disk.append(file, &self.unsafe_bytes[self.written..])?;
        self.written = self.unsafe_bytes.len();
        disk.begin_sync(file);
        Ok(())
    }

    /// Makes what was written safe. Gives the runs that became it.
    pub(super) fn sync(&mut self, disk: &mut D) -> io::Result<Vec<Run>> {
        let Some(file) = self.file.as_mut().filter(|_| !self.unsafe_runs.is_empty()) else { return Ok(Vec::new()) };
        disk.sync(file)?;
        if self.is_new {
            disk.sync_folder(super::recorder::OPEN)?;
            self.is_new = false;
        }
        self.safe_bytes += self.unsafe_bytes.len() as u64;
        self.unsafe_bytes.clear();
        self.written = 0;
        let runs = std::mem::take(&mut self.unsafe_runs);
        for run in &runs {
            extend_runs(&mut self.runs, *run);
        }
        Ok(runs)
    }

    /// The file failed: it is given up with what is safe in it, and what is not goes to a new one. Gives the old one, if anything in
    /// it is safe.
    pub(super) fn give_up(&mut self, disk: &mut D, new_name: String) -> Option<(String, SegmentInfo)> {
        let was_made = self.file.take().is_some();
        // The name as well: it may be one that a wrong clock gave before.
        let old_name = std::mem::replace(&mut self.name, new_name);
        if !was_made && self.safe_bytes == 0 {
            return None;
        }
        self.written = 0;
        if self.safe_bytes == 0 {
            // The head is among the unsafe bytes. A file that cannot be removed either is cleared away at the next start.
            let _ = disk.remove(&old_name);
            return None;
        }
        // Whoever reads the old one stops at its safe bytes, whether it could be cut or not.
        let _ = disk.truncate(&old_name, self.safe_bytes);
        let old = self.info();
        let mut bytes = segment::head(&self.flow, &self.parameters, &self.storage_epoch);
        bytes.append(&mut self.unsafe_bytes);
        self.unsafe_bytes = bytes;
        self.safe_bytes = 0;
        self.runs.clear();
        Some((old_name, old))
    }

    /// What is safe in it.
    pub(super) fn info(&self) -> SegmentInfo {
        SegmentInfo {
            head: SegmentHead {
                storage_epoch: self.storage_epoch,
                key: self.flow.key.clone(),
                camera: self.flow.camera.clone(),
                source: self.flow.source.clone(),
            },
            parameters: self.parameters.clone(),
            runs: self.runs.clone(),
            bytes: self.safe_bytes,
        }
    }

    fn tick(&self, dts_us: i64) -> i64 {
        scaled(dts_us.saturating_sub(self.base_us), self.timescale).max(0)
    }
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Ticks of a time, rounded to the nearest.
fn scaled(us: i64, timescale: u32) -> i64 {
    let ticks = i128::from(us) * i128::from(timescale);
    i64::try_from((ticks + 500_000 * ticks.signum()) / 1_000_000).unwrap_or(0)
}

fn micros(ticks: i64, timescale: u32) -> i64 {
    i64::try_from(i128::from(ticks) * 1_000_000 / i128::from(timescale)).unwrap_or(0)
}

/// How long a unit of sound lasts, in ticks: samples.
fn sound_ticks(parameters: &Parameters, unit: &[u8]) -> i64 {
    match parameters {
        Parameters::G711 { channels, .. } => {
            i64::try_from(unit.len() / usize::from((*channels).max(1))).unwrap_or(1).max(1)
        }
        _ => i64::from(camagent_media::codec::aac::SAMPLES_PER_UNIT),
    }
}
