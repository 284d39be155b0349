//! Many tracks recorded at once: how long it takes from the moment a picture comes until it is safe on the server's disk. In real time, with the
//! recorder as the server runs it, in a folder of the machine's own file system.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use camagent_proto::frame::FrameHead;
use camagent_testkit::core::{Codec, Framing};
use cloud_server::ingest::disk::Folder;
use cloud_server::ingest::{Flow, Input, Recorder, Settings, Told, TrackKey};
use serde_json::json;

use super::picture::Pictures;
use super::{Amount, at_most, percentile, rounded};
use crate::page::Measured;

const TRACKS: u32 = 200;
const LENGTH: Duration = Duration::from_secs(20);
const ROUNDS: usize = 3;
/// Pictures of a track, their octets, and from key frame to key frame: half a megabit a second each.
const EVERY: Duration = Duration::from_millis(40);
const OCTETS: usize = 2_100;
const KEY_OCTETS: usize = 21_000;
const GROUP: u64 = 50;
/// The bar, in milliseconds.
const BAR: f64 = 500.0;

pub(super) fn run(amount: &Amount) -> Result<(Measured, bool), String> {
    let rounds = amount.rounds.unwrap_or(ROUNDS).min(ROUNDS);
    let busy = crate::load_average();
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let mut waited = measure()?;
        waited.sort_unstable_by(f64::total_cmp);
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|part| percentile(&waited, part));
        crate::note(&format!("group, round {round}: p50 {p50:.0} ms, p99 {p99:.0}, longest {most:.0}"));
        rows.push(json!({
            "bench": "journal-group", "round": round, "pictures": waited.len(), "p50_ms": rounded(p50), "p99_ms": rounded(p99),
            "longest_ms": rounded(most),
        }));
        all.extend(waited);
    }
    all.sort_unstable_by(f64::total_cmp);
    let text = format!(
        "{TRACKS} tracks of half a megabit and 25 pictures a second each, each recorded into a file of its own, for {} s: milliseconds from the moment \
         a picture comes until it is told to be safe. The recorder makes safe what came at the latest 400 ms after the first of it. The \
         machine's load average was {busy} when it began.\n\n{}",
        LENGTH.as_secs(),
        at_most("p99 of all rounds, ms", percentile(&all, 0.99), BAR),
    );
    let columns =
        vec![("round", ""), ("pictures", "pictures"), ("p50_ms", "p50"), ("p99_ms", "p99"), ("longest_ms", "longest")];
    let title = "Many tracks made safe together";
    Ok((Measured { name: "journal-group", title, text, columns, rows, shown: None }, rounds >= ROUNDS))
}

fn flow(track: u32) -> Arc<Flow> {
    Arc::new(Flow {
        key: TrackKey { agent: "bench".into(), boot: [1; 16], track, epoch: 1 },
        camera: format!("cam{track}"),
        source: "main".into(),
        codec: Codec::H264,
        framing: Framing::AnnexB,
        sample_rate: 0,
        channels: 0,
        config: Bytes::new(),
    })
}

/// Milliseconds that each picture waited.
fn measure() -> Result<Vec<f64>, String> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let folder = Folder::open(place.path()).map_err(|error| error.to_string())?;
    let settings =
        Settings { segment: Duration::from_secs(10), new_epoch: [7; 16], remember: Duration::from_secs(86_400) };
    const UTC_US: i64 = 1_760_000_000_000_000;
    let mut recorder = Recorder::open(folder, settings, UTC_US).map_err(|error| error.to_string())?;
    let mut pictures = Pictures::new();
    let flows: Vec<_> = (0..TRACKS).map(flow).collect();
    flows.iter().for_each(|flow| recorder.handle(0, Input::Track { flow: Arc::clone(flow), next: 0 }));
    // When each picture came that is not safe yet: its number, by track.
    let mut came: Vec<VecDeque<(u64, Instant)>> = vec![VecDeque::new(); flows.len()];
    let mut waited = Vec::new();
    let begun = Instant::now();
    let count = LENGTH.as_micros() / EVERY.as_micros() * u128::from(TRACKS);
    for number in 0..count {
        // One after the other, evenly over the time of a picture.
        let due = EVERY * u32::try_from(number).unwrap_or(u32::MAX) / TRACKS;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        let at = (number % u128::from(TRACKS)) as usize;
        let sequence = (number / u128::from(TRACKS)) as u64;
        let is_key = sequence.is_multiple_of(GROUP);
        let data = pictures.make(sequence as u32, is_key, if is_key { KEY_OCTETS } else { OCTETS });
        let payload = Bytes::copy_from_slice(data);
        let (now, time_us) = (Instant::now(), (EVERY * sequence as u32).as_micros() as i64);
        let head = FrameHead { pts_us: time_us, dts_us: time_us, key: is_key, ..FrameHead::default() };
        came[at].push_back((sequence, now));
        let now_us = begun.elapsed().as_micros() as u64;
        let (flow, utc_us) = (Arc::clone(&flows[at]), UTC_US + time_us);
        recorder.handle(now_us, Input::Frame { flow, sequence, head, utc_us, payload });
        if recorder.poll_timeout().is_some_and(|at| at <= now_us) {
            recorder.handle_timeout(now_us);
        }
        while let Some(told) = recorder.poll_told() {
            match told {
                Told::Persisted(ranges) => {
                    for (key, _, next) in ranges {
                        let of_track = &mut came[key.track as usize];
                        while let Some((_, since)) = of_track.pop_front_if(|(sequence, _)| *sequence < next) {
                            waited.push(since.elapsed().as_secs_f64() * 1e3);
                        }
                    }
                }
                Told::Stalled(why) => return Err(format!("the disk takes nothing: {why}")),
                Told::Refused { .. } | Told::Gap(..) => return Err(format!("a picture was not taken: {told:?}")),
                _ => {}
            }
        }
    }
    Ok(waited)
}
