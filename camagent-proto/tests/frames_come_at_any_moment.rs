//! The journal is written to by other threads while the sender reads it: a frame that comes between two of the sender's questions is sent, and
//! not told as lost.

use camagent_proto::{
    Duration, Instant,
    frame::{Frame, FrameHead, MAX_RECORD, RecordReader, RecordWriter, TrackInfo},
    message::Limits,
    pair::TestJournal,
    scheduler::Class,
    transfer::{Entry, Journal, Sender},
};

const TRACK: u32 = 0;
const EPOCH: u64 = 1;

/// A journal into which an encoder pushes behind the n-th question of all that are asked.
struct Busy {
    journal: TestJournal,
    questions: usize,
    push_behind: usize,
    head: FrameHead,
}

impl Busy {
    fn asked(&mut self) {
        self.questions += 1;
        if self.questions == self.push_behind {
            self.journal.push(TRACK, EPOCH, self.head, vec![7; 100].into());
        }
    }
}

impl Journal for Busy {
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry> {
        let found = self.journal.find(track, epoch, sequence);
        self.asked();
        found
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        let key = self.journal.newest_key(track, epoch);
        self.asked();
        key
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        let end = self.journal.end(track, epoch);
        self.asked();
        end
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        let is_there = self.journal.copy(track, epoch, sequence, offset, into);
        self.asked();
        is_there
    }

    fn received(&mut self, track: u32, epoch: u64, next: u64) {
        self.journal.received(track, epoch, next);
        self.asked();
    }
}

fn info() -> TrackInfo {
    TrackInfo {
        track: TRACK,
        epoch: EPOCH,
        next: 0,
        camera: "camera".into(),
        source: "main".into(),
        codec: 1,
        framing: 1,
        sample_rate: 0,
        channels: 0,
        config: Default::default(),
    }
}

/// Numbers of the frames that were sent, and those that were told as lost.
fn fill(sender: &mut Sender, journal: &mut Busy, now: Instant) -> (Vec<u64>, Vec<u64>) {
    let mut record = RecordWriter::new(MAX_RECORD);
    sender.fill(Class::Video, now, &mut record, journal);
    let (mut sent, mut lost) = (Vec::new(), Vec::new());
    if !record.is_empty() {
        let mut reader = RecordReader::new(record.finish()).expect("a record");
        while let Some(frame) = reader.next_frame().expect("a frame") {
            match frame {
                Frame::Frame(start) => sent.push(start.sequence),
                Frame::Skip(skip) => lost.extend(skip.first..=skip.last),
                _ => {}
            }
        }
    }
    (sent, lost)
}

/// One frame is there, one comes behind the n-th question, until there are fewer questions than that.
fn at_every_moment(budget: Option<Duration>, is_late: bool, check: impl Fn(&[u64], &[u64])) {
    for push_behind in 1.. {
        let head = FrameHead { key: true, ..FrameHead::default() };
        let mut journal = Busy { journal: TestJournal::default(), questions: 0, push_behind: usize::MAX, head };
        let mut sender = Sender::new();
        sender.announce(info(), budget);
        sender.rewind(Instant::from_micros(0), &[], &Limits::default(), &mut journal, false);
        let first = FrameHead { key: !is_late, ..FrameHead::default() };
        journal.journal.push(TRACK, EPOCH, first, vec![3; 100].into());
        let now = Instant::from_micros(0) + Duration::from_secs(if is_late { 60 } else { 0 });
        journal.head.arrival_us = now.as_micros();
        (journal.questions, journal.push_behind) = (0, push_behind);
        let (mut sent, mut lost) = fill(&mut sender, &mut journal, now);
        let has_come = journal.questions >= push_behind;
        let rest = fill(&mut sender, &mut journal, now);
        sent.extend(rest.0);
        lost.extend(rest.1);
        if !has_come {
            assert!(push_behind > 3, "it asked something");
            return;
        }
        check(&sent, &lost);
    }
}

#[test]
fn a_frame_that_comes_between_two_questions_is_sent() {
    at_every_moment(None, false, |sent, lost| assert_eq!((sent, lost), (&[0, 1][..], &[][..])));
}

#[test]
fn a_key_frame_that_comes_while_late_ones_are_left_out_is_sent() {
    at_every_moment(Some(Duration::from_secs(1)), true, |sent, lost| assert_eq!((sent, lost), (&[1][..], &[0][..])));
}
