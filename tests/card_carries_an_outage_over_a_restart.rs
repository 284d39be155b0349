//! An outage that is longer than memory, with a card: an agent that is killed in it loses nothing that was safe on the card. After another run of it
//! has come back, one clip goes from before the outage to now, and has every frame that was safe, with its octets. The agents are processes of
//! their own: this program, run again.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camagent_testkit::copied::Copying;
use camagent_testkit::core::{Agent, Codec, Config, Frame, Host, Pushed};
use camagent_testkit::script::{AUDIO, VIDEO};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Daemon, Link, Script, daemon, journal};
use serde_json::{Value, json};

const FOLDER: &str = "CAMAGENT_TEST_FOLDER";
/// Octets that each picture is heavier by: memory holds six seconds, which a card's disk may stand still on a busy machine.
const WEIGHT: usize = 8_000;
const MEMORY: usize = 1_500_000;
/// So much longer than memory is the outage when the agent is killed.
const TIMES_MEMORY: usize = 2;

/// The process that is killed. It is run by the other test and does nothing by itself.
#[test]
#[ignore = "run by one_clip_has_what_two_runs_pushed, as a process of its own"]
fn run_of_the_agent() {
    let folder = std::env::var_os(FOLDER).expect("run by the other test");
    let folder = Path::new(&folder);
    let text = std::fs::read_to_string(folder.join("agent.json")).expect("written by the other test");
    let agent = Agent::start(Config::from_json(&text).expect("a good file"), Host::default()).expect("it starts");
    let mut script = Script::h264_aac().heavier_by(WEIGHT);
    for (number, track) in script.tracks("main") {
        agent.set_track(number, track).expect("a good track");
    }
    let mut ledger = std::fs::File::create(folder.join("ledger")).expect("can be made");
    let began = Instant::now();
    loop {
        let piece = script.next_piece();
        std::thread::sleep(Duration::from_micros(piece.time_us.unsigned_abs()).saturating_sub(began.elapsed()));
        let frame = Frame { pts_us: piece.time_us, dts_us: piece.time_us, data: &piece.data, ..Frame::default() };
        let units: Vec<_> = piece.units.iter().map(|unit| format!("{unit:?}")).collect();
        let line = format!("{} {} {}\n", piece.track, piece.data.len(), units.join(" "));
        // Before it is pushed, so that nothing arrives which is not in it.
        ledger.write_all(line.as_bytes()).expect("can be written");
        assert_eq!(agent.push_frame(piece.track, frame).expect("it is taken"), Pushed::Kept);
    }
}

/// What a run has pushed of a track: octets and units of each frame.
fn pushed(folder: &Path, track: u32) -> Vec<(usize, Vec<String>)> {
    let text = std::fs::read_to_string(folder.join("ledger")).unwrap_or_default();
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let of_track = lines.filter_map(|line| line.strip_prefix(&format!("{track} ")));
    of_track
        .map(|line| {
            let mut words = line.split(' ');
            let octets = words.next().and_then(|octets| octets.parse().ok()).expect("octets");
            (octets, words.map(str::to_owned).collect())
        })
        .collect()
}

fn start(folder: &Path) -> Daemon {
    std::fs::create_dir_all(folder).expect("can be made");
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--ignored", "--exact", "run_of_the_agent"]).env(FOLDER, folder);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    daemon::dies_with_its_parent(&mut command);
    Daemon::spawn(&mut command)
}

/// Numbers of the frames of a track that are on a card.
fn on_card(card: &Path, track: u32) -> BTreeSet<u64> {
    journal::read(card).into_iter().filter(|frame| frame.track == track).map(|frame| frame.sequence).collect()
}

fn names(pushed: &[(usize, Vec<String>)]) -> Vec<String> {
    pushed.iter().flat_map(|(_, units)| units.clone()).collect()
}

