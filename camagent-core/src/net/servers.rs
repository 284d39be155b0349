//! Which server is tried next, and when: the list of the configuration, each server with its own pauses.
//!
//! Whoever lost a session tries the same server first: its memory of the agent's frames is there. After an attempt without a session the next
//! of the list has its turn, round and round; one whose pause is not over is passed over. What does not belong here: the length of one
//! server's pauses (`backoff`).

use std::time::Duration;

use camagent_proto::Instant;

use super::backoff::{Backoff, Ending, within};

/// Agents that lose one server do not come to the next all at once.
const HOP: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Server {
    backoff: Backoff,
    ready_at: Instant,
    /// Whether the pause was asked for by the server or ends by a person only: another network changes nothing about it.
    is_asked: bool,
}

/// The servers of an agent.
#[derive(Debug)]
pub(crate) struct Servers {
    each: Vec<Server>,
    next: usize,
    next_at: Instant,
    /// Until then the agents of a server that sent them elsewhere come back spread.
    spread_until: Option<Instant>,
}

impl Servers {
    /// So many servers; `pause` is the longest pause of a young outage.
    pub(crate) fn new(count: usize, pause: Duration) -> Self {
        let server = || Server { backoff: Backoff::new(pause), ready_at: Instant::ZERO, is_asked: false };
        Self {
            each: (0..count.max(1)).map(|_| server()).collect(),
            next: 0,
            next_at: Instant::ZERO,
            spread_until: None,
        }
    }

    /// The server to try next, and not before when.
    pub(crate) fn next(&self) -> (usize, Instant) {
        (self.next, self.next_at)
    }

    /// Where an attempt goes that is made while the connection to `server` is still there and `failed` others have failed: to the next of the list
    /// whose pause is over. An error when none is: when the first of them ends.
    pub(crate) fn beside(&self, now: Instant, server: usize, failed: usize) -> Result<usize, Instant> {
        let count = self.each.len();
        let mut order = (0..count).map(|step| (server + failed + step) % count);
        order
            .find(|server| self.each[*server].ready_at <= now)
            .ok_or_else(|| self.each.iter().map(|server| server.ready_at).min().unwrap_or(now))
    }

    /// Until when `server` wants to be left alone, if it does: it said so, or only a person can lift what it said.
    pub(crate) fn asked_until(&self, now: Instant, server: usize) -> Option<Instant> {
        let server = &self.each[server];
        (server.is_asked && server.ready_at > now).then_some(server.ready_at)
    }

    /// An attempt at `server` has failed that was made while a connection was still there, which had been well for so long: its pauses hold as those
    /// after any other attempt.
    pub(crate) fn failed_beside(
        &mut self,
        now: Instant,
        server: usize,
        ending: Ending,
        well_for: Duration,
        random: u64,
    ) {
        let server = &mut self.each[server];
        server.ready_at = now + server.backoff.next(now, ending, well_for, random);
        server.is_asked = ending != Ending::Trouble;
    }

    /// An attempt at, or a session with, `server` has ended; `lived` is how long the session was established, zero without one. Gives the
    /// pause. `random` is a fresh random number.
    pub(crate) fn ended(
        &mut self,
        now: Instant,
        server: usize,
        ending: Ending,
        lived: Duration,
        random: u64,
    ) -> Duration {
        // What a second connection was told is not forgotten because the first one ends.
        let asked_until = self.asked_until(now, server);
        let pause = self.each[server].backoff.next(now, ending, lived, random);
        let ready_at = asked_until.map_or(now + pause, |asked| asked.max(now + pause));
        self.each[server].ready_at = ready_at;
        self.each[server].is_asked = ending != Ending::Trouble || asked_until.is_some();
        let had_session = !lived.is_zero();
        let stays = match ending {
            Ending::Goaway { .. } | Ending::Replaced | Ending::Restart => true,
            Ending::Trouble | Ending::RetryAfter { .. } => had_session && asked_until.is_none(),
            Ending::Refused => false,
        };
        (self.next, self.next_at, self.spread_until) = (server, ready_at, None);
        if !stays {
            // Other bits than those of the pause.
            let hop = now + within(HOP, random.rotate_left(32));
            let count = self.each.len();
            let others = || (1..count).map(|step| (server + step) % count);
            if let Some(other) = others().find(|other| self.each[*other].ready_at <= hop) {
                (self.next, self.next_at) = (other, hop);
            } else if let Some(other) = others().min_by_key(|other| self.each[*other].ready_at)
                && self.each[other].ready_at < self.next_at
            {
                (self.next, self.next_at) = (other, self.each[other].ready_at);
            }
        }
        self.next_at.saturating_since(now)
    }

