//! The conversation, bytes in and bytes out, without a socket.

use camagent_media::{Codec, Framing, TrackReader};

use super::*;
use crate::live::TrackDescription;
use crate::rtsp::CameraNames;

const URL: &str = "rtsp://h:7554/cam/main";

/// A client and what it sees; look-ups are answered at once with two G.711 tracks.
struct Talk {
    session: Session,
    deeds: Vec<String>,
    found: Result<usize, Refusal>,
}

impl Talk {
    fn new() -> Self {
        Self { session: Session::new("5e5510f5e5510f00".into(), 77, 60), deeds: Vec::new(), found: Ok(2) }
    }

    /// A client that has both tracks set up on their canonical channels.
    fn set_up() -> Self {
        let mut talk = Self::new();
        talk.setup(0, "RTP/AVP/TCP;unicast;interleaved=0-1");
        talk.setup(1, "RTP/AVP/TCP;unicast;interleaved=2-3");
        talk
    }

    fn say(&mut self, bytes: &str) -> String {
        self.session.receive(bytes.as_bytes());
        self.drain()
    }

    fn drain(&mut self) -> String {
        let mut out = String::new();
        let mut next = None;
        while let Some(step) = next.take().or_else(|| self.session.poll()) {
            match step {
                Step::Send(bytes) => out.push_str(std::str::from_utf8(&bytes).expect("responses are text")),
                Step::Authenticate(claim) => {
                    self.deeds.push(format!("authenticate {}", claim.method));
                    next = Some(self.session.judged(match claim.authorization.as_deref() {
                        Some("right") => Judgement::Granted("ops".into()),
                        None => Judgement::Challenged("Digest a".into()),
                        Some(_) => Judgement::Refused { challenge: "Digest b".into(), name: "ops".into() },
                    }));
                }
                Step::Lookup(path) => {
                    self.deeds.push(format!("look up {}/{}", path.camera, path.source));
                    next = Some(self.session.looked_up(self.found.map(presentation)));
                }
                Step::Play { tracks, .. } => {
                    self.deeds.push(format!("play {tracks:b}"));
                    let starts = [
                        Start { track: 0, sequence: 65_535, rtp_time: Some(4_294_967_295) },
                        Start { track: 1, sequence: 7, rtp_time: None },
                    ];
                    next = Some(self.session.started(&starts));
                }
                Step::Pause => self.deeds.push("pause".into()),
                Step::Keep { tracks } => self.deeds.push(format!("keep {tracks:b}")),
                Step::Close => {
                    self.deeds.push("close".into());
                    break;
                }
            }
        }
        out
    }

    fn ask(&mut self, method: &str, url: &str, headers: &str) -> String {
        self.say(&format!("{method} {url} RTSP/1.0\r\nCSeq: 5\r\n{headers}\r\n"))
    }

    fn setup(&mut self, track: usize, transport: &str) -> String {
        self.ask("SETUP", &format!("{URL}/trackID={track}"), &format!("Transport: {transport}\r\n"))
    }
}

fn presentation(tracks: usize) -> Presentation {
    let track = |index: usize| {
        let codec = if index == 0 { Codec::Pcma } else { Codec::Pcmu };
        let reader = TrackReader::new(codec, Framing::Raw, &[], 8000, 1).expect("G.711 needs nothing");
        let parameters = reader.parameters().expect("known at once").clone();
        TrackDescription { index, payload_type: if index == 0 { 8 } else { 0 }, ssrc: 0xab, parameters }
    };
    Presentation { tracks: (0..tracks).map(track).collect(), layout: 0 }
}

fn status(response: &str) -> &str {
    response.get(9..12).unwrap_or(response)
}

fn field<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    response.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn options_tell_the_methods_also_for_the_star() {
    let mut talk = Talk::new();
    for url in ["*", URL] {
        let response = talk.ask("OPTIONS", url, "");
        assert_eq!(status(&response), "200");
        assert_eq!(field(&response, "CSeq"), Some("5"));
        let public = field(&response, "Public").expect("the methods");
        for method in ["DESCRIBE", "SETUP", "PLAY", "PAUSE", "GET_PARAMETER", "SET_PARAMETER", "TEARDOWN"] {
            assert!(public.contains(method), "{public}");
        }
    }
}

