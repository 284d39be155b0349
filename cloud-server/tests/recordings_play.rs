//! What was recorded can be found and played: coverage with reasons of its gaps, clips that real players take, and an index that
//! is made anew when it is lost.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use camagent_proto::frame::SkipReason;
use cloud_server::{Config, Server};
use serde_json::Value;
use support::wire_agent::{Camera, WireAgent};
use support::{Running, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SECOND: i64 = 1_000_000;

async fn recording() -> (Running, String, String) {
    let recordings = tempfile::tempdir().expect("temporary folder").keep();
    let running = Running::with(|config| record_into(config, &recordings)).await;
    let token = running.server.add_agent("cam").await.expect("adds");
    let api = running.server.add_token("test").await.expect("adds");
    (running, token, api)
}

fn record_into(config: &mut Config, folder: &Path) {
    config.recordings.path = Some(folder.to_owned());
    config.recordings.segment_seconds = std::time::Duration::from_secs(4);
}

/// An HTTP exchange with its headers and its body as bytes.
async fn fetch(running: &Running, path: &str, api: &str, more: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(running.server.addresses().http).await.expect("connects");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {api}\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.expect("reads");
    let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(response[..end].to_vec()).expect("text").to_lowercase();
    let body = response.split_off(end + 4);
    (head[9..12].parse().expect("a status"), head, body)
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {head}"));
    line.trim_start_matches(':').trim()
}

async fn coverage(running: &Running, api: &str) -> Value {
    let (status, body) =
        http(running.server.addresses().http, "GET", "/api/v1/recordings?camera=cam", Some(api), None).await;
    assert_eq!(status, 200, "{body}");
    body
}

fn moment(text: &Value) -> i64 {
    text.as_str().expect("text").parse::<jiff::Timestamp>().expect("a time").as_microsecond()
}

fn text(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).expect("a time").to_string()
}

fn clip_path(from_us: i64, to_us: i64) -> String {
    format!("/api/v1/recordings/clip?camera=cam&source=main&from={}&to={}", text(from_us), text(to_us))
}

