//! `GET /recordings` and `GET /recordings/clip`: which times were recorded, and any of them as one MP4.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::refusal::{ErrorBody, Refusal};
use crate::clock::rfc3339;
use crate::playback::{Clip, ClipError};
use crate::record::Archive;
use crate::record::coverage::coverage;

/// Without `from`, so long before `to`.
const DEFAULT_US: i64 = 86_400 * 1_000_000;
/// The longest time that is listed at once.
const LONGEST_US: i64 = 31 * DEFAULT_US;
/// Bytes that are read at once.
const READ_BYTES: u64 = 256 << 10;

/// Clips that are prepared at once: each reads the heads of its files, and may take some 50 MB meanwhile.
const MOST_MADE: usize = 4;
/// Clips that are prepared, wait for that, or are being sent.
const MOST_CLIPS: usize = 64;
/// Who is turned away may ask again after this time.
const RETRY_AFTER_S: u32 = 5;

/// Places for clips.
#[derive(Debug)]
pub struct Clips {
    made: Semaphore,
    all: Arc<Semaphore>,
}

impl Default for Clips {
    fn default() -> Self {
        Self { made: Semaphore::new(MOST_MADE), all: Arc::new(Semaphore::new(MOST_CLIPS)) }
    }
}

impl Clips {
    /// A place until the clip is sent.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.all).try_acquire_owned().map_err(|_| {
            let message = format!("{MOST_CLIPS} clips are being made and sent already; ask again in some seconds");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_clips", message).retry_after(RETRY_AFTER_S)
        })
    }
}

/// What is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RecordingsQuery {
    /// The camera.
    camera: String,
    /// Its source; `main` without it.
    source: Option<String>,
    /// The beginning, RFC 3339. Without it a day before `to`; a clip needs it.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<String>,
    /// The end, RFC 3339, not included. Without it now; a clip needs it.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<String>,
}

/// `GET /recordings`.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordingsBody {
    /// The camera.
    pub camera: String,
    /// The source.
    pub source: String,
    /// The beginning of what was asked for.
    pub from: String,
    /// The end.
    pub to: String,
    /// Whether frames of this source are recorded now.
    pub recording: bool,
    /// Why nothing can be written at present (a full disk, as a rule), or why complete files cannot be put in their place. Null while all is well.
    pub stalled: Option<String>,
    /// Times that are recorded, oldest first.
    pub ranges: Vec<RangeBody>,
    /// Times that are not, oldest first.
    pub gaps: Vec<GapBody>,
    /// Frames of all tracks of the source that are missing from this time, by reason.
    #[schema(example = json!({"over_budget": 152}))]
    pub lost: BTreeMap<&'static str, u64>,
}

/// A time.
#[derive(Debug, Serialize, ToSchema)]
pub struct RangeBody {
    /// The beginning.
    pub from: String,
    /// The end.
    pub to: String,
}

/// A time without frames.
#[derive(Debug, Serialize, ToSchema)]
pub struct GapBody {
    /// The beginning.
    pub from: String,
    /// The end.
    pub to: String,
    /// The nearest reason.
    #[schema(example = "over_budget")]
    pub reason: &'static str,
    /// Pictures (sounds, where there are no pictures) that are known to be missing.
    pub frames: u64,
    /// All that is known, the nearest first.
    pub reasons: Vec<ReasonBody>,
}

/// Why there are no frames.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReasonBody {
    /// `over_budget`, `thinned`, `too_large`, `late`, `disposable`, `corrupt`, `refused`, `live`, `other`: the agent gave frames up. `stopped`, `power_cut`: its run ended.
    /// `agent_restarted`, `agent_offline`, `server_down`: who was away. `unreadable`: no frames of their codec. `storage`: the server's disk was
    /// full or too slow. `file_lost`: the file is gone or damaged. `removed`: it was old. `not_recorded`: it was not to be recorded, or nothing had
    /// ever come. `no_frames`: the camera made none, or nobody watched a source that is sent on demand. `not_received`: they may still come.
    #[schema(example = "over_budget")]
    pub reason: &'static str,
    /// How many frames are missing for it, where their numbers are known.
    pub frames: Option<u64>,
}

