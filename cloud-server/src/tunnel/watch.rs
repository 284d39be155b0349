//! The watcher on a tunnelled RTSP connection, as a value: octets of both sides in, octets for both sides out.
//!
//! Media over UDP cannot pass a tunnel. A viewer that asks for nothing else in SETUP would be answered by the camera with
//! ports that nobody reaches, and would wait for a picture in vain. So the watcher answers such a SETUP itself with 461,
//! upon which players ask for interleaved TCP. Everything else passes untouched. After PLAY, or as soon as it cannot
//! follow what is said, it is off for good and touches nothing any more. RTSP 1.0, RFC 2326.

use rtsp_types::{StatusCode, headers};

use super::follower::{Follower, Head, Piece};
use crate::rtsp::message::response;

/// Longest CSeq and Session that are echoed.
const MAX_ECHO: usize = 256;

/// Follows one connection.
#[derive(Debug, Default)]
pub(super) struct Watch {
    viewer: Follower,
    camera: Follower,
    /// Requests of the viewer that the camera has not answered.
    unanswered: u32,
    /// The camera is in the middle of a final response.
    answering: bool,
    /// The viewer is in the middle of a request that is not passed on.
    refusing: Option<Refusal>,
    /// A refusal that waits until everything before it is answered.
    waiting: Option<Refusal>,
    /// What the viewer said behind it.
    held: Vec<u8>,
    off: bool,
}

#[derive(Debug)]
struct Refusal {
    answer: Vec<u8>,
    /// The request, for the case that it must be passed on after all.
    request: Vec<u8>,
}

impl Watch {
    /// True when everything passes from now on; nothing is kept back then.
    pub(super) fn is_off(&self) -> bool {
        self.off
    }

    /// False while nothing more should be read from the viewer.
    pub(super) fn wants_more(&self) -> bool {
        self.waiting.is_none()
    }

    /// Takes what the viewer said.
    pub(super) fn viewer_said(&mut self, octets: &[u8], to_camera: &mut Vec<u8>, to_viewer: &mut Vec<u8>) {
        let mut rest = octets;
        while !self.off && self.waiting.is_none() {
            let count = match self.viewer.next(rest) {
                Piece::More => return,
                Piece::Partial(count) => count,
                Piece::Pass(count) => {
                    let target = self.refusing.as_mut().map_or(&mut *to_camera, |refusal| &mut refusal.request);
                    target.extend_from_slice(&rest[..count]);
                    count
                }
                Piece::Head(count, head) => {
                    self.head_of_viewer(head, to_camera);
                    count
                }
                Piece::End => {
                    self.waiting = self.refusing.take();
                    self.answer(to_viewer);
                    0
                }
                Piece::Lost => {
                    self.off = true;
                    to_camera.append(&mut self.viewer.take_partial());
                    0
                }
            };
            rest = &rest[count..];
        }
        if self.off { to_camera.extend_from_slice(rest) } else { self.held.extend_from_slice(rest) }
    }

    /// Takes what the camera said. Its octets are never kept back.
    pub(super) fn camera_said(&mut self, octets: &[u8], to_camera: &mut Vec<u8>, to_viewer: &mut Vec<u8>) {
        let mut rest = octets;
        while !self.off {
            let count = match self.camera.next(rest) {
                Piece::More => return,
                Piece::Pass(count) | Piece::Partial(count) => count,
                Piece::Head(count, head) => {
                    // 1xx comes before the answer.
                    self.answering = head.status().is_some_and(|status| !status.starts_with('1'));
                    count
                }
                Piece::End => {
                    self.unanswered = self.unanswered.saturating_sub(u32::from(std::mem::take(&mut self.answering)));
                    0
                }
                Piece::Lost => {
                    self.off = true;
                    if let Some(refusal) = self.waiting.take() {
                        to_camera.extend_from_slice(&refusal.request);
                    }
                    to_camera.append(&mut self.held);
                    self.rest_of_viewer(to_camera);
                    0
                }
            };
            to_viewer.extend_from_slice(&rest[..count]);
            rest = &rest[count..];
            if self.waiting.is_some() && self.answer(to_viewer) {
                let held = std::mem::take(&mut self.held);
                self.viewer_said(&held, to_camera, to_viewer);
            }
        }
        to_viewer.extend_from_slice(rest);
    }

