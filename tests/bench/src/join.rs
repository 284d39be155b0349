//! How long a viewer waits for a picture: from its TCP connect to the last octet of its first key frame, at random moments
//! within the group of pictures. DESCRIBE, two SETUPs and PLAY are in it, each a round trip.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use camagent_testkit::depacketize::Depacketizer;
use camagent_testkit::rtsp::{Connection, Incoming};
use camagent_testkit::{Camera, CloudServer, Script, camera, nal, wait};
use serde_json::json;

use crate::page::Measured;

/// Seconds from key frame to key frame.
const GROUPS_S: [u32; 3] = [1, 4, 10];
const PICTURES_A_SECOND: usize = 25;
/// The bar: the 95th percentile, in milliseconds.
const BAR_MS: f64 = 10.0;

/// Measures all group lengths, `joins` times each.
pub(crate) fn run(joins: usize) -> Measured {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let rows = runtime.block_on(async {
        let mut rows = Vec::new();
        for group_s in GROUPS_S {
            let times = measure(group_s, joins).await;
            let at = |share: f64| times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1];
            rows.push(json!({
                "bench": "join", "who": "camagent", "peer": false, "metric": "first_idr_ms", "gop_s": group_s,
                "p50": at(0.50), "p95": at(0.95), "p99": at(0.99), "max": at(1.0), "joins": joins,
            }));
        }
        rows
    });
    let good = rows.iter().all(|row| row["p95"].as_f64().is_some_and(|p95| p95 <= BAR_MS));
    let verdict = if good { "met" } else { "missed" };
    Measured {
        name: "join",
        title: "Connect to first picture",
        text: format!(
            "Milliseconds from a viewer's TCP connect to the last octet of its first key frame: H.264 640x360 at 25 a second with \
             AAC, agent, server and viewers on one machine over loopback (wss:// up, RTSP over TCP down), one viewer at a time, \
             at random moments. The bar is p95 <= {BAR_MS} ms at any distance of key frames: {verdict}."
        ),
        columns: vec![
            ("gop_s", "GOP, s"),
            ("p50", "p50"),
            ("p95", "p95"),
            ("p99", "p99"),
            ("max", "max"),
            ("joins", "joins"),
        ],
        rows,
        shown: None,
    }
}

/// The times of all joins in milliseconds, sorted.
async fn measure(group_s: u32, joins: usize) -> Vec<f64> {
    let server = CloudServer::start().await;
    let token = server.add_agent("bench").await;
    let script = Script::h264_aac().with_group_of(group_s as usize * PICTURES_A_SECOND);
    let camera: Camera = camera::Setup::new(server.agent("bench", &token), script).start();
    wait::until("pictures at the server", wait::SOON, || server.frames("bench", "main") > 10).await;
    let url = server.url("bench", "main");
    let mut times = Vec::new();
    // Twice the longest group on average, so that joins fall everywhere in it.
    let longest_pause_us = 200_000 * 200 / joins.max(1) as u64;
    let hasher = RandomState::new();
    for number in 0..joins {
        tokio::time::sleep(Duration::from_micros(hasher.hash_one(number) % longest_pause_us)).await;
        times.push(wait::within("a join", wait::SOON, join(&url)).await.as_secs_f64() * 1_000.0);
    }
    camera.stop(Duration::ZERO);
    times.sort_by(f64::total_cmp);
    times.iter().map(|time| (time * 100.0).round() / 100.0).collect()
}

/// One join.
async fn join(url: &str) -> Duration {
    let begun = Instant::now();
    let mut connection = Connection::open(url, None).await.expect("the relay accepts");
    let tracks = connection.play().await.expect("it plays");
    let mut video = Depacketizer::new(tracks[0].codec);
    loop {
        let Incoming::Packet(0, packet) = connection.next().await.expect("media comes") else { continue };
        let units = video.take(&packet).expect("good packets");
        if units.iter().any(|(_, unit)| nal::is_key(tracks[0].codec, unit)) {
            return begun.elapsed();
        }
    }
}
