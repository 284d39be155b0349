//! Numbers about the server for monitoring, in the OpenMetrics text form (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! Whoever does something counts it here; what stands somewhere already (agents, viewers, events) is read when it is asked for, see
//! [`Gauges`]. Labels are words of this program alone, never an agent's: their number is known beforehand.

use std::collections::BTreeMap;
use std::sync::Arc;

use camagent_proto::CloseCode;
use camagent_proto::frame::Frame;
use camagent_proto::session::{AGENT_LIMITS, Received};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// The media type of what [`Metrics::text`] gives.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Codes of RFC 6455 that tell something at the end of a session.
const STANDARD_CODES: [u16; 5] = [1000, 1001, 1005, 1006, 1011];

type Labels<const N: usize> = [(&'static str, String); N];

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This server, with this code.
    Sent,
    /// The agent, or the network (1006).
    Received,
}

/// What became of somebody who knocked at a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// The camera's service was reached.
    Reached,
    /// The server let the visitor not in, or its agent did not come.
    Refused,
    /// The agent did not connect it.
    RefusedByAgent,
}

/// What is counted, from the start of the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    closes: Family<Labels<2>, Counter>,
    breaches: Family<Labels<1>, Counter>,
    went_over: Family<Labels<1>, Counter>,
    handshakes_refused: Counter,
    visits: Family<Labels<1>, Counter>,
    sessions: Counter,
    unknown: Counter,
    messages: Counter,
    message_octets: Counter,
    /// Frames and octets by kind, in the order of `Frame::KINDS`.
    kinds: Vec<(Counter, Counter)>,
    to_visitors: Counter,
    to_cameras: Counter,
}

/// What is there now, and what others count.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Agents that are connected.
    pub agents_online: u64,
    /// Sources that were offered.
    pub sources: u64,
    /// Viewers that play, at the relay and through shared tunnels.
    pub viewers: u64,
    /// Visitors of tunnels, those who wait for an agent included.
    pub visitors: u64,
    /// How often each event happened.
    pub events: BTreeMap<&'static str, u64>,
    /// Frames that were lost, by reason.
    pub frames_lost: BTreeMap<&'static str, u64>,
    /// Of a server that records.
    pub recordings: Option<RecordingGauges>,
}

/// What is there of recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordingGauges {
    /// Bytes of complete files.
    pub bytes: u64,
    /// How many they are.
    pub files: u64,
    /// How long ago the oldest begins.
    pub oldest_seconds: u64,
    /// Files that are being written, or wait for the index.
    pub open_files: u64,
    /// Octets that wait for the disk.
    pub waiting_bytes: u64,
    /// The disk takes nothing.
    pub is_stalled: bool,
    /// Frames that were not taken, because too much waited for the disk.
    pub withheld: u64,
}

