//! Links that cameras have, as round figures of a typical bad day: for comparing one version with another, not a claim
//! about any provider. Delay is one way, a queue is in octets and stands in the modem.

use std::time::Duration;

use super::chance::Loss;
use super::pipe::Path;

/// A link with a name.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What `--profile` takes.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// From the camera.
    pub up: Path,
    /// To the camera.
    pub down: Path,
}

impl Profile {
    /// The one of this name; the error lists all.
    pub fn named(name: &str) -> Result<Self, String> {
        let all = Self::all();
        let names = all.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ");
        let found = all.into_iter().find(|profile| profile.name == name);
        found.ok_or_else(|| format!("there is no profile `{name}`; there are {names}"))
    }

    /// All of them.
    pub fn all() -> Vec<Self> {
        let path = |kbits: u64, delay_us: u64, queue: usize| Path {
            rate: Some(kbits * 1_000),
            delay: Duration::from_micros(delay_us),
            queue,
            ..Path::default()
        };
        let jitter = |path: Path, ms: u64| Path { jitter: Duration::from_millis(ms), ..path };
        let loss = |path: Path, average: f64, length: f64| Path { loss: Loss::bursts(average, length), ..path };
        let shaken = |path: Path| Path { reorder: 0.005, duplicate: 0.001, ..path };
        let profile = |name, summary, up, down| Self { name, summary, up, down };
        vec![
            profile("ethernet", "100 Mbit/s, no distance", path(100_000, 200, 250_000), path(100_000, 200, 250_000)),
            profile(
                "lte",
                "10 Mbit/s up, 40 down, 50 ms round trip, little jitter",
                jitter(path(10_000, 25_000, 500_000), 8),
                jitter(path(40_000, 25_000, 2_000_000), 8),
            ),
            profile(
                "lte-bad",
                "1.5 Mbit/s up, 6 down, 120 ms, jitter 40 ms, losses in bursts, 1.6 s of queue",
                loss(jitter(path(1_500, 60_000, 300_000), 40), 0.005, 4.0),
                loss(jitter(path(6_000, 60_000, 1_000_000), 40), 0.005, 4.0),
            ),
            profile(
                "adsl",
                "1 Mbit/s up, 16 down, 25 ms, half a second of queue",
                jitter(path(1_000, 12_500, 64_000), 1),
                jitter(path(16_000, 12_500, 512_000), 1),
            ),
            profile(
                "dsl-2m-bloat",
                "2 Mbit/s up, 16 down, 20 ms, one second of queue: where control messages wait",
                path(2_000, 10_000, 250_000),
                path(16_000, 10_000, 250_000),
            ),
            profile(
                "satellite",
                "3 Mbit/s up, 25 down, 580 ms round trip (geostationary), rare losses",
                loss(jitter(path(3_000, 290_000, 300_000), 10), 0.001, 3.0),
                loss(jitter(path(25_000, 290_000, 2_500_000), 10), 0.001, 3.0),
            ),
            profile(
                "wifi-bad",
                "8 Mbit/s, 6 ms, jitter 25 ms, 3 % lost in bursts, some packets late or twice",
                shaken(loss(jitter(path(8_000, 3_000, 200_000), 25), 0.03, 3.0)),
                shaken(loss(jitter(path(8_000, 3_000, 200_000), 25), 0.03, 3.0)),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_their_names() {
        for profile in Profile::all() {
            assert_eq!(Profile::named(profile.name).unwrap().up, profile.up);
            assert!(profile.up.rate.is_some() && profile.up.queue > 1_500, "{}", profile.name);
        }
        assert!(Profile::named("isdn").unwrap_err().contains("dsl-2m-bloat"));
    }
}
