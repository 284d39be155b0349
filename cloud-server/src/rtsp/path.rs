//! What an RTSP URL names: `rtsp://host:7554/{camera}/{source}`, with the control part of a track behind it. ffmpeg
//! and live555 join strings, so the track may end up behind a query; GStreamer resolves by RFC 3986. `?delay=SECONDS` names the
//! source as it was so long ago.

use percent_encoding::percent_decode_str;
use rtsp_types::Url;

use super::names::without_control;

/// A named source, and perhaps one of its tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The camera.
    pub camera: String,
    /// The source; `main` when the URL names none.
    pub source: String,
    /// How far behind it is to be.
    pub delay: Delay,
    /// The track.
    pub track: Control,
}

/// Which moment of the source is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delay {
    /// The present one.
    #[default]
    Live,
    /// So many seconds ago.
    Behind(u32),
    /// `delay` is no whole number of seconds, or one that is not served.
    Bad,
}

/// The delays that are served, seconds. Below the first, what comes late by a bad link would still be missing.
pub const DELAYS: std::ops::RangeInclusive<u32> = 5..=86_400;

/// What the control part names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The whole presentation.
    Aggregate,
    /// One track, `trackID=N`.
    Track(usize),
    /// Something that no description of ours names.
    Unknown,
}

impl Path {
    /// Reads a URL; none when it cannot name a source.
    #[must_use]
    pub fn parse(url: &Url) -> Option<Self> {
        let mut segments: Vec<String> = url
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned))
            .collect::<Result<_, _>>()
            .ok()?;
        let mut track = Control::Aggregate;
        if let Some(behind_query) = url.query().and_then(|query| query.trim_end_matches('/').rsplit_once('/')) {
            track = control(behind_query.1).unwrap_or(Control::Aggregate);
        }
        if track == Control::Aggregate
            && let Some(found) = segments.last().and_then(|last| control(last))
        {
            track = found;
            segments.pop();
        }
        let mut segments = segments.into_iter();
        let camera = segments.next()?;
        let source = segments.next().unwrap_or_else(|| "main".to_owned());
        let delay = delay(url.query().unwrap_or_default());
        segments.next().is_none().then_some(Self { camera, source, delay, track })
    }

    /// True when both name the same source.
    #[must_use]
    pub fn is_same_source(&self, other: &Self) -> bool {
        self.camera == other.camera && self.source == other.source && self.delay == other.delay
    }
}

/// The delay that a query asks for; a control part may be behind it.
fn delay(query: &str) -> Delay {
    let query = match query.trim_end_matches('/').rsplit_once('/') {
        Some((before, last)) if control(last).is_some() => before,
        _ => query,
    };
    let asked = query.trim_end_matches('/').split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, seconds)) = asked.into_iter().find(|(name, _)| *name == "delay") else { return Delay::Live };
    match seconds.parse() {
        Ok(seconds) if DELAYS.contains(&seconds) => Delay::Behind(seconds),
        _ => Delay::Bad,
    }
}

/// `trackID=N`; VLC's odd fall-back `stream=N` counts as the whole, which suits sources of one track.
pub(super) fn control(segment: &str) -> Option<Control> {
    let (name, value) = segment.split_once('=')?;
    match name {
        "trackID" => Some(match value.parse() {
            Ok(index) if value.bytes().all(|byte| byte.is_ascii_digit()) => Control::Track(index),
            _ => Control::Unknown,
        }),
        "stream" => Some(Control::Aggregate),
        _ => None,
    }
}

