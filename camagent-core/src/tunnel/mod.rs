//! The agent's end of tunnels: which services of which cameras may be reached, and the TCP connections to them.
//!
//! A peer names a camera and a service and nothing else; where that leads stands in the configuration of this side, which is asked at each
//! OPEN. Octets wait in the mux or in the kernel, and on a fast uplink a burst of
//! one stream here.
//! What does not belong here: the protocol of the streams (`camagent_proto::mux`), the way to the server (`net`).

mod ahead;
mod endpoint;

use std::{
    io::IoSliceMut,
    task::{Context, Poll},
    time::Duration,
};

use camagent_proto::{
    Instant,
    frame::{OpenOutcome, Space, StreamError},
    message::TunnelLimits,
    mux::{Mux, Read, StreamEvent, Streams},
};

use crate::{
    config::{CameraConfig, Config, ServiceConfig},
    resolve::Resolver,
};
use ahead::Ahead;
use endpoint::{Endpoint, Progress};

/// Streams of one camera at once.
const MAX_OF_CAMERA: usize = 32;
/// Streams of the agent at most, unless the configuration says otherwise: as many as a server takes that keeps 64 KiB of 16 MiB for each.
const USUAL_STREAMS: usize = 256;
/// Octets that may come on a new stream before any was passed on. A request of RTSP or HTTP fits.
const STREAM_BYTES: usize = 8 << 10;
/// Octets beyond that for streams that carry more: an upload to the camera.
const GROWTH_BYTES: usize = 256 << 10;

/// What happened to a tunnel, for logs and the host.
pub(crate) enum Happening {
    /// A visitor was let in to a service.
    Opened(String),
    /// A visitor was turned away: the peer asked for what the configuration does not allow, or for too much.
    Refused(String),
    /// A service does not answer.
    Unreachable(String),
    /// A visit is over.
    Closed(String),
}

/// How a stream ended: with both directions whole, or in between.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

/// All tunnels of the agent.
pub(crate) struct Tunnels {
    cameras: Vec<(String, Vec<ServiceConfig>)>,
    addresses: Resolver,
    endpoints: Vec<Endpoint>,
    ahead: Ahead,
    /// The data plan bears no tunnels now.
    is_stopped: bool,
}

impl Tunnels {
    pub(crate) fn new(cameras: &[CameraConfig]) -> Self {
        let cameras = cameras.iter().map(|camera| (camera.id.clone(), camera.services.clone()));
        Self {
            cameras: cameras.collect(),
            addresses: Resolver::of_cameras(),
            endpoints: Vec::new(),
            ahead: Ahead::default(),
            is_stopped: false,
        }
    }

    /// Ends all tunnels and opens none, until it is said otherwise.
    pub(crate) fn stop(&mut self, is_stopped: bool, mux: &mut Mux) {
        self.is_stopped = is_stopped;
        if is_stopped {
            for endpoint in self.endpoints.drain(..) {
                mux.abandon(endpoint.stream(), StreamError::Cancelled);
                endpoint.reset();
            }
            self.ahead = Ahead::default();
        }
    }

    /// The streams go on with a new connection: nobody is blamed for the time without one.
    pub(crate) fn resumed(&mut self) {
        self.endpoints.iter_mut().for_each(Endpoint::resumed);
    }

    /// All streams are over.
    pub(crate) fn clear(&mut self) {
        self.endpoints.drain(..).for_each(Endpoint::reset);
        self.ahead = Ahead::default();
    }

    /// What the mux says.
    pub(crate) fn hear(&mut self, event: StreamEvent, mux: &mut Mux) -> Option<Happening> {
        match event {
            StreamEvent::Open { stream, camera, service, visitor } => {
                // What a peer sends is shown, not trusted: quoted and escaped.
                let names = format!("{camera:?} {service:?} for {visitor:?}");
                let Some(target) = self.allowed(&camera, &service) else {
                    let detail = "this agent's configuration has no such service of such a camera";
                    mux.answer(stream, OpenOutcome::NotAllowed, detail);
                    return Some(Happening::Refused(format!("the server asks for {names}: {detail}")));
                };
                if self.is_stopped {
                    let detail = "the agent's data plan for this month is used up";
                    mux.answer(stream, OpenOutcome::NotAllowed, detail);
                    return Some(Happening::Refused(format!("the server asks for {names}: {detail}")));
                }
                if self.endpoints.iter().filter(|endpoint| endpoint.camera() == camera).count() >= MAX_OF_CAMERA {
                    let detail = format!("{MAX_OF_CAMERA} streams of this camera are open already");
                    mux.answer(stream, OpenOutcome::Busy, &detail);
                    return Some(Happening::Refused(format!("the server asks for {names}: {detail}")));
                }
                self.endpoints.push(Endpoint::connect(stream, camera, names.clone(), target, &self.addresses));
                Some(Happening::Opened(names))
            }
            StreamEvent::Broken(stream, error) => {
                mux.abandon(stream, StreamError::Cancelled);
                self.remove(stream, error.name(), End::Broken)
            }
            StreamEvent::Closed(stream) => self.remove(stream, "closed", End::Whole),
            // The service may still say something, or is told the visitor's end; then the stream is over.
            StreamEvent::Stopped(..) => None,
            // The octets are looked for whenever the loop turns; only servers open.
            StreamEvent::Received(_) | StreamEvent::Connected(_) | StreamEvent::Refused { .. } => None,
        }
    }

