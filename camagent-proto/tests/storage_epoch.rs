//! A server that has lost its recordings says so by another `storage_epoch`: the agent tells it of everything that it still has, and why the rest is
//! missing.

use camagent_proto::{
    Instant,
    frame::{Frame, FrameHead, MAX_RECORD, Mack, RecordReader, RecordWriter, SkipReason, TrackInfo},
    message::{BootId, Limits, Retention},
    pair::TestJournal,
    scheduler::Class,
    transfer::Sender,
};

const NOW: Instant = Instant::from_micros(1_000_000);

fn info(epoch: u64) -> TrackInfo {
    TrackInfo {
        track: 0,
        epoch,
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

fn sent(sender: &mut Sender, journal: &mut TestJournal) -> Vec<Frame> {
    let mut record = RecordWriter::new(MAX_RECORD);
    sender.fill(Class::Video, NOW, &mut record, journal);
    let mut frames = Vec::new();
    if !record.is_empty() {
        let mut reader = RecordReader::new(record.finish()).expect("a record");
        while let Some(frame) = reader.next_frame().expect("a frame") {
            frames.push(frame);
        }
    }
    frames
}

#[test]
fn what_went_before_it_was_stored_is_told_to_a_server_that_lost_its_recordings() {
    let (mut sender, mut journal) = (Sender::new(), TestJournal::default());
    sender.set_retention("camera", "main", Retention::Record);
    sender.announce(info(1), None);
    let head = FrameHead { key: true, ..FrameHead::default() };
    for _ in 0..10 {
        journal.push(0, 1, head, vec![7; 100].into());
    }
    sender.rewind(NOW, &[], &Limits::default(), &mut journal, false);
    assert_eq!(sent(&mut sender, &mut journal).len(), 11, "TRACK and ten frames");
    let mack = Mack { track: 0, epoch: 1, received: 10, persisted: 4 };
    sender.acknowledged(&mack, &mut journal).expect("a good acknowledgement");
    assert_eq!(journal.len(), 6);
    // An outage: a new epoch, and of the first one memory keeps nothing.
    journal.evict(0, 1, 10);
    sender.announce(info(2), None);
    for _ in 0..2 {
        journal.push(0, 2, head, vec![7; 100].into());
    }
    assert_eq!(sender.take_key_request(), None);
    sender.rewind(NOW, &[], &Limits::default(), &mut journal, true);
    // The server may lack what a decoder must know before the camera's next group of pictures.
    assert_eq!((sender.take_key_request(), sender.take_key_request()), (Some(0), None));
    let told: Vec<_> = sent(&mut sender, &mut journal)
        .into_iter()
        .map(|frame| match frame {
            Frame::Track(info) => ("track", info.epoch, info.next),
            Frame::Skip(skip) if skip.reason == SkipReason::OverBudget => ("lost", skip.first, skip.last),
            Frame::Frame(frame) => ("frame", 2, frame.sequence),
            other => panic!("{other:?}"),
        })
        .collect();
    let wanted = [("track", 1, 4), ("lost", 4, 9), ("track", 2, 0), ("frame", 2, 0), ("frame", 2, 1)];
    assert_eq!(told, wanted);
}

#[test]
fn a_hole_counts_once_also_when_it_is_told_live_and_again_as_the_past() {
    let boot = BootId([7; 16]);
    let (mut sender, mut journal) = (Sender::of_run(boot), TestJournal::default());
    sender.set_retention("camera", "main", Retention::Record);
    sender.announce(info(1), None);
    let head = FrameHead { key: true, ..FrameHead::default() };
    for _ in 0..12 {
        journal.push(0, 1, head, vec![7; 100].into());
    }
    journal.evict(0, 1, 10);
    sender.rewind(NOW, &[], &Limits::default(), &mut journal, false);
    assert_eq!(sent(&mut sender, &mut journal).len(), 4, "TRACK, SKIP and two frames");
    assert_eq!(sender.counts().frames_skipped, 10);
    // The server heard nothing of it. In the next session the card has the epoch, and knows of a longer hole.
    journal.backlog.add(boot, info(1), std::iter::empty(), 14, 100);
    sender.rewind(NOW, &[], &Limits::default(), &mut journal, false);
    let mut lane = |sender: &mut Sender| {
        let mut record = RecordWriter::new(MAX_RECORD);
        sender.fill(Class::Backfill, NOW, &mut record, &mut journal);
        let answer = Mack { track: 65_536, epoch: 1, received: 0, persisted: 0 };
        sender.acknowledged(&answer, &mut journal).expect("a good acknowledgement");
    };
    (0..3).for_each(|_| lane(&mut sender));
    assert_eq!(sender.counts().frames_skipped, 14);
    // And once more, live.
    sent(&mut sender, &mut journal);
    assert_eq!(sender.counts().frames_skipped, 14);
}
