//! camagent: the agent's library beside the camera and the server's library at the far end, as hosts embed them. Control
//! messages are events of the camera, audio and video are pushed, the bulk is a visitor of a service behind a tunnel; the
//! server's own subscribers see them.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use camagent_testkit::core::{Agent, Codec, Config, Frame, Framing, Host, TrackDescription};
use camagent_testkit::emulator::{FAR, be_prompt};
use camagent_testkit::{CloudServer, clip, nal, wait};
use cloud_server::event::Event;
use cloud_server::live::{Found, Hub, Source};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::traffic::{
    AUDIO_EVERY, AUDIO_OCTETS, CONTROL_EVERY, CONTROL_OCTETS, Flow, Inlet, Load, Outlet, Traffic, VIDEO_EVERY, drain,
    feed, noise,
};
use crate::stage::Stage;

const AGENT: &str = "bench";
const SOURCE: &str = "main";
/// Track numbers.
const VIDEO: u32 = 0;
const AUDIO: u32 = 1;
/// The payload type of G.711 A-law (RFC 3551 6).
const PCMA: u8 = 8;
/// `$`, channel and length (RFC 2326 10.12), then an RTP header without extensions.
const BEFORE_PAYLOAD: usize = 4 + 12;
/// How long a presentation may take to be known.
const PATIENCE: Duration = Duration::from_secs(20);

/// Agent and server, running; the camera's thread.
pub(crate) struct Camagent {
    agent: Arc<Agent>,
    camera: Option<JoinHandle<()>>,
    traffic: Arc<Traffic>,
}

