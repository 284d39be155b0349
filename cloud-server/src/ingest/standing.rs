//! How the tracks of agents stand, as a value: what is persisted of each, what came and is not persisted yet, and what could not be taken.
//!
//! Two promises rest on it. An agent is told of numbers as persisted only below the first one that came and is not. And what could not be taken,
//! because the disk was full or what a decoder must know had not come yet, is asked for again, once, when it can be taken: the agent kept it.
//!
//! What does not belong here: how it is asked for (the gateway: the session is closed, and the next one resumes earlier).

use std::collections::{BTreeMap, BTreeSet};

use camagent_proto::message::ResumePoint;

use super::TrackKey;
use super::ranges::Ranges;

/// An agent is not asked again within this time.
const AGAIN_AFTER_US: u64 = 5_000_000;
/// Epochs of a track that resume points are told of, the newest.
const MOST_EPOCHS: usize = 8;

#[derive(Debug, Default)]
struct Track {
    persisted: Ranges,
    /// Live frames that came and are not persisted.
    owed: Ranges,
    /// What could not be taken.
    refused: Ranges,
    /// What cannot be taken before something else came.
    unreadable: Ranges,
    /// What a session was to bring again, and has not brought yet.
    wanted: Ranges,
}

/// All tracks.
#[derive(Debug, Default)]
pub struct Standing {
    tracks: BTreeMap<TrackKey, Track>,
    /// Those with something that was refused, or cannot be read.
    refusing: BTreeSet<TrackKey>,
    /// When each agent was asked last.
    asked_us: BTreeMap<String, u64>,
}

impl Standing {
    /// What a store has.
    #[must_use]
    pub fn new(persisted: BTreeMap<TrackKey, Ranges>) -> Self {
        let track = |(key, persisted)| (key, Track { persisted, ..Track::default() });
        Self { tracks: persisted.into_iter().map(track).collect(), ..Self::default() }
    }

    /// A frame came, live.
    pub fn came(&mut self, key: &TrackKey, sequence: u64) {
        let track = self.track(key);
        if !track.wanted.is_empty() {
            track.wanted.remove(sequence, sequence + 1);
        }
        if !track.persisted.contains(sequence) {
            track.owed.insert(sequence, sequence + 1);
        }
    }

    /// Frames `first..next` could not be taken; `is_readable` when it is not for what they lack.
    pub fn refused(&mut self, key: &TrackKey, first: u64, next: u64, is_readable: bool) {
        let track = self.track(key);
        let into = if is_readable { &mut track.refused } else { &mut track.unreadable };
        into.insert(first, next);
        self.refusing.insert(key.clone());
    }

    /// Frames `first..next` are persisted.
    pub fn persisted(&mut self, key: &TrackKey, first: u64, next: u64) {
        let track = self.track(key);
        track.persisted.insert(first, next);
        track.owed.remove(first, next);
        track.refused.remove(first, next);
        track.unreadable.remove(first, next);
        track.wanted.remove(first, next);
        if track.refused.is_empty() && track.unreadable.is_empty() {
            self.refusing.remove(key);
        }
    }

    /// The first number from `from` on that is not persisted.
    #[must_use]
    pub fn persisted_from(&self, key: &TrackKey, from: u64) -> u64 {
        self.tracks.get(key).map_or(from, |track| track.persisted.gap_from(from))
    }

    /// Below which number all that came live is persisted, of a track that was announced with `from` as its next number.
    #[must_use]
    pub fn live_persisted(&self, key: &TrackKey, from: u64) -> u64 {
        let next = self.persisted_from(key, from);
        // What came over an earlier connection may wait still.
        self.tracks.get(key).and_then(|track| track.owed.first()).map_or(next, |owed| owed.min(next))
    }

    /// Where the tracks of a boot go on, as far as the store knows: at the first that is not persisted of their newest epochs.
    #[must_use]
    pub fn points(&self, agent: &str, boot: [u8; 16]) -> Vec<ResumePoint> {
        let mut points: Vec<ResumePoint> = Vec::new();
        for (key, track) in self.tracks.iter().rev() {
            let of_track = points.iter().filter(|point| point.track == key.track).count();
            if key.agent == agent && key.boot == boot && of_track < MOST_EPOCHS {
                // Below the first that is persisted something may have come and be forgotten with the process: the agent knows of what it was told.
                let next = track.persisted.gap_from(0);
                points.push(ResumePoint { track: key.track, epoch: key.epoch, next });
            }
        }
        points
    }

    /// A session of an agent's boot begins, which would go on at `points`: it goes on where something was refused. No session is closed for that a
    /// second time, should the agent not have it any more; but one that ends before it came leaves the point where it is.
    pub fn resume(&mut self, agent: &str, boot: [u8; 16], points: &mut [ResumePoint]) {
        let of_agent: Vec<_> = self.refusing.iter().filter(|key| key.agent == agent).cloned().collect();
        for key in of_agent {
            let track = self.track(&key);
            for refused in [std::mem::take(&mut track.refused), std::mem::take(&mut track.unreadable)] {
                refused.iter().for_each(|(first, next)| track.wanted.insert(first, next));
            }
            self.refusing.remove(&key);
        }
        for point in points {
            let key = TrackKey { agent: agent.to_owned(), boot, track: point.track, epoch: point.epoch };
            let wanted = self.tracks.get(&key).and_then(|track| track.wanted.first());
            point.next = wanted.map_or(point.next, |wanted| wanted.min(point.next));
        }
    }

