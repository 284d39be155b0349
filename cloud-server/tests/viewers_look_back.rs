//! `?delay=SECONDS` shows a source as it was, every picture and sound in order, also where an outage of the agent's link was healed
//! in the meantime.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use camagent_media::{Codec, Framing};
use cloud_server::Config;
use support::rtsp::{Client, depacketize, slices};
use support::wire_agent::{BOOT_BYTES, Camera, PUSHED_BEFORE_US, WireAgent};
use support::{Running, format, http, nal_units};

const SECOND: i64 = 1_000_000;
/// RTP ticks between two pictures.
const PICTURE: u32 = 3_600;

async fn recording() -> (Running, WireAgent) {
    let recordings = tempfile::tempdir().expect("temporary folder").keep();
    let running = Running::with(|config| record_into(config, &recordings)).await;
    let token = running.server.add_agent("cam").await.expect("adds");
    let agent = WireAgent::join(running.server.addresses().http, &token, &BTreeMap::new()).await.expect("let in");
    (running, agent)
}

fn record_into(config: &mut Config, folder: &Path) {
    config.recordings.path = Some(folder.to_owned());
    config.recordings.segment_seconds = Duration::from_secs(4);
}

/// The slices of pictures of the camera.
fn pictures(camera: &Camera, numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers.flat_map(|number| slices(nal_units(&camera.payload(0, number)))).collect()
}

/// AAC access units of RFC 3640 packets.
fn sounds(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut units = Vec::new();
    for packet in packets {
        let payload = &packet[12..];
        let headers = usize::from(u16::from_be_bytes([payload[0], payload[1]])) / 8;
        let mut at = 2 + headers;
        for header in payload[2..2 + headers].chunks(2) {
            let bytes = usize::from(u16::from_be_bytes([header[0], header[1]]) >> 3);
            units.push(payload[at..at + bytes].to_vec());
            at += bytes;
        }
    }
    units
}

fn rtp_times(packets: &[Vec<u8>]) -> Vec<u32> {
    let mut times: Vec<_> =
        packets.iter().map(|packet| u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]])).collect();
    times.dedup();
    times
}

/// Reads until a viewer has so many pictures; their slices.
async fn watch(client: &mut Client, count: usize) -> Vec<Vec<u8>> {
    loop {
        let packets = client.packets.get(&0).map_or(&[][..], Vec::as_slice);
        if rtp_times(packets).len() > count {
            let units = depacketize(packets);
            return slices(units.iter().map(Vec::as_slice));
        }
        let have = packets.len();
        client.read_packets(0, have + 1).await;
    }
}