/// Whether a clip is the first run, as far as it was safe at least, and then the second, as far as it was pushed at least.
fn judge(clip: &[String], first: &[String], safe: usize, second: &[String], newest: usize) -> Result<(), String> {
    // Sounds of the bundled clip come round again: where one run ends and the other begins they do not tell by themselves.
    let is_turn = |at: &usize| clip[..*at] == first[..*at] && second.starts_with(&clip[*at..]);
    let turn = (0..=clip.len().min(first.len())).rev().find(is_turn);
    let turn = turn.ok_or_else(|| {
        let same = clip.iter().zip(first).take_while(|(one, other)| one == other).count();
        format!("{} units are no run: {same} as in the first run, {safe} of {} were safe", clip.len(), first.len())
    })?;
    let is_all = turn >= safe && clip.len() - turn >= newest;
    let told =
        || format!("{turn} units of the first run, {safe} were safe; {} of the second of {newest}", clip.len() - turn);
    if is_all { Ok(()) } else { Err(told()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_clip_has_what_two_runs_pushed() {
    let place = tempfile::tempdir().expect("a folder");
    let (recordings, card) = (place.path().join("recordings"), place.path().join("card"));
    std::fs::create_dir(&card).expect("can be made");
    let server = CloudServer::with(|config| {
        config.recordings.path = Some(recordings.clone());
        config.recordings.segment_seconds = Duration::from_secs(4);
    })
    .await;
    let token = server.add_agent("cam").await;
    let api = server.api("ops").await;
    let link = Link::to(server.addresses().tls).await;
    let mut file = server.agent_json("cam", &token, link.address());
    file["streaming"]["buffer_size"] = json!(MEMORY);
    file["storage"] = json!({"path": card, "max_bytes": 64 << 20});
    let runs = ["first", "second"].map(|run| place.path().join(run));
    for run in &runs {
        std::fs::create_dir(run).expect("can be made");
        std::fs::write(run.join("agent.json"), file.to_string()).expect("can be written");
    }

    let mut first = start(&runs[0]);
    wait::until("live frames", SOON, || server.frames("cam", "main") > 50).await;
    link.reset();
    link.set_up(false);
    let before = pushed(&runs[0], VIDEO).len();
    let missed = || pushed(&runs[0], VIDEO)[before..].iter().map(|(octets, _)| octets).sum::<usize>();
    // The whole ledger is read each time, which costs those whose time is measured theirs.
    let mut looked = Instant::now();
    wait::until("an outage that memory does not hold", SOON * 2, || {
        let is_time = looked.elapsed() > Duration::from_millis(200);
        if is_time {
            looked = Instant::now();
        }
        is_time && missed() > MEMORY * TIMES_MEMORY
    })
    .await;
    let written = [VIDEO, AUDIO].map(|track| on_card(&card, track));
    // The disk thread leaves nothing unsafe for longer than a second; the power may go now as well.
    let later = Instant::now() + Duration::from_millis(1_500);
    wait::until("the disk thread's sync", SOON, || Instant::now() >= later).await;
    assert!(first.runs(), "nobody has killed it yet");
    first.signal(libc::SIGKILL);
    wait::until("its end", SOON, || !first.runs()).await;
    assert!(written[0].len() > 50, "{} pictures are on the card", written[0].len());

    let _second = start(&runs[1]);
    wait::until("frames of the second run", SOON, || pushed(&runs[1], VIDEO).len() > 50).await;
    link.set_up(true);
    let arrived = server.frames("cam", "main");
    wait::until("live frames again", SOON, || server.frames("cam", "main") > arrived + 50).await;

    // One clip of everything, once what was on the card is at the server and what is live now is recorded.
    let clip = place.path().join("clip");
    std::fs::create_dir(&clip).expect("can be made");
    let bearer = format!("Authorization: Bearer {}\r\n", api.token().expect("a token"));
    let tracks = [VIDEO, AUDIO].map(|track| runs.each_ref().map(|run| pushed(run, track)));
    let begun = Instant::now();
    loop {
        let (_, body) = api.get("/api/v1/recordings?camera=cam").await;
        let ranges = body["ranges"].as_array().expect("a list");
        let end = |range: Option<&Value>, end: &str| range.and_then(|range| Some(range[end].as_str()?.to_owned()));
        let (from, to) = (end(ranges.first(), "from").expect("a time"), end(ranges.last(), "to").expect("a time"));
        let url = format!(
            "http://{}/api/v1/recordings/clip?camera=cam&source=main&from={from}&to={to}",
            server.addresses().http
        );
        let codecs = [Codec::H264, Codec::Aac];
        let Some(copying) = Copying::start(&["-headers", &bearer], &url, codecs, &clip) else { return };
        let copied = copying.finish().await;
        // What was pushed since is not needed, but may be there.
        let now = [VIDEO, AUDIO].map(|track| names(&pushed(&runs[1], track)));
        let faults: Vec<_> = (0..2)
            .filter_map(|stream| {
                let units: Vec<_> = copied[stream].units.iter().map(|unit| format!("{unit:?}")).collect();
                let [first, second] = &tracks[stream];
                let safe = written[stream].last().map_or(0, |last| *last as usize + 1);
                let (safe, first) = (names(&first[..safe]).len(), names(first));
                judge(&units, &first, safe, &now[stream], names(second).len()).err()
            })
            .collect();
        if faults.is_empty() {
            break;
        }
        assert!(begun.elapsed() < SOON * 2, "{faults:?}: {body}");
    }
    wait::until("room on the card", SOON, || on_card(&card, VIDEO).len() < written[0].len()).await;
}
