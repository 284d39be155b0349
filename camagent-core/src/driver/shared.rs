//! What the agent's handle and its loop share: orders one way, counters and events the other.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use camagent_proto::{
    Instant,
    message::{self, CommandError},
    session::CommandToken,
    stats::Statistics,
};
use tokio::sync::Notify;

use crate::{
    error::Error,
    event::EventQueue,
    source::Intake,
    stats::SharedCounts,
    storage::{Run, Shelf, Tiers},
};

/// Orders of the host that may wait for the loop.
const MAX_ORDERS: usize = 1_024;
/// Commands that may wait for the host's answer.
const MAX_COMMANDS: usize = 64;

/// What the handle asks of the loop.
pub(crate) enum Order {
    /// A command was answered.
    Answer(CommandToken, Result<serde_json::Value, CommandError>),
    /// Something happened at the camera.
    Event(message::Event),
    /// A source has something to tell the operator.
    #[cfg(feature = "pull")]
    Warn(String),
}

/// What handle and loop share.
pub(crate) struct Shared {
    pub(crate) intake: Arc<Intake>,
    /// The way to the disk thread, when there is a folder.
    pub(crate) shelf: Option<Arc<Shelf>>,
    /// This run of the agent.
    pub(crate) run: Run,
    pub(crate) counts: SharedCounts,
    pub(crate) events: EventQueue,
    /// Wakes the loop: a frame that it waits for, an order, or the wish to stop.
    pub(crate) wake: Arc<Notify>,
    /// A new frame could leave at once. What wakes another thread costs the camera's thread more than the copy of a small frame.
    awaits_frames: AtomicBool,
    /// Wakes a loop that is dialling or waiting: the wish to stop only.
    pub(crate) stop_wake: Notify,
    /// Wakes a loop that is dialling: another network.
    pub(crate) network_wake: Notify,
    /// The network has changed: whether the host said so.
    network: Mutex<Option<bool>>,
    orders: Mutex<VecDeque<Order>>,
    /// When the loop has to end at the latest, once it has to.
    stop_until: Mutex<Option<Instant>>,
    /// Commands that wait for an answer of the host, and until when.
    unanswered: Mutex<Vec<(CommandToken, Instant)>>,
}

impl Shared {
    pub(crate) fn new(intake: Arc<Intake>, shelf: Option<Arc<Shelf>>, run: Run, events: EventQueue) -> Self {
        Self {
            intake,
            shelf,
            run,
            counts: SharedCounts::default(),
            events,
            wake: Arc::default(),
            awaits_frames: AtomicBool::new(false),
            stop_wake: Notify::new(),
            network_wake: Notify::new(),
            network: Mutex::default(),
            orders: Mutex::default(),
            stop_until: Mutex::default(),
            unanswered: Mutex::default(),
        }
    }

    /// The journal's tiers, as the session reads them.
    pub(crate) fn journal(&self) -> Tiers<'_> {
        Tiers::new(&self.intake, self.shelf.as_deref(), &self.run)
    }

    /// Hands an order to the loop.
    pub(crate) fn order(&self, order: Order) -> Result<(), Error> {
        let mut orders = lock(&self.orders);
        if orders.len() == MAX_ORDERS {
            return Err(Error::Busy);
        }
        orders.push_back(order);
        drop(orders);
        self.wake.notify_one();
        Ok(())
    }

    /// The loop is woken by frames from now on, or no longer. It says so before it looks into the journal: what comes in behind that look wakes it.
    pub(super) fn await_frames(&self, awaits: bool) {
        self.awaits_frames.store(awaits, Ordering::SeqCst);
    }

    /// A frame is in the journal, or could not be: wakes the loop if that has to do something now.
    pub(crate) fn frame_came(&self) {
        if self.awaits_frames.load(Ordering::SeqCst) || self.intake.take_news() {
            self.wake.notify_one();
        }
    }

    /// Asks the loop to end: at `until` at the latest.
    pub(crate) fn stop(&self, until: Instant) {
        *lock(&self.stop_until) = Some(until);
        self.wake.notify_one();
        self.stop_wake.notify_one();
    }

    /// The machine is in another network, or has other addresses there.
    pub(crate) fn note_network_change(&self, told_by_host: bool) {
        let mut network = lock(&self.network);
        *network = Some(told_by_host || network.unwrap_or(false));
        drop(network);
        self.wake.notify_one();
        self.network_wake.notify_one();
    }

    /// Whether the network has changed since this was last asked, and whether the host said so.
    pub(super) fn take_network_change(&self) -> Option<bool> {
        lock(&self.network).take()
    }

    /// Takes a command off the list of unanswered ones; `false` when it is not there.
    pub(crate) fn claim(&self, token: CommandToken) -> bool {
        let mut unanswered = lock(&self.unanswered);
        let before = unanswered.len();
        unanswered.retain(|(other, _)| *other != token);
        unanswered.len() < before
    }

    pub(super) fn next_order(&self) -> Option<Order> {
        lock(&self.orders).pop_front()
    }

    /// The host has until then for its answer; `false` when too many commands wait already.
    pub(super) fn expect_answer(&self, token: CommandToken, until: Instant) -> bool {
        let mut unanswered = lock(&self.unanswered);
        let has_room = unanswered.len() < MAX_COMMANDS;
        if has_room {
            unanswered.push((token, until));
        }
        has_room
    }

    /// When the next command is late.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        lock(&self.unanswered).iter().map(|(_, until)| *until).min()
    }

    /// Takes the commands off the list whose time is over.
    pub(super) fn take_late(&self, now: Instant) -> Vec<CommandToken> {
        lock(&self.unanswered).extract_if(.., |(_, until)| *until <= now).map(|(token, _)| token).collect()
    }

    /// Whether the loop was asked to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop_until().is_some()
    }

    pub(super) fn stop_until(&self) -> Option<Instant> {
        *lock(&self.stop_until)
    }
}