struct Wanted {
    camera: String,
    source: String,
    from_us: i64,
    to_us: i64,
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

fn wanted(
    api: &Api,
    query: Result<Query<RecordingsQuery>, QueryRejection>,
    needs_both: bool,
) -> Result<Wanted, Refusal> {
    let Query(query) = query.map_err(|rejection| bad(rejection.body_text()))?;
    let moment = |name: &str, text: Option<String>| match text {
        None if needs_both => Err(bad(format!("{name} is missing: a clip has a beginning and an end, RFC 3339"))),
        None => Ok(None),
        Some(text) => match text.parse::<jiff::Timestamp>() {
            Ok(moment) => Ok(Some(moment.as_microsecond())),
            Err(_) => Err(bad(format!(
                "{name} = \"{text}\" is no time; write it as 2026-01-31T12:00:00Z (a + in a URL is %2B)"
            ))),
        },
    };
    let to_us = moment("to", query.to)?.unwrap_or_else(|| api.clock.utc_us());
    let from_us = moment("from", query.from)?.unwrap_or(to_us.saturating_sub(DEFAULT_US));
    if from_us >= to_us {
        return Err(bad("from must be before to"));
    }
    Ok(Wanted { camera: query.camera, source: query.source.unwrap_or_else(|| "main".to_owned()), from_us, to_us })
}

fn archive(api: &Api) -> Result<&Archive, Refusal> {
    api.archive.as_deref().ok_or_else(|| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "recordings_off",
            "this server has no recordings: recordings.path of its configuration names a folder for them, or the folder could not be \
             used, see the server's log",
        )
    })
}

/// Which times of a source were recorded.
#[utoipa::path(get, path = "/recordings", params(RecordingsQuery), responses(
    (status = 200, body = RecordingsBody),
    (status = 400, body = ErrorBody, description = "A parameter is missing or wrong"),
    (status = 401, body = ErrorBody, description = "No or unknown API token"),
    (status = 503, body = ErrorBody, description = "Nothing is recorded on this server"),
))]
pub(super) async fn recordings(
    State(api): State<Api>,
    query: Result<Query<RecordingsQuery>, QueryRejection>,
) -> Result<Json<RecordingsBody>, Refusal> {
    let wanted = wanted(&api, query, false)?;
    if wanted.to_us - wanted.from_us > LONGEST_US {
        return Err(bad("at most 31 days are listed at once"));
    }
    let archive = archive(&api)?;
    let found = coverage(archive, &wanted.camera, &wanted.source, wanted.from_us, wanted.to_us).await?;
    Ok(Json(RecordingsBody {
        from: rfc3339(wanted.from_us),
        to: rfc3339(wanted.to_us),
        recording: archive.records(&wanted.camera, &wanted.source),
        stalled: archive.stalled(),
        ranges: found.spans.into_iter().map(|(from, to)| RangeBody { from: rfc3339(from), to: rfc3339(to) }).collect(),
        gaps: found
            .gaps
            .into_iter()
            .map(|hole| GapBody {
                from: rfc3339(hole.span.0),
                to: rfc3339(hole.span.1),
                reason: hole.whys.first().map_or("not_received", |why| why.reason.name()),
                frames: hole.frames(),
                reasons: hole
                    .whys
                    .iter()
                    .map(|why| ReasonBody { reason: why.reason.name(), frames: why.frames })
                    .collect(),
            })
            .collect(),
        lost: found.lost,
        camera: wanted.camera,
        source: wanted.source,
    }))
}

