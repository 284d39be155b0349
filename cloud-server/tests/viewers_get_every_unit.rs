//! What a camera pushes is what every viewer gets: by a client of our own that counts bytes and time, and by ffmpeg.

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camagent_media::{Codec, Framing};
use cloud_server::live::Publisher;
use support::rtsp::{Client, depacketize, slices};
use support::{Running, adts_units, clip, eventually, format, h264_pictures, nal_units, push};

const FRAME_US: i64 = 40_000;
/// 1024 samples at 48 kHz are 64000 / 3 microseconds.
const AUDIO_3US: i64 = 64_000;

async fn publish(running: &Running) -> Publisher {
    running.server.add_agent("agent").await.expect("adds");
    running.server.hub().claim("cam", "agent").expect("free");
    let source = running.server.hub().offer("agent", "cam", "main").expect("own camera");
    let publisher = source.publish("agent", 1, [1; 16]).expect("the first");
    publisher.announce_track(0, format(Codec::H264, Framing::AnnexB, 0)).expect("good");
    publisher.announce_track(1, format(Codec::Aac, Framing::Adts, 48_000)).expect("good");
    publisher
}

/// Pushes pictures and the audio between them.
fn push_both(publisher: &Publisher, pictures: &[(bytes::Bytes, bool)], audio: &[bytes::Bytes], from: usize, to: usize) {
    for index in from..to {
        let at = index as i64 * FRAME_US;
        push(publisher, 0, at, pictures[index % pictures.len()].0.clone());
        let first_from = |at: i64| (at * 3 + AUDIO_3US - 1) / AUDIO_3US;
        for unit in first_from(at)..first_from(at + FRAME_US) {
            push(publisher, 1, unit * AUDIO_3US / 3, audio[unit as usize % audio.len()].clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn units_arrive_identical_complete_and_in_order() {
    let running = Running::start().await;
    let publisher = publish(&running).await;
    let (stream, audio) = (clip("main.h264"), adts_units(&clip("main.aac")));
    let pictures = h264_pictures(&stream);
    push_both(&publisher, &pictures, &audio, 0, 1);
    let mut client = Client::connect(running.server.addresses().rtsp, "cam/main").await;
    let played = client.play(&[0, 2]).await;
    let info = played.lines().find_map(|line| line.strip_prefix("RTP-Info: ")).expect("told");
    for index in 1..pictures.len() {
        push_both(&publisher, &pictures, &audio, index, index + 1);
        let have = client.packets.get(&0).map_or(0, Vec::len);
        client.read_packets(0, have + 1).await;
    }
    let wanted = slices(nal_units(&stream));
    while slices(depacketize(client.packets.get(&0).map_or(&[][..], Vec::as_slice)).iter().map(Vec::as_slice)).len()
        < wanted.len()
    {
        let have = client.packets.get(&0).map_or(0, Vec::len);
        client.read_packets(0, have + 1).await;
    }
    let units = depacketize(&client.packets[&0]);
    assert!(slices(units.iter().map(Vec::as_slice)) == wanted, "unit by unit the same");
    let first = &client.packets[&0][0];
    let sequence = u16::from_be_bytes([first[2], first[3]]);
    let time = u32::from_be_bytes([first[4], first[5], first[6], first[7]]);
    assert!(info.contains(&format!("trackID=0;seq={sequence};rtptime={time}")), "{info}");
    // The first report comes right after the burst, for both tracks, and speaks of one moment.
    client.read_packets(1, 1).await;
    client.read_packets(3, 1).await;
    let (video, audio) = (&client.packets[&1][0], &client.packets[&3][0]);
    assert_eq!((video[1], audio[1]), (200, 200));
    assert_eq!(video[8..16], audio[8..16], "one NTP time");
    assert!(client.ask("TEARDOWN", "/", "").await.starts_with("RTSP/1.0 200"));
    assert!(running.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_channels_carry_the_same_packets() {
    let running = Running::start().await;
    let publisher = publish(&running).await;
    let (pictures, audio) = (h264_pictures(&clip("main.h264")), adts_units(&clip("main.aac")));
    push_both(&publisher, &pictures, &audio, 0, 5);
    let mut plain = Client::connect(running.server.addresses().rtsp, "cam/main").await;
    plain.play(&[0, 2]).await;
    let mut odd = Client::connect(running.server.addresses().rtsp, "cam/main/?token=x").await;
    odd.play(&[20, 10]).await;
    plain.read_packets(0, 5).await;
    odd.read_packets(20, 5).await;
    plain.read_packets(2, 1).await;
    odd.read_packets(10, 1).await;
    assert_eq!(plain.packets[&0][..5], odd.packets[&20][..5]);
    assert_eq!(plain.packets[&2][0], odd.packets[&10][0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_picture_comes_at_once_and_a_stalled_viewer_slows_nobody() {
    let running = Running::start().await;
    let publisher = publish(&running).await;
    let (pictures, audio) = (h264_pictures(&clip("main.h264")), adts_units(&clip("main.aac")));
    let per_second = 25;
    push_both(&publisher, &pictures, &audio, 0, per_second);
    let address = running.server.addresses().rtsp;
    let mut joins = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let mut client = Client::connect(address, "cam/main").await;
        client.play(&[0, 2]).await;
        client.read_packets(0, 1).await;
        joins.push(begun.elapsed());
        clients.push(client);
    }
    joins.sort();
    assert!(joins[18] < Duration::from_millis(200), "a group is 2 s, the first picture came after {:?}", joins[18]);
    let mut stalled = Client::connect(address, "cam/main").await;
    stalled.play(&[0, 2]).await;
    let source = running.server.hub().sources().remove(0);
    eventually("21 viewers", || source.status().viewers == 21).await;

    // Frames of a heavy camera: their bytes fill every socket buffer of a viewer that takes none.
    let heavy = |key: bool| {
        let mut bytes = if key { pictures[0].0.to_vec() } else { Vec::new() };
        bytes.extend_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }, 0x88]);
        bytes.extend(std::iter::repeat_n(0x55, 200_000));
        bytes::Bytes::from(bytes)
    };
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let have = client.packets[&0].len();
                client.read_packets(0, have + 150 * 143).await;
                depacketize(&client.packets[&0]);
                client
            })
        })
        .collect();
    for index in 0..150 {
        push(&publisher, 0, (per_second as i64 + index) * FRAME_US, heavy(index % 50 == 0));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for reader in readers {
        reader.await.expect("nobody else misses a packet");
    }
    assert_eq!(source.status().viewer_skips, 0, "the stalled one has not asked for more yet");
    // It wakes up: what is in the sockets comes, then the newest key frame.
    let mut seen = 0;
    eventually("a skip", || {
        let mut bytes = vec![0; 1 << 20];
        while let Ok(length) = stalled.stream.try_read(&mut bytes) {
            seen += length;
        }
        source.status().viewer_skips > 0
    })
    .await;
    assert_eq!(running.server.events().count("viewer_skipped"), 1);
    assert!(seen > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_offline_cameras_are_told_apart() {
    let running = Running::with(|config| config.rtsp.describe_timeout = Duration::from_millis(100)).await;
    let address = running.server.addresses().rtsp;
    let answer = async |path: &str| Client::connect(address, path).await.ask("DESCRIBE", "", "").await;
    assert!(answer("nobody/main").await.starts_with("RTSP/1.0 404 No such camera"));
    let publisher = publish(&running).await;
    assert!(answer("cam/other").await.starts_with("RTSP/1.0 404 The camera has no such source"));
    assert!(answer("cam/main").await.starts_with("RTSP/1.0 503 Camera sends no picture yet"));
    drop(publisher);
    assert!(answer("cam/main").await.starts_with("RTSP/1.0 503 Camera is offline"));
}

/// ffmpeg and ffprobe as real clients. Without them on this machine the test says so and proves nothing.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "a test that proves nothing must say so")]
async fn ffmpeg_sees_the_same_pictures() {
    let installed = |name| Command::new(name).arg("-version").stdout(Stdio::null()).status().is_ok();
    if !installed("ffmpeg") || !installed("ffprobe") {
        eprintln!("SKIPPED: ffmpeg and ffprobe are not installed (Debian package ffmpeg)");
        return;
    }
    let running = Running::start().await;
    let publisher = publish(&running).await;
    let stream = clip("main.h264");
    let (pictures, audio) = (h264_pictures(&stream), adts_units(&clip("main.aac")));
    let url = format!("rtsp://{}/cam/main", running.server.addresses().rtsp);
    let out = running.folder.path().join("out.h264");
    push_both(&publisher, &pictures, &audio, 0, 1);
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-v", "error", "-rtsp_transport", "tcp", "-i", &url, "-map", "0:v", "-c", "copy", "-f", "h264"])
        .arg(&out)
        .spawn()
        .expect("starts");
    let source = running.server.hub().sources().remove(0);
    eventually("ffmpeg plays", || source.status().viewers == 1).await;
    // One round of the clip; then the camera goes on, for ffprobe.
    let mut index = 1;
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    while index < pictures.len() * 2 {
        pace.tick().await;
        push_both(&publisher, &pictures, &audio, index, index + 1);
        index += 1;
    }
    let probe_url = url.clone();
    let probe = tokio::task::spawn_blocking(move || {
        Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-rtsp_transport",
                "tcp",
                "-show_entries",
                "stream=codec_name,width,height,sample_rate",
            ])
            .args(["-of", "compact", &probe_url])
            .output()
            .expect("runs")
    });
    while !probe.is_finished() {
        pace.tick().await;
        push_both(&publisher, &pictures, &audio, index, index + 1);
        index += 1;
    }
    let probed = probe.await.expect("ends");
    let told = String::from_utf8_lossy(&probed.stdout).into_owned();
    for part in ["codec_name=h264", "codec_name=aac", "width=", "sample_rate=48000"] {
        assert!(told.contains(part), "{told} {}", String::from_utf8_lossy(&probed.stderr));
    }
    drop(publisher);
    running.server.hub().retain_agents(|_| false);
    let ended = tokio::task::spawn_blocking(move || ffmpeg.wait().expect("ends")).await.expect("ends");
    assert!(ended.success());
    let written = std::fs::read(&out).expect("ffmpeg wrote");
    let wanted = slices(nal_units(&stream));
    let got = slices(nal_units(&written));
    assert!(got.len() >= wanted.len() * 2 - 2, "{} of {}", got.len(), wanted.len() * 2);
    assert!(got[..wanted.len()] == wanted[..], "unit by unit the same");
}

/// H.265 with G.711: an AUD or not, the sets in band, static payload types.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "a test that proves nothing must say so")]
async fn ffprobe_names_h265_and_g711() {
    if Command::new("ffprobe").arg("-version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: ffprobe is not installed (Debian package ffmpeg)");
        return;
    }
    let running = Running::start().await;
    running.server.add_agent("agent").await.expect("adds");
    running.server.hub().claim("cam", "agent").expect("free");
    let source = running.server.hub().offer("agent", "cam", "main").expect("own camera");
    let publisher = source.publish("agent", 1, [1; 16]).expect("the first");
    publisher.announce_track(0, format(Codec::H265, Framing::AnnexB, 0)).expect("good");
    publisher.announce_track(1, format(Codec::Pcma, Framing::Raw, 8000)).expect("good");
    let (stream, audio) = (clip("second.h265"), clip("second.alaw"));
    let mut pictures: Vec<Vec<u8>> = Vec::new();
    let mut head = Vec::new();
    for unit in nal_units(&stream) {
        head.extend_from_slice(&[0, 0, 0, 1]);
        head.extend_from_slice(unit);
        if unit[0] >> 1 & 0x3f < 32 {
            pictures.push(std::mem::take(&mut head));
        }
    }
    let url = format!("rtsp://{}/cam/main", running.server.addresses().rtsp);
    let probe = tokio::task::spawn_blocking(move || {
        Command::new("ffprobe")
            .args(["-v", "error", "-rtsp_transport", "tcp", "-show_entries"])
            .args(["stream=codec_name,width,height,sample_rate,r_frame_rate", "-of", "compact", &url])
            .output()
            .expect("runs")
    });
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    for index in (0..pictures.len()).cycle().take(100_000).enumerate() {
        if probe.is_finished() {
            break;
        }
        pace.tick().await;
        let at = index.0 as i64 * FRAME_US;
        push(&publisher, 0, at, bytes::Bytes::from(pictures[index.1].clone()));
        let from = index.1 * 320 % (audio.len() - 320);
        push(&publisher, 1, at, bytes::Bytes::copy_from_slice(&audio[from..from + 320]));
    }
    let probed = probe.await.expect("ends");
    let told = String::from_utf8_lossy(&probed.stdout).into_owned();
    for part in ["codec_name=hevc", "codec_name=pcm_alaw", "width=640", "height=360", "sample_rate=8000", "25/1"] {
        assert!(told.contains(part), "{told} {}", String::from_utf8_lossy(&probed.stderr));
    }
}
