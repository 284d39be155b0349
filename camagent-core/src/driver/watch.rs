//! What is done about a connection that may be dead, about another network, and about a first server that is well again: make before break.
//!
//! On a suspicion a second connection is dialled while the first one is kept. Whichever works is taken: octets that are acknowledged after all drop
//! the second one; once the stall deadline has passed, the second one takes over as soon as it is up.
//! What does not belong here: when something is suspicious (`liveness`), and the connection's own work (`talk`).

use std::{task::Context, time::Duration};

use camagent_proto::{Error as ProtocolError, Instant};

use super::{
    Driver,
    liveness::{Liveness, Verdict},
    random,
    round_trips::RoundTrips,
    second::{Second, Why},
    talk::Talk,
};
use crate::{
    error::Error,
    net::{self, Dialler, Ending},
};

/// A second dial is given up and begun anew after this: a lost first packet is repeated ever more rarely.
const SECOND_WITHIN: Duration = Duration::from_secs(8);
/// After a second dial that failed the next one waits so long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A connection that ended without a close (RFC 6455 section 7.4.1).
const NO_CLOSE: u16 = 1006;
/// Connections are not changed for another network's sake more often than this.
const MOVE_EVERY: Duration = Duration::from_secs(10);

/// How long a connection may owe an answer when the host says that the network has changed.
fn told_patience(round_trip: Duration) -> Duration {
    Duration::from_secs(1).saturating_add(round_trip.saturating_mul(2)).min(Liveness::stall_after(round_trip))
}

/// What is known about one connection.
pub(super) struct Watch {
    liveness: Liveness,
    round_trips: RoundTrips,
    pub(super) second: Option<Second>,
    /// No second dial before.
    again_at: Instant,
    /// Second dials in a row that failed.
    failed: usize,
    /// When the first server is looked for.
    return_at: Option<Instant>,
    /// When octets last came or left, and the count of them.
    moved: (Instant, u64),
    /// When octets last came, and the count of them.
    heard: (Instant, u64),
    /// The heartbeat that is out, and how long nothing had come or left when it was sent.
    asked: Option<(Instant, Duration)>,
    /// The round trip that the session told last.
    told: Option<Duration>,
    /// There was no way to the server for a while.
    was_cut_off: bool,
    /// When the network was last another one, or gone.
    unsettled_at: Option<Instant>,
    began: Instant,
}

impl Watch {
    /// `round_trip` is the kernel's, zero when it does not tell.
    pub(super) fn new(now: Instant, round_trip: Duration) -> Self {
        Self {
            liveness: Liveness::default(),
            round_trips: RoundTrips::of_handshake(round_trip),
            second: None,
            again_at: Instant::ZERO,
            failed: 0,
            return_at: None,
            moved: (now, 0),
            heard: (now, 0),
            asked: None,
            told: None,
            was_cut_off: false,
            unsettled_at: None,
            began: now,
        }
    }

    /// `sent` octets were handed over by now.
    pub(super) fn deadline(&self, now: Instant, sent: u64) -> Option<Instant> {
        let round_trip = self.round_trips.usual();
        let again = (self.again_at > now).then_some(self.again_at);
        let back = self.return_at.filter(|at| *at > now);
        let told = self.second.as_ref().filter(|second| second.why == Why::Network && second.is_ready());
        let left = told_patience(round_trip).saturating_sub(self.liveness.silence(now));
        let told = told.filter(|_| !left.is_zero()).map(|_| now + left);
        [self.liveness.deadline(now, round_trip, sent), again, back, told].into_iter().flatten().min()
    }

    /// The connection has ended with `error`: the silence before the heartbeat that got no answer, if it is that which the connection died of. The
    /// network has to be the same as before, and the way to the server free: another connection is up, or somebody on the way said that he does
    /// not know this one.
    pub(super) fn died_after(&self, error: &Error) -> Option<Duration> {
        let (asked_at, silence) = self.asked?;
        let is_of_silence = match error {
            Error::Session(ProtocolError::Silent { .. }) => self.second.as_ref().is_some_and(Second::is_ready),
            Error::Session(ProtocolError::ClosedByPeer { code: NO_CLOSE, .. }) => true,
            _ => false,
        };
        let was_settled = self.unsettled_at.is_none_or(|at| at < self.heard.0.min(asked_at));
        (is_of_silence && was_settled).then_some(silence)
    }
}

