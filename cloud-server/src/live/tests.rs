//! Publishers and viewers together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camagent_media::{Codec, Framing};

use super::timeline::Stamps;
use super::*;
use crate::config::Live;
use crate::event::Events;

/// A G.711 track needs no picture; key frames are made of real H.264 bytes below.
fn pcma() -> TrackFormat {
    TrackFormat { codec: Codec::Pcma, framing: Framing::Raw, sample_rate: 8000, channels: 1, config: Bytes::new() }
}

fn h264() -> TrackFormat {
    TrackFormat { codec: Codec::H264, framing: Framing::AnnexB, sample_rate: 0, channels: 0, config: Bytes::new() }
}

/// SPS and PPS of a 320x240 baseline stream.
const SETS: &[u8] = &[
    0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0d, 0xd9, 0x01, 0x41, 0xfb, 0x01, 0x10, 0, 0, 3, 0, 0x10, 0, 0, 3, 3, 0x28, 0xf1,
    0x42, 0xa4, 0x80, 0, 0, 0, 1, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];

fn picture(key: bool, size: usize) -> Bytes {
    let mut bytes = if key { SETS.to_vec() } else { Vec::new() };
    bytes.extend_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }, 0x88]);
    bytes.extend(std::iter::repeat_n(0x55, size));
    Bytes::from(bytes)
}

struct Camera {
    source: Arc<Source>,
    publisher: Publisher,
    events: Arc<Events>,
    now_us: u64,
}

impl Camera {
    fn new(limits: Live) -> Self {
        let events = Arc::new(Events::new());
        let hub = Hub::new(limits, Arc::clone(&events));
        hub.claim("cam", "agent").expect("free");
        let source = hub.offer("agent", "cam", "main").expect("own camera");
        let publisher = source.publish("agent", 1, [1; 16]).expect("the first");
        publisher.announce_track(0, h264()).expect("good");
        Self { source, publisher, events, now_us: 0 }
    }

    fn push(&mut self, key: bool, size: usize) {
        push(&self.publisher, self.now_us, picture(key, size));
        self.now_us += 40_000;
    }
}

fn push(publisher: &Publisher, now_us: u64, payload: Bytes) {
    let now = i64::try_from(now_us).expect("small");
    let stamps = Stamps { pts_us: now, arrival_us: now_us, received_us: now_us, utc_us: 1_700_000_000_000_000 + now };
    publisher.push(&PublishedFrame { track: 0, stamps, discontinuity: false, payload });
}

async fn read_all(viewer: &mut Viewer) -> (Vec<Frame>, Option<Skip>) {
    let (mut all, mut batch, mut skipped) = (Vec::new(), Vec::new(), None);
    while let Ok(Ok(skip)) = tokio::time::timeout(Duration::from_millis(1), viewer.next(&mut batch)).await {
        skipped = skipped.or(skip);
        all.append(&mut batch);
    }
    (all, skipped)
}

#[tokio::test(start_paused = true)]
async fn a_viewer_begins_at_the_key_frame_and_gets_every_frame_once() {
    let mut camera = Camera::new(Live::default());
    camera.push(false, 10);
    for index in 0..30 {
        camera.push(index % 10 == 0, 3000);
    }
    let mut viewer = camera.source.join(1);
    let starts = viewer.starts();
    let (frames, _) = read_all(&mut viewer).await;
    assert_eq!(frames.len(), 10, "the newest group");
    assert!(frames[0].key);
    assert_eq!((starts[0].sequence, starts[0].rtp_time), (frames[0].first_sequence, Some(frames[0].rtp_time)));
    for pair in frames.windows(2) {
        assert_eq!(pair[1].first_sequence, pair[0].first_sequence.wrapping_add(pair[0].packets as u16));
        assert_eq!(pair[1].rtp_time.wrapping_sub(pair[0].rtp_time), 3600);
    }
    let mut second = camera.source.join(1);
    let (again, _) = read_all(&mut second).await;
    assert_eq!(frames[0].data.as_ptr(), again[0].data.as_ptr(), "packetized once, shared by all");
    camera.push(false, 10);
    assert_eq!(read_all(&mut viewer).await.0.len(), 1);
    let report = viewer.reports()[0];
    assert_eq!(report.packets, frames.iter().map(|frame| frame.packets).sum::<u32>() + 1);
    assert_eq!(report.utc_us - 1_700_000_000_000_000, 31 * 40_000);
}

