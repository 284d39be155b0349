//! Pushing a frame allocates nothing on the thread that pushes, connected or not, journal empty or full.

use camagent_testkit::{
    allocations::{Counting, calls},
    core::{Agent, Codec, Config, Frame, Framing, Host, Pushed, TrackDescription},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn ten_thousand_frames_into_a_full_journal_cost_no_heap_call() {
    push_into(Config::new("silent", "ws://127.0.0.1:9/agent", "t").unwrap());
}

#[test]
fn nor_do_they_with_a_folder_on_flash() {
    let folder = tempfile::tempdir().unwrap();
    let text = serde_json::json!({
        "agent": {"agent_id": "silent", "cloud_server_url": "ws://127.0.0.1:9/agent", "cloud_server_token": "t"},
        "storage": {"path": folder.path(), "max_bytes": 4 << 20, "mode": "write_ahead"},
    });
    push_into(Config::from_json(&text.to_string()).unwrap());
    let written = std::fs::read_dir(folder.path()).unwrap().filter_map(Result::ok);
    assert!(written.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum::<u64>() > 0, "it was used");
}

fn push_into(config: Config) {
    let agent = Agent::start(config, Host::default()).unwrap();
    agent.set_track(0, TrackDescription::video("main", Codec::H265, Framing::AnnexB)).unwrap();
    agent.set_track(1, TrackDescription::audio("main", Codec::Pcma, Framing::Raw, 8_000, 1)).unwrap();
    let mut picture = vec![0xa5; 20_000];
    picture[..6].copy_from_slice(&[0, 0, 0, 1, 19 << 1, 1]);
    let sound = [0x55; 160];
    let mut kept = 0;
    let before = calls();
    for number in 0..10_000_i64 {
        let key = number % 25 == 0;
        picture[4] = if key { 19 << 1 } else { 1 << 1 };
        let (pts_us, dts_us) = (number * 40_000, number * 40_000);
        let video = agent.push_frame(0, Frame { pts_us, dts_us, data: &picture, ..Frame::default() });
        let audio = agent.push_frame(1, Frame { pts_us, dts_us, data: &sound, ..Frame::default() });
        kept += u32::from(matches!(video, Ok(Pushed::Kept))) + u32::from(matches!(audio, Ok(Pushed::Kept)));
    }
    let calls = calls() - before;
    assert_eq!(calls, 0, "heap calls on the pushing thread");
    assert_eq!(kept, 20_000, "the journal makes room for what is new");
    assert!(agent.statistics().buffer_size <= 2 << 20);
}
