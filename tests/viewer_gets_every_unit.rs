//! What a camera pushes is what every viewer gets: each NAL unit and each audio unit, identical, in order, none missing,
//! from agent over wss:// and server to three independent players, with lip-sync. Start codes, access unit delimiters and
//! repeated parameter sets aside.

use std::path::Path;
use std::time::Duration;

use camagent_testkit::core::Codec;
use camagent_testkit::nal::{self, Digest};
use camagent_testkit::script::{AUDIO, VIDEO};
use camagent_testkit::viewer::Seen;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{Camera, CloudServer, Script, Viewer, camera, clip, program};

/// Pictures that each player must have got at least: more than two groups.
const PICTURES: usize = 110;

#[tokio::test(flavor = "multi_thread")]
async fn h264_with_aac() {
    prove(Script::h264_aac()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h265_with_g711_a_law() {
    prove(Script::h265_pcma()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h265_with_g711_mu_law() {
    let server = CloudServer::start().await;
    let token = server.add_agent("cam").await;
    let camera = camera::Setup::new(server.agent("cam", &token), Script::h265_pcmu()).pace(4.0).start();
    let viewer = Viewer::play_again(&server.url("cam", "main"), SOON).await;
    viewer.wait_count(0, PICTURES, SOON).await;
    own_reader(camera, viewer).await;
}

async fn prove(script: Script) {
    let (video, audio) = (script.video_codec(), script.audio_codec().expect("with audio"));
    let server = CloudServer::start().await;
    let token = server.add_agent("cam").await;
    let camera = camera::Setup::new(server.agent("cam", &token), script).start();
    let url = server.url("cam", "main");
    let viewer = Viewer::play_again(&url, SOON).await;
    tokio::join!(
        ffmpeg(&camera, &url, server.folder(), video, audio),
        gstreamer(&camera, &url, server.folder(), video),
        ffprobe(&url, video, audio),
        viewer.wait_count(0, PICTURES, SOON),
    );
    lip_sync(&camera, &viewer);
    own_reader(camera, viewer).await;
    assert_eq!(server.viewers("cam", "main").1, 0, "nobody was skipped");
    assert_eq!(server.event_count("frame_refused") + server.event_count("clock_stepped"), 0);
}

/// The kit's viewer, to the very last unit.
async fn own_reader(mut camera: Camera, viewer: Viewer) {
    camera.pause();
    for (index, track) in [(0, VIDEO), (1, AUDIO)] {
        let pushed = camera.units(track);
        let seen = viewer.wait_end(index, &pushed, SOON).await;
        let start = nal::find_run(&pushed, &seen.digests()).unwrap_or_else(|hole| panic!("track {track}: {hole}"));
        assert_eq!(start + seen.units.len(), pushed.len(), "up to the last one");
        assert_eq!(seen.holes, 0);
    }
    let report = camera.stop(Duration::from_secs(5));
    assert_eq!((report.frames_left, report.has_ended), (0, true));
}

/// `-c copy` to raw files. The viewer begins at a key frame, so what ffmpeg wrote must be a run of what was pushed.
async fn ffmpeg(camera: &Camera, url: &str, folder: &Path, video: Codec, audio: Codec) {
    if !program::is_installed("ffmpeg", "ffmpeg") {
        return;
    }
    let (pictures, sound) = (folder.join("ffmpeg.video"), folder.join("ffmpeg.audio"));
    let (video_form, audio_form) = match video {
        Codec::H264 => ("h264", "adts"),
        _ => ("hevc", "alaw"),
    };
    let (pictures_path, sound_path) = (pictures.to_string_lossy(), sound.to_string_lossy());
    let input = ["-v", "error", "-y", "-rtsp_transport", "tcp", "-i", url];
    let flush = ["-flush_packets", "1"];
    let first = ["-map", "0:v", "-c", "copy", "-f", video_form, &pictures_path];
    let second = ["-map", "0:a", "-c", "copy", "-f", audio_form, &sound_path];
    let child = program::start("ffmpeg", &[&input[..], &flush, &first, &flush, &second].concat());
    let wrote = || nal::digests(video, &program::written(&pictures)).len() >= PICTURES * 2;
    wait::until("pictures from ffmpeg", SOON * 2, wrote).await;
    program::end("ffmpeg", child).await;
    is_run("ffmpeg's video", &camera.units(VIDEO), &nal::digests(video, &program::written(&pictures)));
    let sound = program::written(&sound);
    let units: Vec<Digest> = match audio {
        Codec::Aac => {
            clip::adts_frames(&sound).iter().map(|frame| Digest::of(clip::without_adts_header(frame))).collect()
        }
        _ => sound.chunks_exact(160).map(Digest::of).collect(),
    };
    assert!(units.len() > 50, "{} units of audio", units.len());
    is_run("ffmpeg's audio", &camera.units(AUDIO), &units);
}

/// `rtspsrc` and its de-packetizers, written to a file as they come.
async fn gstreamer(camera: &Camera, url: &str, folder: &Path, video: Codec) {
    if !program::is_installed("gst-launch-1.0", "gstreamer1.0-tools") {
        return;
    }
    let path = folder.join("gstreamer.video");
    let (encoding, media) = match video {
        Codec::H264 => ("h264", "video/x-h264"),
        _ => ("h265", "video/x-h265"),
    };
    let (location, source) = (format!("location={}", path.display()), format!("location={url}"));
    let (depay, form) = (format!("rtp{encoding}depay"), format!("{media},stream-format=byte-stream"));
    let child = program::start(
        "gst-launch-1.0",
        &[
            "-q",
            "-e",
            "rtspsrc",
            &source,
            "protocols=tcp",
            "latency=200",
            "name=source",
            "source.",
            "!",
            "application/x-rtp,media=video",
            "!",
            &depay,
            "!",
            &form,
            "!",
            "filesink",
            &location,
            "buffer-mode=unbuffered",
            "sync=false",
            "source.",
            "!",
            "application/x-rtp,media=audio",
            "!",
            "fakesink",
            "sync=false",
        ],
    );
    let wrote = || nal::digests(video, &program::written(&path)).len() >= PICTURES * 2;
    wait::until("pictures from GStreamer", SOON * 2, wrote).await;
    program::end("gst-launch-1.0", child).await;
    is_run("GStreamer's video", &camera.units(VIDEO), &nal::digests(video, &program::written(&path)));
}

/// What is told of the source without a picture being decoded.
async fn ffprobe(url: &str, video: Codec, audio: Codec) {
    if !program::is_installed("ffprobe", "ffmpeg") {
        return;
    }
    let entries = "stream=codec_name,width,height,sample_rate,channels,avg_frame_rate,r_frame_rate";
    let arguments = ["-v", "error", "-rtsp_transport", "tcp", "-show_entries", entries, "-of", "compact", url];
    let told = program::output("ffprobe", &arguments, SOON).await;
    let (picture, sound, rate) = match (video, audio) {
        (Codec::H264, _) => ("codec_name=h264", "codec_name=aac", "sample_rate=48000"),
        _ => ("codec_name=hevc", "codec_name=pcm_alaw", "sample_rate=8000"),
    };
    for part in [picture, "width=640", "height=360", "r_frame_rate=25/1", sound, rate, "channels=1"] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
}

fn is_run(who: &str, pushed: &[Digest], received: &[Digest]) {
    if let Err(hole) = nal::find_run(pushed, received) {
        panic!("{who}: {hole}");
    }
}

/// The sender reports map both tracks' RTP times to one UTC; from there to the camera's clock it is one constant for both.
fn lip_sync(camera: &Camera, viewer: &Viewer) {
    let tracks: Vec<(Seen, Vec<_>)> =
        vec![(viewer.seen(0), camera.track(VIDEO)), (viewer.seen(1), camera.track(AUDIO))];
    let mut distances_us = Vec::new();
    for (seen, pushed) in &tracks {
        let report = *seen.reports.first().expect("a report with the first pictures");
        let utc_us = (i128::from(report.ntp) * 1_000_000) >> 32;
        // The pushed frames' units side by side, so that a run of units gives the frame of each.
        let units: Vec<(Digest, i64)> =
            pushed.iter().flat_map(|frame| frame.units.iter().map(|unit| (*unit, frame.pts_us))).collect();
        let names: Vec<_> = units.iter().map(|(name, _)| *name).collect();
        let start = nal::find_run(&names, &seen.digests()).expect("a run");
        for (received, (_, pts_us)) in seen.units.iter().zip(&units[start..]) {
            let ticks = i128::from(received.time.wrapping_sub(report.rtp_time).cast_signed());
            let at_us = utc_us + ticks * 1_000_000 / i128::from(seen.track.clock_rate);
            distances_us.push(at_us - i128::from(*pts_us));
        }
    }
    let (least, most) = (distances_us.iter().min().expect("units"), distances_us.iter().max().expect("units"));
    assert!(most - least <= 1_000, "video and audio differ by {} us", most - least);
}