    /// `by` named another server to go to, when the pause is over that it asked for, if it did.
    pub(crate) fn go_to(&mut self, by: usize, server: usize) {
        self.spread_until = self.each[by].is_asked.then_some(self.next_at);
        self.next = server;
        // One that has asked for a pause itself knows better.
        if self.each[server].is_asked {
            self.next_at = self.next_at.max(self.each[server].ready_at);
        }
    }

    /// Another network: what was out of reach may be within it. Pauses that the server asked for stay; `true` when there is nothing to wait for.
    pub(crate) fn network_changed(&mut self, now: Instant) -> bool {
        let is_spread = self.spread_until.is_some_and(|at| at > now);
        let is_asked = is_spread || self.each[self.next].is_asked && self.each[self.next].ready_at > now;
        if !is_asked {
            self.next_at = self.next_at.min(now);
        }
        !is_asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);
    const NONE: Duration = Duration::ZERO;
    const MINUTE: Duration = Duration::from_secs(60);
    /// Nearly all of every pause.
    const MOST: u64 = u64::MAX;

    fn seconds(at: u64) -> Instant {
        Instant::from_micros(at * 1_000_000)
    }

    #[test]
    fn failed_attempts_go_round_and_each_server_has_its_own_pauses() {
        let mut servers = Servers::new(3, PAUSE);
        let (mut now, mut tried) = (seconds(100), Vec::new());
        for _ in 0..9 {
            let (server, at) = servers.next();
            now = now.max(at);
            tried.push(server);
            servers.ended(now, server, Ending::Trouble, NONE, MOST);
        }
        assert_eq!(tried, [0, 1, 2, 0, 1, 2, 0, 1, 2], "{servers:?}");
    }

