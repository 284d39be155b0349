//! The parameter sets of one video track: kept by id, and which of them are in force.
//!
//! A stream may hold several sets, repeat them, or change them under the same id or under new ones. In force is what the
//! slices of the last key frame refer to; before the first one, what came last. Sets are copied when they are new, so
//! that they do not keep the frame alive in which they came. Reading frames belongs into `track`.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Codec, Parameters, h264, h265};
use crate::error::MediaError;

/// Bytes of the longest parameter set that is accepted. Real ones have 10 to 100, with scaling matrices some hundred; the
/// bound keeps a hostile camera below 1.2 MiB a track.
pub const MOST_SET_BYTES: usize = 4096;

/// The parameter sets of one H.264 or H.265 track.
#[derive(Debug, Clone)]
pub struct ParameterSets {
    codec: Codec,
    vps: Vec<Set<Vps>>,
    sps: Vec<Set<Sps>>,
    pps: Vec<Set<Pps>>,
    /// The PPS in force.
    active: Option<u8>,
}

/// A set as it came, and what was read from it.
#[derive(Debug, Clone)]
struct Set<T> {
    unit: Bytes,
    read: T,
}

/// A set that others are found by.
trait Numbered {
    fn id(&self) -> u8;
}

#[derive(Debug, Clone)]
struct Vps(h265::Vps);

#[derive(Debug, Clone)]
enum Sps {
    H264(h264::Sps),
    H265(h265::Sps),
}

#[derive(Debug, Clone)]
struct Pps {
    id: u8,
    sps_id: u8,
}

impl Numbered for Vps {
    fn id(&self) -> u8 {
        self.0.id
    }
}

impl Numbered for Sps {
    fn id(&self) -> u8 {
        match self {
            Self::H264(sps) => sps.id,
            Self::H265(sps) => sps.id,
        }
    }
}

impl Numbered for Pps {
    fn id(&self) -> u8 {
        self.id
    }
}

impl ParameterSets {
    /// None yet, for H.264 or H.265.
    pub const fn new(codec: Codec) -> Self {
        Self { codec, vps: Vec::new(), sps: Vec::new(), pps: Vec::new(), active: None }
    }

    /// Whether this very set, byte by byte, is already here.
    pub fn contains(&self, unit: &[u8]) -> bool {
        self.sps.iter().any(|set| set.unit == unit)
            || self.pps.iter().any(|set| set.unit == unit)
            || self.vps.iter().any(|set| set.unit == unit)
    }

    /// Takes a set in, in place of one with the same id. `unit` is a NAL unit that [`super::nal_kind`] calls a parameter set.
    pub fn insert(&mut self, unit: &[u8]) -> Result<(), MediaError> {
        if unit.len() > MOST_SET_BYTES {
            let expected = format!("at most {MOST_SET_BYTES} bytes");
            return Err(MediaError::new("parameter set", expected, format!("{}", unit.len())));
        }
        let header = unit.first().copied().unwrap_or_default();
        match (self.codec, h264::nal_type(header), h265::nal_type(header)) {
            (Codec::H264, h264::SPS, _) => put(&mut self.sps, unit, Sps::H264(h264::Sps::parse(unit)?)),
            (Codec::H264, _, _) => {
                let h264::Pps { id, sps_id } = h264::Pps::parse(unit)?;
                put(&mut self.pps, unit, Pps { id, sps_id });
            }
            (_, _, h265::VPS) => put(&mut self.vps, unit, Vps(h265::Vps::parse(unit)?)),
            (_, _, h265::SPS) => put(&mut self.sps, unit, Sps::H265(h265::Sps::parse(unit)?)),
            _ => {
                let h265::Pps { id, sps_id } = h265::Pps::parse(unit)?;
                put(&mut self.pps, unit, Pps { id, sps_id });
            }
        }
        Ok(())
    }

    /// The PPS that a slice uses, when it is here and another than the one in force.
    pub fn other_than_active(&self, slice: &[u8]) -> Option<u8> {
        let id = match self.codec {
            Codec::H264 => h264::slice_pps_id(slice),
            _ => h265::slice_pps_id(slice),
        }?;
        (self.active != Some(id) && self.pps.iter().any(|set| set.read.id == id)).then_some(id)
    }

    /// Puts the PPS in force, and with it what it refers to.
    pub const fn activate(&mut self, pps_id: u8) {
        self.active = Some(pps_id);
    }

    /// The sets in force, and what they say; None while one is missing.
    pub fn parameters(&self) -> Option<Parameters> {
        // The last inserted is last in the list.
        let active = self.pps.iter().find(|set| Some(set.read.id) == self.active).or(self.pps.last())?;
        let sps = find(&self.sps, active.read.sps_id)?;
        let mut pps: Vec<_> = self.pps.iter().filter(|set| set.read.sps_id == active.read.sps_id).collect();
        pps.sort_by_key(|set| set.read.id);
        let pps = pps.into_iter().map(|set| set.unit.clone()).collect();
        Some(match &sps.read {
            Sps::H264(read) => Parameters::H264 {
                sps: sps.unit.clone(),
                pps,
                width: read.width,
                height: read.height,
                profile_level_id: read.profile_level_id,
                frame_rate: read.frame_rate,
            },
            Sps::H265(read) => {
                let vps = find(&self.vps, read.vps_id);
                Parameters::H265 {
                    vps: vps.map(|set| set.unit.clone()).unwrap_or_default(),
                    sps: sps.unit.clone(),
                    pps,
                    width: read.width,
                    height: read.height,
                    profile_tier_level: read.profile_tier_level,
                    frame_rate: read.frame_rate.or(vps.and_then(|set| set.read.0.frame_rate)),
                }
            }
        })
    }
}

fn find<T: Numbered>(sets: &[Set<T>], id: u8) -> Option<&Set<T>> {
    sets.iter().find(|set| set.read.id() == id)
}

/// Ids are bounded by the parsers, and so is the list.
fn put<T: Numbered>(sets: &mut Vec<Set<T>>, unit: &[u8], read: T) {
    sets.retain(|set| set.read.id() != read.id());
    sets.push(Set { unit: Bytes::copy_from_slice(unit), read });
}
