//! From a C program through wss:// to players: the pictures and sounds of the example `push_file` arrive at our own viewer, at ffmpeg and at
//! GStreamer, complete and unchanged.

use std::{path::Path, process::Stdio, time::Duration};

use camagent_testkit::{
    CloudServer, Viewer,
    c_library::{Sdk, root, succeeded},
    clip,
    core::Codec,
    nal::{self, Digest, find_run},
    program, wait,
};
use tokio::process::{Child, Command};

struct Clip {
    codec: Codec,
    video: &'static str,
    audio: &'static str,
    /// GStreamer's way from RTP to an Annex B file.
    gstreamer: &'static [&'static str],
}

const H264: Clip = Clip {
    codec: Codec::H264,
    video: "main.h264",
    audio: "main.aac",
    gstreamer: &["rtph264depay", "!", "video/x-h264,stream-format=byte-stream,alignment=au"],
};
const H265: Clip = Clip {
    codec: Codec::H265,
    video: "second.h265",
    audio: "second.alaw",
    gstreamer: &["rtph265depay", "!", "video/x-h265,stream-format=byte-stream,alignment=au"],
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h264_and_aac_reach_every_player() {
    reach(&H264).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h265_and_g711_reach_every_player() {
    reach(&H265).await;
}

async fn reach(clip: &Clip) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("push_file");
    Sdk::find().compile(&root().join("examples-c/push_file.c"), &[], &program);
    let server = CloudServer::start().await;
    let token = server.add_agent("porch").await;
    let config = folder.path().join("agent.json");
    std::fs::write(&config, server.agent_json("porch", &token, server.addresses().tls).to_string()).unwrap();
    let mut camera = start_camera(&program, &config, clip);
    let url = server.url("porch", "main");
    let viewer = Viewer::play_again(&url, wait::SOON).await;

    let with_ffmpeg = folder.path().join(clip.video);
    let file = with_ffmpeg.to_str().unwrap();
    let ffmpeg = program::is_installed("ffmpeg", "ffmpeg").then(|| {
        let raw = if clip.codec == Codec::H264 { "h264" } else { "hevc" };
        let arguments =
            ["-v", "error", "-rtsp_transport", "tcp", "-i", &url, "-map", "0:v", "-c", "copy", "-f", raw, file];
        program::start("ffmpeg", &arguments)
    });
    let with_gstreamer = folder.path().join("gstreamer");
    let gstreamer = program::is_installed("gst-launch-1.0", "gstreamer1.0-tools").then(|| {
        let source = format!("location={url}");
        let sink = format!("location={}", with_gstreamer.display());
        let mut arguments = vec!["-q", "-e", "rtspsrc", "protocols=tcp", "latency=0", &source, "!"];
        arguments.extend(clip.gstreamer);
        arguments.extend(["!", "filesink", "sync=false", &sink]);
        program::start("gst-launch-1.0", &arguments)
    });
    viewer.wait_count(0, 260, Duration::from_secs(60)).await;

    let pushed = rounds(clip.codec, clip.video);
    let received: Vec<Digest> = viewer.seen(0).digests();
    find_run(&pushed, &received).unwrap_or_else(|error| panic!("own viewer: {error}"));
    assert_eq!(viewer.seen(0).holes + viewer.seen(1).holes, 0);
    let sounds = sounds(clip.audio);
    find_run(&sounds, &viewer.seen(1).digests()).unwrap_or_else(|error| panic!("own viewer, sound: {error}"));
    for (name, player, file) in [("ffmpeg", ffmpeg, &with_ffmpeg), ("gstreamer", gstreamer, &with_gstreamer)] {
        let Some(player) = player else { continue };
        // Programs begin when they have loaded; the camera goes on for as long as it takes.
        let units = || nal::digests(clip.codec, &program::written(file)).len();
        wait::until(name, Duration::from_secs(60), || units() > 110).await;
        program::end(name, player).await;
        let mut received = nal::digests(clip.codec, &program::written(file));
        assert!(received.len() > 100, "{name} has written {} units", received.len());
        // The player was stopped in the middle: its last picture may be cut.
        received.truncate(received.len() - 2);
        find_run(&pushed, &received).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // SAFETY: kill takes no pointers; the child is ours and was not waited for yet.
    unsafe { libc::kill(i32::try_from(camera.id().unwrap()).unwrap(), libc::SIGTERM) };
    let status = wait::within("the camera ends", wait::SOON, camera.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

fn start_camera(program: &Path, config: &Path, clip: &Clip) -> Child {
    let clips = root().join("tests/data/clips");
    Command::new(program)
        .arg("--config")
        .arg(config)
        .args(["--camera", "porch", "--fps", "25", "--video"])
        .arg(clips.join(clip.video))
        .arg("--audio")
        .arg(clips.join(clip.audio))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// The units of a clip that is played over and over.
fn rounds(codec: Codec, name: &str) -> Vec<Digest> {
    nal::digests(codec, &clip::read(name)).repeat(8)
}

fn sounds(name: &str) -> Vec<Digest> {
    let stream = clip::read(name);
    let units: Vec<Digest> = match name.ends_with(".aac") {
        true => clip::adts_frames(&stream).iter().map(|frame| Digest::of(clip::without_adts_header(frame))).collect(),
        false => stream.chunks(160).map(Digest::of).collect(),
    };
    units.repeat(8)
}

#[test]
fn wrong_arguments_and_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("push_file");
    Sdk::find().compile(&root().join("examples-c/push_file.c"), &[], &program);
    let run = |arguments: &[&str]| std::process::Command::new(&program).args(arguments).output().unwrap();
    let help = run(&["--help"]);
    assert!(succeeded("push_file --help", &help).contains("--config FILE"));
    let clip = root().join("tests/data/clips/main.h264");
    let clip = clip.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 5] = [
        (&[], 2, "--config and --video are needed"),
        (&["--volume", "7"], 2, "--volume is unknown"),
        (&["--config", "x", "--video", "/nowhere.h264"], 1, "/nowhere.h264"),
        (&["--config", "x", "--video", "film.avi"], 1, "has to end with .h264 or .h265"),
        (&["--config", "/nowhere.json", "--video", clip], 1, "/nowhere.json"),
    ];
    for (arguments, code, words) in cases {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(words), "{arguments:?}: {} {said}", output.status);
    }
}
