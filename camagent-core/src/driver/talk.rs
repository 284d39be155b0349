//! One connection, from its first message to its end: reads, writes, timers. The next thing to write is chosen only when the socket takes it.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use camagent_proto::{Error as ProtocolError, Instant, frame::MAX_RECORD, governor::Governor};
use tokio::{
    sync::futures::OwnedNotified,
    time::{Sleep, sleep},
};

use super::{Driver, Shared, watch::Watch};
use crate::{
    burst::Burst,
    clock,
    error::Error,
    net::{Connection, Dialler, Ending, Incoming, Traffic},
    stats::Uplink,
};

/// How long the server may take to answer a close before the connection is dropped.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// What TLS 1.3 (RFC 8446 section 5.2) and WebSocket (RFC 6455 section 5.2) put around a record.
const WRAPPING: usize = 22 + 8;
/// On a busy path live audio waits so long for a record that has room beside it: a packet of its own is half header.
const AUDIO_PATIENCE: Duration = Duration::from_millis(15);
/// However slow the path is, a record has room for so much.
const SMALLEST_RECORD: usize = 400;
/// In a burst with less room than this no further record is begun.
const LEAST_RECORD: usize = 1_024;
/// Messages that are read before others get a turn.
const READ_BURST: usize = 32;

/// What one connection needs until it ends.
pub(super) struct Talk {
    pub(super) connection: Connection,
    /// The server's place in the configuration.
    pub(super) server: usize,
    burst: Burst,
    governor: Governor,
    /// Octets of the connection that the governor knows.
    counted: u64,
    /// What one packet carries at most.
    segment: usize,
    /// Since when the governor gives no room.
    held_since: Option<Instant>,
    /// When the governor wants to be asked again, while it holds back.
    look_at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    woken: Pin<Box<OwnedNotified>>,
    pub(super) established_at: Option<Instant>,
    /// Why it ends, as soon as that is known.
    pub(super) failure: Option<Error>,
    /// When the connection is dropped, once it is being closed: a peer that takes nothing any more cannot hold it open.
    ends_by: Option<Instant>,
    /// When the server wants the agent to have left.
    pub(super) leave_at: Option<Instant>,
    pub(super) ending: Option<Ending>,
    /// The server that the present one named to go to.
    pub(super) go_to: Option<usize>,
    pub(super) watch: Watch,
}

impl Talk {
    pub(super) fn new(connection: Connection, server: usize, shared: &Shared, queue_target: Duration) -> Self {
        let mut governor = Governor::new(queue_target, connection.segment());
        let round_trip = connection.round_trip();
        if let Some(round_trip) = round_trip {
            governor.connected(clock::now(), round_trip);
        }
        Self {
            burst: Burst::new(clock::now()),
            governor,
            segment: usize::try_from(connection.segment()).unwrap_or(MAX_RECORD),
            counted: connection.sent(),
            connection,
            server,
            look_at: None,
            held_since: None,
            timer: Box::pin(sleep(Duration::ZERO)),
            woken: Box::pin(Arc::clone(&shared.wake).notified_owned()),
            established_at: None,
            failure: None,
            ends_by: None,
            leave_at: None,
            ending: None,
            go_to: None,
            watch: Watch::new(clock::now(), round_trip.unwrap_or_default()),
        }
    }

    /// How large a record should be: what leaves within about a hundredth of a second, so that nothing urgent waits longer for it; in whole packets,
    /// because a packet that is half full has as large a header.
    fn record_size(&self) -> usize {
        let of_rate = self.governor.rate().map_or(MAX_RECORD, |rate| usize::try_from(rate / 100).unwrap_or(MAX_RECORD));
        if self.segment > MAX_RECORD / 2 {
            return of_rate.clamp(LEAST_RECORD, MAX_RECORD);
        }
        let packet = usize::try_from(self.governor.packet()).unwrap_or(self.segment);
        let packets = ((of_rate + packet / 2) / packet).max(1);
        (packets * packet).saturating_sub(WRAPPING).clamp(SMALLEST_RECORD, MAX_RECORD)
    }

    /// Whether a close is on its way.
    pub(super) fn is_ending(&self) -> bool {
        self.ends_by.is_some()
    }

    /// A close is on its way, or cannot even leave: the connection ends soon, whatever the peer does.
    pub(super) fn end_soon(&mut self, now: Instant) {
        self.ends_by.get_or_insert(now + CLOSE_WITHIN);
    }
}