/// `Content-Base`: the URL as the client wrote it, without user and password, always ending in a slash, so that joining
/// strings and resolving by RFC 3986 give the same (but for a URL with a query, which resolving loses).
#[must_use]
pub fn content_base(url: &Url) -> String {
    let (mut url, _) = without_control(url);
    // Both fail only for URLs that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let mut base = url.to_string();
    if !base.ends_with('/') {
        base.push('/');
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(url: &str) -> Option<(String, String, Control)> {
        let path = Path::parse(&Url::parse(url).expect("a URL"))?;
        Some((path.camera, path.source, path.track))
    }

    fn named(camera: &str, source: &str, track: Control) -> Option<(String, String, Control)> {
        Some((camera.to_owned(), source.to_owned(), track))
    }

    #[test]
    fn names_with_and_without_slash_query_and_track() {
        for url in
            ["rtsp://h:7554/cam/sub", "rtsp://h/cam/sub/", "rtsp://h//cam/sub?token=a/b", "rtsp://u:p@h/cam/sub/?x"]
        {
            assert_eq!(path(url), named("cam", "sub", Control::Aggregate), "{url}");
        }
        for url in [
            "rtsp://h/cam/sub/trackID=1",
            "rtsp://h/cam/sub/trackID=1/",
            "rtsp://h/cam/sub?token=x/trackID=1",
            "rtsp://h/cam/sub/trackID=1?token=x",
            "rtsp://h/cam/sub/?token=x/trackID=1/",
        ] {
            assert_eq!(path(url), named("cam", "sub", Control::Track(1)), "{url}");
        }
        assert_eq!(path("rtsp://h/cam"), named("cam", "main", Control::Aggregate));
        assert_eq!(path("rtsp://h/cam/trackID=0"), named("cam", "main", Control::Track(0)));
        assert_eq!(path("rtsp://h/b%C3%BCro%2f1/sub"), named("büro/1", "sub", Control::Aggregate));
        assert_eq!(path("rtsp://h/cam/sub/stream=0"), named("cam", "sub", Control::Aggregate));
    }

    #[test]
    fn the_delay_is_a_whole_number_of_seconds() {
        let delay = |query: &str| {
            let url = Url::parse(&format!("rtsp://h/cam/sub{query}")).expect("a URL");
            Path::parse(&url).expect("a path").delay
        };
        for query in [
            "?delay=60",
            "?delay=60/",
            "?token=a/b&delay=60",
            "?delay=60&x=1",
            "?delay=60/trackID=1",
            "/trackID=1?delay=60",
        ] {
            assert_eq!(delay(query), Delay::Behind(60), "{query}");
        }
        for query in
            ["?delay=4", "?delay=86401", "?delay=", "?delay=-5", "?delay=5.5", "?delay=1m", "?delay=99999999999"]
        {
            assert_eq!(delay(query), Delay::Bad, "{query}");
        }
        assert_eq!((delay(""), delay("?delays=60"), delay("?delay")), (Delay::Live, Delay::Live, Delay::Live));
    }

    #[test]
    fn tracks_match_exactly() {
        assert_eq!(path("rtsp://h/cam/sub/trackID=1x"), named("cam", "sub", Control::Unknown));
        assert_eq!(path("rtsp://h/cam/sub/trackID=+1"), named("cam", "sub", Control::Unknown));
        assert_eq!(path("rtsp://h/cam/sub/xtrackID=1"), None);
        assert_eq!(path("rtsp://h/"), None);
        assert_eq!(path("rtsp://h/cam/%ff"), None);
    }

    #[test]
    fn the_base_joins_by_string_and_by_resolution() {
        for url in ["rtsp://h/cam/sub", "rtsp://h/cam/sub/", "rtsp://u:p@h/cam/sub/trackID=3"] {
            let base = content_base(&Url::parse(url).expect("a URL"));
            assert_eq!(base, "rtsp://h/cam/sub/");
            let resolved = Url::parse(&base).and_then(|base| base.join("trackID=1")).expect("resolves");
            assert_eq!(resolved.to_string(), format!("{base}trackID=1"));
        }
        for url in ["rtsp://h/x/cam?a=b", "rtsp://h/x/cam/trackID=1?a=b", "rtsp://h/x/cam?a=b/trackID=2/"] {
            assert_eq!(content_base(&Url::parse(url).expect("a URL")), "rtsp://h/x/cam?a=b/", "{url}");
        }
        let base = content_base(&Url::parse("rtsp://h/cam/sub?a=b").expect("a URL"));
        assert_eq!(path(&format!("{base}trackID=1")), named("cam", "sub", Control::Track(1)));
    }
}
