//! What happened on the server, typed once: the log line, the counters and later everything that wants to know read
//! the same [`Event`]. Secrets never enter an event.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the words of the glossary: agent, camera, source, generation, reason")]
pub enum Event {
    /// An agent registered.
    AgentOnline { agent: String, generation: u64, address: String },
    /// An agent's session ended.
    AgentOffline { agent: String, generation: u64, reason: String },
    /// A newer connection of the same agent took over.
    AgentReplaced { agent: String, generation: u64 },
    /// Two processes use one agent id in turns.
    DuplicateIdentity { agent: String },
    /// Somebody dialled as an agent and was turned away.
    AgentRefused { agent: String, address: String, reason: String },
    /// An agent broke the protocol and was disconnected.
    AgentMisbehaved { agent: String, reason: String },
    /// What an agent reports about one of its cameras.
    AgentEvent { agent: String, camera: Option<String>, kind: String },
    /// An agent claimed a camera that belongs to another agent.
    CameraRefused { agent: String, camera: String, owner: String },
    /// The first frame of a source arrived in this generation.
    SourceStarted { camera: String, source: String, agent: String },
    /// The agent that publishes a source is gone.
    SourceStopped { camera: String, source: String },
    /// The camera's clock jumped; media time went on.
    ClockStepped { camera: String, source: String },
    /// A frame could not be read as its codec and was left out.
    FrameRefused { camera: String, source: String, reason: String },
    /// A viewer plays.
    ViewerJoined { camera: String, source: String, address: String },
    /// A viewer was too slow and continued at the newest key frame.
    ViewerSkipped { camera: String, source: String, address: String, frames: u32 },
    /// A viewer left.
    ViewerLeft { camera: String, source: String, address: String, reason: String },
    /// Somebody wanted to watch with a name or secret that is not known.
    ViewerRefused { name: String, address: String },
    /// A service of a camera can be reached at this address of the server.
    TunnelListening { camera: String, service: String, address: String },
    /// The address of a service cannot be had now; it is tried again.
    TunnelBlocked { camera: String, service: String, address: String, reason: String },
    /// The agent does not offer a service any more; its port stays reserved.
    TunnelWithdrawn { camera: String, service: String },
    /// A visitor was turned away before the agent was asked.
    VisitorRefused { camera: String, service: String, address: String, reason: String },
    /// The agent did not connect a visitor with the service.
    TunnelRefused { camera: String, service: String, address: String, reason: String },
    /// A visitor's connection to a service is over.
    VisitEnded { camera: String, service: String, address: String, reason: String, to_visitor: u64, to_camera: u64 },
    /// The database cannot be written (a full disk, as a rule). Live video goes on.
    DiskTrouble { what: String, reason: String },
    /// Recordings cannot be written (a full disk, as a rule). Frames wait in memory, then in the agents' journals; live video goes on.
    RecordingStalled { reason: String },
    /// Frames of a source are missing, for this reason; told together for a second. `GET /recordings` says which times.
    FramesLost { camera: String, source: String, reason: &'static str, frames: u64 },
    /// Recordings can be written again.
    RecordingResumed,
    /// Something in the folder of recordings could not be used, and is now where the name says.
    RecordingSetAside { name: String, reason: String },
    /// Recordings are configured and nothing is recorded; everything else works.
    RecordingsOff { reason: String },
    /// A command was given to an agent.
    CommandSent { agent: String, id: u64, action: String },
    /// The server works.
    ServerStarted { http: String, tls: String, rtsp: String },
    /// The server stops.
    ServerStopping,
}

impl Event {
    /// The snake_case name, as it is serialized; also the key of the counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AgentOnline { .. } => "agent_online",
            Self::AgentOffline { .. } => "agent_offline",
            Self::AgentReplaced { .. } => "agent_replaced",
            Self::DuplicateIdentity { .. } => "duplicate_identity",
            Self::AgentRefused { .. } => "agent_refused",
            Self::AgentMisbehaved { .. } => "agent_misbehaved",
            Self::AgentEvent { .. } => "agent_event",
            Self::CameraRefused { .. } => "camera_refused",
            Self::SourceStarted { .. } => "source_started",
            Self::SourceStopped { .. } => "source_stopped",
            Self::ClockStepped { .. } => "clock_stepped",
            Self::FrameRefused { .. } => "frame_refused",
            Self::ViewerJoined { .. } => "viewer_joined",
            Self::ViewerSkipped { .. } => "viewer_skipped",
            Self::ViewerLeft { .. } => "viewer_left",
            Self::ViewerRefused { .. } => "viewer_refused",
            Self::TunnelListening { .. } => "tunnel_listening",
            Self::TunnelBlocked { .. } => "tunnel_blocked",
            Self::TunnelWithdrawn { .. } => "tunnel_withdrawn",
            Self::VisitorRefused { .. } => "visitor_refused",
            Self::TunnelRefused { .. } => "tunnel_refused",
            Self::VisitEnded { .. } => "visit_ended",
            Self::DiskTrouble { .. } => "disk_trouble",
            Self::RecordingStalled { .. } => "recording_stalled",
            Self::FramesLost { .. } => "frames_lost",
            Self::RecordingResumed => "recording_resumed",
            Self::RecordingSetAside { .. } => "recording_set_aside",
            Self::RecordingsOff { .. } => "recordings_off",
            Self::CommandSent { .. } => "command_sent",
            Self::ServerStarted { .. } => "server_started",
            Self::ServerStopping => "server_stopping",
        }
    }

    /// True for what an operator should look at.
    #[must_use]
    pub const fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::DuplicateIdentity { .. }
                | Self::AgentRefused { .. }
                | Self::AgentMisbehaved { .. }
                | Self::CameraRefused { .. }
                | Self::FrameRefused { .. }
                | Self::ViewerSkipped { .. }
                | Self::ViewerRefused { .. }
                | Self::TunnelBlocked { .. }
                | Self::VisitorRefused { .. }
                | Self::TunnelRefused { .. }
                | Self::DiskTrouble { .. }
                | Self::FramesLost { .. }
                | Self::RecordingStalled { .. }
                | Self::RecordingSetAside { .. }
                | Self::RecordingsOff { .. }
        )
    }
}