enum Read {
    Drained,
    More,
    Ended(Error),
}

impl Driver {
    /// Moves everything that can be moved; ready when the connection has ended.
    pub(super) fn turn(
        &mut self,
        cx: &mut Context<'_>,
        talk: &mut Talk,
        dialler: &Dialler,
        traffic: &Rc<Traffic>,
    ) -> Poll<Error> {
        loop {
            // Asked before the work, so that whatever comes in meanwhile wakes us.
            let was_woken = talk.woken.as_mut().poll(cx).is_ready();
            if was_woken {
                talk.woken.as_mut().set(Arc::clone(&self.shared.wake).notified_owned());
            }
            let now = clock::now();
            self.take_orders();
            let read = self.read(cx, talk, now);
            if self.session.poll_timeout().is_some_and(|at| at <= now) {
                // Each report tells what none before it told: one that no heartbeat takes is lost.
                if self.session.is_heartbeat_due(now) && self.spending.is_statistics_due(now) {
                    let statistics = self.statistics(now, traffic);
                    self.session.set_statistics(statistics);
                }
                self.session.handle_timeout(now);
            }
            self.expire_commands(now);
            self.hear(talk, now);
            for happening in self.tunnels.turn(cx, self.session.tunnels(), now) {
                self.tell_tunnel(happening);
            }
            self.tell_refusals_left_out(now);
            self.leave_if_due(talk, now);
            self.keep_hours(now);
            let given_up = self.watch(cx, talk, dialler, now);
            let has_more = matches!(read, Read::More);
            let ended = match read {
                Read::Ended(error) => Some(error),
                Read::Drained | Read::More if given_up.is_some() => given_up,
                Read::Drained | Read::More => self.write(cx, talk).err(),
            };
            self.publish(traffic);
            self.keep_to_plan(now);
            if let Some(error) = ended {
                return Poll::Ready(error);
            }
            if talk.ends_by.is_some_and(|at| at <= now) {
                return Poll::Ready(Error::Unreachable("the server did not answer a close".into()));
            }
            if was_woken || has_more {
                continue;
            }
            // A timer that has fired wakes us again at once.
            if !self.arm(cx, talk) {
                return Poll::Pending;
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, talk: &mut Talk, now: Instant) -> Read {
        let mut journal = self.shared.journal();
        for _ in 0..READ_BURST {
            match talk.connection.poll_receive(cx) {
                Poll::Pending => return Read::Drained,
                Poll::Ready(Incoming::Text(text)) => self.session.handle_text(now, &text, &mut journal),
                Poll::Ready(Incoming::Binary(record)) => {
                    self.spending.came(&record);
                    self.session.handle_binary(now, record, &mut journal);
                }
                Poll::Ready(Incoming::Ping) => self.session.handle_ping(now),
                Poll::Ready(Incoming::Closed(code, detail)) => {
                    return Read::Ended(Error::Session(ProtocolError::ClosedByPeer { code, detail }));
                }
            }
        }
        Read::More
    }

    /// Writes as long as the path and the socket take something: the next things are chosen only when those before have left.
    fn write(&mut self, cx: &mut Context<'_>, talk: &mut Talk) -> Result<(), Error> {
        let lost = |detail| Error::Session(ProtocolError::ClosedByPeer { code: 1006, detail });
        talk.look_at = None;
        self.shared.await_frames(true);
        loop {
            match talk.connection.poll_flush(cx) {
                Poll::Pending => {
                    self.shared.await_frames(false);
                    return Ok(());
                }
                Poll::Ready(flushed) => flushed.map_err(lost)?,
            }
            self.spending.left();
            let now = clock::now();
            let octets = talk.connection.sent() - talk.counted;
            talk.counted += octets;
            talk.burst.sent(now, usize::try_from(octets).unwrap_or(usize::MAX));
            talk.governor.sent(now, octets);
            let outstanding = talk.connection.outstanding();
            let receipts = if talk.governor.wants_receipts() { talk.connection.receipts(outstanding) } else { None };
            talk.governor.sacked(receipts.map_or(0, |receipts| receipts.sacked));
            talk.governor.outstanding(now, outstanding);
            if let Some(receipts) = receipts {
                talk.governor.retransmitted(now, receipts.retransmitted);
            }
            talk.governor.handed_over(now, self.session.record_octets());
            if let Some(told) = self.session.take_arrived() {
                talk.governor.arrived(now, told.octets, told.at_ms);
            }
            talk.connection.pace(talk.governor.pace());
            if talk.governor.wants_unsent() {
                talk.governor.unsent(talk.connection.unsent());
            }
            self.uplink = Uplink {
                bits_per_second: talk.governor.rate().unwrap_or(0).saturating_mul(8),
                queue_us: u64::try_from(talk.governor.queueing_delay().as_micros()).unwrap_or(u64::MAX),
            };
            let room = usize::try_from(talk.governor.room()).unwrap_or(usize::MAX);
            // Less than half of a record waits for more room: what is handed over too early stands in the queue.
            if room < talk.record_size() / 2 {
                let held_since = *talk.held_since.get_or_insert(now);
                let audio_too = now.saturating_since(held_since) >= AUDIO_PATIENCE;
                let mut journal = self.shared.journal();
                let urgent = match talk.governor.urgent_room() {
                    0 => {
                        self.shared.await_frames(false);
                        None
                    }
                    _ => self.session.poll_urgent(now, &mut journal, talk.record_size(), audio_too),
                };
                if let Some(transmit) = urgent {
                    self.spending.chosen(now, &transmit);
                    talk.connection.send(transmit).map_err(lost)?;
                    continue;
                }
                talk.look_at = Some(now + talk.governor.look_after());
                return Ok(());
            }
            talk.held_since = None;
            let burst = talk.burst.size().min(room.max(talk.record_size()));
            self.session.tunnels().set_quantum(burst);
            let past_room = match self.session.has_past(&mut self.shared.journal()) {
                true => usize::try_from(talk.governor.past_room(now)).unwrap_or(usize::MAX),
                false => usize::MAX,
            };
            let mut chosen = 0;
            // A little is left over rather than a record of a few octets.
            while chosen == 0 || chosen + LEAST_RECORD < burst {
                let target = (burst - chosen).min(talk.record_size());
                let mut journal = self.shared.journal();
                self.session.set_past_room(past_room.saturating_sub(chosen));
                let mut sides = self.tunnels.sides(cx, talk.burst.size(), now);
                let Some(transmit) = self.session.poll_transmit(now, &mut journal, &mut sides, target) else { break };
                chosen += transmit.octets();
                self.spending.chosen(now, &transmit);
                talk.connection.send(transmit).map_err(lost)?;
            }
            if chosen == 0 {
                talk.look_at = self.session.is_past_held().then(|| now + talk.governor.look_after());
                return Ok(());
            }
        }
    }

    /// Sets the timer to the next deadline; `true` when that has passed already.
    fn arm(&mut self, cx: &mut Context<'_>, talk: &mut Talk) -> bool {
        let now = clock::now();
        let deadlines = [
            self.session.poll_timeout(),
            talk.ends_by,
            talk.leave_at.filter(|_| talk.ends_by.is_none()),
            self.shared.stop_until().filter(|_| talk.ends_by.is_none()),
            self.shared.next_expiry(),
            self.tunnels.deadline(),
            talk.look_at,
            self.hours.deadline(),
            self.overflow_due(now).map(|after| now + after),
            talk.watch.deadline(now, talk.connection.sent()).filter(|_| talk.ends_by.is_none()),
            self.refusals_logged.deadline(),
            self.refusals_told.deadline(),
        ];
        let Some(next) = deadlines.into_iter().flatten().min() else { return false };
        let left = next.saturating_since(now);
        talk.timer.as_mut().reset(tokio::time::Instant::now() + left);
        talk.timer.as_mut().poll(cx).is_ready()
    }

    fn leave_if_due(&mut self, talk: &mut Talk, now: Instant) {
        if talk.ends_by.is_some() {
            return;
        }
        if let Some(until) = self.shared.stop_until() {
            let mut journal = self.shared.journal();
            if until <= now || self.session.is_settled(&mut journal) {
                self.close(talk, now, "the agent is stopped");
            }
        } else if talk.leave_at.is_some_and(|at| at <= now) {
            self.close(talk, now, "asked to leave");
        }
    }

    pub(super) fn close(&mut self, talk: &mut Talk, now: Instant, reason: &str) {
        self.session.close(reason);
        talk.end_soon(now);
    }
}
