//! An uplink that carries half of what the camera brings: sound is whole, pictures are left out a group at a time, the host is told what its encoder
//! should produce and asked for key frames, and all of it ends when the uplink is wide again.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Stdio};
use std::time::Duration;

use camagent_testkit::c_library::{Sdk, root};
use camagent_testkit::core::{Agent, Config, Event, Host};
use camagent_testkit::emulator::{Change, FAR, Path, Setting, Setup, Uplink, Way};
use camagent_testkit::script::{AUDIO, VIDEO};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Script, Viewer, camera, nal};
use serde_json::json;
use tokio::io::AsyncReadExt;

/// What stands in front of the link while a tunnel fills it is what `network.queue_target_ms` says, about.
#[test]
fn the_queue_in_front_of_the_link_is_as_long_as_it_is_set() {
    let path = || Path { rate: Some(2_000_000), delay: Duration::from_millis(10), queue: 500_000, ..Path::default() };
    let median = |target: u64| {
        let uplink = Uplink::of(Setup { up: path(), down: path(), seed: 1, script: Vec::new() })?;
        let waited = uplink.far.block_on(async {
            let server = CloudServer::with(|config| config.listen.tls = (FAR, 0).into()).await;
            let token = server.add_agent("cam").await;
            let listener = uplink.near.within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
            let port = listener.local_addr().expect("bound").port();
            std::thread::spawn(move || {
                let (mut visitor, _) = listener.accept().expect("a visitor");
                while visitor.write_all(&[7; 16 << 10]).is_ok() {}
            });
            let mut json = server.agent_json("cam", &token, server.addresses().tls);
            json["network"]["queue_target_ms"] = target.into();
            json["camera"] = json!({"services": {"flood": port}});
            let config = Config::from_json(&json.to_string()).expect("a good file");
            let _agent = uplink.near.within(|| Agent::start(config, Host::default())).expect("it starts");
            let door = server.tunnel("cam", "flood").await;
            let mut visitor = tokio::net::TcpStream::connect(door).await.expect("the door");
            tokio::spawn(async move {
                let mut octets = vec![0; 64 << 10];
                while let Ok(1..) = visitor.read(&mut octets).await {}
            });
            // The rate is found out first.
            let carried = |octets: u64| {
                let uplink = &uplink;
                async move { wait::until("octets", 2 * SOON, || uplink.counters().up.octets >= octets).await }
            };
            carried(1_000_000).await;
            uplink.restart(Setup { up: path(), down: path(), seed: 1, script: Vec::new() });
            carried(2_000_000).await;
            uplink.counters().up.waited.percentile(50.0)
        });
        Some(waited)
    };
    let (Some(short), Some(long)) = (median(25), median(150)) else { return };
    #[allow(clippy::print_stderr, reason = "the measurement is worth having")]
    {
        eprintln!("with a target of 25 ms octets wait {short:?} (p50), with 150 ms {long:?}");
    }
    assert!(long > short * 2, "{short:?} {long:?}");
}

/// The callback of a program in C hears what its encoder should produce and when a key picture is missed. One that does so loses nothing more.
#[test]
fn a_c_callback_hears_what_its_encoder_should_produce() {
    let path = || Path { delay: Duration::from_millis(10), queue: 60_000, ..Path::default() };
    let Some(uplink) = Uplink::of(Setup { up: path(), down: path(), seed: 1, script: Vec::new() }) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("obedient_encoder");
    Sdk::find().compile(&root().join("tests/c/obedient_encoder.c"), &[], &program);
    uplink.far.block_on(async {
        let server = CloudServer::with(|config| config.listen.tls = (FAR, 0).into()).await;
        let token = server.add_agent("cam").await;
        let mut json = server.agent_json("cam", &token, server.addresses().tls);
        json["streaming"]["latency_budget"] = 1.into();
        let (config, said) = (folder.path().join("agent.json"), folder.path().join("said"));
        std::fs::write(&config, json.to_string()).expect("written");
        let mut camera = uplink.near.command(program.to_str().expect("UTF-8"));
        camera.arg(config).stdin(Stdio::piped()).stdout(std::fs::File::create(&said).expect("a file"));
        let camera = Running(camera.spawn().expect("it starts"));
        wait::until("two seconds of pictures", SOON, || server.frames("cam", "main") >= 50).await;
        let text = || std::fs::read_to_string(&said).expect("a file");
        let targets = || -> Vec<u64> {
            let text = text();
            let lines = text.lines().filter_map(|line| line.strip_prefix("target bitrate of track 0: "));
            lines.filter_map(|rest| rest.strip_suffix(" bit/s")?.parse().ok()).collect()
        };
        let keys = || text().lines().filter(|line| *line == "key frame wanted on track 0").count();
        assert!(targets().is_empty(), "the uplink is wide: {:?}", targets());
        let before = keys();
        uplink.change(Change::Set(Some(Way::Up), Setting::Rate(Some(500_000))));
        let is_lower = |target: &u64| (1..500_000).contains(target);
        wait::until("a target for the encoder", SOON, || targets().iter().any(is_lower)).await;
        wait::until("the wish for a key frame", SOON, || keys() > before).await;
        // Five seconds in a row, as the program counts them.
        let is_over = || {
            let text = text();
            let lost: Vec<&str> = text.lines().filter(|line| line.starts_with("lost ")).collect();
            let last = &lost[lost.len().saturating_sub(6)..];
            last.len() == 6 && last[0] != "lost 0" && last.iter().all(|line| *line == last[0])
        };
        wait::until("the end of losses", 2 * SOON, is_over).await;
        uplink.change(Change::Set(Some(Way::Up), Setting::Rate(None)));
        wait::until("the end of the target", 2 * SOON, || targets().last() == Some(&0)).await;
        drop(camera);
    });
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = (self.0.kill(), self.0.wait());
    }
}

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
