//! Which times of a source are recorded, and why others are not.

use super::archive::{Archive, Found};
use crate::error::Result;
use crate::ingest::GapReason;

/// A pause that is none: frames are never nearer to each other than some time.
const PAUSE_US: i64 = 1_000_000;

/// A time: from, to; UTC in microseconds since 1970.
pub type Span = (i64, i64);

/// What is known of a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Times with frames.
    pub spans: Vec<Span>,
    /// Times without, each with its reason; none when nothing is known: the agent was away, the source was not wanted, or the
    /// server did not run.
    pub gaps: Vec<(Span, Option<GapReason>)>,
}

/// Looks a time up. Pictures count where there are any, else sound.
pub async fn coverage(archive: &Archive, camera: &str, source: &str, from_us: i64, to_us: i64) -> Result<Coverage> {
    let found = archive.find(camera, source, from_us, to_us).await?;
    let reasons = archive.gaps(camera, source, from_us, to_us).await?;
    Ok(compute(&found, &reasons, from_us, to_us))
}

/// Whether a file holds pictures.
#[must_use]
pub fn is_video(row: &Found) -> bool {
    matches!(row.codec.as_str(), "H.264" | "H.265")
}

fn compute(found: &[Found], reasons: &[(i64, i64, GapReason)], from_us: i64, to_us: i64) -> Coverage {
    let has_video = found.iter().any(is_video);
    let runs = found.iter().filter(|row| is_video(row) == has_video).flat_map(|row| &row.runs);
    let mut spans: Vec<Span> =
        runs.map(|run| (run.start_us.max(from_us), run.end_us.min(to_us))).filter(|(start, end)| start < end).collect();
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    // What a gap explains is a gap, however short; what nothing explains is one when it is longer than a pause.
    let explains = |from: i64, to: i64| {
        let own = reasons.iter().find(|(start, end, _)| *start < to && *end > from);
        own.map(|(_, _, reason)| *reason)
    };
    for (start, end) in spans {
        match merged.last_mut() {
            Some(last) if start <= last.1 || (start - last.1 <= PAUSE_US && explains(last.1, start).is_none()) => {
                last.1 = last.1.max(end);
            }
            _ => merged.push((start, end)),
        }
    }
    let mut gaps = Vec::new();
    let mut at = from_us;
    for (start, end) in merged.iter().copied().chain([(to_us, to_us)]) {
        if start > at {
            gaps.push(((at, start), explains(at, start)));
        }
        at = at.max(end);
    }
    Coverage { spans: merged, gaps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Run, TrackKey};

    fn row(codec: &str, runs: &[(i64, i64)]) -> Found {
        let runs =
            runs.iter().map(|(start_us, end_us)| Run { first: 0, next: 1, start_us: *start_us, end_us: *end_us });
        Found {
            name: String::new(),
            camera: String::new(),
            source: String::new(),
            key: TrackKey { agent: String::new(), boot: [0; 16], track: 0, epoch: 0 },
            codec: codec.into(),
            bytes: 0,
            runs: runs.collect(),
        }
    }

    #[test]
    fn spans_grow_together_and_holes_have_reasons() {
        let second = 1_000_000;
        let rows = [
            row("H.264", &[(0, 10 * second), (10 * second + 5, 20 * second), (25 * second, 30 * second)]),
            row("H.264", &[(20 * second + 3, 22 * second)]),
            row("AAC", &[(0, 100 * second)]),
        ];
        let reasons = [(22 * second, 25 * second, GapReason::UNREADABLE)];
        let coverage = compute(&rows, &reasons, -second, 40 * second);
        assert_eq!(coverage.spans, [(0, 22 * second), (25 * second, 30 * second)]);
        assert_eq!(
            coverage.gaps,
            [
                ((-second, 0), None),
                ((22 * second, 25 * second), Some(GapReason::UNREADABLE)),
                ((30 * second, 40 * second), None)
            ]
        );
        assert_eq!(compute(&rows[2..], &[], 0, second).spans, [(0, second)], "sound alone counts");
        assert_eq!(compute(&[], &[], 0, second).gaps, [((0, second), None)]);
    }
}