    #[test]
    fn one_server_is_as_before() {
        let mut servers = Servers::new(1, PAUSE);
        let pauses: Vec<u64> = (0..5)
            .map(|_| servers.ended(seconds(1), 0, Ending::Trouble, NONE, MOST).as_secs_f64().round() as u64)
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10]);
        assert_eq!(servers.next().0, 0);
    }

    #[test]
    fn a_lost_session_comes_back_to_its_server_and_a_refusal_leads_on() {
        let mut servers = Servers::new(2, PAUSE);
        servers.ended(seconds(100), 1, Ending::Trouble, MINUTE, 0);
        assert_eq!(servers.next().0, 1, "the same first");
        let pause = servers.ended(seconds(101), 1, Ending::Refused, NONE, MOST);
        assert_eq!(servers.next().0, 0);
        assert!(pause <= HOP, "the other one did not refuse: {pause:?}");
        servers.ended(seconds(102), 0, Ending::Trouble, NONE, MOST);
        assert_eq!(servers.next().0, 0, "the one that refused still has its minute");
    }

    #[test]
    fn a_goaway_spreads_wherever_it_leads() {
        let mut servers = Servers::new(2, PAUSE);
        let pause = servers.ended(seconds(100), 0, Ending::Goaway { spread: MINUTE }, MINUTE, MOST / 2);
        assert!(pause > Duration::from_secs(25), "{pause:?}");
        assert_eq!(servers.next(), (0, seconds(100) + pause));
        servers.go_to(0, 1);
        assert_eq!(servers.next(), (1, seconds(100) + pause));
        assert!(!servers.network_changed(seconds(101)), "another network changes nothing about it");
        assert_eq!(servers.next(), (1, seconds(100) + pause));
    }

    #[test]
    fn a_goaway_to_a_server_that_asked_for_a_pause_waits_for_that() {
        let mut servers = Servers::new(2, PAUSE);
        servers.ended(seconds(90), 1, Ending::RetryAfter { after: MINUTE }, NONE, MOST);
        servers.ended(seconds(100), 0, Ending::Goaway { spread: Duration::from_secs(5) }, MINUTE, MOST);
        servers.go_to(0, 1);
        let (server, at) = servers.next();
        assert!(server == 1 && at >= seconds(150), "{server} at {at:?}");
    }

    #[test]
    fn another_network_ends_a_pause_but_none_that_was_asked_for() {
        let mut servers = Servers::new(1, PAUSE);
        for _ in 0..5 {
            servers.ended(seconds(100), 0, Ending::Trouble, NONE, MOST);
        }
        assert!(servers.network_changed(seconds(101)));
        assert_eq!(servers.next().1, seconds(101));
        let asked = Ending::RetryAfter { after: MINUTE };
        servers.ended(seconds(101), 0, asked, NONE, MOST);
        assert!(!servers.network_changed(seconds(102)));
        assert!(servers.next().1 >= seconds(161));
        assert!(servers.network_changed(seconds(999)), "it is over anyway");
    }

    #[test]
    fn a_second_dial_keeps_to_pauses_and_goes_where_there_is_none() {
        let mut servers = Servers::new(2, PAUSE);
        let asked = Ending::RetryAfter { after: MINUTE };
        assert_eq!(servers.beside(seconds(100), 0, 0), Ok(0));
        servers.failed_beside(seconds(100), 0, asked, MINUTE, 0);
        assert_eq!(servers.beside(seconds(101), 0, 1), Ok(1));
        servers.failed_beside(seconds(101), 1, Ending::Trouble, MINUTE, MOST);
        assert!(servers.beside(seconds(101), 0, 2).is_err_and(|at| at > seconds(101) && at <= seconds(102)));
        assert_eq!(servers.beside(seconds(103), 0, 2), Ok(1), "the first one wants a minute");
        assert!(servers.asked_until(seconds(103), 0).is_some() && servers.asked_until(seconds(103), 1).is_none());
    }

    #[test]
    fn the_end_of_a_session_lifts_no_pause_that_a_second_dial_was_asked_for() {
        let mut servers = Servers::new(1, PAUSE);
        servers.failed_beside(seconds(100), 0, Ending::RetryAfter { after: MINUTE }, MINUTE, 0);
        let pause = servers.ended(seconds(104), 0, Ending::Trouble, MINUTE, 0);
        assert_eq!((pause, servers.next()), (Duration::from_secs(56), (0, seconds(160))));
        assert!(!servers.network_changed(seconds(105)));
        let mut servers = Servers::new(2, PAUSE);
        servers.failed_beside(seconds(100), 0, Ending::Refused, MINUTE, 0);
        servers.ended(seconds(104), 0, Ending::Trouble, MINUTE, 0);
        assert_eq!(servers.next().0, 1, "nobody waits for one server while another may be there");
    }

    #[test]
    fn second_dials_of_an_outage_wait_longer_and_those_of_the_next_one_begin_anew() {
        let mut servers = Servers::new(1, PAUSE);
        let mut pause = |now: u64, well_for| {
            servers.failed_beside(seconds(now), 0, Ending::Trouble, well_for, MOST);
            let at = servers.beside(seconds(now), 0, 1).expect_err("a pause");
            at.saturating_since(seconds(now)).as_secs_f64().round() as u64
        };
        assert_eq!([pause(100, MINUTE), pause(102, NONE), pause(105, NONE)], [1, 2, 4]);
        assert_eq!(pause(9_000, MINUTE), 1);
    }
}