    /// Connects, and passes on what was received, as far as that goes without waiting.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>, mux: &mut Mux, now: Instant) -> Vec<Happening> {
        mux.look_again();
        let mut happenings = Vec::new();
        let mut at = 0;
        while at < self.endpoints.len() {
            let endpoint = &mut self.endpoints[at];
            let (happening, end) = match endpoint.turn(cx, mux, now) {
                Progress::Goes => {
                    at += 1;
                    continue;
                }
                Progress::Unreachable(why) => {
                    mux.answer(endpoint.stream(), OpenOutcome::Unreachable, &why);
                    (Happening::Unreachable(format!("{}: {why}", endpoint.names())), End::Whole)
                }
                Progress::Over(error) => {
                    mux.abandon(endpoint.stream(), error);
                    (Happening::Closed(format!("{}: {}", endpoint.names(), error.name())), End::Broken)
                }
            };
            let endpoint = self.endpoints.remove(at);
            self.ahead.forget(endpoint.stream());
            if end == End::Broken {
                endpoint.reset();
            }
            happenings.push(happening);
        }
        happenings
    }

    /// When a connection has taken nothing for too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.endpoints.iter().filter_map(Endpoint::deadline).min()
    }

    /// The local sides, for the mux to read from, in pieces of `burst` octets when there is so much.
    pub(crate) fn sides<'a, 'c>(&'a mut self, cx: &'a mut Context<'c>, burst: usize, now: Instant) -> Sides<'a, 'c> {
        Sides { endpoints: &mut self.endpoints, ahead: &mut self.ahead, burst, now, cx }
    }

    fn allowed(&self, camera: &str, service: &str) -> Option<&ServiceConfig> {
        let (_, services) = self.cameras.iter().find(|(id, _)| id == camera)?;
        services.iter().find(|allowed| allowed.name == service)
    }

    fn remove(&mut self, stream: u64, how: &str, end: End) -> Option<Happening> {
        let at = self.endpoints.binary_search_by_key(&stream, Endpoint::stream).ok()?;
        let endpoint = self.endpoints.remove(at);
        self.ahead.forget(stream);
        let happening = Happening::Closed(format!("{}: {how}", endpoint.names()));
        if end == End::Broken {
            endpoint.reset();
        }
        Some(happening)
    }
}

/// What the agent takes of tunnels; nothing when no camera has a service.
pub(crate) fn limits(config: &Config) -> TunnelLimits {
    let with_services = config.cameras.iter().filter(|camera| !camera.services.is_empty()).count();
    if with_services == 0 {
        return TunnelLimits::default();
    }
    let streams = config.tunnel_streams.unwrap_or((with_services * MAX_OF_CAMERA).min(USUAL_STREAMS));
    TunnelLimits {
        streams: streams as u64,
        stream_bytes: STREAM_BYTES as u64,
        bytes: (streams * STREAM_BYTES + GROWTH_BYTES) as u64,
        opens_per_second: config.tunnel_opens_per_second,
        resume_bytes: if config.tunnel_resume_time.is_zero() { 0 } else { config.tunnel_resume_bytes },
    }
}

/// The local sides while the loop turns.
pub(crate) struct Sides<'a, 'c> {
    endpoints: &'a mut Vec<Endpoint>,
    ahead: &'a mut Ahead,
    burst: usize,
    now: Instant,
    cx: &'a mut Context<'c>,
}

impl Streams for Sides<'_, '_> {
    fn read(&mut self, stream: u64, into: &mut Space<'_>, credit: usize) -> Read {
        if let Some(count) = self.ahead.take(stream, into) {
            return Read::Octets(count);
        }
        // Streams are opened in the order of their numbers.
        let Ok(at) = self.endpoints.binary_search_by_key(&stream, Endpoint::stream) else { return Read::Broken };
        let endpoint = &mut self.endpoints[at];
        let read = match self.ahead.takes(self.burst) && endpoint.has_more() {
            true => {
                let read = |slices: &mut [IoSliceMut<'_>]| endpoint.poll_read_vectored(self.cx, slices, self.now);
                self.ahead.fill(stream, into, credit, read)
            }
            false => endpoint.poll_read(self.cx, into, self.now),
        };
        match read {
            Poll::Pending => Read::Pending,
            Poll::Ready(Ok(0)) => Read::End,
            Poll::Ready(Ok(count)) => Read::Octets(count),
            Poll::Ready(Err(_)) => Read::Broken,
        }
    }
}

/// How long a service may take nothing while octets wait for it, and how long nothing may move once one direction has ended.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// How long a service may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
