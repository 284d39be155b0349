//! Where the server's frames are kept.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    camera,
    log::{Digest, Event, FrameId, Log},
    planted::Bug,
};

/// Frames in memory that outlives the server's process, each one once.
#[derive(Debug, Default)]
pub struct Store {
    frames: BTreeMap<FrameId, Vec<Digest>>,
}

impl Store {
    /// Takes a frame; one that is there already is dropped.
    pub fn take(&mut self, id: FrameId, payload: Bytes, bug: Option<Bug>) {
        let copies = self.frames.entry(id).or_default();
        if copies.is_empty() || bug == Some(Bug::DoubleAppend) {
            copies.push(camera::digest(&payload));
        }
    }

    /// Writes down what is there.
    pub fn list(&self, now_us: u64, log: &mut Log) {
        for (&frame, copies) in &self.frames {
            copies.iter().for_each(|&digest| log.note(now_us, Event::Stored { frame, digest }));
        }
    }
}