#[tokio::test(start_paused = true)]
async fn packets_carry_the_prefix_of_their_channel() {
    let mut camera = Camera::new(Live::default());
    camera.push(true, 5000);
    let (frames, _) = read_all(&mut camera.source.join(1)).await;
    let (mut data, mut packets) = (&frames[0].data[..], 0);
    while let [b'$', channel, high, low, rest @ ..] = data {
        assert_eq!(*channel, 0);
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        assert!((12..=1412).contains(&length));
        data = &rest[length..];
        packets += 1;
    }
    assert!(data.is_empty());
    assert_eq!(packets, frames[0].packets);
}

#[tokio::test(start_paused = true)]
async fn a_late_viewer_jumps_to_the_newest_key_frame() {
    let mut camera = Camera::new(Live::default());
    camera.push(true, 10);
    let mut viewer = camera.source.join(1);
    read_all(&mut viewer).await;
    for index in 1..=250 {
        camera.push(index % 50 == 0, 10);
    }
    let (frames, skip) = read_all(&mut viewer).await;
    assert_eq!(skip, Some(Skip { frames: 249 }));
    assert_eq!(frames.len(), 1);
    assert!(frames[0].key);
    assert_eq!(camera.source.status().viewer_skips, 1);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_fell_out_of_a_small_buffer_waits_for_a_key_frame() {
    let mut camera = Camera::new(Live { buffer_bytes: 65_536, ..Live::default() });
    camera.push(true, 10);
    let mut viewer = camera.source.join(1);
    read_all(&mut viewer).await;
    for _ in 0..20 {
        camera.push(false, 10_000);
    }
    let asked = camera.source.demand.watch().borrow().key_frame_requests;
    let (frames, skip) = read_all(&mut viewer).await;
    assert!(frames.is_empty() && skip.is_some());
    assert_eq!(camera.source.demand.watch().borrow().key_frame_requests, asked + 1);
    camera.push(true, 10);
    assert!(read_all(&mut viewer).await.0[0].key);
}

#[tokio::test(start_paused = true)]
async fn numbers_continue_over_an_agents_restart_and_older_generations_are_fenced() {
    let mut camera = Camera::new(Live::default());
    camera.push(true, 10);
    let mut viewer = camera.source.join(1);
    let before = read_all(&mut viewer).await.0.pop().expect("a frame");
    let newer = camera.source.publish("agent", 2, [2; 16]).expect("newer");
    newer.announce_track(7, h264()).expect("good");
    assert!(camera.source.publish("agent", 1, [1; 16]).is_none());
    camera.push(false, 10);
    let one = |publisher: &Publisher, now_us: u64, received_us: u64, payload| {
        let stamps = Stamps { pts_us: 9, arrival_us: now_us, received_us, utc_us: 0 };
        publisher.push(&PublishedFrame { track: 7, stamps, discontinuity: false, payload });
    };
    one(&newer, 5, 1_000_000, picture(false, 10));
    one(&newer, 5, 1_000_000, picture(true, 10));
    let after = read_all(&mut viewer).await.0;
    assert_eq!(after.len(), 1, "neither the fenced frame nor one before the key frame");
    assert_eq!(after[0].first_sequence, before.first_sequence.wrapping_add(before.packets as u16));
    assert_eq!(after[0].rtp_time.wrapping_sub(before.rtp_time), 90_000);
    drop(camera.publisher);
    assert!(camera.source.is_online(), "the end of a fenced publisher changes nothing");
}

#[tokio::test(start_paused = true)]
async fn viewers_wait_for_the_camera_for_a_while() {
    let mut camera = Camera::new(Live::default());
    camera.push(true, 10);
    let mut viewer = camera.source.join(1);
    read_all(&mut viewer).await;
    drop(camera.publisher);
    let mut batch = Vec::new();
    let left = tokio::time::Instant::now();
    assert_eq!(viewer.next(&mut batch).await, Err(Ended::CameraGone));
    assert_eq!(left.elapsed().as_secs(), 30);
    assert_eq!(camera.events.count("source_stopped"), 1);
}

#[tokio::test(start_paused = true)]
async fn another_codec_ends_viewers_and_a_description_waits_for_a_picture() {
    let mut camera = Camera::new(Live::default());
    assert_eq!(camera.source.wait_presentation(Duration::from_secs(5)).await, Err(Unavailable::NoPicture));
    let source = Arc::clone(&camera.source);
    let waiting = tokio::spawn(async move { source.wait_presentation(Duration::from_secs(5)).await });
    tokio::task::yield_now().await;
    camera.push(true, 10);
    let described = waiting.await.expect("ends").expect("described");
    assert_eq!(described.tracks[0].parameters.codec(), Codec::H264);
    let mut viewer = camera.source.join(1);
    camera.publisher.announce_track(0, pcma()).expect("good");
    assert_eq!(viewer.next(&mut Vec::new()).await, Err(Ended::FormatChanged));
    let layout = camera.source.presentation().expect("G.711 needs no picture").layout;
    assert_ne!(layout, described.layout);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_paused_begins_with_its_next_key_frame() {
    let mut camera = Camera::new(Live::default());
    camera.push(true, 10);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut viewer = camera.source.join(1);
    assert!(viewer.starts().is_empty());
    assert_eq!(camera.source.demand.watch().borrow().key_frame_requests, 1);
    assert!(read_all(&mut viewer).await.0.is_empty(), "a minute old is not live");
    camera.push(true, 10);
    assert_eq!(read_all(&mut viewer).await.0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn sound_after_a_pause_does_not_make_old_pictures_live() {
    let mut camera = Camera::new(Live::default());
    camera.publisher.announce_track(1, pcma()).expect("good");
    camera.push(true, 10);
    tokio::time::advance(Duration::from_secs(3600)).await;
    // Sound comes at once when somebody asks for the source, a picture only with the encoder's next key frame.
    let now_us = camera.now_us;
    let stamps = Stamps { pts_us: 0, arrival_us: now_us, received_us: now_us, utc_us: 0 };
    let sound = PublishedFrame { track: 1, stamps, discontinuity: false, payload: Bytes::from_static(&[0x55; 160]) };
    camera.publisher.push(&sound);
    let mut viewer = camera.source.join(3);
    assert_eq!(viewer.starts(), [], "an hour old is not live");
    camera.push(true, 20);
    let (frames, _) = read_all(&mut viewer).await;
    assert!(frames.len() == 1 && frames[0].key, "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn unreadable_frames_are_told_and_left_out() {
    let mut camera = Camera::new(Live::default());
    push(&camera.publisher, 0, Bytes::from_static(b"this is no Annex B"));
    camera.push(true, 10);
    assert_eq!(camera.events.count("frame_refused"), 1);
    assert_eq!(camera.source.status().frames, 2);
    assert_eq!(read_all(&mut camera.source.join(1)).await.0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn lost_frames_ask_for_a_key_frame_at_once() {
    let mut camera = Camera::new(Live::default());
    camera.push(true, 10);
    let asked = || camera.source.demand.watch().borrow().key_frame_requests;
    let before = asked();
    camera.publisher.skipped(0);
    assert_eq!(asked(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_to_waiting_viewers_is_asked_for_a_key_frame() {
    let camera = Camera::new(Live::default());
    let _viewer = camera.source.join(1);
    let before = camera.source.demand.watch().borrow().key_frame_requests;
    let _publisher = camera.source.publish("a", 99, [1; 16]).expect("the newest");
    assert_eq!(camera.source.demand.watch().borrow().key_frame_requests, before + 1);
}

#[test]
fn sources_and_cameras_of_an_agent_are_bounded() {
    let hub = Hub::new(Live::default(), Arc::new(Events::new()));
    hub.claim("gate", "a").expect("free");
    let offered = (0..40).filter(|number| hub.offer("a", "gate", &format!("s{number}")).is_some()).count();
    assert_eq!(offered, 16);
    assert!(hub.offer("a", "gate", "s0").is_some(), "what is there stays");
    let claimed = (0..2_000).filter(|number| hub.claim(&format!("c{number}"), "a").is_ok()).count();
    assert_eq!(claimed, 1_023);
    hub.claim("other", "b").expect("another agent has its own");
}
