//! An outage that an agent's card bridges, between a camera and two who look later: one watches some seconds behind, the other takes a clip of that
//! time. ffmpeg is both. Panics when one of them does not get every frame that was pushed, with its octets, in order, at an even pace.

use std::time::Duration;

use camagent_core::{Codec, Config};
use serde_json::{Value, json};

use crate::copied::{Copied, Copying};
use crate::nal::find_run;
use crate::script::{AUDIO, VIDEO};
use crate::wait::{self, SOON};
use crate::{Api, Camera, CloudServer, Link, Script, camera};

/// Seconds of a picture, and of a piece of sound of each kind.
const PICTURE_S: f64 = 0.04;
const AAC_S: f64 = 1_024.0 / 48_000.0;

/// How long what lasts.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// So many seconds behind the camera somebody watches.
    pub delay_s: u32,
    /// The link is down.
    pub outage: Duration,
    /// Before that it is up.
    pub before: Duration,
    /// And so long behind it.
    pub after: Duration,
}

/// What was pushed, and what came: pictures and units of sound.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Pushed until the end.
    pub pushed: [usize; 2],
    /// Pictures that were pushed in the outage.
    pub missed: usize,
    /// What who watches behind got.
    pub watched: [usize; 2],
    /// What the clip has.
    pub clipped: [usize; 2],
}

/// Waits until so much time has gone by: the length of an outage is what is tested.
async fn lasts(what: &str, time: Duration) {
    let begun = tokio::time::Instant::now();
    wait::until(what, time + SOON, || begun.elapsed() >= time).await;
}

async fn coverage(api: &Api) -> Value {
    let (status, body) = api.get("/api/v1/recordings?camera=cam").await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Waits until nothing is missing between the beginning and now, and there is something newer than `after`.
async fn healed(api: &Api, ranges_end_after: &str) -> (String, String) {
    let begun = tokio::time::Instant::now();
    loop {
        let body = coverage(api).await;
        let ranges = body["ranges"].as_array().expect("a list");
        let text = |value: &Value| value.as_str().expect("a time").to_owned();
        if let [only] = &ranges[..]
            && text(&only["to"]).as_str() > ranges_end_after
        {
            return (text(&only["from"]), text(&only["to"]));
        }
        assert!(begun.elapsed() < SOON * 3, "not healed: {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Names of a track's units that were pushed, against what was copied: where the copy begins and how many it has.
fn judge(who: &str, camera: &Camera, copied: &[Copied; 2], most_s: f64) -> [usize; 2] {
    let mut begins = [0; 2];
    for (stream, track, own_s) in [(0, VIDEO, PICTURE_S), (1, AUDIO, AAC_S)] {
        let Copied { units, times_s, shown_s, tick_s } = &copied[stream];
        let pushed = camera.units(track);
        begins[stream] = find_run(&pushed, units).unwrap_or_else(|hole| panic!("{who}, stream {stream}: {hole}"));
        for times in [times_s, shown_s] {
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{who}, stream {stream}: a time goes back");
        }
        let uneven: Vec<_> = copied[stream]
            .steps_s()
            .into_iter()
            .enumerate()
            .filter(|(_, step)| (step - own_s).abs() > most_s.max(1.5 * tick_s))
            .collect();
        assert!(
            uneven.is_empty(),
            "{who}, stream {stream}: of {} steps these are no {own_s} s: {uneven:?}",
            times_s.len()
        );
    }
    begins
}

/// Makes it. Nothing when ffmpeg is not installed.
pub async fn bridged(lengths: Lengths) -> Option<Outcome> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (recordings, card) = (folder.path().join("recordings"), folder.path().join("card"));
    std::fs::create_dir(&card).expect("can be made");
    let server = CloudServer::with(|config| {
        config.recordings.path = Some(recordings.clone());
        config.recordings.segment_seconds = Duration::from_secs(4);
    })
    .await;
    let token = server.add_agent("cam").await;
    let api = server.api("ops").await;
    let link = Link::to(server.addresses().tls).await;
    let mut json = server.agent_json("cam", &token, link.address());
    json["storage"] = json!({"path": card, "max_bytes": 256 << 20});
    let config = Config::from_json(&json.to_string()).expect("a good file");
    let camera = camera::Setup::new(config, Script::h264_aac()).start();
    let codecs = [Codec::H264, Codec::Aac];
    let is_recorded = async || coverage(&api).await["ranges"].as_array().is_some_and(|ranges| !ranges.is_empty());
    wait::within("a beginning", SOON, async {
        while !is_recorded().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // A player that is there all the time.
    let url = format!("{}?delay={}", server.url("cam", "main"), lengths.delay_s);
    let behind = Copying::start(&["-rtsp_transport", "tcp"], &url, codecs, folder.path())?;
    lasts("a while", lengths.before).await;

    link.reset();
    link.set_up(false);
    wait::until("the end of the session", SOON, || !camera.agent().is_connected()).await;
    // What had arrived before is read first.
    wait::until("the server's end of it", SOON, || {
        server.server().agents().status("cam").is_some_and(|status| !status.online)
    })
    .await;
    let (lost_from, arrived) = (camera.track(VIDEO).len(), server.frames("cam", "main"));
    lasts("an outage", lengths.outage).await;
    assert_eq!(server.frames("cam", "main"), arrived, "nothing comes through");
    let missed = camera.track(VIDEO).len() - lost_from;
    assert!(missed as f64 * PICTURE_S > lengths.outage.as_secs_f64() * 0.8, "the camera goes on: {missed}");
    link.set_up(true);
    wait::until("another session", SOON, || camera.agent().is_connected()).await;
    lasts("a while", lengths.after).await;
    let last = [VIDEO, AUDIO].map(|track| camera.track(track).last().expect("pushed").units[0]);

    // A clip of everything that is there once the gap is healed.
    let (_, to) = healed(&api, "").await;
    let (from, to) = healed(&api, &to).await;
    let clip =
        format!("http://{}/api/v1/recordings/clip?camera=cam&source=main&from={from}&to={to}", server.addresses().http);
    let held = folder.path().join("clip");
    std::fs::create_dir(&held).expect("can be made");
    let bearer = format!("Authorization: Bearer {}\r\n", api.token().expect("a token"));
    let copied = Copying::start(&["-headers", &bearer], &clip, codecs, &held)?.finish().await;
    let clipped = [0, 1].map(|stream| copied[stream].times_s.len());
    let begins = judge("the clip", &camera, &copied, 0.0);
    assert!(begins[0] == 0, "the clip begins with the first picture: {begins:?}");
    let ends = begins[0] + copied[0].units.len();
    assert!(ends > lost_from + missed, "it goes over the gap: {ends}");

    for (stream, unit) in last.into_iter().enumerate() {
        behind.wait_unit(stream, unit, Duration::from_secs(lengths.delay_s.into()) + SOON).await;
    }
    let said = behind.said();
    let copied = behind.stop().await;
    let begins = judge("the delayed relay", &camera, &copied, 0.001);
    assert!(begins[0] < lost_from, "from before the outage on: {begins:?}");
    // Of the first packets it does not know the time of decoding by itself.
    assert!(!said.contains("monoton"), "ffmpeg has to repair times: {said}");
    assert_eq!(camera.agent().statistics().packets_lost, 0);
    let watched = [0, 1].map(|stream| copied[stream].times_s.len());
    let pushed = [VIDEO, AUDIO].map(|track| camera.track(track).len());
    camera.stop(Duration::ZERO);
    Some(Outcome { pushed, missed, watched, clipped })
}
