//! Shared mode: looks at the first thing a visitor of an RTSP service says, and decides whether the relay can answer it.
//! That saves the uplink a second copy of what is carried to the server anyway. In doubt the camera answers.

use std::sync::Arc;
use std::time::Duration;

use rtsp_types::Method;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Context;
use crate::live::{Found, Source};
use crate::rtsp::CameraNames;
use crate::rtsp::message::{Decoder, Incoming};

/// How long a visitor may think about its first request before it is the camera's business.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// How long after its agent came a source may take to be offered.
const OFFERED_WITHIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Reads until it is known what the visitor wants. The source that it names, if it names one; what it said is in `said`.
pub(super) async fn first_request(stream: &mut TcpStream, names: &CameraNames, said: &mut Vec<u8>) -> Option<String> {
    let read = async {
        let mut decoder = Decoder::default();
        loop {
            let mut chunk = [0; 4096];
            let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
            said.extend_from_slice(&chunk[..count]);
            decoder.push(&chunk[..count]);
            match decoder.poll() {
                // Bounded: a request that is too long is a bad one.
                None => {}
                Some(Incoming::Request(request)) => {
                    let begins = matches!(request.method(), Method::Options | Method::Describe | Method::Setup);
                    let url = request.url().filter(|_| begins)?;
                    return names.find(url).map(|path| path.source);
                }
                Some(_) => return None,
            }
        }
    };
    tokio::time::timeout(FIRST_REQUEST, read).await.ok().flatten()
}

/// Whether the relay has the source, asking the agent for it where it comes on demand. The agent is online.
pub(super) async fn can_be_had(context: &Context, camera: &str, name: &str) -> bool {
    let Some(source) = offered(context, camera, name).await else { return false };
    // Who has not said who he is must not wake a camera; the relay will ask, and then wait.
    context.relay.login || source.wait_presentation(context.relay.config.describe_timeout).await.is_ok()
}

async fn offered(context: &Context, camera: &str, name: &str) -> Option<Arc<Source>> {
    let until = Instant::now() + OFFERED_WITHIN;
    loop {
        if let Found::Source(source) = context.relay.hub.find(camera, name)
            && source.is_online()
        {
            return Some(source);
        }
        if Instant::now() >= until {
            return None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