/// A time of a source as one MP4, pictures and sound. It begins at `from` exactly: what a decoder needs from before is in the file and
/// not shown. Byte ranges may be asked for.
#[utoipa::path(get, path = "/recordings/clip", params(RecordingsQuery), responses(
    (status = 200, content_type = "video/mp4", description = "The clip. Camagent-Start and Camagent-End say which time is in it"),
    (status = 206, content_type = "video/mp4", description = "Bytes of it"),
    (status = 400, body = ErrorBody, description = "A parameter is missing or wrong, or the clip is longer than three hours"),
    (status = 401, body = ErrorBody, description = "No or unknown API token"),
    (status = 404, body = ErrorBody, description = "Nothing is recorded of that time"),
    (status = 409, body = ErrorBody, description = "The camera changed its codec within; the message says when"),
    (status = 416, description = "These bytes are not in the clip"),
    (status = 503, body = ErrorBody, description = "Nothing is recorded on this server, what is cannot be read, or 64 clips are being made and sent already (Retry-After)"),
))]
pub(super) async fn clip(
    State(api): State<Api>,
    query: Result<Query<RecordingsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let wanted = wanted(&api, query, true)?;
    archive(&api)?;
    let Some(archive) = api.archive.clone() else { return Err(bad("no recordings")) };
    let place = api.clips.place()?;
    // Never closed.
    let making = api.clips.made.acquire().await.ok();
    let made = Clip::make(&archive, &wanted.camera, &wanted.source, wanted.from_us, wanted.to_us).await;
    drop(making);
    let clip = made.map_err(|error| match error {
        ClipError::Nothing => {
            let (camera, source) = (&wanted.camera, &wanted.source);
            let message =
                format!("nothing is recorded of {camera}/{source} in that time; GET /recordings lists what is");
            Refusal::new(StatusCode::NOT_FOUND, "no_recording", message)
        }
        ClipError::TooLong => bad("a clip has at most three hours"),
        ClipError::CodecChanges(at_us) => {
            let message = format!("the camera changes its codec at {}; ask for both sides of it", rfc3339(at_us));
            Refusal::new(StatusCode::CONFLICT, "codec_changes", message)
        }
        ClipError::Failed(error) => Refusal::from(error),
    })?;
    let (length, etag) = (clip.length(), clip.etag());
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // Bytes of another content than before would make a broken file (RFC 9110 13.1.5).
    let is_same = text(header::IF_RANGE).is_none_or(|known| known == etag);
    let range = text(header::RANGE).filter(|_| is_same).map(|range| byte_range(range, length));
    let named = format!(
        "attachment; filename=\"{}-{}-{}.mp4\"",
        wanted.camera,
        wanted.source,
        rfc3339(clip.start_us).replace(':', "")
    );
    let common = [
        (header::CONTENT_TYPE.as_str(), "video/mp4".to_owned()),
        (header::ACCEPT_RANGES.as_str(), "bytes".to_owned()),
        (header::ETAG.as_str(), etag),
        (header::CONTENT_DISPOSITION.as_str(), safe(&named)),
        ("camagent-start", rfc3339(clip.start_us)),
        ("camagent-end", rfc3339(clip.end_us)),
    ];
    let (status, range) = match range {
        None | Some(Asked::All) => (StatusCode::OK, 0..length),
        Some(Asked::Range(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Asked::Outside) => {
            let of = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, of).into_response());
        }
    };
    let mut answer =
        (status, common, [(header::CONTENT_LENGTH, (range.end - range.start).to_string())]).into_response();
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = format!("bytes {}-{}/{length}", range.start, range.end - 1).parse()
    {
        answer.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    let state = (archive, clip, range, place);
    let bytes = futures_util::stream::try_unfold(state, |(archive, clip, range, place)| async move {
        if range.is_empty() {
            return Ok::<_, crate::error::Error>(None);
        }
        let bytes = clip.read(&archive, range.start..range.end.min(range.start + READ_BYTES)).await?;
        let rest = range.start + bytes.len() as u64..range.end;
        Ok(Some((bytes, (archive, clip, rest, place))))
    });
    *answer.body_mut() = Body::from_stream(bytes);
    Ok(answer)
}

/// Names come from a URL: what has no place in a header is left out.
fn safe(text: &str) -> String {
    text.chars().filter(|character| character.is_ascii_graphic() || *character == ' ').collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Something that is not understood, or several ranges: the whole, as RFC 9110 14.2 allows.
    All,
    Range(Range<u64>),
    Outside,
}

/// One range of bytes (RFC 9110 14.1.2).
fn byte_range(text: &str, length: u64) -> Asked {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Asked::All;
    };
    let (first, last) = (first.trim(), last.trim());
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Ok(first), Err(_)) if last.is_empty() => first..length,
        (Err(_), Ok(suffix)) if first.is_empty() => length.saturating_sub(suffix)..length,
        _ => return Asked::All,
    };
    if range.start >= length || range.is_empty() { Asked::Outside } else { Asked::Range(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_have_a_bound_and_who_is_turned_away_hears_when_to_come_back() {
        let clips = Clips::default();
        let mut places: Vec<_> = (0..MOST_CLIPS).map(|_| clips.place().expect("free")).collect();
        let refused = clips.place().expect_err("no more").into_response();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "5");
        places.pop();
        assert!(clips.place().is_ok());
    }

    #[test]
    fn ranges_of_bytes() {
        for (text, expected) in [
            ("bytes=0-9", Asked::Range(0..10)),
            ("bytes=90-", Asked::Range(90..100)),
            ("bytes=90-200", Asked::Range(90..100)),
            ("bytes=-5", Asked::Range(95..100)),
            ("bytes=-500", Asked::Range(0..100)),
            ("bytes=100-", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=5-2", Asked::All),
            ("bytes=0-1,5-6", Asked::All),
            ("items=0-1", Asked::All),
        ] {
            assert_eq!(byte_range(text, 100), expected, "{text}");
        }
    }
}
