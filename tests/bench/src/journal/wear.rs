//! What is written to a card for the frames on it: by the journal into its files, and by the file system to the device,
//! whose own counter is asked. In real time, because what is synced each second is what wears.

use std::time::{Duration, Instant};

use camagent_testkit::Card;
use camagent_testkit::core::{Agent, Codec, Config, Frame, Framing, Host, TrackDescription};
use serde_json::json;

use super::{Amount, at_most, rounded};
use crate::page::Measured;

/// How long each stream is written.
const LENGTH: Duration = Duration::from_secs(60);
const ROUNDS: usize = 5;
const CARD: u64 = 1_280 << 20;
/// What a folder may take without another word.
const CAP: u64 = 1 << 30;
/// Pictures a second, and from key frame to key frame.
const PICTURES: u64 = 25;
const GROUP: u64 = 50;
/// A key frame is so many times as large as another picture.
const KEY_FACTOR: u64 = 8;
/// G.711 in pieces of 20 ms.
const SOUND: usize = 160;
const SOUND_EVERY: Duration = Duration::from_millis(20);
/// Bits a second of the video.
const RATES: [u64; 3] = [500_000, 2_000_000, 6_000_000];
/// What is made safe less often than each second, and how often: seconds.
const SPARED: (u64, u64) = (500_000, 5);
/// The bar.
const BAR: f64 = 1.1;

struct Wear {
    frames: u64,
    files: u64,
    device: u64,
}

pub(super) fn run(amount: &Amount) -> Result<(Measured, bool), String> {
    let rounds = amount.rounds.unwrap_or(ROUNDS).min(ROUNDS);
    let busy = crate::load_average();
    // Everybody sleeps nearly all the time: all at once.
    let streams = RATES.iter().map(|rate| (*rate, 1)).chain([SPARED]);
    let all: Vec<(u64, bool, u64)> =
        streams.flat_map(|(rate, interval)| [(rate, true, interval), (rate, false, interval)]).collect();
    let wears = std::thread::scope(|scope| {
        let threads: Vec<_> =
            all.iter().map(|(rate, audio, interval)| scope.spawn(|| measure(*rate, *audio, *interval))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a stream does not panic")).collect::<Vec<_>>()
    });
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    for ((rate, audio, interval), wear) in all.iter().zip(wears) {
        let wear = wear?;
        let (files, device) = (wear.files as f64 / wear.frames as f64, wear.device as f64 / wear.frames as f64);
        let sound = if *audio { " and G.711" } else { "" };
        let spared = if *interval > 1 { format!(", safe each {interval} s") } else { String::new() };
        let what = format!("{} Mbit/s{sound}{spared}", *rate as f64 / 1e6);
        crate::note(&format!("wear, {what}: files {files:.3}, device {device:.3}"));
        bars.push(at_most(&format!("{what}: octets of the files"), files, BAR));
        bars.push(at_most(&format!("{what}: octets that the device got"), device, BAR));
        rows.push(json!({
            "bench": "journal-wear", "what": what, "bits_per_second": rate, "audio": audio, "sync_interval_s": interval, "frame_octets": wear.frames,
            "file_octets": wear.files, "device_octets": wear.device, "files": rounded(files), "device": rounded(device),
        }));
    }
    let text = format!(
        "Octets written for each octet of a frame, in the mode write_ahead, {} s in real time: those of the journal's files, and those that \
         the device got, with everything that ext4 writes for itself (its own journal, inodes, the last block of a file again at each sync). \
         The card is a loop device of {} MB; each stream has its own. The machine's load average was {busy} when it began.\n\n{}",
        LENGTH.as_secs(),
        CARD >> 20,
        bars.join("\n"),
    );
    let columns = vec![("what", ""), ("frame_octets", "octets of frames"), ("files", "files"), ("device", "device")];
    let measured = Measured { name: "journal-wear", title: "Wear of a card", text, columns, rows, shown: None };
    Ok((measured, rounds >= ROUNDS))
}

fn measure(rate: u64, audio: bool, interval: u64) -> Result<Wear, String> {
    let card = Card::make(CARD)?;
    let file = json!({
        "agent": {"agent_id": "bench", "cloud_server_url": "ws://127.0.0.1:9/agent", "cloud_server_token": "t"},
        "storage": {"path": card.folder(), "max_bytes": CAP, "mode": "write_ahead", "sync_interval": interval},
    });
    let before = card.octets_written()?;
    let config = Config::from_json(&file.to_string()).map_err(|error| error.to_string())?;
    let agent = Agent::start(config, Host::default()).map_err(|error| error.to_string())?;
    let track = |number, track| agent.set_track(number, track).map_err(|error| error.to_string());
    track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB))?;
    if audio {
        track(1, TrackDescription::audio("main", Codec::Pcma, Framing::Raw, 8_000, 1))?;
    }
    let one = rate / 8 / PICTURES * GROUP / (GROUP + KEY_FACTOR - 1);
    let mut picture = vec![0xa5; (one * KEY_FACTOR) as usize];
    let (begun, mut frames) = (Instant::now(), 0);
    for tick in 0.. {
        let due = SOUND_EVERY * tick;
        if due >= LENGTH {
            break;
        }
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        let pts_us = due.as_micros() as i64;
        let mut push = |number, data: &[u8]| {
            frames += data.len() as u64;
            agent.push_frame(number, Frame { pts_us, dts_us: pts_us, data, ..Frame::default() }).map(drop)
        };
        if audio {
            push(1, &[0x55; SOUND]).map_err(|error| error.to_string())?;
        }
        // Two pieces of sound a picture.
        if tick.is_multiple_of(2) {
            let is_key = u64::from(tick / 2).is_multiple_of(GROUP);
            let octets = if is_key { one * KEY_FACTOR } else { one };
            picture[..6].copy_from_slice(&[0, 0, 0, 1, if is_key { 0x65 } else { 0x41 }, 0x88]);
            push(0, &picture[..octets as usize]).map_err(|error| error.to_string())?;
        }
    }
    agent.stop(Duration::ZERO).map_err(|error| error.to_string())?;
    let device = card.octets_written()? - before;
    let entries = std::fs::read_dir(card.folder()).map_err(|error| error.to_string())?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    Ok(Wear { frames, files, device })
}