#[cfg(feature = "pull")]
impl crate::source::pull::Home for Shared {
    fn intake(&self) -> &Intake {
        &self.intake
    }

    fn track_began(&self) {
        self.wake.notify_one();
    }

    fn frame_came(&self) {
        self.frame_came();
    }

    fn is_connected(&self) -> bool {
        self.counts.read().is_connected
    }

    fn warn(&self, message: String) {
        // When a thousand orders wait, one warning is not missed.
        let _ = self.order(Order::Warn(message));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The product's statistics, from what is counted at both sides of the journal.
pub(crate) fn statistics(shared: &Shared, uptime: Duration) -> Statistics {
    let network = shared.counts.read();
    let (intake, held) = shared.intake.counts();
    Statistics {
        bytes_sent: network.bytes_sent,
        bytes_received: network.bytes_received,
        packets_lost: network.frames_lost,
        reconnections: network.sessions.saturating_sub(1),
        uptime: uptime.as_secs(),
        buffer_size: held as u64,
        frames_accepted: intake.accepted,
        frames_sent: network.frames_sent,
        frames_dropped: intake.dropped,
        round_trip_us: network.round_trip_us,
        uplink_bits_per_second: network.uplink.bits_per_second,
        uplink_queue_us: network.uplink.queue_us,
        ..Statistics::default()
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::message::BootId;
    use futures_util::FutureExt;

    use super::*;
    use crate::{Codec, Config, Frame, Framing, Pushed, TrackDescription};

    #[test]
    fn a_frame_wakes_the_loop_when_it_can_leave_or_something_is_to_be_told() {
        let config = r#"{"agent":{"agent_id":"a","cloud_server_url":"ws://h","cloud_server_token":"t"}}"#;
        let intake = Intake::new(64 << 10, &Config::from_json(config).unwrap().cameras, false).unwrap();
        intake.set_track(0, &TrackDescription::video("sub", Codec::H264, Framing::AnnexB)).unwrap();
        let shared = Shared::new(Arc::new(intake), None, Run::new(BootId([1; 16])), EventQueue::new().unwrap());
        let wakes = |key: bool| {
            let mut data = vec![0; 20 << 10];
            data[..6].copy_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }, 1]);
            let frame = Frame { data: &data, ..Frame::default() };
            assert_eq!(shared.intake.push(Instant::ZERO, 0, frame).unwrap(), Pushed::Kept);
            shared.frame_came();
            shared.wake.notified().now_or_never().is_some()
        };
        assert_eq!([wakes(true), wakes(true), wakes(false)], [false; 3], "nothing is connected");
        assert!(wakes(true), "the first one had to go");
        assert!(!wakes(true), "nobody has asked since how many went");
        assert!(shared.intake.take_overflow() > 0 && wakes(true));
        shared.await_frames(true);
        assert!(wakes(true) && wakes(true));
        shared.await_frames(false);
        assert!(!wakes(true));
    }
}
