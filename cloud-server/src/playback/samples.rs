//! The samples of a recorded file: when each is, and where its bytes are. Only the heads of its parts are read.

use camagent_media::Parameters;

use crate::error::{Error, Result};
use crate::ingest::segment::{Unusable, read_part, read_start};
use crate::record::{Archive, Found};

/// What is read at once to find the head of a part.
const LOOK_BYTES: u64 = 4 << 10;

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The number of its frame.
    pub sequence: u64,
    /// UTC of decoding, microseconds since 1970.
    pub utc_us: i64,
    /// The same on the camera's clock, with the pace of the file.
    pub camera_us: i64,
    /// Presentation minus decoding, microseconds.
    pub composition_us: i64,
    /// How long it lasts, microseconds.
    pub lasts_us: i64,
    /// Decoding can start here.
    pub key: bool,
    /// Where its bytes begin in the file.
    pub at: u64,
    /// How many.
    pub bytes: u32,
}

/// A file's samples.
#[derive(Clone, Debug)]
pub struct SampleTable {
    /// What a decoder must know.
    pub parameters: Parameters,
    /// In decoding order.
    pub samples: Vec<Sample>,
}

/// Reads a file part by part; one that grows can be read on later.
#[derive(Clone, Debug)]
pub struct PartReader {
    /// What a decoder must know.
    pub parameters: Parameters,
    /// Where the next part begins.
    at: u64,
    /// What the camera's clock showed when the file's began.
    began_us: Option<i64>,
}

/// Samples of one part.
#[derive(Clone, Debug)]
pub struct ReadPart {
    /// The number of its first frame.
    pub first: u64,
    /// The number behind its last.
    pub next: u64,
    /// UTC of its beginning, microseconds since 1970.
    pub utc_us: i64,
    /// In decoding order.
    pub samples: Vec<Sample>,
}

impl PartReader {
    /// Reads the head of a file.
    pub async fn open(archive: &Archive, row: &Found) -> Result<Self> {
        let mut look = LOOK_BYTES;
        loop {
            let data = archive.read(row, 0..look).await?;
            match read_start(&data).map_err(|reason: Unusable| wrong(row, reason.to_string()))? {
                Ok((_, parameters, at)) => return Ok(Self { parameters, at: at as u64, began_us: None }),
                Err(cut) if cut.needed > look && look < row.bytes => look = cut.needed,
                Err(_) => return Err(wrong(row, "its head is cut".to_owned())),
            }
        }
    }

    /// Reads the next part; none behind the last that is whole and safe.
    pub async fn next(&mut self, archive: &Archive, row: &Found) -> Result<Option<ReadPart>> {
        if self.at >= row.bytes {
            return Ok(None);
        }
        let at = self.at;
        let timescale = i64::from(camagent_media::fmp4::timescale(&self.parameters).max(1));
        let micros = |ticks: i64| i64::try_from(i128::from(ticks) * 1_000_000 / i128::from(timescale)).unwrap_or(0);
        let mut look = LOOK_BYTES;
        let (head, part, moof_at) = loop {
            let data = archive.read(row, at..at + look).await?;
            match read_part(&data).map_err(|error| wrong(row, format!("at byte {at}: {error}")))? {
                Ok(found) => break found,
                Err(cut) if cut.needed > data.len() as u64 && at + cut.needed <= row.bytes => look = cut.needed,
                Err(_) => return Err(wrong(row, format!("at byte {at}: the part is cut"))),
            }
        };
        let mut samples = Vec::with_capacity(part.samples.len());
        let start_us = micros(i64::try_from(part.decode_time).unwrap_or(i64::MAX));
        let composition_us = part.samples.first().map(|sample| micros(i64::from(sample.composition)));
        // Later heads tell when a frame of sound was pushed, which is uneven; ticks of the file are not.
        let own_us = |composition_us: i64| head.pts_us.saturating_sub(composition_us).saturating_sub(start_us);
        self.began_us = self.began_us.or_else(|| composition_us.map(own_us));
        let camera_us = self.began_us.unwrap_or_default().saturating_add(start_us);
        let (mut ticks, mut byte) = (0_i64, at + moof_at + part.data_at);
        let mut counts = head.samples.iter().copied();
        let (mut sequence, mut left) = (head.first, counts.next().unwrap_or(1));
        for sample in &part.samples {
            while left == 0 && sequence < head.next() {
                sequence += 1;
                left = counts.next().unwrap_or(1);
            }
            left -= 1;
            samples.push(Sample {
                sequence,
                utc_us: head.utc_us.saturating_add(micros(ticks)),
                camera_us: camera_us.saturating_add(micros(ticks)),
                composition_us: micros(i64::from(sample.composition)),
                lasts_us: micros(i64::from(sample.duration)),
                key: sample.key,
                at: byte,
                bytes: sample.size,
            });
            ticks += i64::from(sample.duration);
            byte += u64::from(sample.size);
        }
        self.at += moof_at + part.bytes;
        Ok(Some(ReadPart { first: head.first, next: head.next(), utc_us: head.utc_us, samples }))
    }
}

/// Reads the samples of a file, up to where it is damaged. An error is a file of which nothing can be read.
pub async fn read(archive: &Archive, row: &Found) -> Result<SampleTable> {
    let mut reader = PartReader::open(archive, row).await?;
    let mut samples = Vec::new();
    loop {
        match reader.next(archive, row).await {
            Ok(Some(part)) => samples.extend(part.samples),
            Ok(None) => break,
            Err(error) if samples.is_empty() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the rest of a recorded file is left out of a clip");
                break;
            }
        }
    }
    Ok(SampleTable { parameters: reader.parameters, samples })
}

fn wrong(row: &Found, reason: String) -> Error {
    Error::Recordings { path: row.name.clone().into(), reason }
}
