//! The kit's camera, seen by somebody else's client: what ffmpeg gets is what the encoders made, over both transports.

use camagent_core::Codec;
use camagent_testkit::rtsp_camera::{Behaviour, Description, MAIN, RtspCamera, SNAPSHOT, SUB, THIRD};
use camagent_testkit::wait::SOON;
use camagent_testkit::{clip, nal, nal::Digest, program, wait};
use std::time::Duration;
use tokio::process::Command;

/// Pictures that are compared.
const PICTURES: usize = 60;

async fn ffmpeg_gets(camera: &RtspCamera, transport: &str, path: &str, video: Codec, audio: Codec) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (pictures, sound) = (folder.path().join("pictures"), folder.path().join("sound"));
    let (form, audio_form) = match (video, audio) {
        (Codec::H264, _) => ("h264", "adts"),
        _ => ("hevc", "alaw"),
    };
    let (picture_file, sound_file) = (pictures.display().to_string(), sound.display().to_string());
    #[rustfmt::skip]
    let child = program::start("ffmpeg", &[
        "-v", "error", "-rtsp_transport", transport, "-i", &camera.url(path),
        "-map", "0:v", "-c", "copy", "-flush_packets", "1", "-f", form, &picture_file,
        "-map", "0:a", "-c", "copy", "-flush_packets", "1", "-f", audio_form, &sound_file,
    ]);
    let wrote = || nal::digests(video, &program::written(&pictures)).len() >= PICTURES * 2;
    wait::until("pictures from the camera", SOON * 2, wrote).await;
    program::end("ffmpeg", child).await;
    let got = nal::digests(video, &program::written(&pictures));
    nal::find_run(&camera.units(path, 0), &got).unwrap_or_else(|hole| panic!("{transport} {path}: {hole}"));
    let sound = program::written(&sound);
    let got: Vec<Digest> = match audio {
        Codec::Aac => {
            clip::adts_frames(&sound).iter().map(|frame| Digest::of(clip::without_adts_header(frame))).collect()
        }
        _ => sound.chunks_exact(160).map(Digest::of).collect(),
    };
    assert!(got.len() >= PICTURES, "{} units of audio", got.len());
    nal::find_run(&camera.units(path, 1), &got).unwrap_or_else(|hole| panic!("{transport} {path}, audio: {hole}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_gets_what_the_encoders_make_over_both_transports() {
    if !program::is_installed("ffmpeg", "ffmpeg") {
        return;
    }
    let camera = RtspCamera::start().await;
    tokio::join!(
        ffmpeg_gets(&camera, "tcp", MAIN, Codec::H265, Codec::Pcma),
        ffmpeg_gets(&camera, "udp", MAIN, Codec::H265, Codec::Pcma),
        ffmpeg_gets(&camera, "tcp", SUB, Codec::H264, Codec::Aac),
        ffmpeg_gets(&camera, "udp", SUB, Codec::H264, Codec::Aac),
    );
    wait::until("the viewers have left", SOON, || camera.traffic(MAIN).playing == 0).await;
    assert_eq!(camera.traffic(MAIN).plays, 2);
    assert!(camera.traffic(MAIN).octets > 10_000 && camera.traffic(THIRD).octets == 0);
}

/// ffprobe's answer about a URL: what it found, or what it complained of.
async fn ffprobe(url: &str, options: &[&str]) -> Result<String, String> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", "stream=codec_name,width", "-of", "compact"]);
    let run = command.args(options).arg(url).kill_on_drop(true).output();
    let output = wait::within("ffprobe", SOON, run).await.expect("ffprobe runs");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_and_the_plug_are_respected() {
    if !program::is_installed("ffprobe", "ffmpeg") {
        return;
    }
    let mut camera = RtspCamera::start().await;
    let tcp = &["-rtsp_transport", "tcp"];
    let told = ffprobe(&camera.url(THIRD), tcp).await.expect("the right password");
    assert!(told.contains("pcm_mulaw") && !told.contains("h26"), "{told}");
    let picture = format!("http://admin:a-camera%27s%20password@{}{SNAPSHOT}", camera.http_address());
    let told = ffprobe(&picture, &[]).await.expect("a picture");
    assert!(told.contains("mjpeg") && told.contains("width=320"), "{told}");
    assert_eq!(camera.snapshots(), 1);

    let before = camera.url(THIRD);
    camera.set_password("another");
    let refused = ffprobe(&before, tcp).await.expect_err("the old password");
    assert!(refused.contains("401"), "{refused}");
    let refused = ffprobe(&picture, &[]).await.expect_err("the old password");
    assert!(refused.contains("401"), "{refused}");

    camera.stop().await;
    ffprobe(&camera.url(THIRD), tcp).await.expect_err("nobody listens");
    camera.start_again().await;
    ffprobe(&camera.url(THIRD), tcp).await.expect("on again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_misbehaves_as_it_is_told() {
    if !program::is_installed("ffprobe", "ffmpeg") {
        return;
    }
    let camera = RtspCamera::start().await;
    camera.behave(|behaviour| behaviour.refuses_tcp = true);
    let refused = ffprobe(&camera.url(SUB), &["-rtsp_transport", "tcp"]).await.expect_err("no TCP");
    assert!(refused.contains("461") || refused.to_lowercase().contains("protocol"), "{refused}");
    ffprobe(&camera.url(SUB), &["-rtsp_transport", "udp"]).await.expect("UDP");
    camera.behave(|behaviour| {
        *behaviour = Behaviour { description: Description::WithoutParameterSets, ..Behaviour::default() }
    });
    let told = ffprobe(&camera.url(SUB), &["-rtsp_transport", "tcp"]).await.expect("sets in band");
    assert!(told.contains("width=640"), "{told}");

    camera.behave(|behaviour| {
        *behaviour = Behaviour { drop_after: Some(90), late_key_frame: Duration::from_secs(1), ..Behaviour::default() }
    });
    let (tcp, null) = (["-rtsp_transport", "tcp", "-i"], ["-c", "copy", "-f", "null", "-"]);
    let url = camera.url(SUB);
    let mut player = Command::new("ffmpeg");
    player.args(["-v", "quiet", "-nostdin"]).args(tcp).arg(&url).args(null).kill_on_drop(true);
    // Whether ffmpeg takes a cut for an end or for a failure is its own matter: it ends.
    let _ = wait::within("the connection is cut", SOON * 2, player.status()).await.expect("ffmpeg runs");
}
