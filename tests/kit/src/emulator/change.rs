//! What can change about a link while it is there, and how that is written: `rate-up=700k`, `loss=1%/8`, `black-hole=oldest`.
//!
//! Units are those of providers and of ping: `k` and `M` are 1000 and 1000000, times are `300us`, `30ms`, `1.5s`, `2m`.

use std::time::Duration;

use super::chance::Loss;
use super::flows::{Existing, Flows, Way};
use super::pipe::Path;

/// Rates above this are a mistake; the emulator carries some 100 Mbit/s.
const FASTEST: f64 = 100e9;
/// So are longer times.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3_600);

/// One property of one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setting {
    /// [`Path::rate`].
    Rate(Option<u64>),
    /// [`Path::delay`].
    Delay(Duration),
    /// [`Path::jitter`].
    Jitter(Duration),
    /// [`Path::loss`].
    Loss(Loss),
    /// [`Path::reorder`] and [`Path::reorder_by`].
    Reorder(f64, Option<Duration>),
    /// [`Path::duplicate`].
    Duplicate(f64),
    /// [`Path::queue`].
    Queue(usize),
}

impl Setting {
    /// The names in options and changes.
    pub const NAMES: [&str; 7] = ["rate", "delay", "jitter", "loss", "reorder", "duplicate", "queue"];

    /// Reads the value of the setting `name`.
    pub fn read(name: &str, value: &str) -> Result<Self, String> {
        Ok(match name {
            "rate" if value == "none" => Self::Rate(None),
            "rate" => Self::Rate(Some(scaled(value, FASTEST, "bits a second such as 700k, 2M, 0 or none")? as u64)),
            "delay" => Self::Delay(time(value)?),
            "jitter" => Self::Jitter(time(value)?),
            "queue" => Self::Queue(scaled(value, 4e9, "octets such as 64k or 250k")? as usize),
            "duplicate" => Self::Duplicate(part(value)?),
            "reorder" => match value.split_once('/') {
                None => Self::Reorder(part(value)?, None),
                Some((often, by)) => Self::Reorder(part(often)?, Some(time(by)?)),
            },
            "loss" => match value.split_once('/') {
                None => Self::Loss(Loss::Single(part(value)?)),
                Some((average, length)) => {
                    Self::Loss(Loss::bursts(part(average)?, scaled(length, 1e6, "a burst's length in packets")?))
                }
            },
            _ => return Err(format!("`{name}` is none of {}", Self::NAMES.join(", "))),
        })
    }

    /// Writes it into a path.
    pub fn apply(self, path: &mut Path) {
        match self {
            Self::Rate(rate) => path.rate = rate,
            Self::Delay(delay) => path.delay = delay,
            Self::Jitter(jitter) => path.jitter = jitter,
            Self::Loss(loss) => path.loss = loss,
            Self::Reorder(part, by) => (path.reorder, path.reorder_by) = (part, by.unwrap_or(path.reorder_by)),
            Self::Duplicate(part) => path.duplicate = part,
            Self::Queue(octets) => path.queue = octets,
        }
    }
}

/// What happens to a link.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A property of a way, or of both.
    Set(Option<Way>, Setting),
    /// Swallows packets without telling anybody.
    BlackHole(Flows),
    /// Ends every black hole.
    Heal,
    /// Resets TCP connections at both ends, as a firewall does that lost its state.
    Reset(Flows),
    /// The camera gets the next outside address. See [`Existing`].
    Address(Existing),
}

impl Change {
    /// Reads `NAME=VALUE`.
    pub fn read(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name {
            "heal" if value.is_empty() => Ok(Self::Heal),
            "black-hole" => flows(value).map(Self::BlackHole),
            "reset" => flows(value).map(Self::Reset),
            "address" if matches!(value, "" | "lost") => Ok(Self::Address(Existing::Lost)),
            "address" if value == "renumbered" => Ok(Self::Address(Existing::Renumbered)),
            "address" => Err(format!("`{value}`: after address= stands lost or renumbered")),
            _ => {
                let (name, way) = split_way(name);
                Setting::read(name, value).map(|setting| Self::Set(way, setting)).map_err(|problem| {
                    format!("`{text}`: {problem}; other changes are black-hole=, heal, reset= and address=")
                })
            }
        }
    }
}

