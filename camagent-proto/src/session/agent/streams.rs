//! Streams of tunnels from one connection to the next: for how long they wait, and whether the server lets them go on.

use alloc::{format, string::String, vec, vec::Vec};

use super::{Agent, AgentEvent};
use crate::{
    error::Error,
    message::{ARRIVED, Registered, StreamsPoint, TUNNEL_RESUME, TunnelLimits},
    mux::Mux,
    session::streams::{MAX_SESSION, resumes},
    time::Instant,
};

impl Agent {
    /// Gives up the streams that have waited for a connection for too long. Whether there were some: then there is no
    /// [`AgentEvent::StreamsLost`].
    pub fn expire_streams(&mut self, now: Instant) -> bool {
        let is_over = self.streams_until.is_some_and(|until| until <= now) && self.streams_of.is_some();
        if is_over {
            self.drop_streams();
        }
        is_over
    }

    /// Until when streams wait for a connection, while there is none.
    pub fn streams_until(&self) -> Option<Instant> {
        self.streams_until
    }

    pub(super) fn drop_streams(&mut self) {
        (self.streams_of, self.streams_until) = (None, None);
        self.tunnels = Mux::acceptor(self.config.tunnels, TunnelLimits::default(), Instant::ZERO);
    }

    pub(super) fn resumes(&self) -> bool {
        self.config.tunnels.streams > 0 && resumes(&self.config.tunnels)
    }

    pub(super) fn features(&self) -> Vec<String> {
        let mut features = vec![ARRIVED.into()];
        if self.resumes() {
            features.push(TUNNEL_RESUME.into());
        }
        features
    }

    /// The streams that could go on.
    pub(super) fn streams_point(&self) -> Option<StreamsPoint> {
        let session = self.streams_of.clone()?;
        Some(StreamsPoint { session, received: self.tunnels.received_frames()? })
    }

    /// The server has said whether the streams go on.
    pub(super) fn settle_streams(&mut self, now: Instant, registered: &Registered) -> Result<(), Error> {
        let had = self.streams_point();
        if let Some(point) = &registered.streams {
            self.streams_until = None;
            if had.is_some_and(|had| had.session == point.session) && self.tunnels.resume(point.received) {
                return Ok(());
            }
            self.lose_streams();
            let got = format!("{point:?}");
            return Err(Error::Violation { place: "registered streams", expected: "those of register", got });
        }
        if self.streams_of.is_some() {
            self.lose_streams();
        }
        self.tunnels = Mux::acceptor(self.config.tunnels, registered.limits.tunnels, now);
        let is_on = registered.features.iter().any(|feature| feature == TUNNEL_RESUME) && self.resumes();
        if is_on && registered.session_id.len() <= MAX_SESSION {
            self.tunnels.keep();
            self.streams_of = Some(registered.session_id.clone());
        }
        Ok(())
    }

    fn lose_streams(&mut self) {
        self.drop_streams();
        self.events_out.push_back(AgentEvent::StreamsLost);
    }
}
