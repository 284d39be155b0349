//! What URLs name on one listener: `/{camera}/{source}` at the relay, the camera's own paths at a tunnel's port, so that
//! a viewer finds a source where it would find it at the camera itself. Players write paths in many dresses: percent
//! codes, slashes at the end, and the control part of a track before or behind the query.

use percent_encoding::percent_decode_str;
use rtsp_types::Url;

use super::path::{Control, Delay, Path, control};

/// How URLs are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// `/{camera}/{source}`, for every camera.
    #[default]
    Relay,
    /// The paths of one camera's own RTSP server.
    Camera(CameraNames),
}

/// The paths of one camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraNames {
    camera: String,
    sources: Vec<(String, Key)>,
}

/// A path in its plainest dress.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    path: Vec<u8>,
    query: Vec<u8>,
}

impl Names {
    /// The source, and perhaps the track, that a URL names.
    #[must_use]
    pub fn find(&self, url: &Url) -> Option<Path> {
        match self {
            Self::Relay => Path::parse(url),
            Self::Camera(names) => names.find(url),
        }
    }

    /// What a 404 says.
    pub(super) const fn expected(&self) -> &'static str {
        match self {
            Self::Relay => "The URL is not rtsp://HOST/{camera}/{source}",
            Self::Camera(_) => "The URL is not the path of a source that the session can carry",
        }
    }
}

impl CameraNames {
    /// The sources of a camera, each with its path on the camera's own server; a path that is none is left out.
    pub fn new<'a>(camera: &str, sources: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let read = |(source, path): (&str, &str)| Some((source.to_owned(), Key::of(&absolute(path)?)));
        Self { camera: camera.to_owned(), sources: sources.into_iter().filter_map(read).collect() }
    }

    /// The source, and perhaps the track, that a URL names.
    #[must_use]
    pub fn find(&self, url: &Url) -> Option<Path> {
        let (without, track) = without_control(url);
        let named = |key: &Key, track| {
            let (source, _) = self.sources.iter().find(|(_, own)| own == key)?;
            Some(Path { camera: self.camera.clone(), source: source.clone(), delay: Delay::Live, track })
        };
        named(&Key::of(url), Control::Aggregate).or_else(|| named(&Key::of(&without), track?))
    }
}

impl Key {
    fn of(url: &Url) -> Self {
        let plain = |text: &str| percent_decode_str(text.trim_matches('/')).collect::<Vec<u8>>();
        Self { path: plain(url.path()), query: plain(url.query().unwrap_or_default()) }
    }
}

/// The path of a camera as a URL.
fn absolute(path: &str) -> Option<Url> {
    if path.contains("://") {
        return Url::parse(path).ok();
    }
    Url::parse(&format!("rtsp://camera/{}", path.trim_start_matches('/'))).ok()
}

/// The URL without the control part of a track, and which track it was.
pub(super) fn without_control(url: &Url) -> (Url, Option<Control>) {
    let cut = |text: &str| {
        let (before, last) = text.trim_end_matches('/').rsplit_once('/')?;
        Some((before.to_owned(), control(last)?))
    };
    let mut without = url.clone();
    let mut track = None;
    if let Some((query, found)) = url.query().and_then(cut) {
        without.set_query(Some(&query));
        track = Some(found);
    }
    if let Some((path, found)) = cut(url.path()) {
        without.set_path(&path);
        track = track.or(Some(found));
    }
    (without, track)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(url: &str) -> Option<(String, Control)> {
        let names = CameraNames::new(
            "gate",
            [
                ("main", "/cam/realmonitor?channel=1&subtype=0"),
                ("sub", "cam/realmonitor?channel=1&subtype=1"),
                ("hik", "/Streaming/Channels/101/"),
                ("none", "rtsp://[oops/"),
            ],
        );
        let path = names.find(&Url::parse(url).expect("a URL"))?;
        assert_eq!(path.camera, "gate");
        Some((path.source, path.track))
    }

    #[test]
    fn a_path_in_every_dress() {
        for url in [
            "rtsp://h:8554/cam/realmonitor?channel=1&subtype=0",
            "rtsp://user:secret@h/cam/realmonitor?channel=1&subtype=0/",
            "rtsp://h//cam/realmonitor/?channel=1&subtype=0",
            "rtsp://h/cam/real%6donitor?channel=1%26subtype=0",
        ] {
            assert_eq!(find(url), Some(("main".into(), Control::Aggregate)), "{url}");
        }
        for url in [
            "rtsp://h/cam/realmonitor?channel=1&subtype=1/trackID=1",
            "rtsp://h/cam/realmonitor?channel=1&subtype=1/trackID=1/",
            "rtsp://h/cam/realmonitor/?channel=1&subtype=1/trackID=1",
            "rtsp://h/cam/realmonitor/trackID=1?channel=1&subtype=1",
        ] {
            assert_eq!(find(url), Some(("sub".into(), Control::Track(1))), "{url}");
        }
        assert_eq!(find("rtsp://h/Streaming/Channels/101"), Some(("hik".into(), Control::Aggregate)));
        assert_eq!(find("rtsp://h/Streaming/Channels/101/trackID=0"), Some(("hik".into(), Control::Track(0))));
    }

    #[test]
    fn other_paths_are_not_ours() {
        for url in [
            "rtsp://h/cam/realmonitor",
            "rtsp://h/cam/realmonitor?channel=1",
            "rtsp://h/cam/realmonitor?channel=1&subtype=2",
            "rtsp://h/cam/realmonitor?channel=1&subtype=0&unicast=true",
            "rtsp://h/gate/main",
            "rtsp://h/",
            "rtsp://h/Streaming/Channels/101/streamid=0",
        ] {
            assert_eq!(find(url), None, "{url}");
        }
    }
}