impl Metrics {
    /// Nothing happened yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("camagent");
        let closes = Family::<Labels<2>, Counter>::default();
        registry.register("closes", "Sessions that ended, by who ended them and the close code", closes.clone());
        let breaches = Family::<Labels<1>, Counter>::default();
        registry.register("limit_breaches", "Limits that somebody went over", breaches.clone());
        let went_over = Family::<Labels<1>, Counter>::default();
        let help = "Limits of agents that this server went over, as they said";
        registry.register("agent_limit_breaches", help, went_over.clone());
        let visits = Family::<Labels<1>, Counter>::default();
        registry.register("visits", "Visitors of tunnels whose visit is over, by what became of it", visits.clone());
        let (frames, octets) = (Family::<Labels<1>, Counter>::default(), Family::<Labels<1>, Counter>::default());
        registry.register("frames_received", "Binary frames of agents", frames.clone());
        registry.register_with_unit("frames_received", "Their bodies", Unit::Bytes, octets.clone());
        let tunnels = Family::<Labels<1>, Counter>::default();
        registry.register_with_unit("tunnels", "Octets that passed tunnels", Unit::Bytes, tunnels.clone());
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let of_kind = |(_, name): &(u64, &str)| {
            let labels = || [("kind", on_the_wire(name))];
            (frames.get_or_create_owned(&labels()), octets.get_or_create_owned(&labels()))
        };
        let direction = |word: &str| tunnels.get_or_create_owned(&[("direction", word.to_owned())]);
        let metrics = Self {
            handshakes_refused: counter(&mut registry, "handshakes_refused", "TLS connections beyond the limit"),
            sessions: counter(&mut registry, "sessions", "Sessions of agents that began"),
            unknown: counter(&mut registry, "unknown_skipped", "Frames and messages of unknown kinds"),
            messages: counter(&mut registry, "messages_received", "Control messages of agents"),
            message_octets: {
                let octets = Counter::default();
                registry.register_with_unit("messages_received", "Their text", Unit::Bytes, octets.clone());
                octets
            },
            kinds: Frame::KINDS.iter().map(of_kind).collect(),
            to_visitors: direction("to_visitors"),
            to_cameras: direction("to_cameras"),
            registry,
            closes,
            breaches,
            went_over,
            visits,
        };
        // What never happened is a 0 and no gap.
        let own = CloseCode::ALL.iter().map(|code| code.number());
        for code in own.chain(STANDARD_CODES) {
            for direction in [Direction::Sent, Direction::Received] {
                metrics.close_counter(direction, code);
            }
        }
        for outcome in [Visit::Reached, Visit::Refused, Visit::RefusedByAgent] {
            metrics.visit_counter(outcome);
        }
        Arc::new(metrics)
    }

    /// A session begins.
    pub fn session(&self) {
        self.sessions.inc();
    }

    /// A session ended.
    pub fn closed(&self, direction: Direction, code: u16) {
        self.close_counter(direction, code).inc();
    }

    /// Somebody went over a limit.
    pub fn breach(&self, limit: &'static str) {
        self.breaches.get_or_create(&[("limit", word(limit))]).inc();
    }

    /// An agent said that this server went over a limit of its own.
    pub fn went_over(&self, limit: &str) {
        let known = AGENT_LIMITS.iter().find(|known| **known == limit).copied();
        self.went_over.get_or_create(&[("limit", word(known.unwrap_or("other")))]).inc();
    }

    /// A TLS connection was dropped because too many are under way.
    pub fn handshake_refused(&self) {
        self.handshakes_refused.inc();
    }

    /// A visit is over.
    pub fn visit(&self, outcome: Visit) {
        self.visit_counter(outcome).inc();
    }

    /// Octets passed a tunnel.
    pub fn tunnelled(&self, to_visitors: u64, to_cameras: u64) {
        self.to_visitors.inc_by(to_visitors);
        self.to_cameras.inc_by(to_cameras);
    }

    /// What came of an agent.
    pub fn received(&self, received: &Received) {
        for ((frames, octets), (more, more_octets)) in self.kinds.iter().zip(received.kinds) {
            if more > 0 {
                frames.inc_by(more);
                octets.inc_by(more_octets);
            }
        }
        self.messages.inc_by(received.messages);
        self.message_octets.inc_by(received.message_octets);
        self.unknown.inc_by(received.unknown);
    }

    /// Everything as text.
    #[must_use]
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut all = String::new();
        // Writing into a string does not fail.
        let _ = prometheus_client::encoding::text::encode_registry(&mut all, &self.registry);
        let mut now = Registry::with_prefix("camagent");
        now.register_collector(Box::new(gauges.clone()));
        let _ = encode(&mut all, &now);
        all
    }

    fn close_counter(&self, direction: Direction, code: u16) -> Counter {
        let direction = match direction {
            Direction::Sent => "sent",
            Direction::Received => "received",
        };
        let is_known = CloseCode::from_number(code).is_some() || STANDARD_CODES.contains(&code);
        let code = if is_known { code.to_string() } else { "other".to_owned() };
        self.closes.get_or_create_owned(&[("direction", direction.to_owned()), ("code", code)])
    }

    fn visit_counter(&self, outcome: Visit) -> Counter {
        let outcome = match outcome {
            Visit::Reached => "reached",
            Visit::Refused => "refused",
            Visit::RefusedByAgent => "refused_by_agent",
        };
        self.visits.get_or_create_owned(&[("outcome", outcome.to_owned())])
    }
}

