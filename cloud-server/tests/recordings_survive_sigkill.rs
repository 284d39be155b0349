//! A server that is killed again and again while frames come: what it said to be persisted is there, once and identical, and every
//! file can be played after every kill.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use camagent_media::{Codec, Framing, TrackReader, fmp4};
use cloud_server::ingest::segment::scan;
use support::wire_agent::{Camera, WireAgent};

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_camagent-cloud"));
    command.current_dir(folder).args(arguments).arg("--data-dir").arg(folder.join("data"));
    command
}

struct Process {
    child: Child,
    http: SocketAddr,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let mut child =
            program(folder, &["serve"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut http = None;
        while http.is_none() {
            let line = lines.next().expect("tells its addresses").expect("text");
            http = line.split_once("http://").and_then(|(_, address)| address.parse().ok());
        }
        // Told last: all ports accept.
        while !lines.next().expect("tells all its lines").expect("text").starts_with("pin:") {}
        Self { child, http: http.expect("told") }
    }

    fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.join("open"), folder.join("recordings")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("can be listed").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

/// Each frame in the files by track and number, with how often it is there.
fn stored(folder: &Path) -> BTreeMap<(u32, u64), Vec<Vec<u8>>> {
    let mut stored: BTreeMap<(u32, u64), Vec<Vec<u8>>> = BTreeMap::new();
    for file in files(folder) {
        let data = std::fs::read(&file).expect("reads");
        let mut frames = Vec::new();
        let Ok(info) = scan(&data, |head, part, bytes| {
            let mut at = 0;
            for (sequence, sample) in (head.first..).zip(&part.samples) {
                frames.push((sequence, bytes[at..at + sample.size as usize].to_vec()));
                at += sample.size as usize;
            }
        }) else {
            continue;
        };
        for (sequence, bytes) in frames {
            stored.entry((info.head.key.track, sequence)).or_default().push(bytes);
        }
    }
    stored
}

/// Complete files never change: each is looked at once.
fn assert_files_open(folder: &Path, seen: &mut BTreeSet<PathBuf>) {
    for file in files(folder) {
        if !file.starts_with(folder.join("open")) && !seen.insert(file.clone()) {
            continue;
        }
        let arguments = ["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0"];
        let output = Command::new("ffprobe").args(arguments).arg(&file).output().expect("runs");
        let codec = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success() && ["h264", "aac"].contains(&codec.as_str()), "{}: {codec}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_persisted_outlives_every_kill_once_and_identical() {
    if !support::installed("ffprobe", "ffmpeg") {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let recordings = folder.path().join("recordings of the gate");
    let config = format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\ntls = \"127.0.0.1:0\"\nrtsp = \"127.0.0.1:0\"\n[recordings]\npath = {:?}\nsegment_seconds = 4\n",
        recordings.display().to_string()
    );
    std::fs::write(folder.path().join("camagent-cloud.toml"), config).expect("written");
    let token = program(folder.path(), &["agent", "add", "cam"]).output().expect("runs");
    let token = String::from_utf8(token.stdout).expect("text").trim().to_owned();

    let mut promised = BTreeMap::new();
    let mut epoch = None;
    let mut seen = BTreeSet::new();
    for life in 0..6_u64 {
        let server = Process::start(folder.path());
        let mut agent = WireAgent::join(server.http, &token, &promised).await.expect("let in");
        let own = agent.welcome["storage_epoch"].as_str().expect("told").to_owned();
        assert_eq!((own.len(), agent.welcome["sources"][0]["retention"].as_str()), (32, Some("record")));
        assert_eq!(*epoch.get_or_insert_with(|| own.clone()), own, "the store is the same");
        for (track, next) in &promised {
            assert!(agent.next[track] >= *next, "track {track} would be sent again from {}", agent.next[track]);
        }
        // The kill comes at another place each time: between commits, and in them.
        let begun = promised.get(&0).copied().unwrap_or(0);
        let mut until_us = Camera::time_us(0, begun);
        while agent.persisted.get(&0).is_none_or(|stored| *stored < begun + 40 + life * 23) {
            until_us += 400_000;
            agent.push_until(until_us).await.expect("sends");
            agent.listen().await.expect("answers");
        }
        agent.push_until(until_us + 1_000_000 + life as i64 * 130_000).await.expect("sends");
        server.kill();
        // What was on its way to the agent counts as well.
        while agent.listen().await.is_ok() {}
        promised = agent.persisted;
        assert_files_open(&recordings, &mut seen);
    }
    assert!(promised[&0] > 400 && promised[&1] > 400, "{promised:?}");

    // The last life ends in peace.
    let server = Process::start(folder.path());
    let mut agent = WireAgent::join(server.http, &token, &promised).await.expect("let in");
    agent.push_until(Camera::time_us(0, promised[&0] + 100)).await.expect("sends");
    agent.all_persisted().await.expect("all of it is persisted");
    let camera = Camera::new();
    let stored = stored(&recordings);
    let mut picture = TrackReader::new(Codec::H264, Framing::AnnexB, &[], 0, 0).expect("a track");
    let mut sound = TrackReader::new(Codec::Aac, Framing::Adts, &[], 0, 0).expect("a track");
    for (track, next) in &agent.persisted {
        for sequence in 0..*next {
            let payload = camera.payload(*track, sequence);
            let expected = match track {
                0 => fmp4::length_prefixed(&picture.read(&payload).expect("reads").parts),
                _ => sound.read(&payload).expect("reads").parts.concat(),
            };
            let found = stored.get(&(*track, sequence)).unwrap_or_else(|| panic!("{sequence} of {track} is missing"));
            assert_eq!(found.len(), 1, "frame {sequence} of track {track} is there once");
            assert!(found[0] == expected, "frame {sequence} of track {track} is what was pushed");
        }
    }
    drop(server);
    let check = program(folder.path(), &["recordings", "check", "--repair"]).output().expect("runs");
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{said}");
    let again = program(folder.path(), &["recordings", "check"]).output().expect("runs");
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(again.status.success() && said.contains("problems 0"), "{said}");
    assert_files_open(&recordings, &mut seen);
}
