//! `camagent-cloud recordings check` finds each kind of damage to a folder of recordings and names it, `--repair` mends what can be mended, nothing is
//! ever deleted, and a server starts with whatever it finds. What is old, or too much, goes with a reason; a store that cannot be written is told, and
//! loses nothing.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use camagent_proto::frame::EndReason;
use cloud_server::Config;
use cloud_server::clock::Clock;
use cloud_server::record::check::{Report, check};
use cloud_server::record::index::{Index, Opened};
use serde_json::Value;
use support::wire_agent::WireAgent;
use support::{Running, eventually, http};

/// Each question has a token of its own.
static ASKED: AtomicU32 = AtomicU32::new(0);
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

fn record_into(config: &mut Config, folder: &Path) {
    config.recordings.path = Some(folder.to_owned());
    config.recordings.segment_seconds = Duration::from_secs(4);
}

async fn joined(running: &Running) -> WireAgent {
    let token = running.server.add_agent("cam").await.expect("adds");
    WireAgent::join(running.server.addresses().http, &token, &BTreeMap::new()).await.expect("let in")
}

/// A folder with 14 seconds of pictures and sound, of a server that has stopped.
async fn recorded() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    let running = Running::with(|config| record_into(config, folder.path())).await;
    let mut agent = joined(&running).await;
    agent.push_until(14 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("persisted");
    assert!(running.server.stop().await);
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("can be listed") {
            let path = entry.expect("can be listed").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// The complete files of pictures, oldest first.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let mut kept = files(&folder.join("recordings"));
    kept.retain(|path| path.to_string_lossy().contains("-0-1-"));
    kept
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("temporary folder");
    for path in files(from) {
        let own = to.path().join(path.strip_prefix(from).expect("below"));
        std::fs::create_dir_all(own.parent().expect("a folder")).expect("made");
        std::fs::copy(&path, own).expect("copied");
    }
    to
}

async fn look(folder: &Path, repair: bool) -> Report {
    check(folder, repair, Clock::new()).await.expect("can be checked")
}

/// What a server says of the folder: coverage, and how often it set something aside.
async fn started(folder: &Path, change: impl FnOnce(&mut Config)) -> (Value, u64) {
    let running = Running::with(|config| {
        record_into(config, folder);
        change(config);
    })
    .await;
    let body = coverage(&running, "").await;
    let aside = running.server.events().count("recording_set_aside");
    assert!(running.server.stop().await);
    (body, aside)
}

/// Waits for an answer.
async fn covered(running: &Running, more: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let began = std::time::Instant::now();
    loop {
        let body = coverage(running, more).await;
        if fits(&body) {
            return body;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{body}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn coverage(running: &Running, more: &str) -> Value {
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    let api = running.server.add_token(&format!("test{asked}")).await.expect("adds");
    let path = format!("/api/v1/recordings?camera=cam{more}");
    http(running.server.addresses().http, "GET", &path, Some(&api), None).await.1
}

fn flip(path: &Path, at: usize) {
    let mut data = std::fs::read(path).expect("reads");
    data[at] ^= 0x55;
    std::fs::write(path, data).expect("written");
}

fn cut(path: &Path, octets: u64) {
    let file = std::fs::File::options().write(true).open(path).expect("opens");
    file.set_len(file.metadata().expect("there").len() - octets).expect("cut");
}

/// A damage: its name, what makes it, what a check must say of it, and whether a repair leaves something to say.
type Damage = (&'static str, fn(&Path), &'static [&'static str], bool);

const DAMAGES: &[Damage] = &[
    (
        "a file that is gone",
        |folder| std::fs::remove_file(&kept(folder)[0]).expect("removed"),
        &["1: ", "5: cam/main track 0: frames 0 to 99"],
        false,
    ),
    ("a torn file", |folder| cut(&kept(folder)[1], 100), &["1: ", "5: cam/main track 0: frames 1"], false),
    (
        "a file that is longer than its row says",
        |folder| {
            let mut data = std::fs::read(&kept(folder)[0]).expect("reads");
            data.extend_from_slice(&[7; 99]);
            std::fs::write(&kept(folder)[0], data).expect("written");
        },
        &["2: "],
        false,
    ),
    ("a damaged part", |folder| flip(&kept(folder)[0], 20_000), &["1: ", "5: "], false),
    (
        "somebody's file",
        |folder| {
            std::fs::write(folder.join("recordings/cam/holiday.mp4"), b"\0\0\0\x18ftypmp42 and so on").expect("written")
        },
        &["4: recordings/cam/holiday.mp4"],
        false,
    ),
    (
        "a file of a later version",
        |folder| {
            let path = &kept(folder)[0];
            let data = std::fs::read(path).expect("reads");
            let head = data.windows(16).position(|own| own == b"camagent segment").expect("its head");
            flip(path, head + 16);
        },
        &["4: ", "a later version wrote it", "5: "],
        true,
    ),
    (
        "a file that is there twice",
        |folder| {
            let path = &kept(folder)[0];
            std::fs::copy(path, path.with_extension("copy.mp4")).expect("copied");
        },
        &["2: ", "3: "],
        true,
    ),
    ("no index", |folder| std::fs::remove_file(folder.join("index.sqlite")).expect("removed"), &["2: "], false),
    (
        "another index",
        |folder| std::fs::write(folder.join("index.sqlite"), b"not a database").expect("written"),
        &["2: the index could not be used"],
        false,
    ),
    (
        "no log",
        |folder| std::fs::remove_file(folder.join("persisted.log")).expect("removed"),
        &["5: persisted.log is missing"],
        false,
    ),
    (
        "another log",
        |folder| std::fs::write(folder.join("persisted.log"), b"dear diary, today").expect("written"),
        &["5: persisted.log is something else"],
        false,
    ),
    (
        "a log that is damaged in the middle",
        |folder| flip(&folder.join("persisted.log"), 200),
        &["5: persisted.log is damaged"],
        false,
    ),
    (
        "a log of a later version",
        |folder| flip(&folder.join("persisted.log"), 15),
        &["5: a later version wrote persisted.log"],
        true,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_named_and_mended_and_nothing_is_deleted() {
    let whole = recorded().await;
    let report = look(whole.path(), false).await;
    assert_eq!((report.problems.clone(), report.files), (Vec::new(), 8), "four files of each track");
    let frames = report.frames;
    let (before, _) = started(copy(whole.path()).path(), |_| {}).await;
    assert_eq!(before["ranges"].as_array().map(Vec::len), Some(1), "{before}");

    for (what, damage, expected, stays) in DAMAGES {
        let folder = copy(whole.path());
        let folder = folder.path();
        damage(folder);
        let contents = |folder: &Path| -> Vec<u64> {
            let own = files(folder).into_iter().filter(|path| {
                path.extension().is_some_and(|kind| ["mp4", "log", "tail"].iter().any(|own| kind == *own))
            });
            let mut sizes: Vec<_> = own.map(|path| path.metadata().expect("there").len()).collect();
            sizes.sort_unstable();
            sizes
        };
        let (sizes, log) = (contents(folder), std::fs::read(folder.join("persisted.log")).ok());
        // A server takes it as it is, again and again.
        let beside = copy(folder);
        let (told, aside) = started(beside.path(), |_| {}).await;
        let (_, again) = started(beside.path(), |_| {}).await;
        assert_eq!(again, 0, "{what}: told once");
        match *what {
            "a log of a later version" => {
                assert_eq!(told["error"]["code"], "recordings_off", "{what}: {told}");
                assert_eq!(std::fs::read(beside.path().join("persisted.log")).ok(), log, "{what}: untouched");
            }
            "another log" | "a log that is damaged in the middle" | "another index" => {
                assert_eq!((aside, &told["ranges"]), (1, &before["ranges"]), "{what}: {told}");
            }
            _ => assert!(told["ranges"].as_array().is_some_and(|ranges| !ranges.is_empty()), "{what}: {told}"),
        }

        let found = look(folder, false).await;
        let all = found.problems.join("\n");
        for part in *expected {
            assert!(all.contains(part), "{what}: {part:?} is missing in\n{all}");
        }
        assert_eq!(
            (found.mended, std::fs::read(folder.join("persisted.log")).ok()),
            (0, log.clone()),
            "{what}: only looked at"
        );
        let mended = look(folder, true).await;
        assert!(mended.mended > 0 || *stays, "{what}: {mended:?}");
        let left = look(folder, false).await;
        assert_eq!(!left.problems.is_empty(), *stays, "{what}: {:?}", left.problems);
        assert!(left.problems.len() <= mended.problems.len(), "{what}");
        let after = contents(folder);
        let is_there = |size: &u64| after.contains(size);
        // The log is written anew, a tail has a file of its own; everything else is where it was, or aside.
        let lost: Vec<_> = sizes.iter().filter(|size| !is_there(size)).collect();
        assert!(
            lost.len() <= 2 && after.iter().sum::<u64>() + 400 >= sizes.iter().sum(),
            "{what}: {sizes:?} {after:?}"
        );
        assert!(left.frames <= 2 * frames);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_repair_finds_gone_is_a_gap_with_a_reason() {
    let folder = recorded().await;
    let folder = folder.path();
    std::fs::remove_file(&kept(folder)[1]).expect("removed");
    look(folder, true).await;
    let (body, _) = started(folder, |_| {}).await;
    let gap = body["gaps"].as_array().and_then(|gaps| gaps.iter().find(|gap| gap["reason"] == "file_lost"));
    assert_eq!(gap.unwrap_or_else(|| panic!("{body}"))["frames"], 100, "{body}");
    assert_eq!(body["lost"]["file_lost"], 100, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_never_filled_is_filled() {
    let folder = recorded().await;
    let folder = folder.path();
    let (before, _) = started(copy(folder).path(), |_| {}).await;
    std::fs::remove_file(folder.join("index.sqlite")).expect("removed");
    // A look makes an empty one, and whoever fills it may be killed in the middle.
    look(folder, false).await;
    let Ok(Opened::New(index)) = Index::open(folder, 0).await else { panic!("it is not to be relied on") };
    index.close().await;
    let half = Index::look(folder).await.expect("it can be read").expect("it is there");
    assert!(!half.is_complete().await.expect("it says so"), "who lists does not take it for everything");
    half.close().await;
    let (after, _) = started(folder, |_| {}).await;
    assert_eq!(after["ranges"], before["ranges"]);
    assert_eq!(look(folder, false).await.problems, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_or_too_much_goes_with_a_reason() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let running = Running::with(|config| record_into(config, folder.path())).await;
    let mut agent = joined(&running).await;
    let now_us = Clock::new().utc_us();
    let began = u64::try_from(now_us - 40 * DAY).expect("after 1970");
    agent.push_past(65_536, [7; 16], (0, 200), began).await.expect("stored");
    agent.end_past(65_536, 200, EndReason::PowerCut).await.expect("sends");
    agent.push_until(14 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("persisted");
    assert!(running.server.stop().await);
    let days_ago = |days: i64| jiff::Timestamp::from_microsecond(now_us - days * DAY).expect("a time").to_string();
    let then = format!("&from={}&to={}", days_ago(41), days_ago(39));

    // They came forty days ago.
    let all = files(&folder.path().join("recordings"));
    for path in all.iter().filter(|path| path.to_string_lossy().contains("Z-07070707-")) {
        let file = std::fs::File::options().write(true).open(path).expect("there");
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(40 * 86_400)).expect("set");
    }
    std::fs::remove_file(folder.path().join("index.sqlite")).expect("there");

    // Forty days are kept, thirty are not. The first look for what is old comes with the start.
    for (days, ranges, reason) in [(0, 1, "power_cut"), (30, 0, "removed")] {
        let running = Running::with(|config| {
            record_into(config, folder.path());
            config.recordings.retention_days = days;
        })
        .await;
        let is_old = |path: &PathBuf| path.to_string_lossy().contains("Z-07070707-");
        let gone = || days == 0 || !kept(folder.path()).iter().any(is_old);
        eventually("what is old has gone", gone).await;
        let has_reason =
            |gap: &Value| gap["reasons"].as_array().is_some_and(|all| all.iter().any(|own| own["reason"] == reason));
        let is_known = |body: &Value| body["gaps"].as_array().is_some_and(|gaps| gaps.iter().any(has_reason));
        let body = covered(&running, &then, is_known).await;
        assert_eq!(body["ranges"].as_array().map(Vec::len), Some(ranges), "{body}");
        assert_eq!(body["lost"], serde_json::json!({}), "what goes as it should is not lost");
        let live = coverage(&running, "").await;
        assert_eq!(live["ranges"].as_array().map(Vec::len), Some(1), "{live}");
        assert!(running.server.stop().await);
        assert_eq!(look(folder.path(), false).await.problems, [""; 0], "{days} days");
    }

    // What is listed may go before it is looked at.
    let bytes = || {
        let all = files(&folder.path().join("recordings"));
        all.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum::<u64>()
    };
    let most = bytes() * 6 / 10;
    let newest = kept(folder.path()).last().expect("there").clone();
    let running = Running::with(|config| {
        record_into(config, folder.path());
        config.recordings.max_bytes_per_camera = most;
    })
    .await;
    eventually("what is too much has gone", || bytes() <= most).await;
    assert!(newest.exists(), "the oldest go first");
    let is_first =
        |body: &Value| body["gaps"][0]["reason"] == "removed" && body["gaps"][0]["frames"].as_u64() > Some(0);
    covered(&running, "", is_first).await;
    assert!(running.server.stop().await);
    assert_eq!(look(folder.path(), false).await.problems, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_can_only_be_read_or_has_no_place_for_files_is_told_and_loses_nothing() {
    let small = tempfile::tempdir().expect("temporary folder");
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "camagent-test"]).arg(small.path());
        command.output().is_ok_and(|output| output.status.success())
    };
    if !mount("size=64m") {
        support::loud("a disk cannot be mounted without rights");
        return;
    }
    let running = Running::with(|config| record_into(config, small.path())).await;
    let mut agent = joined(&running).await;
    agent.push_until(5 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("persisted");

    // Where complete files go is something else: what is open stays where it is, and is found.
    eventually("a complete file", || small.path().join("recordings").is_dir()).await;
    std::fs::rename(small.path().join("recordings"), small.path().join("away")).expect("renamed");
    std::fs::write(small.path().join("recordings"), b"a file").expect("written");
    agent.push_until(14 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("what is persisted needs no place for complete files");
    eventually("told", || running.server.events().count("disk_trouble") > 0).await;
    let body = coverage(&running, "").await;
    assert_eq!(body["ranges"].as_array().map(Vec::len), Some(1), "{body}");
    std::fs::remove_file(small.path().join("recordings")).expect("removed");
    std::fs::rename(small.path().join("away"), small.path().join("recordings")).expect("renamed");

    drop(agent);
    assert!(running.server.stop().await);

    // The disk is read-only: nothing is recorded, which is told, and live goes on.
    assert!(mount("remount,ro"));
    let running = Running::with(|config| record_into(config, small.path())).await;
    assert_eq!(running.server.events().count("recordings_off"), 1);
    let agent = joined(&running).await;
    assert_eq!(agent.welcome["sources"][0]["retention"], "live", "the agent lets go of what is received");
    drop(agent);
    assert!(running.server.stop().await);
    assert!(mount("remount,rw"));
    let (after, _) = started(small.path(), |_| {}).await;
    assert_eq!(after["ranges"], body["ranges"], "everything is there");
    let report = look(small.path(), true).await;
    assert!(report.problems.iter().all(|problem| !problem.starts_with(['3', '5'])), "{:?}", report.problems);
    assert_eq!(look(small.path(), false).await.problems, [""; 0]);
    // What fails here is the test's own tidiness.
    let _ = Command::new("umount").arg("-l").arg(small.path()).status();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_makes_no_index() {
    let folder = recorded().await;
    for made in ["index.sqlite", "lock"] {
        std::fs::remove_file(folder.path().join(made)).expect("there");
    }
    assert!(!look(folder.path(), false).await.problems.is_empty());
    for made in ["index.sqlite", "lock"] {
        assert!(!folder.path().join(made).exists(), "{made}");
    }
    look(folder.path(), true).await;
    assert_eq!(look(folder.path(), false).await.problems, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_that_cannot_be_put_in_its_place_keeps_no_other() {
    let folder = recorded().await;
    let folder = folder.path();
    // Where the oldest file belongs is a folder with something in it.
    let oldest = kept(folder).first().expect("there").clone();
    std::fs::rename(&oldest, folder.join("open/left.mp4")).expect("moved");
    std::fs::create_dir(&oldest).expect("made");
    std::fs::write(oldest.join("letter.txt"), b"dear reader").expect("written");
    let before = files(&folder.join("recordings")).len();

    let running = Running::with(|config| record_into(config, folder)).await;
    let mut agent = joined(&running).await;
    agent.push_until(28 * SECOND).await.expect("sends");
    agent.all_persisted().await.expect("persisted");
    eventually("others are put in their place", || files(&folder.join("recordings")).len() > before).await;
    let body = covered(&running, "", |body| body["stalled"].is_string()).await;
    let stalled = body["stalled"].as_str().expect("text");
    assert!(stalled.starts_with("complete files that wait in open/: 1; ") && stalled.contains("left.mp4"), "{stalled}");
    let told = running.server.events().count("disk_trouble");
    assert!(told > 0, "told");
    assert_eq!(running.server.events().count("recording_stalled"), 0);

    std::fs::remove_dir_all(&oldest).expect("removed");
    covered(&running, "", |body| body["stalled"].is_null()).await;
    assert!(oldest.is_file());
    drop(agent);
    assert!(running.server.stop().await);
    assert_eq!(look(folder, false).await.problems, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_kill_left_without_a_row_counts_again() {
    let folder = recorded().await;
    let folder = folder.path();
    let bytes = || {
        let all = files(&folder.join("recordings"));
        all.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum::<u64>()
    };
    // A row goes before its file does.
    let Ok(Opened::Found(index)) = Index::open(folder, 0).await else { panic!("it is there") };
    let rows = index.all().await.expect("reads");
    for row in &rows[..rows.len() / 2] {
        index.remove(&row.name).await.expect("removed");
    }
    index.close().await;
    assert!(!look(folder, false).await.problems.is_empty());
    let most = bytes() * 6 / 10;
    let running = Running::with(|config| {
        record_into(config, folder);
        config.recordings.max_bytes_per_camera = most;
    })
    .await;
    eventually("what is too much has gone", || bytes() <= most).await;
    assert!(running.server.stop().await);
    assert_eq!(look(folder, false).await.problems, [""; 0]);
}
