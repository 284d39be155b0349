//! The relay: RTSP 1.0 (RFC 2326), server role, media interleaved in the viewer's TCP connection.
//!
//! * [`message`] bytes to requests, [`path`] and [`names`] URLs, [`transport`] the header of SETUP
//! * [`digest`] and [`accounts`] who may watch
//! * [`session`] the conversation as a value
//! * [`liveness`] when silence is the end
//! * [`connection`] one viewer's socket: drives the session and writes frames from the live log
//! * [`listener`] accepts viewers

pub mod accounts;
pub mod connection;
pub mod digest;
pub mod listener;
pub mod liveness;
pub mod message;
pub mod names;
pub mod path;
pub mod session;
pub mod transport;

pub use accounts::Accounts;
pub use listener::Relay;
pub use names::{CameraNames, Names};

/// The body of the fuzz target `rtsp_request`: any bytes, in any split, end in steps and never in a panic, and no input
/// makes the session grow beyond its limits.
pub fn fuzz_request(data: &[u8]) {
    let first = data.first().copied().unwrap_or_default();
    let login = first.is_multiple_of(5);
    let mut session = session::Session::new("0123456789abcdef".to_owned(), 1, 60).with_login(login);
    let digest = digest::Digest::new(&[7; 32]);
    let chunk = usize::from(first).max(1);
    for bytes in data.chunks(chunk) {
        session.receive(bytes);
        while let Some(step) = session.poll() {
            match step {
                session::Step::Send(bytes) => assert!(bytes.starts_with(b"RTSP/1.0 "), "a response is a response"),
                session::Step::Authenticate(claim) => {
                    assert!(login, "asked only where it is needed");
                    let answer = claim.authorization.as_deref().and_then(digest::Answer::parse);
                    let verdict = answer.map(|answer| digest.judge(&answer, &claim.method, None, 1));
                    assert_ne!(verdict, Some(digest::Verdict::Granted), "there is no account");
                    // Every other one passes, so that what lies behind is reached too.
                    session.judged(match claim.method.len() % 2 {
                        0 => accounts::Judgement::Granted(String::new()),
                        _ => accounts::Judgement::Challenged(digest.challenge(1, false)),
                    });
                }
                session::Step::Lookup(_) => {
                    let found = fuzz_presentation().ok_or(session::Refusal::NoPicture);
                    session.looked_up(found);
                }
                session::Step::Play { tracks, .. } => {
                    assert_ne!(tracks, 0, "PLAY needs a track");
                    session.started(&[]);
                }
                session::Step::Pause | session::Step::Keep { .. } => {}
                session::Step::Close => return,
            }
        }
    }
}

/// Two G.711 tracks: parameters that need no bytes of a camera.
fn fuzz_presentation() -> Option<crate::live::Presentation> {
    use camagent_media::{Codec, Framing, TrackReader};
    let track = |index: usize, codec| {
        let reader = TrackReader::new(codec, Framing::Raw, &[], 8000, 1).ok()?;
        let parameters = reader.parameters()?.clone();
        Some(crate::live::TrackDescription { index, payload_type: 8, ssrc: 7, parameters })
    };
    Some(crate::live::Presentation { tracks: vec![track(0, Codec::Pcma)?, track(1, Codec::Pcmu)?], layout: 0 })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_passes() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/rtsp_request");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).expect("the corpus is in the tree") {
            let bytes = std::fs::read(entry.expect("an entry").path()).expect("a readable file");
            super::fuzz_request(&bytes);
            for cut in 0..bytes.len() {
                super::fuzz_request(&bytes[cut..]);
            }
            // A little damage everywhere, the same in each run.
            let mut state = 0x9e37_79b9_u32;
            for _ in 0..500 {
                let mut damaged = bytes.clone();
                for _ in 0..3 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let at = (state >> 8) as usize % damaged.len();
                    damaged[at] = state.to_be_bytes()[0];
                }
                super::fuzz_request(&damaged);
            }
            count += 1;
        }
        assert!(count >= 10, "{count} seeds");
    }
}
