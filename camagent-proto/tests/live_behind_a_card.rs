//! After an outage live goes on behind what the card brings: where no key frame is at hand there, the encoder is asked for one.

use bytes::Bytes;
use camagent_proto::{
    Instant,
    frame::{Frame, FrameHead, MAX_RECORD, RecordReader, RecordWriter, TrackInfo},
    message::{Limits, Retention},
    pair::TestJournal,
    scheduler::Class,
    transfer::{Entry, Journal, Sender},
};

const NOW: Instant = Instant::from_micros(1_000_000);

/// Memory, and a card that has all below a number.
struct Carded {
    memory: TestJournal,
    safe: u64,
}

impl Journal for Carded {
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry> {
        self.memory.find(track, epoch, sequence)
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        self.memory.newest_key(track, epoch)
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        self.memory.end(track, epoch)
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        self.memory.copy(track, epoch, sequence, offset, into)
    }

    fn received(&mut self, track: u32, epoch: u64, next: u64) {
        self.memory.received(track, epoch, next);
    }

    fn live_from(&mut self, _: u32, _: u64, next: u64) -> u64 {
        self.safe.max(next)
    }
}

fn info() -> TrackInfo {
    TrackInfo {
        track: 0,
        epoch: 1,
        next: 0,
        camera: "camera".into(),
        source: "main".into(),
        codec: 1,
        framing: 1,
        sample_rate: 0,
        channels: 0,
        config: Bytes::new(),
    }
}

/// Ten pictures, two of them key frames, and a session behind which the card has all below `safe`: whether the encoder is asked, and the first number
/// that goes live.
fn session(safe: u64) -> (bool, Option<u64>) {
    let (mut sender, mut journal) = (Sender::new(), Carded { memory: TestJournal::default(), safe });
    sender.set_retention("camera", "main", Retention::Record);
    sender.announce(info(), None);
    for number in 0..10 {
        journal.memory.push(0, 1, FrameHead { key: number % 5 == 0, ..FrameHead::default() }, vec![7; 100].into());
    }
    sender.rewind(NOW, &[], &Limits::default(), &mut journal, false);
    let mut record = RecordWriter::new(MAX_RECORD);
    sender.fill(Class::Video, NOW, &mut record, &mut journal);
    let mut reader = RecordReader::new(record.finish()).expect("a record");
    let mut first = None;
    while let Some(frame) = reader.next_frame().expect("a frame") {
        if let (None, Frame::Frame(frame)) = (first, frame) {
            first = Some(frame.sequence);
        }
    }
    (sender.take_key_request().is_some(), first)
}

#[test]
fn the_encoder_is_asked_where_no_key_frame_is_at_hand() {
    assert_eq!(session(0), (false, Some(0)), "nothing is left to the card");
    assert_eq!(session(5), (false, Some(5)), "a key frame");
    assert_eq!(session(7), (true, Some(7)));
    assert_eq!(session(10), (true, None), "the next one that comes");
}