    /// Whether nothing is to be asked for.
    #[must_use]
    pub fn is_content(&self) -> bool {
        self.refusing.is_empty()
    }

    /// Whether there is something that can be asked for. What lacks frames that nobody has any more stays, and is no question.
    #[must_use]
    pub fn has_question(&self, is_readable: impl Fn(&TrackKey, u64) -> bool) -> bool {
        self.refusing.iter().any(|key| self.can_be_taken(key, &is_readable))
    }

    fn can_be_taken(&self, key: &TrackKey, is_readable: impl Fn(&TrackKey, u64) -> bool) -> bool {
        let Some(track) = self.tracks.get(key) else { return false };
        !track.refused.is_empty() || track.unreadable.first().is_some_and(|first| is_readable(key, first))
    }

    /// Agents that are to be asked now for what could not be taken. `is_readable` says whether what a decoder must know of a track from a number on is
    /// there, or never comes: what it is is known then.
    pub fn ask(&mut self, now_us: u64, is_readable: impl Fn(&TrackKey, u64) -> bool) -> Vec<String> {
        let mut agents: Vec<String> = Vec::new();
        for key in &self.refusing {
            let asked_us = self.asked_us.get(&key.agent);
            let is_due = asked_us.is_none_or(|asked| now_us.saturating_sub(*asked) >= AGAIN_AFTER_US);
            if is_due && self.can_be_taken(key, &is_readable) && agents.last() != Some(&key.agent) {
                agents.push(key.agent.clone());
            }
        }
        self.asked_us.extend(agents.iter().map(|agent| (agent.clone(), now_us)));
        agents
    }

    fn track(&mut self, key: &TrackKey) -> &mut Track {
        // Few frames are the first ones of their track: no key is made for the others.
        if !self.tracks.contains_key(key) {
            self.tracks.insert(key.clone(), Track::default());
        }
        self.tracks.get_mut(key).expect("it was just put there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(epoch: u64) -> TrackKey {
        TrackKey { agent: "a".into(), boot: [1; 16], track: 0, epoch }
    }

    #[test]
    fn nothing_is_told_beyond_what_came_and_is_not_persisted() {
        let mut standing = Standing::default();
        (0..100).for_each(|sequence| standing.came(&key(1), sequence));
        standing.persisted(&key(1), 0, 90);
        // The connection broke, and the track goes on at 100.
        standing.came(&key(1), 100);
        standing.persisted(&key(1), 100, 101);
        assert_eq!(standing.live_persisted(&key(1), 100), 90, "90 to 99 wait still");
        standing.persisted(&key(1), 90, 100);
        assert_eq!(standing.live_persisted(&key(1), 100), 101);
        standing.came(&key(1), 95);
        assert_eq!(standing.live_persisted(&key(1), 100), 101, "what comes again is there");
    }

    #[test]
    fn what_was_refused_is_asked_for_once_when_it_can_be_taken() {
        let mut standing = Standing::default();
        assert!(standing.is_content() && standing.ask(0, |_, _| true).is_empty());
        standing.refused(&key(1), 40, 50, false);
        assert!(standing.ask(7_000_000, |_, first| first > 40).is_empty(), "it could not be read still");
        assert!(!standing.has_question(|_, first| first > 40) && standing.has_question(|_, first| first == 40));
        assert_eq!(standing.ask(7_000_000, |_, first| first == 40), ["a"]);
        assert!(standing.ask(8_000_000, |_, _| true).is_empty(), "the agent was just asked");
        let mut points = [ResumePoint { track: 0, epoch: 1, next: 60 }];
        standing.resume("a", [1; 16], &mut points);
        assert_eq!(points[0].next, 40);
        assert!(standing.is_content(), "it comes now, or never");
        // That connection was lost before it came.
        let mut points = [ResumePoint { track: 0, epoch: 1, next: 60 }];
        standing.resume("a", [1; 16], &mut points);
        assert_eq!(points[0].next, 40);
        (40..45).for_each(|sequence| standing.came(&key(1), sequence));
        standing.persisted(&key(1), 45, 47);
        let mut points = [ResumePoint { track: 0, epoch: 1, next: 60 }];
        standing.resume("a", [1; 16], &mut points);
        assert_eq!(points[0].next, 47, "what is still to come");
        assert!(standing.is_content());
        standing.refused(&key(1), 70, 80, true);
        standing.persisted(&key(1), 70, 80);
        assert!(standing.is_content());
    }

    #[test]
    fn a_store_knows_where_the_newest_epochs_go_on() {
        let mut standing = Standing::default();
        for epoch in 1..=20 {
            standing.persisted(&key(epoch), 0, epoch);
            standing.persisted(&key(epoch), 30, 40);
        }
        let points = standing.points("a", [1; 16]);
        assert_eq!(points.len(), MOST_EPOCHS);
        assert_eq!(points[0], ResumePoint { track: 0, epoch: 20, next: 20 });
        assert!(standing.points("a", [2; 16]).is_empty() && standing.points("b", [1; 16]).is_empty());
    }
}