impl Driver {
    /// Looks at the connection, and at what might take its place; an error when this one is given up.
    pub(super) fn watch(
        &mut self,
        cx: &mut Context<'_>,
        talk: &mut Talk,
        dialler: &Dialler,
        now: Instant,
    ) -> Option<Error> {
        if talk.is_ending() {
            return None;
        }
        self.note_signs(talk, now);
        self.go_on_dialling(cx, talk, now);
        talk.established_at?;
        // Not before: who cannot act upon it leaves it to whoever comes next.
        if let Some(told_by_host) = self.shared.take_network_change() {
            self.network_changed(talk, dialler, told_by_host, now);
        }
        let round_trip = talk.watch.round_trips.usual();
        let verdict = talk.watch.liveness.verdict(now, round_trip);
        let silence = talk.watch.liveness.silence(now);
        let ready = talk.watch.second.as_ref().filter(|second| second.is_ready()).map(|second| second.why);
        match (verdict, ready) {
            (Verdict::Dead, _) | (Verdict::Stalled, Some(_)) => {
                let waited_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
                return Some(Error::Session(ProtocolError::Silent { awaited: "acknowledgement", waited_ms }));
            }
            (_, Some(Why::Moved)) => {
                return Some(Error::Moved("the way to the server leads through another network".into()));
            }
            (_, Some(Why::Return)) => {
                let first = &self.config.servers[0];
                talk.failure = Some(Error::Moved(format!("{first} is well again")));
                self.close(talk, now, "back to the first server");
            }
            (_, Some(Why::Network)) if silence >= told_patience(round_trip) => {
                return Some(Error::Moved("the network has changed, and the old connection does not answer".into()));
            }
            (Verdict::Well, Some(Why::Network)) if !silence.is_zero() => {}
            (Verdict::Well, Some(_)) => self.drop_second(talk),
            (Verdict::Well, None) => {
                // Until it is up nobody knows whether it will be needed; a host who says that the network changed knows more.
                if talk.watch.second.as_ref().is_some_and(|second| second.why == Why::Suspicion) {
                    self.drop_second(talk);
                }
                self.look_for_first(talk, dialler, now);
            }
            (Verdict::Suspect | Verdict::Stalled, None) => {
                // A look for the first server waits while this one may be dead.
                let is_free = talk.watch.second.as_ref().is_none_or(|second| second.why == Why::Return);
                if is_free && talk.watch.again_at <= now {
                    let silence = silence.as_secs_f64();
                    match self.servers.beside(now, talk.server, talk.watch.failed) {
                        Ok(server) => {
                            self.logger.info(format_args!(
                                "nothing was acknowledged for {silence:.1} s: dialling a second connection"
                            ));
                            self.dial_second(talk, dialler, server, Why::Suspicion);
                        }
                        Err(at) => {
                            let pause = at.saturating_since(now).as_secs_f64();
                            self.logger.info(format_args!(
                                "nothing was acknowledged for {silence:.1} s: no second dial for {pause:.1} s more"
                            ));
                            talk.watch.again_at = at;
                        }
                    }
                }
            }
            (Verdict::Suspect, Some(_)) => {}
        }
        None
    }

    /// What the kernel and the session know.
    fn note_signs(&mut self, talk: &mut Talk, now: Instant) {
        let (sent, received) = (talk.connection.sent(), talk.connection.received());
        let watch = &mut talk.watch;
        let arrived = self.session.arrived_octets();
        watch.liveness.arrived(now, arrived.unwrap_or(0));
        if watch.liveness.wants_a_look(now) {
            watch.liveness.look(now, sent, talk.connection.outstanding());
            watch.round_trips.smoothed(talk.connection.round_trip().unwrap_or_default());
            if arrived.is_some() && talk.connection.has_left() {
                watch.liveness.left(now, sent, self.session.record_octets());
            }
        }
        let round_trip = self.session.round_trip();
        if watch.told.replace(round_trip).is_some_and(|before| before != round_trip) {
            watch.round_trips.measured(round_trip);
        }
        let asked_at = self.session.asked_at();
        watch.liveness.asked(asked_at);
        match (asked_at, watch.asked) {
            (Some(at), None) => watch.asked = Some((at, at.saturating_since(watch.moved.0))),
            (None, Some((_, silence))) => {
                watch.asked = None;
                self.quiet.survived(silence);
                self.session.set_heartbeat_interval(self.quiet.interval());
            }
            _ => {}
        }
        if received > watch.heard.1 {
            watch.heard = (now, received);
        }
        if sent + received > watch.moved.1 {
            watch.moved = (now, sent + received);
        }
    }

