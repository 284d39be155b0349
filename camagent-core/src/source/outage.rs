//! What is kept while there is no session and no card: of each camera its outage source, so that memory lasts a minute of a
//! small picture instead of seconds of a large one.
//!
//! Other sources may take half of the memory: short breaks cost nothing. From then on their frames get numbers and are let
//! go, so that the server is told of a hole with a reason, until there is a session again. An outage source that is sent on
//! demand is wanted meanwhile. What does not belong here: evicting (`journal`), which drops the oldest first as always.

use std::collections::{HashMap, HashSet};

use crate::config::CameraConfig;

/// The outage sources, and whether they count now.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// The outage source of each camera that has one. Empty beside a card.
    sources: HashMap<String, String>,
    /// Sources by name that are not to be sent at all, whoever wants them.
    stopped: HashSet<String>,
    pub(super) is_online: bool,
}

impl Outage {
    pub(super) fn of(cameras: &[CameraConfig], has_card: bool) -> Self {
        let named = cameras.iter().filter(|_| !has_card);
        let sources = named.filter_map(|camera| Some((camera.id.clone(), camera.outage_source.clone()?)));
        Self { sources: sources.collect(), ..Self::default() }
    }

    /// Whether there is anything to do at all.
    pub(super) fn is_configured(&self) -> bool {
        !self.sources.is_empty()
    }

    pub(super) fn set_stopped(&mut self, names: &[String]) {
        self.stopped = names.iter().cloned().collect();
    }

    /// Whether a source is wanted because there is no session.
    pub(super) fn wants(&self, camera: &str, source: &str) -> bool {
        !self.is_online && self.of_camera(camera) == Some(source) && !self.stopped.contains(source)
    }

    /// The source that is kept instead of this one.
    pub(super) fn instead_of(&self, camera: &str, source: &str) -> Option<&str> {
        self.of_camera(camera).filter(|other| *other != source && !self.stopped.contains(*other))
    }

    fn of_camera(&self, camera: &str) -> Option<&str> {
        self.sources.get(camera).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Codec, Config, Framing, TrackDescription,
        source::{Frame, Intake, Pushed},
    };
    use camagent_proto::{Instant, transfer::Journal as _};

    const MEMORY: usize = 64 << 10;

    fn intake(streaming: &str, storage: &str) -> Intake {
        let config = Config::from_json(&format!(
            r#"{{"agent":{{"agent_id":"a","cloud_server_url":"ws://h","cloud_server_token":"t"}},"streaming":{{{streaming}}}{storage}}}"#,
        ))
        .unwrap();
        let intake = Intake::new(MEMORY, &config.cameras, config.storage.is_some()).unwrap();
        for (track, source) in [(0, "main"), (1, "sub")] {
            intake.set_track(track, &TrackDescription::video(source, Codec::H264, Framing::AnnexB)).unwrap();
        }
        intake
    }

    /// Pushes the `number`th picture: of two thousand octets for the main source, of two hundred for the other.
    fn push(intake: &Intake, track: u32, number: i64) -> Pushed {
        let mut data = vec![7; if track == 0 { 2_000 } else { 200 }];
        data[..5].copy_from_slice(&[0, 0, 0, 1, if number % 5 == 0 { 0x65 } else { 0x41 }]);
        let dts_us = number * 40_000;
        let now = Instant::from_micros(dts_us as u64);
        intake.push(now, track, Frame { pts_us: dts_us, dts_us, data: &data, ..Frame::default() }).unwrap()
    }

    /// The oldest frame of a track that is held, and how many numbers it has.
    fn held(mut intake: &Intake, track: u32) -> (Option<u64>, u64) {
        (intake.find(track, 1, 0).map(|entry| entry.sequence), intake.end(track, 1))
    }

    #[test]
    fn a_long_outage_is_kept_of_the_outage_source() {
        let intake = intake(r#""outage_source":"sub""#, "");
        let mut last = [Pushed::WaitKey; 2];
        for number in 0..240 {
            last = [push(&intake, 0, number), push(&intake, 1, number)];
        }
        assert_eq!(last, [Pushed::NotWanted, Pushed::Kept]);
        let ((_, main), (oldest, sub)) = (held(&intake, 0), held(&intake, 1));
        assert_eq!((main, sub), (240, 240), "each frame has a number, so that each hole is told");
        assert!(oldest.unwrap() < 20, "{oldest:?}: only what lay among the large pictures is gone");
        let (counts, _) = intake.counts();
        assert_eq!((counts.accepted, counts.dropped), (480, 0));

        // A session: the main source goes on with a key frame.
        let _ = intake.take_key_requests();
        assert_eq!(intake.set_online(true), [(0, true)]);
        assert_eq!(intake.take_key_requests(), [0]);
        assert_eq!(push(&intake, 0, 241), Pushed::WaitKey);
        assert_eq!(push(&intake, 0, 245), Pushed::Kept);
        assert_eq!(held(&intake, 0).1, 242, "the one in between has a number too");
    }

    #[test]
    fn a_short_break_costs_nothing() {
        let intake = intake(r#""outage_source":"sub""#, "");
        assert_eq!(intake.set_online(true), []);
        for number in 0..10 {
            assert_eq!([push(&intake, 0, number), push(&intake, 1, number)], [Pushed::Kept; 2]);
        }
        (&intake).received(0, 1, 10);
        (&intake).received(1, 1, 10);
        assert_eq!(intake.set_online(false), []);
        for number in 10..20 {
            assert_eq!([push(&intake, 0, number), push(&intake, 1, number)], [Pushed::Kept; 2]);
        }
        assert_eq!(intake.set_online(true), []);
        assert_eq!((held(&intake, 0), held(&intake, 1)), ((Some(10), 20), (Some(10), 20)));
    }

    #[test]
    fn without_the_outage_source_or_with_a_card_everything_is_as_always() {
        let alone = intake(r#""outage_source":"sub""#, "");
        alone.remove_track(1).unwrap();
        let carded = intake(r#""outage_source":"sub""#, r#","storage":{"path":"/mnt"}"#);
        for intake in [alone, carded, intake("", "")] {
            for number in 0..300 {
                assert!(matches!(push(&intake, 0, number), Pushed::Kept | Pushed::WaitKey));
            }
            let (oldest, end) = held(&intake, 0);
            assert!(oldest.is_some() && end > 200, "what was kept of the old ones is all of the same source");
            assert_eq!(
                (&intake).find(0, 1, end - 2).map(|entry| entry.sequence),
                Some(end - 2),
                "the newest are there"
            );
        }
    }

    #[test]
    fn an_outage_source_on_demand_is_wanted_while_there_is_no_session() {
        let intake = intake(r#""outage_source":"sub","sources":{"sub":{"upload":"on_demand"}}"#, "");
        assert_eq!(push(&intake, 1, 0), Pushed::Kept, "there was none yet");
        assert_eq!(intake.set_online(true), [(1, false)]);
        assert_eq!(push(&intake, 1, 5), Pushed::NotWanted);
        assert_eq!(intake.set_online(false), [(1, true)]);
        assert_eq!(intake.take_key_requests(), [1]);
        assert_eq!(push(&intake, 1, 10), Pushed::Kept);
        assert_eq!(intake.set_wanted("a", "sub", true), [] as [u32; 0], "it is wanted already");
        assert_eq!(intake.set_online(true), []);
        intake.set_stopped(&["sub".to_owned()]);
        assert_eq!(intake.set_wanted("a", "sub", false), [1]);
        assert_eq!(intake.set_online(false), [], "a data plan has the last word");
    }
}
