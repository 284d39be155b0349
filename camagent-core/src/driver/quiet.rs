//! How long a connection may be quiet on this network. NATs and proxies forget idle connections, some after 20 s, and tell nobody; the first octet
//! afterwards finds that out. Whoever learns that twice keeps the connection awake more often, and tries longer silences again, ever more rarely.
//!
//! A value: what became of each silence goes in, the interval of heartbeats comes out. What does not belong here: measuring, and telling a silence that
//! was too long from a network that went away (`watch`).

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// No shorter silence is blamed on a NAT, and none shorter is kept: it would cost more than it saves.
const LEAST: Duration = Duration::from_secs(10);
/// So many connections in a row must have died of silence.
const DEATHS: u32 = 2;
/// After so many silences that were survived a longer one is tried: some hours. Half as many when that went well, four times as many when not.
const FIRST_PATIENCE: u32 = 240;
const LAST_PATIENCE: u32 = 3_840;

/// What is known of this network.
#[derive(Debug)]
pub(crate) struct Quiet {
    configured: Duration,
    interval: Duration,
    deaths: u32,
    survived: u32,
    patience: u32,
    /// The own end of the connections that this is known of.
    network: Option<IpAddr>,
}

impl Quiet {
    /// Nothing is known: `configured` is the longest silence in any case.
    pub(crate) fn new(configured: Duration) -> Self {
        Self { configured, interval: configured, deaths: 0, survived: 0, patience: FIRST_PATIENCE, network: None }
    }

    /// A connection begins from this address. Another one than before is another network: what its NAT bears nobody knows. IPv6 addresses change
    /// every day, the 64 bits of their network do not.
    pub(super) fn begin(&mut self, own: IpAddr) {
        let network = match own.to_canonical() {
            IpAddr::V6(own) => IpAddr::V6(Ipv6Addr::from_bits(own.to_bits() & !u128::from(u64::MAX))),
            own => own,
        };
        if self.network.is_some_and(|before| before != network) {
            *self = Self::new(self.configured);
        }
        self.network = Some(network);
    }

    /// The longest silence to allow.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Somebody answered after so long a silence.
    pub(super) fn survived(&mut self, silence: Duration) {
        // Half a silence proves nothing about a whole one.
        if silence < self.interval.mul_f64(0.8) {
            return;
        }
        self.deaths = 0;
        self.survived += 1;
        if self.survived >= self.patience && self.interval < self.configured {
            self.interval = self.interval.mul_f64(1.25).min(self.configured);
            self.survived = 0;
            self.patience = (self.patience / 2).max(FIRST_PATIENCE);
        }
    }

    /// The connection was found dead after so long a silence.
    pub(super) fn died(&mut self, silence: Duration) {
        if silence < LEAST {
            return;
        }
        self.survived = 0;
        self.deaths += 1;
        if self.deaths >= DEATHS {
            let shorter = silence.mul_f64(0.7).max(LEAST);
            if shorter < self.interval {
                self.interval = shorter;
                // What was tried in vain is tried later the next time.
                self.patience = (self.patience * 4).min(LAST_PATIENCE);
            }
            self.deaths = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Hours of an idle agent behind a NAT that forgets after `limit`: deaths, and the interval at the end.
    fn live(quiet: &mut Quiet, limit: Duration, hours: u64) -> u32 {
        let (mut clock, mut deaths) = (Duration::ZERO, 0);
        while clock < seconds(hours * 3_600) {
            let silence = quiet.interval();
            clock += silence;
            if silence > limit {
                quiet.died(silence);
                deaths += 1;
            } else {
                quiet.survived(silence);
            }
        }
        deaths
    }

    #[test]
    fn a_nat_that_forgets_after_20_s_costs_two_connections_and_then_few() {
        let mut quiet = Quiet::new(seconds(25));
        assert_eq!(live(&mut quiet, seconds(20), 1), 2);
        assert!(quiet.interval() <= seconds(20) && quiet.interval() >= LEAST, "{quiet:?}");
        let more = live(&mut quiet, seconds(20), 24 * 7);
        assert!(more <= 2 * 7 * 2, "a week of trying longer ones: {more} deaths");
    }

    #[test]
    fn a_better_network_is_found_out_again() {
        let mut quiet = Quiet::new(seconds(25));
        live(&mut quiet, seconds(12), 2);
        assert!(quiet.interval() <= seconds(12), "{quiet:?}");
        live(&mut quiet, seconds(3_600), 48);
        assert_eq!(quiet.interval(), seconds(25));
    }

    #[test]
    fn one_death_and_deaths_of_connections_that_were_busy_change_nothing() {
        let mut quiet = Quiet::new(seconds(25));
        for _ in 0..100 {
            quiet.died(seconds(9));
            quiet.died(seconds(25));
            quiet.survived(seconds(5));
            quiet.survived(seconds(25));
        }
        assert_eq!(quiet.interval(), seconds(25));
    }

    #[test]
    fn the_interval_never_leaves_its_bounds() {
        let mut quiet = Quiet::new(seconds(25));
        for _ in 0..100 {
            quiet.died(quiet.interval());
        }
        assert_eq!(quiet.interval(), LEAST);
        let mut busy = Quiet::new(seconds(5));
        for _ in 0..100 {
            busy.died(seconds(20));
        }
        assert_eq!(busy.interval(), seconds(5), "less than the least was configured");
    }

    #[test]
    fn another_network_begins_anew_and_another_address_of_it_does_not() {
        let own = |address: &str| address.parse::<IpAddr>().unwrap();
        for (first, same, other) in [
            ("192.168.1.7", "::ffff:192.168.1.7", "10.0.0.7"),
            ("2001:db8:1:2::7", "2001:db8:1:2:a:b:c:d", "2001:db8:1:3::7"),
        ] {
            let mut quiet = Quiet::new(seconds(25));
            quiet.begin(own(first));
            live(&mut quiet, seconds(12), 1);
            let learnt = quiet.interval();
            assert!(learnt <= seconds(12));
            quiet.begin(own(same));
            assert_eq!(quiet.interval(), learnt);
            quiet.begin(own(other));
            assert_eq!(quiet.interval(), seconds(25));
        }
    }
}