/// `rate-up` is `rate` of one way, `rate` is both.
pub fn split_way(name: &str) -> (&str, Option<Way>) {
    let ways = [("-up", Way::Up), ("-down", Way::Down)];
    let found = ways.into_iter().find_map(|(suffix, way)| Some((name.strip_suffix(suffix)?, Some(way))));
    found.unwrap_or((name, None))
}

fn flows(value: &str) -> Result<Flows, String> {
    match value {
        "" | "all" => Ok(Flows::All),
        "known" => Ok(Flows::Known),
        "oldest" => Ok(Flows::Oldest),
        "newest" => Ok(Flows::Newest),
        _ => Err(format!("`{value}` is none of all, known, oldest, newest")),
    }
}

/// Reads a time: `300us`, `30ms`, `1.5s`, `2m`, `1h`.
pub fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time such as 300us, 30ms, 1.5s or 2m");
    let split = text.find(|sign: char| !sign.is_ascii_digit() && sign != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= LONGEST).ok_or_else(wrong)
}

/// `1%` or `0.01`.
fn part(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    number.ok().filter(|part| (0.0..=1.0).contains(part)).ok_or(format!("`{text}` is no part such as 1% or 0.01"))
}

fn scaled(text: &str, most: f64, expected: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix(['k', 'K', 'M', 'G']) {
        Some(number) if text.ends_with('M') => (number, 1e6),
        Some(number) if text.ends_with('G') => (number, 1e9),
        Some(number) => (number, 1e3),
        None => (text, 1.0),
    };
    let value = number.parse::<f64>().ok().map(|number| number * scale);
    value.filter(|value| (0.0..=most).contains(value)).ok_or(format!("`{text}` is not {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read() {
        let millis = Duration::from_millis;
        for (text, change) in [
            ("rate-up=0.7M", Change::Set(Some(Way::Up), Setting::Rate(Some(700_000)))),
            ("rate=none", Change::Set(None, Setting::Rate(None))),
            ("delay-down=1.5s", Change::Set(Some(Way::Down), Setting::Delay(millis(1_500)))),
            ("jitter=300us", Change::Set(None, Setting::Jitter(Duration::from_micros(300)))),
            ("loss=1%", Change::Set(None, Setting::Loss(Loss::Single(0.01)))),
            ("loss=0.02/4", Change::Set(None, Setting::Loss(Loss::bursts(0.02, 4.0)))),
            ("reorder=5%/20ms", Change::Set(None, Setting::Reorder(0.05, Some(millis(20))))),
            ("queue-up=250k", Change::Set(Some(Way::Up), Setting::Queue(250_000))),
            ("black-hole=oldest", Change::BlackHole(Flows::Oldest)),
            ("heal", Change::Heal),
            ("reset", Change::Reset(Flows::All)),
            ("address", Change::Address(Existing::Lost)),
            ("address=renumbered", Change::Address(Existing::Renumbered)),
        ] {
            assert_eq!(Change::read(text), Ok(change), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("speed=1M", "speed"),
            ("rate=fast", "fast"),
            ("rate=-1", "-1"),
            ("rate=nan", "nan"),
            ("delay=30", "30ms"),
            ("delay=30xs", "30xs"),
            ("delay=1e9h", "1e9h"),
            ("loss=101%", "101%"),
            ("black-hole=some", "oldest"),
            ("address=new", "renumbered"),
            ("", "black-hole"),
        ] {
            let problem = Change::read(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn a_setting_changes_its_own_property() {
        let mut path = Path::default();
        Setting::Reorder(0.1, None).apply(&mut path);
        Setting::Queue(5).apply(&mut path);
        assert_eq!(path, Path { reorder: 0.1, queue: 5, ..Path::default() });
    }
}