/// Starts both, and the flows.
pub(crate) fn start(stage: &Stage, traffic: &Arc<Traffic>) -> Result<Camagent, String> {
    let service = bulk_service(stage, traffic)?;
    let (told, config) = std::sync::mpsc::channel();
    let listener = Arc::clone(traffic);
    stage.far.spawn(async move {
        let mut server = CloudServer::with(|config| config.listen.tls = (FAR, 0).into()).await;
        let token = server.add_agent(AGENT).await;
        let file = server.agent_json(AGENT, &token, server.addresses().tls);
        // Who waits below is there.
        let _ = told.send(file);
        listen(&mut server, listener).await;
    });
    let mut file = config.recv().map_err(|_| "the server did not start".to_owned())?;
    file["agent"]["log_level"] = "WARN".into();
    file["camera"] = json!({"services": {"bulk": {"host": "127.0.0.1", "port": service}}});
    let config = Config::from_json(&file.to_string()).map_err(|error| error.to_string())?;
    let agent = stage.link.near.within(|| Agent::start(config, Host::default())).map_err(|error| error.to_string())?;
    let agent = Arc::new(agent);
    let load = traffic.load;
    let track = |number, track| agent.set_track(number, track).map_err(|error| error.to_string());
    if load.video > 0 {
        track(VIDEO, TrackDescription::video(SOURCE, Codec::H264, Framing::AnnexB))?;
    }
    if load.audio {
        track(AUDIO, TrackDescription::audio(SOURCE, Codec::Pcma, Framing::Raw, 8_000, 1))?;
    }
    let begun = Instant::now();
    while !agent.is_connected() {
        if begun.elapsed() > PATIENCE {
            return Err("the agent does not reach its server".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let (own, notes) = (Arc::clone(&agent), Arc::clone(traffic));
    let camera = std::thread::spawn(move || {
        be_prompt();
        if let Err((flow, error)) = play(&own, &notes) {
            notes.fail(flow, &error.to_string());
        }
    });
    Ok(Camagent { agent, camera: Some(camera), traffic: Arc::clone(traffic) })
}

impl Drop for Camagent {
    fn drop(&mut self) {
        self.traffic.end();
        if let Some(camera) = self.camera.take() {
            // What it broke on was told.
            let _ = camera.join();
        }
        // An agent that does not stop in time ends with its link.
        let _ = self.agent.stop(Duration::ZERO);
    }
}

/// The camera's service that pours out the bulk: its port.
fn bulk_service(stage: &Stage, traffic: &Arc<Traffic>) -> Result<u16, String> {
    let bound = stage.near.run(TcpListener::bind(("127.0.0.1", 0)));
    let listener = bound.map_err(|error| format!("the camera's service: {error}"))?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let traffic = Arc::clone(traffic);
    stage.near.spawn(async move {
        while let Ok((visitor, _)) = listener.accept().await {
            tokio::spawn(feed(Arc::clone(&traffic), Flow::Bulk, Outlet::Octets(Box::new(visitor))));
        }
    });
    Ok(port)
}

/// Hears everything at the server until the end.
async fn listen(server: &mut CloudServer, traffic: Arc<Traffic>) {
    if traffic.load.bulk {
        let door = server.tunnel(AGENT, "bulk").await;
        match TcpStream::connect(door).await {
            Ok(visitor) => {
                tokio::spawn(drain(Arc::clone(&traffic), Flow::Bulk, Inlet::Octets(Box::new(visitor))));
            }
            Err(error) => traffic.fail(Flow::Bulk, &error.to_string()),
        }
    }
    if traffic.load.audio || traffic.load.video > 0 {
        let hub = Arc::clone(server.server().hub());
        tokio::spawn(watch(hub, Arc::clone(&traffic)));
    }
    let mut events = server.server().events().subscribe();
    loop {
        match events.recv().await {
            Ok(Event::AgentEvent { kind, .. }) => {
                if let Ok(number) = kind.parse() {
                    traffic.arrived(Flow::Control, number, CONTROL_OCTETS);
                }
            }
            Ok(_) => {}
            Err(error) => traffic.fail(Flow::Control, &error.to_string()),
        }
    }
}

/// Subscribes to the source as a viewer does, again whenever its tracks change.
async fn watch(hub: Arc<Hub>, traffic: Arc<Traffic>) {
    let find = || match hub.find(AGENT, SOURCE) {
        Found::Source(source) => Some(source),
        _ => None,
    };
    let source: Arc<Source> = wait::found("the camera's source", PATIENCE, find).await;
    let tracks = usize::from(traffic.load.audio) + usize::from(traffic.load.video > 0);
    loop {
        let presentation = match source.wait_presentation(PATIENCE).await {
            Ok(presentation) if presentation.tracks.len() == tracks => presentation,
            Ok(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            Err(why) => return traffic.fail(Flow::Video, &format!("{why:?}")),
        };
        let is_audio: Vec<_> = presentation.tracks.iter().map(|track| track.payload_type == PCMA).collect();
        let mut viewer = source.join(u32::MAX);
        let mut frames = Vec::new();
        while let Ok(_skipped) = viewer.next(&mut frames).await {
            for frame in &frames {
                if !is_audio.get(usize::from(frame.track)).copied().unwrap_or_default() {
                    traffic.count(Flow::Video, frame.octets as usize);
                } else if let Some(payload) = frame.data.get(BEFORE_PAYLOAD..)
                    && let Some(number) = payload.first_chunk()
                {
                    traffic.arrived(Flow::Audio, u32::from_be_bytes(*number), payload.len());
                }
            }
        }
    }
}

/// The camera: everything when it is due.
fn play(agent: &Agent, traffic: &Traffic) -> Result<(), (Flow, camagent_testkit::core::Error)> {
    let load = traffic.load;
    let begun = Instant::now();
    let mut pictures = Pictures::of(load);
    let mut samples = noise(AUDIO_OCTETS);
    let filling = "x".repeat(CONTROL_OCTETS / 2);
    let mut next: Vec<_> = [(Flow::Control, CONTROL_EVERY), (Flow::Audio, AUDIO_EVERY), (Flow::Video, VIDEO_EVERY)]
        .into_iter()
        .filter(|(flow, _)| load.has(*flow))
        .map(|(flow, every)| (begun, flow, every))
        .collect();
    while !traffic.is_over() {
        let Some((due, flow, every)) = next.iter_mut().min_by_key(|(due, ..)| *due) else { return Ok(()) };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let pts_us = 86_400_000_000 + due.duration_since(begun).as_micros() as i64;
        let frame = |data| Frame { pts_us, dts_us: pts_us, data, ..Frame::default() };
        let outcome = match flow {
            Flow::Control => {
                let number = traffic.sent(Flow::Control, *due);
                agent.push_event(None, &number.to_string(), Value::from(filling.as_str()))
            }
            Flow::Audio => {
                let number = traffic.sent(Flow::Audio, *due);
                samples[..4].copy_from_slice(&number.to_be_bytes());
                agent.push_frame(AUDIO, frame(&samples)).map(drop)
            }
            _ => agent.push_frame(VIDEO, frame(pictures.next())).map(drop),
        };
        outcome.map_err(|error| (*flow, error))?;
        *due += *every;
    }
    Ok(())
}

/// Pictures of the bundled clip, cut off or filled up to the octets of the load: nobody decodes them.
struct Pictures {
    load: Load,
    key: clip::Picture,
    other: clip::Picture,
    number: usize,
    data: Vec<u8>,
}

impl Pictures {
    fn of(load: Load) -> Self {
        let pictures = clip::pictures(Codec::H264, &clip::read("main.h264"));
        let find = |key: bool| pictures.iter().find(|picture| picture.key == key).cloned().expect("in the clip");
        Self { load, key: find(true), other: find(false), number: 0, data: Vec::new() }
    }

    fn next(&mut self) -> &[u8] {
        let octets = self.load.picture(self.number);
        let picture = if self.load.is_key(self.number) { &self.key } else { &self.other };
        self.number += 1;
        self.data.clear();
        for unit in &picture.units {
            let left = octets.saturating_sub(self.data.len() + 4).max(64);
            // Who only carries a picture need not find all of its slices.
            let length = if nal::is_slice(Codec::H264, unit) { unit.len().min(left) } else { unit.len() };
            self.data.extend_from_slice(&[0, 0, 0, 1]);
            self.data.extend_from_slice(&unit[..length]);
        }
        // The last slice is longer than a decoder would read.
        let length = self.data.len().max(octets);
        self.data.resize(length, 0xa5);
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_as_large_as_the_load_says() {
        let load = Load { control: false, audio: false, video: 800_000, bulk: false };
        let mut pictures = Pictures::of(load);
        for number in 0..60 {
            assert_eq!(pictures.next().len(), load.picture(number), "picture {number}");
        }
    }
}