#[test]
fn describe_gives_a_base_with_a_slash_and_an_sdp_of_all_tracks() {
    let mut talk = Talk::new();
    let response = talk.ask("DESCRIBE", "rtsp://user:secret@h:7554/cam/main", "Accept: application/sdp\r\n");
    assert_eq!(status(&response), "200");
    assert_eq!(field(&response, "Content-Base"), Some("rtsp://h:7554/cam/main/"), "nobody's password comes back");
    assert_eq!(field(&response, "Content-Type"), Some("application/sdp"));
    for line in ["s=", "c=IN IP4 0.0.0.0", "t=0 0", "a=range:npt=now-", "a=control:trackID=0", "a=control:trackID=1"] {
        assert!(response.contains(line), "{response}");
    }
    assert_eq!(talk.deeds, ["look up cam/main"]);
}

#[test]
fn what_cannot_be_described_says_why() {
    for (refusal, code, words) in [
        (Refusal::UnknownCamera, "404", "No such camera"),
        (Refusal::UnknownSource, "404", "no such source"),
        (Refusal::Offline, "503", "offline"),
        (Refusal::NoPicture, "503", "no picture"),
        (Refusal::BadDelay, "400", "5 to 86400"),
        (Refusal::NotRecorded, "404", "not recorded"),
        (Refusal::NothingThen, "404", "of that time"),
        (Refusal::TooManyDelays, "503", "delays"),
    ] {
        let mut talk = Talk::new();
        talk.found = Err(refusal);
        let response = talk.ask("DESCRIBE", URL, "");
        assert_eq!(status(&response), code);
        assert!(response.lines().next().expect("a line").contains(words), "{response}");
        assert_eq!(status(&talk.ask("SETUP", URL, "Transport: RTP/AVP/TCP\r\n")), code);
        assert_eq!(status(&talk.ask("OPTIONS", "*", "")), "200", "the connection lives");
    }
    let mut talk = Talk::new();
    assert_eq!(status(&talk.ask("DESCRIBE", URL, "Accept: text/html\r\n")), "406");
    assert_eq!(status(&talk.ask("DESCRIBE", "rtsp://h/", "")), "404");
}

#[test]
fn udp_is_refused_with_461_and_the_client_may_come_back_with_tcp() {
    let mut talk = Talk::new();
    assert_eq!(status(&talk.setup(0, "RTP/AVP;unicast;client_port=5000-5001")), "461");
    assert_eq!(status(&talk.setup(0, "RTP/AVP;multicast")), "461");
    let response = talk.setup(0, "RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;unicast;interleaved=0-1");
    assert_eq!(status(&response), "200");
    assert_eq!(field(&response, "Session"), Some("5e5510f5e5510f00;timeout=60"));
    let transport = field(&response, "Transport").expect("echoed");
    assert!(transport.starts_with("RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=000000AB"), "{transport}");
}

#[test]
fn channels_of_the_client_are_kept_and_missing_ones_are_chosen() {
    let mut talk = Talk::new();
    assert!(talk.setup(1, "RTP/AVP/TCP;unicast").contains("interleaved=2-3"));
    assert!(talk.setup(0, "RTP/AVP/TCP;unicast;interleaved=10-11;mode=\"PLAY\"").contains("interleaved=10-11"));
    assert_eq!(talk.session.channels(0), Some(Channels { rtp: 10, rtcp: 11 }));
    let mut talk = Talk::new();
    talk.setup(0, "RTP/AVP/TCP;interleaved=0-1");
    assert_eq!(status(&talk.setup(1, "RTP/AVP/TCP;interleaved=1-2")), "400", "taken");
    assert_eq!(status(&talk.setup(1, "RTP/AVP/TCP;interleaved=300-301")), "400");
}