/// Where events are told and heard. A listener that is more than 1024 events late misses the oldest; counters miss none.
#[derive(Debug)]
pub struct Events {
    sender: broadcast::Sender<Event>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Frames of [`Event::FramesLost`], by reason.
    lost: Mutex<BTreeMap<&'static str, u64>>,
}

impl Events {
    /// A bus without listeners.
    #[must_use]
    pub fn new() -> Self {
        Self { sender: broadcast::channel(1024).0, counts: Mutex::default(), lost: Mutex::default() }
    }

    /// Tells everybody who listens, and counts.
    pub fn emit(&self, event: Event) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(event.name()).or_default() += 1;
        if let Event::FramesLost { reason, frames, .. } = &event {
            *self.lost.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += frames;
        }
        // Nobody listening is no error.
        let _ = self.sender.send(event);
    }

    /// Hears every event from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// How often each event happened since the start.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Frames that were lost since the start, by reason: the sum of all events of them.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<&'static str, u64> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the named event happened since the start.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

/// The one subscriber that writes events to the log. Ends when the bus is gone.
pub async fn log(mut events: broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                let fields = serde_json::to_string(&event).unwrap_or_default();
                if event.is_trouble() {
                    tracing::warn!(target: "event", "{fields}");
                } else {
                    tracing::info!(target: "event", "{fields}");
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(target: "event", missed, "the log is late, events are missing here (not in the counters)");
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_counted_and_named_as_it_is_serialized() {
        let events = Events::new();
        let mut listener = events.subscribe();
        let event = Event::DiskTrouble { what: "agents".into(), reason: "disk full".into() };
        events.emit(event.clone());
        assert_eq!(listener.try_recv().expect("told"), event);
        assert_eq!(events.count("disk_trouble"), 1);
        let json = serde_json::to_value(&event).expect("serializable");
        assert_eq!(json["event"], event.name());
        assert_eq!(serde_json::to_value(Event::ServerStopping).expect("serializable")["event"], "server_stopping");
    }
}
