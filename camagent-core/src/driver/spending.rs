//! What the octets of the connections are for, and what stops when a month's are used up: the loop's side of `camagent_proto::usage` and
//! of the data plan.

use std::time::Duration;

use camagent_proto::{Instant, message::Policy, mux::StreamEvent, session::Transmit, stats::DataUse, usage::Usage};

use super::{Driver, plan::Plan};
use crate::{
    config::{BACKFILL, Config, TUNNELS},
    event::{Event, Warning},
};

/// Sources whose wishes are remembered; a host that makes up ever more names costs no memory.
const MAX_WISHES: usize = 4_096;

/// Octets by cause, and the plan.
pub(crate) struct Spending {
    usage: Usage,
    plan: Option<Plan>,
    /// What the server wants of each source, whatever the plan says: camera, source, wanted.
    wishes: Vec<(String, String, bool)>,
    /// Names of sources that are stopped.
    stopped: Vec<String>,
    /// What frames of the past may take when they are not.
    backfill_rate: Option<u64>,
    statistics_interval: Duration,
    statistics_at: Option<Instant>,
    /// Something else than control messages has left since the statistics were told, or they were not whole.
    has_news: bool,
    server_faults: u64,
}

impl Spending {
    pub(crate) fn new(config: &Config) -> Self {
        let cameras = config.cameras.iter();
        let services = cameras
            .clone()
            .flat_map(|camera| camera.services.iter().map(move |service| (camera.id.as_str(), service.name.as_str())));
        let wishes = cameras.flat_map(|camera| {
            let wish = |source: &crate::config::SourceConfig| {
                (camera.id.clone(), source.name.clone(), source.policy == Policy::Always)
            };
            camera.sources.iter().map(wish)
        });
        Self {
            usage: Usage::new(services),
            plan: config.data_plan.clone().map(Plan::new),
            wishes: wishes.collect(),
            stopped: Vec::new(),
            backfill_rate: config.storage.as_ref().and_then(|storage| storage.backfill_rate),
            statistics_interval: config.statistics_interval,
            statistics_at: None,
            has_news: false,
            server_faults: 0,
        }
    }

    /// A track begins; whether its source is one that the plan has stopped.
    pub(super) fn track(&mut self, number: u32, camera: &str, source: &str) -> bool {
        self.usage.track(number, camera, source);
        let is_known = self.wishes.iter().any(|wish| wish.0 == camera && wish.1 == source);
        if !is_known && self.wishes.len() < MAX_WISHES {
            // What the configuration does not name is wanted until the server says something else.
            self.wishes.push((camera.to_owned(), source.to_owned(), true));
        }
        self.stopped.iter().any(|stopped| stopped == source)
    }

    /// A connection begins.
    pub(super) fn begin(&mut self) {
        self.usage.begin();
    }

    /// What happens to streams.
    pub(super) fn hear(&mut self, event: &StreamEvent) {
        match event {
            StreamEvent::Open { stream, camera, service, .. } => self.usage.opened(*stream, camera, service),
            StreamEvent::Closed(stream) => self.usage.closed(*stream),
            _ => {}
        }
    }

    /// This is to be sent.
    pub(super) fn chosen(&mut self, now: Instant, transmit: &Transmit) {
        match transmit {
            Transmit::Binary(record) => {
                self.has_news = true;
                self.usage.record(now, record);
            }
            other => self.usage.text(other.octets()),
        }
    }

    /// A record has come.
    pub(super) fn came(&mut self, record: &[u8]) {
        self.usage.came(record);
    }

    /// All that was chosen has left.
    pub(super) fn left(&mut self) {
        self.usage.left();
    }

    /// The connection is over.
    pub(super) fn lost(&mut self) {
        self.usage.lost();
    }

    /// The agent has ended a session because of what the server did.
    pub(super) fn blame(&mut self, error: &camagent_proto::Error) {
        use camagent_proto::Error::{Credit, Limit, Violation};
        if matches!(error, Violation { .. } | Limit { .. } | Credit { .. }) {
            self.server_faults += 1;
        }
    }

    /// Whether the next heartbeat tells statistics: while more than heartbeats is sent, and else as often as the configuration says.
    pub(super) fn is_statistics_due(&self, now: Instant) -> bool {
        self.has_news || self.statistics_at.is_none_or(|at| now.saturating_since(at) >= self.statistics_interval)
    }

    /// The numbers for the statistics.
    pub(super) fn report(&mut self, now: Instant, sent: u64, received: u64) -> (DataUse, u64) {
        let (data, is_more) = self.usage.report(sent, received);
        (self.statistics_at, self.has_news) = (Some(now), is_more);
        (data, self.server_faults)
    }
}

impl Driver {
    /// The server has welcomed the agent, and told what was used in this month.
    pub(super) fn told_use(&mut self, now: Instant, used: u64, time_ms: u64) {
        let counts = self.shared.counts.read();
        if let Some(plan) = &mut self.spending.plan {
            plan.told(now, used, time_ms, counts.bytes_sent + counts.bytes_received);
        }
    }

    /// A source is wanted, or no longer: as far as the data plan has not stopped it.
    pub(super) fn wish(&mut self, camera: &str, source: &str, wanted: bool) -> bool {
        let of_source = |wish: &&mut (String, String, bool)| wish.0 == camera && wish.1 == source;
        if let Some(wish) = self.spending.wishes.iter_mut().find(of_source) {
            wish.2 = wanted;
        }
        wanted && !self.spending.stopped.iter().any(|stopped| stopped == source)
    }

    /// Stops what the data plan does not bear any more, and lets it go on in the next month.
    pub(super) fn keep_to_plan(&mut self, now: Instant) {
        let counts = self.shared.counts.read();
        let Some(plan) = &mut self.spending.plan else { return };
        let Some(change) = plan.look(now, counts.bytes_sent + counts.bytes_received) else { return };
        let monthly = plan.config().monthly_bytes;
        let stopped = plan.config().stops_first[..change.stopped].to_vec();
        self.tunnels.stop(stopped.iter().any(|name| name == TUNNELS), self.session.tunnels());
        let has_past = !stopped.iter().any(|name| name == BACKFILL);
        self.session.set_backfill_rate(if has_past { self.spending.backfill_rate } else { Some(0) });
        self.spending.stopped.clone_from(&stopped);
        self.shared.intake.set_stopped(&stopped);
        for (camera, source, wanted) in self.spending.wishes.clone() {
            let wanted = wanted && !stopped.contains(&source);
            for track in self.shared.intake.set_wanted(&camera, &source, wanted) {
                self.tell(Event::TrackWanted { track, wanted });
            }
        }
        self.ask_for_keys();
        let words = if stopped.is_empty() { "nothing".to_owned() } else { stopped.join(", ") };
        let (percent, used) = (change.percent, change.used);
        let message = format!("data plan: {used} of {monthly} bytes of this month are used; stopped: {words}");
        self.warn(Warning::DataPlan, message);
        let data = serde_json::json!({
            "percent": percent, "used_bytes": used, "monthly_bytes": monthly, "stopped": stopped,
        });
        if let Err(error) = self.session.push_event(now, None, "data_plan", data) {
            self.logger.error(format_args!("{error}"));
        }
    }
}
