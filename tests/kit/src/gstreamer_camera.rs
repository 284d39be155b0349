//! A camera of other people's parts, for proofs that our own camera cannot give: Debian's GStreamer RTSP server with Digest,
//! H.265 with G.711 A-law under [`crate::rtsp_camera::MAIN`], H.264 under [`crate::rtsp_camera::SUB`], and an HTTP server that
//! answers a picture. The program is `tests/kit/programs/gstreamer_camera.py`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use camagent_core::Codec;

use crate::clip;
use crate::nal;
use crate::players::Media;
use crate::program;
use crate::rtsp_camera::MAIN;

/// Debian's: others do not see Debian's modules.
pub const PYTHON: &str = "/usr/bin/python3";
/// Its account.
pub const USER: &str = "admin";
/// The password of its account.
pub const PASSWORD: &str = "admin123";
/// Rounds of the clip that a viewer may see.
const ROUNDS: usize = 20;

/// The camera, running. It is killed with the value.
pub struct GStreamerCamera {
    child: Child,
    picture: Vec<u8>,
}

impl GStreamerCamera {
    /// Whether this machine has all parts of it; says loudly when it has not.
    pub fn is_possible() -> bool {
        let packages = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad";
        let import = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer";
        let tried = Command::new(PYTHON).args(["-c", import]).stderr(Stdio::null()).status();
        let there = tried.is_ok_and(|status| status.success());
        if !there {
            program::is_missing("GStreamer's RTSP server for Python", &format!("Debian packages {packages}"));
        }
        there && program::is_installed("ffmpeg", "ffmpeg")
    }

    /// Starts it by `python`, which is [`PYTHON`] wherever the camera shall be; `folder` takes its picture.
    pub fn start(mut python: Command, folder: &Path, rtsp_port: u16, http_port: u16) -> Self {
        let place = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let (clips, picture) = (place.join("../data/clips"), folder.join("picture.jpg"));
        let first_picture = ["-frames:v", "1", "-v", "error", "-y"];
        let ffmpeg =
            Command::new("ffmpeg").arg("-i").arg(clips.join("main.h264")).args(first_picture).arg(&picture).status();
        assert!(ffmpeg.is_ok_and(|status| status.success()), "ffmpeg makes a picture");
        python.arg(place.join("programs/gstreamer_camera.py")).arg(clips).arg(&picture);
        python.args([rtsp_port.to_string(), http_port.to_string(), USER.into(), PASSWORD.into()]);
        let mut child = python.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("Python starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it speaks");
        let camera = Self { child, picture: std::fs::read(&picture).expect("it was made") };
        assert_eq!(line.trim(), "ready", "the camera starts");
        camera
    }

    /// The octets of its picture.
    pub fn picture(&self) -> &[u8] {
        &self.picture
    }

    /// What a path shows, so many rounds that a viewer sees a run of it.
    pub fn media(path: &str) -> Media {
        let (codec, picture, sound) = match path {
            MAIN => (Codec::H265, "second.h265", Some("second.alaw")),
            _ => (Codec::H264, "main.h264", None),
        };
        let units = nal::digests(codec, &clip::read(picture)).repeat(ROUNDS);
        Media { codec, units, sound: sound.map(|name| clip::read(name).repeat(ROUNDS)) }
    }
}

impl Drop for GStreamerCamera {
    fn drop(&mut self) {
        // After a good end there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
