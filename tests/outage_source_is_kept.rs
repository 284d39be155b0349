//! Without a card an outage is as long as memory. With `streaming.outage_source` the small source lasts many times as long as the large one: each
//! of its frames is recorded in the end, and the large one has a hole with a reason.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use camagent_testkit::core::{Agent, Config, Frame, Host, Pushed};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Link, Script, recordings};
use serde_json::{Value, json};

const MAIN: u32 = 0;
const SUB: u32 = 1;
const MEMORY: usize = 1_200_000;
/// The outage brings so many times as much of the large source as memory holds.
const TIMES_MEMORY: usize = 2;
/// Octets that each picture of the large source is heavier by.
const WEIGHT: usize = 10_000;

#[derive(Debug, Default)]
struct Notes {
    octets: [AtomicUsize; 2],
    frames: [AtomicUsize; 2],
    not_wanted: [AtomicUsize; 2],
    is_over: AtomicBool,
}

/// Both sources of a camera.
fn play(agent: &Agent, notes: &Notes) {
    let mut scripts = [Script::h264_aac().without_audio().heavier_by(WEIGHT), Script::h264_aac().without_audio()];
    let begun = Instant::now();
    while !notes.is_over.load(Ordering::Relaxed) {
        for (track, script) in (0..).zip(&mut scripts) {
            let piece = script.next_piece();
            let due = Duration::from_micros(piece.time_us.unsigned_abs());
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let (place, number) = (track as usize, piece.time_us);
            let frame = Frame { pts_us: number, dts_us: number, data: &piece.data, ..Frame::default() };
            match agent.push_frame(track, frame).expect("a good frame") {
                Pushed::Kept => {
                    notes.frames[place].fetch_add(1, Ordering::Relaxed);
                }
                // Behind the hole it goes on with a key frame: what comes before is missing as well.
                Pushed::NotWanted | Pushed::WaitKey => {
                    notes.not_wanted[place].fetch_add(1, Ordering::Relaxed);
                }
                other => panic!("a good frame: {other:?}"),
            }
            notes.octets[place].fetch_add(piece.data.len(), Ordering::Relaxed);
        }
    }
}

/// Numbers of a track's frames that are recorded.
fn recorded(folder: &Path, track: u32) -> BTreeSet<u64> {
    let files = recordings::files(folder);
    let frames = files.iter().filter_map(|file| recordings::read(file).ok()).flatten();
    frames.filter(|frame| frame.track == track).map(|frame| frame.sequence).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_lasts_longer_for_the_small_source() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().to_owned();
    let server = CloudServer::with(|config| config.recordings.path = Some(folder.clone())).await;
    let token = server.add_agent("cam").await;
    let api = server.api("ops").await;
    let link = Link::to(server.addresses().tls).await;
    let mut file = server.agent_json("cam", &token, link.address());
    file["streaming"]["buffer_size"] = json!(MEMORY);
    file["streaming"]["outage_source"] = json!("sub");
    let recorded_too = json!({"retention": "record"});
    file["streaming"]["sources"] = json!({"main": recorded_too, "sub": recorded_too});
    let config = Config::from_json(&file.to_string()).expect("a good file");
    let agent = Arc::new(Agent::start(config, Host::default()).expect("it starts"));
    for (number, source) in [(MAIN, "main"), (SUB, "sub")] {
        let (_, track) = Script::h264_aac().without_audio().tracks(source).remove(0);
        agent.set_track(number, track).expect("a good track");
    }
    let notes = Arc::new(Notes::default());
    let camera = {
        let (agent, notes) = (Arc::clone(&agent), Arc::clone(&notes));
        std::thread::spawn(move || play(&agent, &notes))
    };
    let number = |of: &[AtomicUsize; 2], track: u32| of[track as usize].load(Ordering::Relaxed);
    wait::until("both sources are recorded", SOON, || {
        [MAIN, SUB].into_iter().all(|track| recorded(&folder, track).len() > 20)
    })
    .await;

    link.reset();
    link.set_up(false);
    wait::until("the end of the session", SOON, || !agent.is_connected()).await;
    let before = number(&notes.octets, MAIN);
    let enough = || number(&notes.octets, MAIN) > before + MEMORY * TIMES_MEMORY;
    wait::until("an outage that memory does not hold", SOON * 2, enough).await;
    assert!(number(&notes.not_wanted, MAIN) > 50, "the large source is let go");
    assert_eq!(number(&notes.not_wanted, SUB), 0);
    link.set_up(true);
    let told = |body: &Value| body["statistics"]["held"]["cam/sub"]["fits_seconds"].as_u64() > Some(0);
    let begun = Instant::now();
    while !told(&api.get("/api/v1/agents/cam").await.1) {
        assert!(begun.elapsed() < SOON, "how long an outage may be: {}", api.get("/api/v1/agents/cam").await.1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let kept = number(&notes.frames, MAIN);
    wait::until("the large source again", SOON, || number(&notes.frames, MAIN) > kept + 50).await;
    notes.is_over.store(true, Ordering::Relaxed);
    camera.join().expect("the camera does not panic");

    let pushed = number(&notes.frames, SUB) as u64;
    wait::at_most(SOON, || recorded(&folder, SUB).len() as u64 == pushed).await;
    let there = recorded(&folder, SUB);
    let lost: Vec<_> = (0..pushed).filter(|number| !there.contains(number)).collect();
    assert_eq!(lost, [] as [u64; 0], "every frame of the small source is recorded");
    assert_eq!(recorded(&folder, SUB).last(), Some(&(pushed - 1)));
    // Of the large one those are there that were kept before the outage, at its beginning, and behind it.
    let numbers = (number(&notes.frames, MAIN) + number(&notes.not_wanted, MAIN)) as u64;
    wait::until("the newest of the large source", SOON, || recorded(&folder, MAIN).contains(&(numbers - 1))).await;
    let missing = numbers - recorded(&folder, MAIN).len() as u64;
    assert!(missing >= number(&notes.not_wanted, MAIN) as u64, "{missing}");
    wait::until("the agent's own number", SOON, || agent.statistics().packets_lost == missing).await;
    let (_, body) = api.get("/api/v1/recordings?camera=cam&source=main").await;
    assert_eq!(body["lost"], json!({"over_budget": missing}), "{body}");
    let (_, body) = api.get("/api/v1/recordings?camera=cam&source=sub").await;
    assert_eq!(body["lost"], json!({}), "{body}");
    agent.stop(Duration::ZERO).expect("it stops");
}