    /// The viewer will say nothing more: what it left unfinished is passed on.
    pub(super) fn viewer_ended(&mut self, to_camera: &mut Vec<u8>) {
        if self.waiting.is_none() {
            self.rest_of_viewer(to_camera);
            self.off = true;
        }
    }

    /// What was kept back of a message that is not complete.
    fn rest_of_viewer(&mut self, to_camera: &mut Vec<u8>) {
        if let Some(refusal) = self.refusing.take() {
            to_camera.extend_from_slice(&refusal.request);
        }
        to_camera.append(&mut self.viewer.take_partial());
    }

    fn head_of_viewer(&mut self, head: Head, to_camera: &mut Vec<u8>) {
        match head.method() {
            Some("SETUP") if needs_udp(&head) => {
                let echo = |name| head.values(name).next().filter(|value| value.len() <= MAX_ECHO);
                let session = echo("session").map(|session| (headers::SESSION, session));
                let reason = Some("Unsupported Transport: only RTP/AVP/TCP passes this tunnel");
                let status = StatusCode::UnsupportedTransport;
                let answer = response(status, reason, echo("cseq"), session.as_slice(), None);
                self.refusing = Some(Refusal { answer, request: head.octets });
                return;
            }
            Some("PLAY" | "RECORD") => self.off = true,
            Some(_) => self.unanswered = self.unanswered.saturating_add(1),
            // The viewer answers a request of the camera.
            None => {}
        }
        to_camera.extend_from_slice(&head.octets);
    }

    /// Says the refusal that waits, when nothing is before it.
    fn answer(&mut self, to_viewer: &mut Vec<u8>) -> bool {
        if self.unanswered > 0 || !self.camera.is_between() {
            return false;
        }
        let refusal = self.waiting.take();
        to_viewer.extend(refusal.iter().flat_map(|refusal| &refusal.answer));
        refusal.is_some()
    }
}

/// Whether all alternatives of a SETUP are media over UDP. What is not understood is the camera's business.
fn needs_udp(head: &Head) -> bool {
    let mut alternatives = head.values("transport").flat_map(|value| value.split(',')).peekable();
    alternatives.peek().is_some()
        && alternatives.all(|alternative| {
            let mut parts = alternative.split(';').map(str::trim);
            let protocol = parts.next().unwrap_or_default().to_ascii_uppercase();
            let profile = protocol.strip_suffix("/UDP").unwrap_or(&protocol);
            let is_media = matches!(profile, "RTP/AVP" | "RTP/AVPF" | "RTP/SAVP" | "RTP/SAVPF");
            is_media && !parts.any(|part| part.to_ascii_lowercase().starts_with("interleaved"))
        })
}

