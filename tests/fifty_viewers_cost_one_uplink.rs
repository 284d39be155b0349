//! The camera's uplink carries the stream once, however many watch; and a viewer that does not read harms nobody: the
//! others get every frame, and it goes on at a key frame itself.

use std::time::Duration;

use camagent_testkit::rtsp::{Connection, Incoming};
use camagent_testkit::script::VIDEO;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Link, Script, Viewer, camera, nal};

/// Handshakes, certificates, registration and heartbeats.
const CONSTANT: u64 = 16 << 10;
/// Pictures that the camera pushes while everybody watches: 12 s.
const PICTURES: usize = 300;
/// Octets that make each picture heavier: together more than the kernel buffers for a viewer that does not read.
const WEIGHT: usize = 20_000;

/// A viewer this late is skipped.
const MAX_LAG: Duration = Duration::from_secs(2);
/// What the kernel takes for the stalled viewer: little, but enough to read on quickly.
const RECEIVE_BUFFER: u32 = 64 << 10;

/// What an uplink cost.
struct Cost {
    carried: u64,
    pushed: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn one_uplink_for_one_viewer_and_for_fifty() {
    // The clip as it is has small frames of 300 kbit/s, the worst there is for what records add to them.
    let (small, one, fifty) = tokio::join!(watch(1, 0), watch(1, WEIGHT), watch(50, WEIGHT));
    for cost in [&small, &one, &fifty] {
        let allowed = cost.pushed * 11 / 10 + CONSTANT;
        assert!(cost.carried <= allowed, "{} bytes carried for {} pushed", cost.carried, cost.pushed);
        assert!(cost.carried >= cost.pushed, "everything went through the link");
    }
    let ratio = |cost: &Cost| cost.carried as f64 / cost.pushed as f64;
    let change = ratio(&fifty) / ratio(&one);
    assert!((0.9..=1.1).contains(&change), "1 viewer {:.3}, 50 viewers {:.3}", ratio(&one), ratio(&fifty));
}

/// So many viewers, one of them stalled when there are several.
async fn watch(count: usize, weight: usize) -> Cost {
    let server = CloudServer::with(|config| config.live.max_viewer_lag = MAX_LAG).await;
    let token = server.add_agent("cam").await;
    let link = Link::to(server.addresses().tls).await;
    let config = server.agent_at("cam", &token, link.address());
    let mut camera = camera::Setup::new(config, Script::h264_aac().heavier_by(weight)).start();
    let url = server.url("cam", "main");
    let mut viewers = vec![Viewer::play_again(&url, SOON).await];
    let mut stalled = None;
    if count > 1 {
        let mut connection = Connection::open(&url, Some(RECEIVE_BUFFER)).await.expect("the relay accepts");
        let tracks = connection.play().await.expect("it plays");
        stalled = Some((connection, tracks));
    }
    let playing = count - usize::from(stalled.is_some());
    while viewers.len() < playing {
        viewers.push(Viewer::play(&url).await);
    }
    assert_eq!(viewers.len() + usize::from(stalled.is_some()), count);
    wait::until("all watch", SOON, || server.viewers("cam", "main").0 as usize == count).await;
    let begun = camera.pictures();
    wait::until("pictures", SOON, || camera.pictures() >= begun + PICTURES).await;

    if let Some((connection, tracks)) = stalled {
        goes_on_at_a_key_frame(&server, connection, tracks).await;
    }
    camera.pause();
    let pushed = camera.units(VIDEO);
    let last = *pushed.last().expect("it pushed");
    for viewer in &viewers {
        viewer.wait_unit(0, last, SOON).await;
        let seen = viewer.seen(0);
        nal::find_run(&pushed, &seen.digests()).unwrap_or_else(|hole| panic!("a viewer that reads: {hole}"));
        assert_eq!(seen.holes, 0);
    }
    let bytes = camera.bytes() as u64;
    let report = camera.stop(Duration::from_secs(5));
    assert_eq!(report.frames_left, 0);
    assert_eq!(link.connections(), 1);
    Cost { carried: link.carried_upwards(), pushed: bytes }
}

/// The stalled viewer reads again: after what was on its way there is one hole, and behind it a key frame.
async fn goes_on_at_a_key_frame(
    server: &CloudServer,
    mut connection: Connection,
    tracks: Vec<camagent_testkit::rtsp::Track>,
) {
    let codec = tracks[0].codec;
    let mut video = camagent_testkit::depacketize::Depacketizer::new(codec);
    assert_eq!(server.viewers("cam", "main").1, 0, "nobody else was skipped");
    let read = async {
        loop {
            let Incoming::Packet(0, packet) = connection.next().await.expect("it still plays") else { continue };
            let before = video.holes();
            let units = video.take(&packet).expect("whole packets");
            if before == 0 && video.holes() == 1 {
                // The group's parameter sets may come first, in the same packet or before it.
                let mut all = units;
                while !all.iter().any(|(_, unit)| nal::is_slice(codec, unit)) {
                    if let Incoming::Packet(0, packet) = connection.next().await.expect("it still plays") {
                        all.extend(video.take(&packet).expect("whole packets"));
                    }
                }
                return all;
            }
        }
    };
    let units = wait::within("the skipped viewer's next picture", SOON, read).await;
    let slice = units.iter().find(|(_, unit)| nal::is_slice(codec, unit)).expect("looked for above");
    assert!(nal::is_key(codec, &slice.1), "the first picture behind the hole is a key frame");
    assert_eq!(video.holes(), 1);
    assert_eq!(server.viewers("cam", "main").1, 1, "one skip");
    assert_eq!(server.event_count("viewer_skipped"), 1);
}
