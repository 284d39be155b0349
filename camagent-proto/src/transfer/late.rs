//! The latency budget: what is too late to be live leaves the live reader, and nothing that stays refers to what went.
//!
//! In the order in which it goes: frames that no other refers to, at half of the budget; then, over the budget, the rest of the GOP up to the
//! newest key frame, or up to a key frame that is still to come and is asked for. A frame that has begun is sent to its end: otherwise a link that
//! is slower than one key frame in a budget would never carry any. Audio refers to nothing and goes frame by frame.
//! The journal keeps what left here until the server has heard of it: a reader of the past would find it there.
//!
//! What does not belong here: the SKIP that tells of it (`sender`), and what the journal evicts.

use crate::{frame::SkipReason, time::Duration};

/// A frame that is about to be sent, and what is known around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) sequence: u64,
    pub(super) is_key: bool,
    pub(super) is_disposable: bool,
    /// How long it has waited.
    pub(super) waited: Duration,
    /// Frames that it refers to were left out, unless it is a key frame.
    pub(super) needs_key: bool,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent.
    Send,
    /// It and all below `end` are left out.
    LeaveOut { end: u64, reason: SkipReason },
    /// All that is there is left out; the next key frame is still to come.
    LeaveAll,
}

impl Verdict {
    /// Whether what is left out is nothing that others refer to.
    pub(super) fn is_disposable(&self) -> bool {
        matches!(self, Self::LeaveOut { reason: SkipReason::Disposable, .. })
    }
}

/// Decides about a frame of video. `newest_key` is the newest key frame behind it, and how long that has waited.
pub(super) fn video(frame: Waiting, budget: Duration, newest_key: impl FnOnce() -> Option<(u64, Duration)>) -> Verdict {
    let is_cut_off = frame.needs_key && !frame.is_key;
    if frame.waited <= budget && !is_cut_off {
        return match frame.is_disposable && frame.waited > budget / 2 {
            true => Verdict::LeaveOut { end: frame.sequence + 1, reason: SkipReason::Disposable },
            false => Verdict::Send,
        };
    }
    match newest_key() {
        Some((key, waited)) if key > frame.sequence && waited <= budget => {
            Verdict::LeaveOut { end: key, reason: SkipReason::Late }
        }
        _ => Verdict::LeaveAll,
    }
}

/// Decides about a frame of audio.
pub(super) fn audio(frame: Waiting, budget: Duration) -> Verdict {
    match frame.waited > budget {
        true => Verdict::LeaveOut { end: frame.sequence + 1, reason: SkipReason::Late },
        false => Verdict::Send,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_secs(3);

    fn frame(waited_ms: u64) -> Waiting {
        let waited = Duration::from_millis(waited_ms);
        Waiting { sequence: 10, is_key: false, is_disposable: false, waited, needs_key: false }
    }

    fn key(sequence: u64, waited_ms: u64) -> impl FnOnce() -> Option<(u64, Duration)> {
        move || Some((sequence, Duration::from_millis(waited_ms)))
    }

    #[test]
    fn in_time_everything_is_sent() {
        assert_eq!(video(frame(3_000), BUDGET, || None), Verdict::Send);
        assert_eq!(audio(frame(3_000), BUDGET), Verdict::Send);
    }

    #[test]
    fn disposable_frames_go_first() {
        let disposable = Waiting { is_disposable: true, ..frame(1_501) };
        let left_out = Verdict::LeaveOut { end: 11, reason: SkipReason::Disposable };
        assert_eq!(video(disposable, BUDGET, key(20, 0)), left_out);
        assert_eq!(video(Waiting { waited: BUDGET / 2, ..disposable }, BUDGET, || None), Verdict::Send);
        assert_eq!(video(frame(1_501), BUDGET, key(20, 0)), Verdict::Send);
    }

    #[test]
    fn then_the_rest_of_the_group_goes_up_to_the_newest_key_frame() {
        let left_out = Verdict::LeaveOut { end: 20, reason: SkipReason::Late };
        assert_eq!(video(frame(3_001), BUDGET, key(20, 500)), left_out);
        assert_eq!(video(frame(3_001), BUDGET, key(20, 3_001)), Verdict::LeaveAll, "no key frame in time");
        assert_eq!(video(Waiting { is_key: true, ..frame(3_001) }, BUDGET, key(10, 3_001)), Verdict::LeaveAll);
        assert_eq!(audio(frame(3_001), BUDGET), Verdict::LeaveOut { end: 11, reason: SkipReason::Late });
    }

    #[test]
    fn nothing_is_sent_whose_reference_was_left_out() {
        let cut_off = Waiting { needs_key: true, ..frame(0) };
        assert_eq!(video(cut_off, BUDGET, || None), Verdict::LeaveAll);
        assert_eq!(video(cut_off, BUDGET, key(12, 0)), Verdict::LeaveOut { end: 12, reason: SkipReason::Late });
        assert_eq!(video(Waiting { is_key: true, ..cut_off }, BUDGET, key(10, 0)), Verdict::Send);
    }
}
