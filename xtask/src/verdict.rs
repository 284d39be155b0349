//! `cargo xtask demo --check`: plays every camera every way it can be watched, at the same time, and judges what came.

use std::time::{Duration, Instant};

use crate::process;
use crate::shell::Outcome;
use crate::site::{PATIENCE, Site, View, end_of_log};
use crate::viewer::{self, Seen};

/// The frame rate of the bundled clips.
const FRAMES_PER_SECOND: f64 = 25.0;
/// How long each view is watched: three groups of pictures.
const WATCH: Duration = Duration::from_secs(6);

/// Waits for all views, watches them, and prints a verdict for each.
pub(crate) fn check(site: &mut Site, views: &[View]) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    for view in views {
        println!("waiting for {} through the {}", view.camera, view.way);
        // A source can be described once its first key frame is there.
        while let Err(problem) = watch(view, Duration::from_millis(1)) {
            site.all_run()?;
            if process::asked_to_stop() || Instant::now() > deadline {
                let log = end_of_log(&site.folder, view.camera);
                return Err(format!("{} cannot be watched through the {}: {problem}\n{log}", view.camera, view.way));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let seen: Vec<_> = std::thread::scope(|scope| {
        let viewers: Vec<_> = views.iter().map(|view| scope.spawn(move || watch(view, WATCH))).collect();
        let joined = viewers.into_iter().map(|viewer| viewer.join());
        joined.map(|seen| seen.unwrap_or_else(|_| Err("the viewer panicked".to_owned()))).collect()
    });
    site.all_run()?;
    if process::asked_to_stop() {
        return Err("was stopped before it had seen enough".to_owned());
    }
    let mut failed = Vec::new();
    for (view, seen) in views.iter().zip(seen) {
        println!("\n{} through the {}: {}", view.camera, view.way, view.url);
        let problems = match seen {
            Ok(seen) => report(view, &seen),
            Err(problem) => vec![problem],
        };
        match problems.is_empty() {
            true => println!("  verdict: good"),
            false => println!("  verdict: BAD\n    {}", problems.join("\n    ")),
        }
        failed.extend(problems.iter().map(|problem| format!("{} through the {}: {problem}", view.camera, view.way)));
    }
    if failed.is_empty() {
        println!("\ncheck passed: a viewer receives every camera every way without a gap");
        Ok(())
    } else {
        Err(format!("check failed\n  {}\n  logs: {}", failed.join("\n  "), site.folder.display()))
    }
}

fn watch(view: &View, time: Duration) -> Result<Seen, String> {
    viewer::watch(&view.url, view.account, time, &process::asked_to_stop)
}

/// Prints what a viewer saw; what is wrong with it comes back.
fn report(view: &View, seen: &Seen) -> Vec<String> {
    let mut problems = Vec::new();
    let seconds = seen.watched.as_secs_f64();
    let Some(first_key) = seen.first_key else { return vec!["no key frame came".to_owned()] };
    println!("  connect to first key frame  {:.1} ms", first_key.as_secs_f64() * 1e3);
    for track in &seen.tracks {
        println!(
            "  {:<5} {:<13} {:>5} packets {:>3} missing {:>4} frames ({:.1}/s) {:>2} key frames {:>7.1} kbit/s",
            track.kind,
            track.codec,
            track.packets,
            track.missing,
            track.frames,
            track.frames as f64 / seconds,
            track.key_frames,
            track.bytes as f64 * 8.0 / seconds / 1e3,
        );
        if track.missing > 0 {
            problems.push(format!("{} packets of {} are missing", track.missing, track.codec));
        }
        if track.packets == 0 {
            problems.push(format!("nothing came of {}", track.codec));
        }
        // The relay begins with the group of pictures before, a camera waits for its next key frame; a busy machine may take some away.
        let playing = seconds - first_key.as_secs_f64();
        if track.kind == "video" && (track.frames as f64) < FRAMES_PER_SECOND * playing * 0.8 {
            problems.push(format!("only {} frames in {playing:.1} s", track.frames));
        }
        if track.kind == "video" && track.key_frames < 2 {
            problems.push(format!("{} key frames in {seconds:.1} s", track.key_frames));
        }
    }
    for codec in view.codecs {
        if !seen.tracks.iter().any(|track| track.codec == codec) {
            problems.push(format!("the description names no {codec}"));
        }
    }
    problems
}