/// The body of the fuzz target `rtsp_watch`: whatever two sides say, in any cut, nothing is lost, doubled or invented but a
/// refused SETUP and its 461, and nothing piles up.
pub fn fuzz(data: &[u8]) {
    let (mut watch, mut to_camera, mut to_viewer) = (Watch::default(), Vec::new(), Vec::new());
    let (mut said, mut answered) = (Vec::new(), Vec::new());
    let mut rest = data;
    while let [control, more @ ..] = rest {
        let (octets, behind) = more.split_at(more.len().min(usize::from(control >> 1) + 1));
        rest = behind;
        if control & 1 == 0 {
            if !watch.wants_more() {
                // The driver reads no further.
                continue;
            }
            said.extend_from_slice(octets);
            watch.viewer_said(octets, &mut to_camera, &mut to_viewer);
        } else {
            answered.extend_from_slice(octets);
            watch.camera_said(octets, &mut to_camera, &mut to_viewer);
        }
        assert!(watch.held.len() <= 128, "what lies behind a refusal is what was read with it");
        if watch.off {
            assert!(
                watch.waiting.is_none() && watch.refusing.is_none() && watch.held.is_empty(),
                "nothing is forgotten"
            );
        }
    }
    watch.viewer_ended(&mut to_camera);
    // The camera's octets come in order, with nothing between them but refusals.
    let mut refusals = 0;
    if !answered.windows(12).any(|window| window == b"RTSP/1.0 461") {
        let mut given = &to_viewer[..];
        for octet in answered.iter().map(Some).chain([None]) {
            while given.starts_with(b"RTSP/1.0 461") {
                let end = given.windows(4).position(|window| window == b"\r\n\r\n").expect("a refusal is whole");
                given = &given[end + 4..];
                refusals += 1;
            }
            assert_eq!(given.first(), octet, "only refusals are put between");
            given = given.get(1..).unwrap_or_default();
        }
    }
    // The viewer's octets come in order, without the requests that were refused.
    let mut behind = said.iter();
    assert!(to_camera.iter().all(|octet| behind.any(|own| own == octet)), "nothing is invented");
    if refusals == 0 && watch.waiting.is_none() && !to_viewer.windows(4).any(|window| window == b" 461") {
        assert_eq!(to_camera, said, "nothing is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Line {
        watch: Watch,
        to_camera: Vec<u8>,
        to_viewer: Vec<u8>,
    }

    impl Line {
        fn new() -> Self {
            Self { watch: Watch::default(), to_camera: Vec::new(), to_viewer: Vec::new() }
        }

        fn viewer(&mut self, text: &str) -> (String, String) {
            self.watch.viewer_said(text.as_bytes(), &mut self.to_camera, &mut self.to_viewer);
            self.out()
        }

        fn camera(&mut self, text: &str) -> (String, String) {
            self.watch.camera_said(text.as_bytes(), &mut self.to_camera, &mut self.to_viewer);
            self.out()
        }

        fn out(&mut self) -> (String, String) {
            let text = |octets: &mut Vec<u8>| String::from_utf8(std::mem::take(octets)).expect("text");
            (text(&mut self.to_camera), text(&mut self.to_viewer))
        }
    }

    fn setup(cseq: u32, transport: &str) -> String {
        format!("SETUP rtsp://h/a/trackID=0 RTSP/1.0\r\nCSeq: {cseq}\r\nSession: 12\r\nTransport: {transport}\r\n\r\n")
    }

    const UDP: &str = "RTP/AVP/UDP;unicast;client_port=5000-5001";
    const TCP: &str = "RTP/AVP/TCP;unicast;interleaved=0-1";

    #[test]
    fn a_setup_that_wants_udp_only_is_answered_here() {
        let mut line = Line::new();
        for transport in
            [UDP, "RTP/AVP;multicast", &format!("{UDP}, rtp/avp;unicast;client_port=1-2"), "RTP/SAVP;unicast"]
        {
            let (to_camera, to_viewer) = line.viewer(&setup(7, transport));
            assert_eq!(to_camera, "", "{transport}");
            assert!(to_viewer.starts_with("RTSP/1.0 461 Unsupported Transport"), "{to_viewer}");
            assert!(to_viewer.contains("CSeq: 7\r\n") && to_viewer.contains("Session: 12\r\n"), "{to_viewer}");
        }
        for transport in [TCP, &format!("{UDP},{TCP}"), "RTP/AVP;interleaved=0-1", "x-real-rdt/udp", "RAW/RAW/UDP", ""]
        {
            let request = setup(8, transport);
            let reply = "RTSP/1.0 200 OK\r\nCSeq: 8\r\n\r\n";
            assert_eq!(line.viewer(&request), (request, String::new()), "{transport}");
            assert_eq!(line.camera(reply), (String::new(), reply.to_owned()));
        }
    }

    #[test]
    fn a_refusal_waits_for_the_answers_before_it() {
        let mut line = Line::new();
        let describe = "DESCRIBE rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\n\r\n";
        let behind = setup(3, TCP);
        let (to_camera, to_viewer) = line.viewer(&format!("{describe}{}{behind}", setup(2, UDP)));
        assert_eq!((to_camera.as_str(), to_viewer.as_str()), (describe, ""));
        assert!(!line.watch.wants_more());
        assert_eq!(line.camera("RTSP/1.0 200 OK\r\nContent-Len").1, "RTSP/1.0 200 OK\r\nContent-Len");
        let (to_camera, to_viewer) = line.camera("gth: 3\r\n\r\nv=0$\x00\x00\x01x");
        assert_eq!(to_camera, behind, "what was said behind it goes on");
        assert!(to_viewer.starts_with("gth: 3\r\n\r\nv=0RTSP/1.0 461 "), "{to_viewer}");
        assert!(to_viewer.ends_with("\r\n\r\n$\x00\x00\x01x"), "{to_viewer}");
        assert!(line.watch.wants_more() && !line.watch.is_off());
    }

    #[test]
    fn a_refusal_does_not_cut_a_frame_in_two() {
        let mut line = Line::new();
        line.camera("$\x00\x00\x04ab");
        assert_eq!(line.viewer(&setup(1, UDP)).1, "");
        let (_, to_viewer) = line.camera("cd");
        assert!(to_viewer.starts_with("cdRTSP/1.0 461 "), "{to_viewer}");
    }

    #[test]
    fn after_play_nothing_is_touched() {
        let mut line = Line::new();
        let play = "PLAY rtsp://h/a RTSP/1.0\r\nCSeq: 5\r\n\r\n";
        assert_eq!(line.viewer(play).0, play);
        assert!(line.watch.is_off());
        assert_eq!(line.viewer(&setup(6, UDP)).0, setup(6, UDP));
        assert_eq!(line.camera("anything").1, "anything");
    }

    #[test]
    fn what_cannot_be_followed_passes() {
        for octets in ["GET /x HTTP/1.0\r\n\r\n", "\u{16}\u{3}", "options * RTSP/1.0\r\n\r\n"] {
            let mut line = Line::new();
            assert_eq!(line.viewer(octets).0, octets);
            assert!(line.watch.is_off());
        }
        let mut line = Line::new();
        assert_eq!(line.viewer("SETUP rtsp://h RT").0, "", "kept back until it is known");
        line.watch.viewer_ended(&mut line.to_camera);
        assert_eq!(line.out().0, "SETUP rtsp://h RT");
        let mut line = Line::new();
        assert_eq!(line.viewer("$\u{1}").0, "$\u{1}", "a frame is never kept back");
        line.watch.viewer_ended(&mut line.to_camera);
        assert_eq!(line.out().0, "", "and comes once");
    }

    #[test]
    fn a_camera_that_cannot_be_followed_gets_what_was_kept_back() {
        let mut line = Line::new();
        let all = format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n{}OPTIONS", setup(2, UDP));
        let (first, _) = line.viewer(&all);
        let (rest, to_viewer) = line.camera("HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(format!("{first}{rest}"), all);
        assert_eq!(to_viewer, "HTTP/1.1 200 OK\r\n\r\n");
        assert!(line.watch.is_off());
    }

    #[test]
    fn the_corpus_passes() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/rtsp_watch");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).expect("the corpus is in the tree") {
            let octets = std::fs::read(entry.expect("an entry").path()).expect("a readable file");
            for cut in 0..octets.len() {
                fuzz(&octets[cut..]);
            }
            // A little damage everywhere, the same in each run.
            let mut state = 0x9e37_79b9_u32;
            for _ in 0..500 {
                let mut damaged = octets.clone();
                for _ in 0..3 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let at = (state >> 8) as usize % damaged.len();
                    damaged[at] = state.to_be_bytes()[0];
                }
                fuzz(&damaged);
            }
            count += 1;
        }
        assert!(count >= 5, "{count} seeds");
    }
}