#[test]
fn tracks_are_matched_exactly_and_one_track_needs_no_name() {
    let mut talk = Talk::new();
    assert_eq!(status(&talk.setup(2, "RTP/AVP/TCP")), "404");
    assert_eq!(status(&talk.ask("SETUP", &format!("{URL}/trackID=0x"), "Transport: RTP/AVP/TCP\r\n")), "404");
    assert_eq!(status(&talk.ask("SETUP", URL, "Transport: RTP/AVP/TCP\r\n")), "459");
    talk.setup(0, "RTP/AVP/TCP");
    assert_eq!(status(&talk.setup(0, "RTP/AVP/TCP")), "455", "a track is set up once");
    for url in [URL.to_owned(), format!("{URL}/"), format!("{URL}/stream=0")] {
        let mut talk = Talk::new();
        talk.found = Ok(1);
        assert_eq!(status(&talk.ask("SETUP", &url, "Transport: RTP/AVP/TCP\r\n")), "200", "{url}");
    }
}

#[test]
fn a_track_behind_a_query_or_before_it() {
    for url in ["rtsp://h/cam/main?token=x/trackID=1", "rtsp://h/cam/main/trackID=1?token=x"] {
        let mut talk = Talk::new();
        let response = talk.ask("SETUP", url, "Transport: RTP/AVP/TCP\r\n");
        assert!(response.contains("interleaved=2-3"), "{response}");
    }
}

#[test]
fn play_tells_the_first_packets_and_leaves_out_what_it_does_not_know() {
    for url in [URL.to_owned(), format!("{URL}/"), format!("{URL}/trackID=0")] {
        let mut talk = Talk::set_up();
        let response = talk.ask("PLAY", &url, "Range: npt=0.000-\r\nSession: 5e5510f5e5510f00\r\n");
        assert_eq!(status(&response), "200");
        assert_eq!(field(&response, "Range"), Some("npt=now-"));
        let info = "url=rtsp://h:7554/cam/main/trackID=0;seq=65535;rtptime=4294967295,\
                    url=rtsp://h:7554/cam/main/trackID=1;seq=7";
        assert_eq!(field(&response, "RTP-Info"), Some(info));
        assert_eq!(talk.deeds.last().map(String::as_str), Some("play 11"));
        assert!(talk.session.is_playing());
        assert_eq!(status(&talk.ask("PLAY", &url, "")), "200", "again is no harm");
        assert_eq!(status(&talk.setup(1, "RTP/AVP/TCP")), "455", "not while playing");
    }
}

#[test]
fn methods_in_the_wrong_state() {
    let mut talk = Talk::new();
    assert_eq!(status(&talk.ask("PLAY", URL, "")), "455");
    assert_eq!(status(&talk.ask("PAUSE", URL, "")), "455");
    assert_eq!(status(&talk.ask("TEARDOWN", URL, "")), "454");
    assert_eq!(status(&talk.ask("PLAY", URL, "Session: 1\r\n")), "454");
    let mut talk = Talk::set_up();
    assert_eq!(status(&talk.ask("PLAY", "rtsp://h/other/main", "")), "404");
    assert_eq!(status(&talk.ask("PLAY", URL, "Session: somebody-elses\r\n")), "454");
}

#[test]
fn one_connection_carries_one_session() {
    let mut talk = Talk::set_up();
    assert_eq!(status(&talk.ask("SETUP", "rtsp://h/other/main/trackID=0", "Transport: RTP/AVP/TCP\r\n")), "455");
    let response = talk.ask("SETUP", &format!("{URL}/trackID=1"), "Session: 0\r\nTransport: RTP/AVP/TCP\r\n");
    assert_eq!(status(&response), "454");
}