    fn go_on_dialling(&mut self, cx: &mut Context<'_>, talk: &mut Talk, now: Instant) {
        let Some(second) = &mut talk.watch.second else { return };
        let Err(error) = second.poll(cx) else { return };
        self.logger.info(format_args!("no second connection: {error}"));
        let (server, why) = (second.server, second.why);
        talk.watch.second = None;
        // What was well until now is a new outage, for each server once.
        let is_first = talk.watch.failed < self.config.servers.len();
        let lived = talk.established_at.filter(|_| is_first).map(|at| now.saturating_since(at));
        self.servers.failed_beside(now, server, Ending::of(&error), lived.unwrap_or_default(), random());
        talk.watch.again_at = now + AGAIN_AFTER;
        if why != Why::Return {
            talk.watch.failed += 1;
        }
    }

    fn dial_second(&self, talk: &mut Talk, dialler: &Dialler, server: usize, why: Why) {
        talk.watch.second = Some(Second::new(server, why, dialler.dial(server, SECOND_WITHIN)));
        // It begins with the next turn.
        self.shared.wake.notify_one();
    }

    fn drop_second(&mut self, talk: &mut Talk) {
        if talk.watch.second.take().is_some() {
            self.logger.info(format_args!("the connection is alive: no second one is needed"));
        }
        talk.watch.failed = 0;
    }

    fn network_changed(&mut self, talk: &mut Talk, dialler: &Dialler, told_by_host: bool, now: Instant) {
        let Some((own, peer)) = talk.connection.ends() else { return };
        let way = net::way_to(peer);
        let was_cut_off = std::mem::replace(&mut talk.watch.was_cut_off, way.is_none());
        let Some(way) = way else {
            self.logger.info(format_args!("there is no way to the server now"));
            talk.watch.unsettled_at = Some(now);
            return;
        };
        // IPv6 addresses come and go while the old ones still work.
        let moved = !net::is_own(own.ip()) || (own.is_ipv4() && way != own.ip());
        if !moved && !was_cut_off && !told_by_host {
            return;
        }
        talk.watch.unsettled_at = Some(now);
        self.session.probe(now);
        let may_move = told_by_host || now.saturating_since(talk.watch.began) >= MOVE_EVERY || !net::is_own(own.ip());
        let has_second = talk.watch.second.as_ref().is_some_and(|second| second.why != Why::Return);
        // Another network ends no pause that the server asked for.
        if has_second || !may_move || self.servers.asked_until(now, talk.server).is_some() {
            return;
        }
        self.logger.info(format_args!("the network has changed: dialling a second connection"));
        let why = if moved { Why::Moved } else { Why::Network };
        self.dial_second(talk, dialler, talk.server, why);
    }

    /// An agent that had to go to another server looks for the first one now and then.
    fn look_for_first(&mut self, talk: &mut Talk, dialler: &Dialler, now: Instant) {
        if talk.server == 0 || talk.watch.second.is_some() {
            return;
        }
        match talk.watch.return_at {
            Some(at) if at > now => {}
            due => {
                // Agents that went away together do not come back together.
                let jitter = 0.8 + 0.4 * (random() >> 11) as f64 / (1_u64 << 53) as f64;
                talk.watch.return_at = Some(now + self.config.return_interval.mul_f64(jitter));
                if due.is_some() && self.servers.asked_until(now, 0).is_none() {
                    self.dial_second(talk, dialler, 0, Why::Return);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    /// A connection on which nothing moved from second 100 on, and a heartbeat of second 120 that got no answer.
    fn idle() -> Watch {
        let mut watch = Watch::new(at(100), Duration::ZERO);
        watch.asked = Some((at(120), Duration::from_secs(20)));
        watch
    }

    fn closed(code: u16) -> Error {
        Error::Session(ProtocolError::ClosedByPeer { code, detail: String::new() })
    }

    #[test]
    fn a_silence_is_blamed_only_for_what_died_of_it() {
        assert_eq!(
            idle().died_after(&closed(NO_CLOSE)),
            Some(Duration::from_secs(20)),
            "somebody forgot it, and says so"
        );
        for error in [
            Error::Moved("another network".into()),
            closed(4009),
            closed(4010),
            // No second connection came up: it is the way that is gone, and not the memory of it.
            Error::Session(ProtocolError::Silent { awaited: "acknowledgement", waited_ms: 10_000 }),
        ] {
            assert_eq!(idle().died_after(&error), None, "{error}");
        }
        let answered = Watch { asked: None, ..idle() };
        assert_eq!(answered.died_after(&closed(NO_CLOSE)), None, "nothing was asked");
    }

    #[test]
    fn a_network_that_changed_is_the_reason_itself() {
        for (unsettled, is_blamed) in [(90, true), (110, false), (121, false)] {
            let watch = Watch { unsettled_at: Some(at(unsettled)), ..idle() };
            assert_eq!(watch.died_after(&closed(NO_CLOSE)).is_some(), is_blamed, "{unsettled}");
        }
    }
}
