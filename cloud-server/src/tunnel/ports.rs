//! Which port a new tunnel gets: the first free one upwards from the configured. Ports of the kernel's ephemeral range
//! come last, because any outgoing connection may hold those just when the server restarts; where an administrator has
//! widened that range over everything, they are all there is.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::config;

/// What Linux takes when nobody configured it otherwise.
const USUAL_EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// The ports that may be given.
#[derive(Debug)]
pub(super) struct Ports {
    first_rtsp: u16,
    first_other: u16,
    ephemeral: RangeInclusive<u16>,
    /// The server's own listeners.
    own: BTreeSet<u16>,
}

impl Ports {
    pub(super) fn new(config: &config::Tunnels, own: impl IntoIterator<Item = u16>) -> Self {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
        let ephemeral = range.as_deref().and_then(read_range).unwrap_or(USUAL_EPHEMERAL);
        let own = own.into_iter().collect();
        Self { first_rtsp: config.first_rtsp_port, first_other: config.first_port, ephemeral, own }
    }

    /// Ports to try, in order. The first is 0 when the system is to choose.
    pub(super) fn candidates<'a>(&'a self, is_rtsp: bool, taken: &'a BTreeSet<u16>) -> impl Iterator<Item = u16> + 'a {
        let first = if is_rtsp { self.first_rtsp } else { self.first_other };
        // Some more tries when the system chooses one that is promised to another tunnel.
        let of_the_system = std::iter::repeat_n(0, if first == 0 { 16 } else { 0 });
        let upwards = move |is_ephemeral: bool| {
            (first..=u16::MAX).filter(move |port| {
                let free = !self.own.contains(port) && !taken.contains(port);
                first > 0 && free && self.ephemeral.contains(port) == is_ephemeral
            })
        };
        of_the_system.chain(upwards(false)).chain(upwards(true))
    }
}

fn read_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upwards_without_what_is_taken_ephemeral_or_our_own() {
        let ports = Ports { first_rtsp: 8554, first_other: 18_000, ephemeral: 18_003..=65_000, own: [8555].into() };
        let taken = [8554, 18_001].into();
        assert_eq!(ports.candidates(true, &taken).take(3).collect::<Vec<_>>(), [8556, 8557, 8558]);
        assert_eq!(ports.candidates(false, &taken).take(3).collect::<Vec<_>>(), [18_000, 18_002, 65_001]);
        let wide = Ports { ephemeral: 1024..=65_535, ..ports };
        assert_eq!(wide.candidates(false, &taken).take(2).collect::<Vec<_>>(), [18_000, 18_002], "all there is");
        let ports = Ports { first_rtsp: 0, ..wide };
        assert!(ports.candidates(true, &taken).all(|port| port == 0));
        assert_eq!(ports.candidates(true, &taken).count(), 16);
    }

    #[test]
    fn the_range_of_the_kernel() {
        assert_eq!(read_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(read_range("x"), None);
    }
}