#[test]
fn pause_stops_before_it_answers_and_play_goes_on() {
    let mut talk = Talk::set_up();
    talk.ask("PLAY", URL, "");
    talk.session.receive(format!("PAUSE {URL} RTSP/1.0\r\nCSeq: 8\r\n\r\n").as_bytes());
    assert!(matches!(talk.session.poll(), Some(Step::Pause)), "the deed comes first");
    assert!(talk.drain().contains("CSeq: 8"));
    assert!(!talk.session.is_playing());
    assert_eq!(status(&talk.ask("PLAY", URL, "")), "200");
    assert_eq!(talk.deeds.last().map(String::as_str), Some("play 11"));
}

#[test]
fn teardown_of_a_track_keeps_the_others_and_of_all_ends() {
    let mut talk = Talk::set_up();
    talk.ask("PLAY", URL, "");
    assert_eq!(status(&talk.ask("TEARDOWN", &format!("{URL}/trackID=1"), "")), "200");
    assert_eq!(talk.deeds.last().map(String::as_str), Some("keep 1"));
    assert!(talk.session.is_playing());
    assert_eq!(status(&talk.ask("TEARDOWN", &format!("{URL}/"), "")), "200");
    assert_eq!(talk.deeds.last().map(String::as_str), Some("keep 0"));
    assert!(!talk.session.is_playing());
    assert_eq!(status(&talk.ask("PLAY", URL, "")), "455");
    assert_eq!(status(&talk.setup(0, "RTP/AVP/TCP")), "200", "a new session may follow");
}

#[test]
fn keep_alives_with_and_without_a_body() {
    let mut talk = Talk::set_up();
    let session = "Session: 5e5510f5e5510f00\r\n";
    assert_eq!(status(&talk.ask("GET_PARAMETER", URL, session)), "200");
    let response = talk.ask("GET_PARAMETER", URL, &format!("{session}Content-Length: 4\r\n"));
    assert_eq!(response, "", "the body is awaited");
    assert_eq!(status(&talk.say("ping")), "200");
    assert_eq!(status(&talk.ask("SET_PARAMETER", URL, session)), "200");
    talk.ask("SET_PARAMETER", URL, "Content-Length: 5\r\n");
    assert_eq!(status(&talk.say("x: y\n")), "451");
    assert_eq!(status(&talk.ask("OPTIONS", URL, session)), "200");
}

#[test]
fn unknown_methods_are_answered() {
    let mut talk = Talk::new();
    for (method, code) in [("ANNOUNCE", "405"), ("RECORD", "405"), ("FROBNICATE", "501")] {
        let response = talk.ask(method, URL, "");
        assert_eq!(status(&response), code);
        assert!(field(&response, "Allow").is_some_and(|allow| allow.contains("SETUP")), "{response}");
        assert_eq!(field(&response, "CSeq"), Some("5"));
    }
    let response = talk.ask("DESCRIBE", URL, "Require: onvif-replay\r\n");
    assert_eq!((status(&response), field(&response, "Unsupported")), ("551", Some("onvif-replay")));
    assert_eq!(status(&talk.say("OPTIONS * RTSP/2.0\r\nCSeq: 3\r\n\r\n")), "505");
    assert_eq!(status(&talk.ask("OPTIONS", "*", "")), "200");
}

#[test]
fn pipelined_requests_are_answered_in_order_also_behind_a_wait() {
    let mut talk = Talk::new();
    let all: String = ["OPTIONS", "DESCRIBE"]
        .iter()
        .enumerate()
        .map(|(index, method)| format!("{method} {URL} RTSP/1.0\r\nCSeq: {index}\r\n\r\n"))
        .chain([format!("SETUP {URL}/trackID=0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP\r\n\r\n")])
        .chain([format!("$\x01\x00\x04abcdPLAY {URL} RTSP/1.0\r\nCSeq: 3\r\n\r\n")])
        .collect();
    talk.session.receive(all.as_bytes());
    assert!(matches!(talk.session.poll(), Some(Step::Send(_))));
    assert!(matches!(talk.session.poll(), Some(Step::Lookup(_))));
    assert!(talk.session.poll().is_none(), "nothing overtakes a DESCRIBE that waits");
    let Step::Send(described) = talk.session.looked_up(Ok(presentation(2))) else { panic!("a response") };
    assert!(described.starts_with(b"RTSP/1.0 200"));
    let rest = talk.drain();
    let order: Vec<_> = rest.lines().filter_map(|line| line.strip_prefix("CSeq: ")).collect();
    assert_eq!(order, ["2", "3"]);
}

