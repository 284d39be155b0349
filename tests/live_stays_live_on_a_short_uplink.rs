//! An uplink that carries half of what the camera brings: sound is whole, pictures are left out a group at a time, the host is told what its encoder
//! should produce and asked for key frames, and all of it ends when the uplink is wide again.

use std::time::Duration;

use camagent_testkit::core::{Config, Event};
use camagent_testkit::emulator::{Change, FAR, Path, Setting, Setup, Uplink, Way};
use camagent_testkit::script::{AUDIO, VIDEO};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Script, Viewer, camera, nal};

#[test]
fn pictures_are_left_out_before_sound_is_late() {
    let path = || Path { delay: Duration::from_millis(10), queue: 60_000, ..Path::default() };
    let Some(uplink) = Uplink::of(Setup { up: path(), down: path(), seed: 1, script: Vec::new() }) else { return };
    uplink.far.block_on(async {
        let server = CloudServer::with(|config| config.listen.tls = (FAR, 0).into()).await;
        let token = server.add_agent("cam").await;
        let mut json = server.agent_json("cam", &token, server.addresses().tls);
        json["streaming"]["latency_budget"] = 1.into();
        let config = Config::from_json(&json.to_string()).expect("a good file");
        let mut camera = uplink.near.within(|| camera::Setup::new(config, Script::h264_aac()).start());
        let viewer = Viewer::play_again(&server.url("cam", "main"), SOON).await;
        let told = |event: fn(&Event) -> bool| camera.events().count(event);
        wait::until("two seconds of pictures", SOON, || camera.pictures() >= 50).await;
        assert_eq!(told(|event| matches!(event, Event::TargetBitrate { .. })), 0, "the uplink is wide");

        // Half of what 50 pictures and their sound took in two seconds.
        let rate = (camera.bytes() * 8 / 2 / (camera.pictures() / 25).max(1)) as u64;
        uplink.change(Change::Set(Some(Way::Up), Setting::Rate(Some(rate))));
        let asked = |event: &Event| matches!(event, Event::TargetBitrate { track: VIDEO, bits_per_second: 1.. });
        wait::until("a target for the encoder", SOON, || camera.events().count(asked) > 0).await;
        let key = |event: &Event| matches!(event, Event::KeyFrameWanted { track: VIDEO });
        wait::until("the wish for a key frame", SOON, || camera.events().count(key) > 0).await;
        wait::until("pictures that were left out", SOON, || camera.agent().statistics().packets_lost > 0).await;
        let seen = viewer.count(0);
        viewer.wait_count(0, seen + 25, SOON).await;

        uplink.change(Change::Set(Some(Way::Up), Setting::Rate(None)));
        let ended = || {
            let events = camera.events().all();
            let last = events.into_iter().rev().find(|event| matches!(event, Event::TargetBitrate { .. }));
            matches!(last, Some(Event::TargetBitrate { track: VIDEO, bits_per_second: 0 }))
        };
        wait::until("the end of the target", 2 * SOON, ended).await;
        camera.pause();
        let pushed = camera.units(AUDIO);
        let newest = || viewer.seen(1).units.last().map(|unit| unit.digest) == pushed.last().copied();
        wait::until("the last sound", SOON, newest).await;
        nal::find_run(&pushed, &viewer.seen(1).digests()).unwrap_or_else(|hole| panic!("sound: {hole}"));
        assert_eq!(camera.events().sessions(), 1, "{:?}", camera.events().all());
    });
}