impl prometheus_client::collector::Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, help, value) in [
            ("agents_online", "Agents that are connected", self.agents_online),
            ("sources", "Sources that agents offer", self.sources),
            ("viewers", "Viewers that play", self.viewers),
            ("visitors", "Visitors of tunnels", self.visitors),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let all = ConstCounter::new(0_u64);
        let mut events = encoder.encode_descriptor("events", "Events, as in the log", None, all.metric_type())?;
        for (event, count) in &self.events {
            ConstCounter::new(*count).encode(events.encode_family(&[("event", *event)])?)?;
        }
        let help = "Frames of sources that are missing, by reason";
        let mut lost = encoder.encode_descriptor("frames_lost", help, None, all.metric_type())?;
        for (reason, frames) in &self.frames_lost {
            ConstCounter::new(*frames).encode(lost.encode_family(&[("reason", *reason)])?)?;
        }
        self.recordings.iter().try_for_each(|recordings| recordings.encode(&mut encoder))
    }
}

impl RecordingGauges {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, help, value) in [
            ("recordings_bytes", "Bytes of complete recorded files", self.bytes),
            ("recordings_files", "Complete recorded files", self.files),
            ("recordings_oldest_seconds", "How long ago the oldest recorded file begins", self.oldest_seconds),
            ("recordings_open_files", "Files that are being written or wait for the index", self.open_files),
            ("recordings_waiting_bytes", "Octets of frames that wait for the disk", self.waiting_bytes),
            (
                "recordings_stalled",
                "1 while the disk takes nothing, or complete files cannot be put in their place",
                u64::from(self.is_stalled),
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let withheld = ConstCounter::new(self.withheld);
        let help = "Frames that were not taken because too much waited for the disk";
        withheld.encode(encoder.encode_descriptor("recordings_withheld_frames", help, None, withheld.metric_type())?)
    }
}

/// A kind of frame as the specification writes it: FRAME_MORE of `FrameMore`.
fn on_the_wire(name: &str) -> String {
    let mut wire = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !wire.is_empty() {
            wire.push('_');
        }
        wire.push(character.to_ascii_uppercase());
    }
    wire
}

/// A limit's name as one word of a label.
fn word(limit: &str) -> String {
    let letter = |character: char| if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '_' };
    limit.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_every_code_and_kind_from_the_start_and_ends_once() {
        let metrics = Metrics::new();
        let gauges = Gauges {
            agents_online: 3,
            events: [("agent_online", 4)].into(),
            frames_lost: [("storage", 7)].into(),
            recordings: Some(RecordingGauges {
                bytes: 12,
                is_stalled: true,
                withheld: 5,
                ..RecordingGauges::default()
            }),
            ..Gauges::default()
        };
        let text = metrics.text(&gauges);
        for line in [
            "camagent_closes_total{direction=\"sent\",code=\"4012\"} 0",
            "camagent_closes_total{direction=\"received\",code=\"1006\"} 0",
            "camagent_frames_received_total{kind=\"FRAME_MORE\"} 0",
            "camagent_agents_online 3",
            "camagent_events_total{event=\"agent_online\"} 4",
            "camagent_frames_lost_total{reason=\"storage\"} 7",
            "camagent_recordings_bytes 12",
            "camagent_recordings_stalled 1",
            "camagent_recordings_withheld_frames_total 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert_eq!(text.matches("# EOF\n").count(), 1);
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_a_peer_makes_up_gets_no_label() {
        let metrics = Metrics::new();
        let lines = |metrics: &Metrics| metrics.text(&Gauges::default()).lines().count();
        metrics.closed(Direction::Received, 4999);
        let before = lines(&metrics);
        (1..5_000).for_each(|code| metrics.closed(Direction::Received, code));
        assert_eq!(lines(&metrics), before);
        metrics.breach("SKIP in ten seconds");
        assert!(metrics.text(&Gauges::default()).contains("limit_breaches_total{limit=\"skip_in_ten_seconds\"} 1"));
    }
}