fn run(program: &str, arguments: &[&str]) -> (String, String) {
    let output = Command::new("timeout").arg("60").arg(program).args(arguments).output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{program}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// Hashes of the pictures of a file as they are shown.
fn pictures(file: &Path) -> Vec<String> {
    let file = file.to_str().expect("text");
    let (out, errors) = run("ffmpeg", &["-v", "error", "-i", file, "-map", "0:v", "-f", "framemd5", "-"]);
    assert_eq!(errors, "", "{file} decodes");
    let lines = out.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit(',').next().unwrap_or_default().trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_of_any_time_is_what_the_camera_saw() {
    if !support::installed("ffmpeg", "ffmpeg") {
        return;
    }
    let (running, token, api) = recording().await;
    let mut agent = WireAgent::join(running.server.addresses().http, &token, &BTreeMap::new()).await.expect("let in");
    agent.push_until(22 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("persisted");
    let body = coverage(&running, &api).await;
    let ranges = body["ranges"].as_array().expect("a list");
    assert_eq!((ranges.len(), &body["recording"]), (1, &Value::Bool(true)), "{body}");
    let (from, to) = (moment(&ranges[0]["from"]), moment(&ranges[0]["to"]));
    assert!((to - from - 22 * SECOND).abs() < SECOND / 5, "{body}");

    let folder = tempfile::tempdir().expect("temporary folder");
    let source = folder.path().join("source.h264");
    let once = support::clip("main.h264");
    std::fs::write(&source, [once.as_slice(); 3].concat()).expect("written");
    let seen = pictures(&source);
    // From the middle of a group of pictures over the ends of files into another.
    for (start, end) in [(0, 22), (1, 9), (3, 4), (5, 21)] {
        // A moment later than the frame: rounding must not show the one before.
        let own = clip_path(from + start * SECOND + 1_000, from + end * SECOND + 1_000);
        let (status, head, bytes) = fetch(&running, &own, &api, "").await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(header(&head, "content-length"), bytes.len().to_string());
        assert_eq!(header(&head, "content-type"), "video/mp4");
        let file = folder.path().join("clip.mp4");
        std::fs::write(&file, &bytes).expect("written");
        let (start, end) = (start as usize * 25, (end as usize * 25 + 1).min(550));
        let shown = pictures(&file);
        assert!(
            shown == seen[start..end] || shown == seen[start + 1..end],
            "{} pictures of {}",
            shown.len(),
            end - start
        );
        let probe = ["-v", "error", "-show_entries", "stream=codec_name,duration", "-of", "csv=p=0"];
        let (streams, _) = run("ffprobe", &[&probe[..], &[file.to_str().expect("text")]].concat());
        let streams: Vec<_> = streams.lines().map(|line| line.split_once(',').expect("two")).collect();
        assert_eq!((streams[0].0, streams[1].0), ("h264", "aac"), "{streams:?}");
        for (_, duration) in streams {
            let lasts: f64 = duration.parse().expect("seconds");
            assert!((lasts - (end - start) as f64 / 25.0).abs() < 2.1, "{lasts} of {}", end - start);
        }
        let (_, errors) = run("ffmpeg", &["-v", "warning", "-i", file.to_str().expect("text"), "-f", "null", "-"]);
        assert_eq!(errors, "", "nothing is to be complained about");

        // Any bytes of it.
        let middle = bytes.len() / 2;
        for (asked, expected) in [
            ("bytes=0-99".to_owned(), &bytes[..100]),
            (format!("bytes={middle}-{}", middle + 70_000), &bytes[middle..(middle + 70_001).min(bytes.len())]),
            ("bytes=-500".to_owned(), &bytes[bytes.len() - 500..]),
        ] {
            let (status, head, part) = fetch(&running, &own, &api, &format!("Range: {asked}\r\n")).await;
            assert_eq!((status, part.as_slice() == expected), (206, true), "{asked}: {head}");
        }
        let (status, head, _) = fetch(&running, &own, &api, &format!("Range: bytes={}-\r\n", bytes.len())).await;
        assert_eq!((status, header(&head, "content-range")), (416, format!("bytes */{}", bytes.len()).as_str()));
        let (status, _, _) = fetch(&running, &own, &api, "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n").await;
        assert_eq!(status, 200, "bytes of another content make no file");
    }
    for (path, expected) in [
        (clip_path(from - 50 * SECOND, from - 40 * SECOND), "no_recording"),
        (clip_path(from, from + 4 * 3_600 * SECOND), "bad_request"),
        ("/recordings/clip?camera=cam&from=yesterday&to=today".to_owned(), "bad_request"),
        ("/recordings/clip?camera=cam".to_owned(), "bad_request"),
        ("/recordings/clip".to_owned(), "bad_request"),
        (clip_path(to, from), "bad_request"),
    ] {
        let (status, body) = http(running.server.addresses().http, "GET", &path, Some(&api), None).await;
        assert!(status == 404 || status == 400, "{path}: {status}");
        assert_eq!(body["error"]["code"], expected, "{path}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_kept_from_an_outage_is_filed_where_it_belongs() {
    let (running, token, api) = recording().await;
    let address = running.server.addresses().http;
    let mut agent = WireAgent::join(address, &token, &BTreeMap::new()).await.expect("let in");
    agent.push_until(4 * SECOND).await.expect("sends");
    // A run that ended an hour ago, in two pieces, the later one first; live frames go on between.
    let hour_ago = moment(&coverage(&running, &api).await["to"]) - 3_600 * SECOND;
    let began = u64::try_from(hour_ago).expect("after 1970");
    agent.push_past(65_536, [7; 16], (100, 200), began).await.expect("stored");
    agent.push_until(6 * SECOND).await.expect("sends");
    agent.push_past(65_537, [7; 16], (0, 200), began).await.expect("stored");
    assert_eq!(agent.received[&65_537], 200);
    agent.all_persisted().await.expect("live as well");
    let body = coverage(&running, &api).await;
    let ranges = body["ranges"].as_array().expect("a list");
    assert_eq!(ranges.len(), 2, "{body}");
    let (from, to) = (moment(&ranges[0]["from"]), moment(&ranges[0]["to"]));
    assert!((from - hour_ago).abs() < SECOND / 10 && (to - from - 8 * SECOND).abs() < SECOND / 10, "{body}");
    // Offered once more by another session: nothing of it need be sent.
    drop(agent);
    let mut agent = WireAgent::join(address, &token, &BTreeMap::new()).await.expect("let in");
    agent.push_past(65_536, [7; 16], (0, 200), began).await.expect("known");
    assert_eq!(agent.received[&65_536], 200);
    let source = running.server.hub().sources().into_iter().find(|source| source.name == "main").expect("there");
    let frames = source.status().frames;
    assert!(frames < 500, "no viewer gets the past: {frames}");
    if support::installed("ffmpeg", "ffmpeg") {
        let (status, _, bytes) = fetch(&running, &clip_path(from + 2 * SECOND, from + 7 * SECOND), &api, "").await;
        assert_eq!(status, 200);
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("clip.mp4");
        std::fs::write(&file, bytes).expect("written");
        let shown = pictures(&file).len();
        assert!((125..=126).contains(&shown), "{shown} pictures across the seam of two lanes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_never_knew_the_time_is_one_piece_before_the_present_one() {
    let (running, token, api) = recording().await;
    let address = running.server.addresses().http;
    let mut agent = WireAgent::join(address, &token, &BTreeMap::new()).await.expect("let in");
    agent.push_until(3 * SECOND).await.expect("sends");
    agent.push_past(65_536, [7; 16], (0, 300), 0).await.expect("stored");
    agent.push_until(6 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("persisted");
    // The rest comes in another session.
    drop(agent);
    let mut agent = WireAgent::join(address, &token, &BTreeMap::new()).await.expect("let in");
    agent.push_past(65_536, [7; 16], (0, 400), 0).await.expect("stored");
    let body = coverage(&running, &api).await;
    let ranges = body["ranges"].as_array().expect("a list");
    assert_eq!(ranges.len(), 2, "{body}");
    let (from, to) = (moment(&ranges[0]["from"]), moment(&ranges[0]["to"]));
    assert!((to - from - 16 * SECOND).abs() < SECOND / 10, "{body}");
    // The agent's clock was at five seconds when live began.
    assert!(to < moment(&ranges[1]["from"]) - 5 * SECOND, "{body}");
    assert!((moment(&ranges[1]["to"]) - moment(&ranges[1]["from"]) - 6 * SECOND).abs() < SECOND / 10, "{body}");
    drop(agent);
    let folder = running.server.recordings_folder().expect("it records").join("recordings");
    assert!(running.server.stop().await);
    let own = kept(&folder).into_iter().filter(|path| path.to_string_lossy().contains("Z-07070707-")).count();
    assert!(own <= 5, "{own} files of 16 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_have_their_reasons_and_a_lost_index_is_made_again() {
    let (running, token, api) = recording().await;
    let mut agent = WireAgent::join(running.server.addresses().http, &token, &BTreeMap::new()).await.expect("let in");
    agent.push_until(6 * SECOND).await.expect("sends");
    for track in [0, 1] {
        agent.skip_to(track, Camera::frames_before(track, 12 * SECOND), SkipReason::OverBudget).await.expect("sends");
    }
    agent.push_until(18 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("persisted");
    let before = coverage(&running, &api).await;
    let gap = before["gaps"].as_array().expect("a list").iter().find(|gap| gap["reason"] == "over_budget");
    let gap = gap.unwrap_or_else(|| panic!("{before}"));
    assert!((moment(&gap["to"]) - moment(&gap["from"]) - 6 * SECOND).abs() < SECOND / 5, "{before}");
    assert_eq!(before["ranges"].as_array().map(Vec::len), Some(2), "{before}");

    // The index is damaged, somebody's file lies about, and the server still starts with everything it had.
    let Running { server, folder } = running;
    let mut config = Config::for_tests(folder.path());
    let recordings = server.recordings_folder().expect("recorded");
    record_into(&mut config, &recordings);
    assert!(server.stop().await);
    std::fs::write(recordings.join("index.sqlite"), b"this was a database once").expect("written");
    std::fs::write(recordings.join("open/holiday.mp4"), b"\0\0\0\x20ftypisom not ours").expect("written");
    let running = Running { server: Server::start(config.clone()).await.expect("starts"), folder };
    let after = coverage(&running, &api).await;
    assert_eq!(after["ranges"], before["ranges"]);
    let gaps = after["gaps"].as_array().expect("a list");
    assert!(gaps.iter().any(|gap| gap["reason"] == "over_budget"), "reasons are known again: {after}");
    let aside: Vec<_> = std::fs::read_dir(recordings.join("set-aside"))
        .expect("is there")
        .map(|entry| entry.expect("can be listed").file_name().into_string().expect("text"))
        .collect();
    assert!(aside.iter().any(|name| name.ends_with("index.sqlite")), "{aside:?}");
    assert!(aside.iter().any(|name| name.ends_with("holiday.mp4")), "{aside:?}");
    support::eventually("told", || running.server.events().count("recording_set_aside") == 2).await;

    // A folder of a later version is left alone: live video works, recordings are off.
    let Running { server, folder } = running;
    assert!(server.stop().await);
    std::fs::write(recordings.join("store"), "camagent recordings 9\n").expect("written");
    let running = Running { server: Server::start(config).await.expect("starts all the same"), folder };
    let (status, body) = http(running.server.addresses().http, "GET", "/recordings?camera=cam", Some(&api), None).await;
    assert_eq!((status, body["error"]["code"].as_str()), (503, Some("recordings_off")));
    let agent = WireAgent::join(running.server.addresses().http, &token, &BTreeMap::new()).await.expect("let in");
    assert_eq!(agent.welcome["storage_epoch"], "");
    assert_eq!(agent.welcome["sources"][0]["retention"], "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_withholds_what_is_persisted_and_never_live_video() {
    let small = tempfile::tempdir().expect("temporary folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=640k", "camagent-test"])
        .arg(small.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        support::loud("a small disk cannot be mounted without rights");
        return;
    }
    let unmount = Unmount(small.path().to_owned());
    let running = Running::with(|config| {
        record_into(config, small.path());
        config.recordings.queue_bytes = 1 << 20;
    })
    .await;
    let token = running.server.add_agent("cam").await.expect("adds");
    let api = running.server.add_token("test").await.expect("adds");
    let address = running.server.addresses().http;
    let mut agent = WireAgent::join(address, &token, &BTreeMap::new()).await.expect("let in");
    let mut until = 0;
    while running.server.events().count("recording_stalled") == 0 {
        until += SECOND;
        agent.push_until(until).await.expect("sends");
        agent.listen().await.expect("answers");
    }
    // More than fits into memory.
    while withheld(&running, &api).await == 0 {
        until += SECOND;
        agent.push_until(until).await.expect("sends");
        agent.listen().await.expect("live goes on");
    }
    until += 2 * SECOND;
    agent.push_until(until).await.expect("sends");
    let sent = agent.next[&0];
    while agent.received.get(&0).is_none_or(|received| *received < sent) {
        agent.listen().await.expect("live goes on");
    }
    assert!(agent.persisted[&0] < sent, "{} of {sent} cannot be on the disk", agent.persisted[&0]);
    let source = running.server.hub().sources().into_iter().find(|source| source.name == "main").expect("there");
    assert_eq!(source.status().tracks.iter().map(|track| track.frames).max(), agent.next.values().max().copied());
    // Room again: what waited is written, what did not fit is asked for again, nothing is missing.
    let grown = Command::new("mount").args(["-o", "remount,size=32m"]).arg(small.path()).status().expect("runs");
    assert!(grown.success());
    let all = agent.next.clone();
    let mut sessions = 1;
    while agent.all_persisted().await.is_err() || agent.next != all {
        // The agent has kept it, and goes on where it is told.
        agent = WireAgent::join(address, &token, &agent.persisted).await.expect("let in");
        // A session may end again while it sends: the next one brings the rest.
        let _ = agent.push_until(until).await;
        sessions += 1;
        assert!(sessions < 10, "{:?} of {all:?}", agent.persisted);
    }
    assert!(sessions > 1, "it was asked again");
    assert!(running.server.events().count("recording_resumed") >= 1);
    let body = coverage(&running, &api).await;
    assert_eq!(body["lost"], serde_json::json!({}), "{body}");
    drop(agent);
    assert!(running.server.stop().await);
    drop(unmount);
}

/// Frames that did not fit into memory.
async fn withheld(running: &Running, api: &str) -> u64 {
    let (_, _, text) = fetch(running, "/metrics", api, "").await;
    let text = String::from_utf8(text).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix("camagent_recordings_withheld_frames_total "));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// All recorded files that are complete.
fn kept(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(kept(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_a_gap_of_a_clip() {
    let (running, token, api) = recording().await;
    let mut agent = WireAgent::join(running.server.addresses().http, &token, &BTreeMap::new()).await.expect("let in");
    agent.push_until(18 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("persisted");
    let recordings = running.server.recordings_folder().expect("it records").join("recordings");
    for _ in 0..600 {
        if kept(&recordings).len() >= 4 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let files = kept(&recordings);
    assert!(files.len() >= 4, "{files:?}");
    let body = coverage(&running, &api).await;
    let (from, to) = (moment(&body["ranges"][0]["from"]), moment(&body["ranges"][0]["to"]));
    let whole = fetch(&running, &clip_path(from, to), &api, "").await;
    assert_eq!(whole.0, 200);
    std::fs::write(&files[files.len() / 2], b"the file system lost it").expect("writes");
    let (status, _, bytes) = fetch(&running, &clip_path(from, to), &api, "").await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
    assert!(bytes.len() < whole.2.len() && bytes.len() * 4 > whole.2.len(), "{} of {}", bytes.len(), whole.2.len());
    files.iter().for_each(|file| std::fs::write(file, b"and all others").expect("writes"));
    // The first file alone: nothing of it can be read.
    let (status, _, body) = fetch(&running, &clip_path(from, from + SECOND), &api, "").await;
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 503 && body.contains("recordings check"), "{status} {body}");
}
