//! What an outage has left on a card is sent when the configuration lets it, and live frames go on at any time: `storage.backfill_window`, and `backfill` in
//! `data_plan.stops_first`. Meanwhile the API tells how many seconds of each source the agent holds. What waited is not lost.

use std::time::Duration;

use camagent_testkit::core::{Config, Event, Warning};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{Api, Camera, CloudServer, Link, Script, camera};
use serde_json::{Value, json};

/// Pictures that are pushed while the link is down: five seconds and more. What memory has from the last key frame on comes with what is live.
const MISSED: usize = 140;
/// So many of them wait at least.
const WAIT: u64 = 60;

struct Waiting {
    server: CloudServer,
    api: Api,
    link: Link,
    json: Value,
    _place: tempfile::TempDir,
}

impl Waiting {
    async fn new() -> Self {
        let place = tempfile::tempdir().expect("a folder");
        let (recordings, card) = (place.path().join("recordings"), place.path().join("card"));
        std::fs::create_dir(&card).expect("can be made");
        let server = CloudServer::with(|config| config.recordings.path = Some(recordings)).await;
        let token = server.add_agent("cam").await;
        let api = server.api("ops").await;
        let link = Link::to(server.addresses().tls).await;
        let mut json = server.agent_json("cam", &token, link.address());
        json["storage"] = json!({"path": card, "max_bytes": 64 << 20});
        Self { server, api, link, json, _place: place }
    }

    fn camera(&self, change: impl FnOnce(&mut Value), script: Script) -> Camera {
        let mut json = self.json.clone();
        change(&mut json);
        camera::Setup::new(Config::from_json(&json.to_string()).expect("a good file"), script).start()
    }

    /// Asks until the answer is as it should be.
    async fn asked(&self, what: &str, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let begun = tokio::time::Instant::now();
        loop {
            let (_, body) = self.api.get(path).await;
            if fits(&body) {
                return body;
            }
            assert!(begun.elapsed() < SOON * 2, "{what}: {body}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn coverage(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.asked(what, "/api/v1/recordings?camera=cam", fits).await
    }

    /// An outage of some seconds, and live frames behind it that are stored.
    async fn suffer(&self, camera: &Camera) {
        self.coverage("a beginning", |body| body["ranges"][0].is_object()).await;
        self.link.reset();
        self.link.set_up(false);
        wait::until("the end of the session", SOON, || !camera.agent().is_connected()).await;
        let before = camera.pictures();
        wait::until("pictures of the outage", SOON, || camera.pictures() > before + MISSED).await;
        self.link.set_up(true);
        let arrived = self.server.frames("cam", "main");
        wait::until("live frames", SOON, || self.server.frames("cam", "main") > arrived + 100).await;
    }

    /// The outage is a hole, and its frames are held: told by the API more than once, with live frames between.
    async fn waits(&self) {
        for _ in 0..2 {
            let arrived = self.server.frames("cam", "main");
            wait::until("live frames go on", SOON, || self.server.frames("cam", "main") > arrived + 50).await;
            self.coverage("the outage is missing", |body| missing(body) >= WAIT).await;
            let held = |body: &Value| body["statistics"]["held"]["cam/main"]["seconds"].as_u64() >= Some(2);
            self.asked("seconds held", "/api/v1/agents/cam", held).await;
        }
    }
}

/// Pictures that may still come.
fn missing(body: &Value) -> u64 {
    let gaps = body["gaps"].as_array().into_iter().flatten();
    gaps.filter(|gap| gap["reason"] == "not_received").filter_map(|gap| gap["frames"].as_u64()).sum()
}

/// Half an hour that is far from now in the machine's time zone, whatever that is: it has no minute of this hour and the next one.
fn another_time_of_day() -> String {
    // SAFETY: all-zero octets are a valid `tm`; the calls read and fill what lives through them.
    let hour = unsafe {
        let (now, mut local): (_, libc::tm) = (libc::time(std::ptr::null_mut()), std::mem::zeroed());
        libc::localtime_r(&now, &mut local);
        local.tm_hour
    };
    let later = (hour + 12) % 24;
    format!("{later:02}:00-{later:02}:30")
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_of_its_window_the_past_waits_and_is_told() {
    let waiting = Waiting::new().await;
    let window = another_time_of_day();
    let camera = waiting.camera(|json| json["storage"]["backfill_window"] = json!(window), Script::h264_aac());
    waiting.suffer(&camera).await;
    waiting.waits().await;
    assert_eq!(camera.agent().statistics().packets_lost, 0, "it is not lost");
    camera.stop(Duration::ZERO);

    let camera = waiting.camera(|_| {}, Script::h264_aac());
    waiting.coverage("the past is there", |body| missing(body) == 0 && body["ranges"][0].is_object()).await;
    let (_, agent) = waiting.api.get("/api/v1/agents/cam").await;
    let healed = waiting.coverage("the same", |_| true).await;
    assert_eq!(healed["lost"], json!({}), "{agent}");
    camera.stop(Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_stops_the_past_and_nothing_else() {
    let waiting = Waiting::new().await;
    let plan = json!({"monthly_bytes": 1_000_000, "stops_first": ["backfill", "tunnels"]});
    // 80 % of the month within seconds.
    let camera = waiting.camera(|json| json["data_plan"] = plan, Script::h264_aac().heavier_by(4_000));
    let stops = |event: &Event| match event {
        Event::Warning { warning: Warning::DataPlan, message } => Some(message.clone()),
        _ => None,
    };
    let told = camera.events().wait("80 %", SOON * 2, stops).await;
    assert!(told.ends_with("stopped: backfill"), "{told}");
    waiting.suffer(&camera).await;
    waiting.waits().await;
    assert!(camera.agent().is_connected());
    assert_eq!((camera.agent().statistics().packets_lost, camera.left_out().len()), (0, 0));
    camera.stop(Duration::ZERO);

    // Without the plan, or in the next month, it is sent.
    let camera = waiting.camera(|_| {}, Script::h264_aac());
    waiting.coverage("the past is there", |body| missing(body) == 0 && body["ranges"][0].is_object()).await;
    // Whose it was: frames of another run, of a card.
    let past = |body: &Value| body["cameras"][0]["backfill"]["main"].as_u64() > Some(50_000);
    let month = waiting.asked("the camera's past", "/api/v1/agents/cam/data", past).await;
    assert!(month["backfill"].as_u64() >= month["cameras"][0]["backfill"]["main"].as_u64(), "{month}");
    camera.stop(Duration::ZERO);
}