#[test]
fn a_stream_without_rhythm_is_answered_and_closed() {
    let mut talk = Talk::new();
    assert_eq!(status(&talk.say("GET / HTTP/1.1\r\n\r\n")), "400");
    assert_eq!(talk.deeds, ["close"]);
}

#[test]
fn with_a_login_everything_but_options_needs_one() {
    let mut talk = Talk::new();
    talk.session = Session::new("5e5510f5e5510f00".into(), 77, 60).with_login(true);
    assert_eq!(status(&talk.ask("OPTIONS", URL, "")), "200");
    for method in ["DESCRIBE", "SETUP", "PLAY", "PAUSE", "GET_PARAMETER", "TEARDOWN", "FROBNICATE"] {
        let response = talk.ask(method, URL, "");
        assert_eq!((status(&response), field(&response, "WWW-Authenticate")), ("401", Some("Digest a")), "{method}");
        assert_eq!(field(&response, "CSeq"), Some("5"));
    }
    let right = "Authorization: right\r\n";
    assert_eq!(status(&talk.ask("DESCRIBE", URL, right)), "200");
    let transport = "Transport: RTP/AVP/TCP;unicast\r\n";
    assert_eq!(status(&talk.ask("SETUP", &format!("{URL}/trackID=0"), transport)), "401", "each time");
    assert_eq!(status(&talk.ask("SETUP", &format!("{URL}/trackID=0"), &format!("{transport}{right}"))), "200");
    assert_eq!(status(&talk.ask("PLAY", URL, "")), "200", "the connection is known");
    assert_eq!(status(&talk.ask("TEARDOWN", URL, "")), "200");
}

#[test]
fn guessing_ends_with_the_connection() {
    let mut talk = Talk::new();
    talk.session = Session::new("5e5510f5e5510f00".into(), 77, 60).with_login(true);
    for _ in 0..10 {
        assert_eq!(status(&talk.ask("DESCRIBE", URL, "Authorization: wrong\r\n")), "401");
    }
    assert_eq!(talk.deeds.last().map(String::as_str), Some("close"));
}

#[test]
fn the_paths_of_a_camera() {
    let url = "rtsp://h:8554/cam/realmonitor?channel=1&subtype=0";
    let names = || {
        let sources =
            [("main", "/cam/realmonitor?channel=1&subtype=0"), ("sub", "/cam/realmonitor?channel=1&subtype=1")];
        Names::Camera(CameraNames::new("gate", sources))
    };
    // ffmpeg and live555 join strings, GStreamer puts the control before the query, others resolve by RFC 3986.
    for control in [
        format!("{url}/trackID=1"),
        "rtsp://h:8554/cam/realmonitor/trackID=1?channel=1&subtype=0".to_owned(),
        "rtsp://h:8554/cam/trackID=1".to_owned(),
    ] {
        let mut talk = Talk::new();
        talk.session = Session::new("5e5510f5e5510f00".into(), 77, 60).with_names(names());
        let response = talk.ask("DESCRIBE", url, "");
        assert_eq!(field(&response, "Content-Base"), Some(&*format!("{url}/")));
        assert_eq!(status(&talk.ask("SETUP", &control, "Transport: RTP/AVP/TCP;unicast\r\n")), "200", "{control}");
        let response = talk.ask("PLAY", &format!("{url}/"), "");
        assert_eq!(status(&response), "200", "{control}");
        assert_eq!(talk.deeds, ["look up gate/main", "play 10"]);
        assert_eq!(status(&talk.ask("DESCRIBE", "rtsp://h/gate/main", "")), "404", "the relay's names are not ours");
    }
}