/// The key frame that a viewer began with: what it saw is what the camera saw from there on.
fn first_picture(camera: &Camera, seen: &[Vec<u8>], keys: std::ops::Range<u64>) -> u64 {
    let mut keys = keys.step_by(50);
    let found = keys.find(|key| seen.starts_with(&pictures(camera, *key..key + 20)));
    found.expect("begins with a key frame of the camera")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_was_healed_in_the_meantime_is_no_hole() {
    let (running, mut agent) = recording().await;
    let address = running.server.addresses();
    // The link was away for the pictures of four seconds; live video went on behind them.
    let gap = (350, 450);
    agent.push_until(14 * SECOND).await.expect("sends");
    agent.announce(0, gap.1).await.expect("sends");
    agent.next.insert(0, gap.1);
    agent.push_until(24 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("persisted");
    let api = running.server.add_token("test").await.expect("adds");
    let (_, known) = http(address.http, "GET", "/api/v1/recordings?camera=cam", Some(&api), None).await;
    assert_eq!(known["ranges"].as_array().map(Vec::len), Some(2), "{known}");
    let began: jiff::Timestamp = known["ranges"][0]["from"].as_str().expect("text").parse().expect("a time");

    // What is two seconds after the camera's first frame is shown when the agent has just come.
    let path = format!("cam/main?delay={}", PUSHED_BEFORE_US / SECOND - 2);
    let mut client = Client::connect(address.rtsp, &path).await;
    client.play(&[0, 2]).await;
    client.read_packets(0, 1).await;
    let own = u64::try_from(began.as_microsecond()).expect("after 1970");
    agent.push_past(65_536, BOOT_BYTES, gap, own).await.expect("stored");
    let mut other = Client::connect(address.rtsp, &path).await;
    other.play(&[0, 2]).await;
    other.read_packets(0, 1).await;
    assert_eq!(client.packets[&0][0][8..12], other.packets[&0][0][8..12], "one source for both of them");
    drop(other);

    let early = watch(&mut client, 20).await;
    let first = first_picture(&agent.camera, &early, 0..250);
    let count = usize::try_from(500 - first).expect("fits");
    let seen = watch(&mut client, count).await;
    let wanted = pictures(&agent.camera, first..500);
    assert!(seen.starts_with(&wanted), "{} slices from {first} on: every picture, once, in order", seen.len());
    let times = rtp_times(&client.packets[&0]);
    let steps: Vec<_> = times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    // Where two lanes meet their clocks may differ by some milliseconds.
    assert!(steps.iter().all(|step| step.abs_diff(PICTURE) < PICTURE / 2), "time goes on as it did: {steps:?}");

    let heard = sounds(&client.packets[&2]);
    let sound = |number: u64| agent.camera.payload(1, number)[7..].to_vec();
    let begins = (0..1_000).find(|number| (0..20).all(|next| heard[next as usize] == sound(number + next)));
    let begins = begins.expect("begins with a sound of the camera");
    assert!(
        heard.iter().enumerate().all(|(index, unit)| *unit == sound(begins + index as u64)),
        "every sound, in order"
    );
    let apart = Camera::time_us(1, begins) - Camera::time_us(0, first);
    assert!((0..100_000).contains(&apart), "sound begins with the pictures: {apart}");
    let lasts = heard.len() as i64 * 1_024 * SECOND / 48_000;
    assert!((lasts - count as i64 * 40_000).abs() < SECOND, "and goes beside them: {lasts}");
    assert!(running.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shortest_delay_reads_what_is_being_written() {
    let (running, mut agent) = recording().await;
    // Frames of this very moment.
    let now = PUSHED_BEFORE_US / 40_000 / 50 * 50;
    let (picture, sound) = (u64::try_from(now).expect("positive"), Camera::frames_before(1, now * 40_000));
    for (track, next) in [(0, picture), (1, sound)] {
        agent.announce(track, next).await.expect("sends");
        agent.next.insert(track, next);
    }
    let began = std::time::Instant::now();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let pushing = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(40));
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            pace.tick().await;
            let elapsed = i64::try_from(began.elapsed().as_micros()).expect("short");
            agent.push_until(now * 40_000 + elapsed).await.expect("sends");
        }
        agent.camera
    });
    let mut client = Client::connect(running.server.addresses().rtsp, "cam/main?delay=5").await;
    client.play(&[0, 2]).await;
    let seen = watch(&mut client, 100).await;
    let waited = began.elapsed();
    assert!(stop.send(()).is_ok(), "still pushing");
    let camera = pushing.await.expect("no panic");
    let first = first_picture(&camera, &seen, picture..picture + 500);
    assert!(seen.starts_with(&pictures(&camera, first..first + 100)), "every picture from {first} on");
    let shown = Duration::from_millis((first - picture + 100) * 40);
    assert!(waited >= shown + Duration::from_millis(4_500), "{shown:?} shown after {waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn players_take_it_and_what_cannot_be_had_is_said() {
    let (running, mut agent) = recording().await;
    let address = running.server.addresses().rtsp;
    let answer = async |path: &str| Client::connect(address, path).await.ask("DESCRIBE", "", "").await;
    for delay in ["4", "90000", "soon", ""] {
        let said = answer(&format!("cam/main?delay={delay}")).await;
        assert!(said.starts_with("RTSP/1.0 400 delay is 5 to 86400 whole seconds"), "{said}");
    }
    assert!(answer("nobody/main?delay=60").await.starts_with("RTSP/1.0 404 No such camera"));
    agent.push_until(24 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("persisted");
    let url = format!("rtsp://{address}/cam/main?delay={}", PUSHED_BEFORE_US / SECOND - 1);
    let probe = async {
        if support::installed("ffprobe", "ffmpeg") {
            let (good, told) = support::ffprobe(&url, &["-rtsp_transport", "tcp"]).await;
            assert!(good && told.contains("h264") && told.contains("aac"), "{told}");
        }
    };
    let pull = async {
        if support::installed("gst-launch-1.0", "gstreamer1.0-tools") {
            let (good, told) = support::gstreamer(&url, "tcp").await;
            assert!(good, "{told}");
        }
    };
    tokio::join!(probe, pull);

    let running = Running::start().await;
    let address = running.server.addresses().rtsp;
    running.server.add_agent("agent").await.expect("adds");
    running.server.hub().claim("cam", "agent").expect("free");
    let source = running.server.hub().offer("agent", "cam", "main").expect("own camera");
    let publisher = source.publish("agent", 1, [1; 16]).expect("the first");
    publisher.announce_track(0, format(Codec::H264, Framing::AnnexB, 0)).expect("good");
    let said = Client::connect(address, "cam/main?delay=60").await.ask("DESCRIBE", "", "").await;
    assert!(said.starts_with("RTSP/1.0 404 The source is not recorded"), "{said}");
}
