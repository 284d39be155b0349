//! Seeded chance: the same seed gives the same losses. One stream of numbers for each question, so that a link with jitter
//! loses the same packets as one without. Not for secrets.

/// A stream of numbers (SplitMix64, Steele and others, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The stream of `seed` for the question `purpose`.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mut chance = Self(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
        chance.next();
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// Evenly from 0 to below 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }
}

/// Which packets a link loses on the way, beside those that its queue has no room for. Probabilities are 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loss {
    /// None.
    #[default]
    Never,
    /// Each packet by itself (Bernoulli).
    Single(f64),
    /// Two states, as Gilbert and Elliott have them: in the good one nothing is lost, in the bad one everything.
    Bursts {
        /// From good to bad, asked at each packet.
        enter: f64,
        /// From bad to good, asked at each packet: its inverse is the mean length of a burst.
        leave: f64,
    },
}

impl Loss {
    /// Bursts of `length` packets in the mean that lose the part `average` of all packets.
    pub fn bursts(average: f64, length: f64) -> Self {
        let (average, leave) = (average.clamp(0.0, 0.99), 1.0 / length.max(1.0));
        Self::Bursts { enter: (leave * average / (1.0 - average)).min(1.0), leave }
    }
}

/// Draws losses.
#[derive(Clone, Debug)]
pub(crate) struct Losses {
    chance: Chance,
    is_bad: bool,
}

impl Losses {
    pub(crate) fn new(chance: Chance) -> Self {
        Self { chance, is_bad: false }
    }

    /// Whether the next packet is lost.
    pub(crate) fn next(&mut self, loss: Loss) -> bool {
        match loss {
            Loss::Never => false,
            Loss::Single(probability) => self.chance.happens(probability),
            Loss::Bursts { enter, leave } => {
                let turns = self.chance.happens(if self.is_bad { leave } else { enter });
                self.is_bad ^= turns;
                self.is_bad
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(loss: Loss, seed: u64, count: usize) -> Vec<bool> {
        let mut losses = Losses::new(Chance::new(seed, 1));
        (0..count).map(|_| losses.next(loss)).collect()
    }

    #[test]
    fn a_seed_is_a_sequence_and_another_seed_another_one() {
        assert_eq!(draw(Loss::Single(0.5), 7, 100), draw(Loss::Single(0.5), 7, 100));
        assert_ne!(draw(Loss::Single(0.5), 7, 100), draw(Loss::Single(0.5), 8, 100));
    }

    #[test]
    fn single_losses_come_as_often_as_asked() {
        let lost = draw(Loss::Single(0.03), 1, 100_000).iter().filter(|lost| **lost).count();
        assert!((2_800..3_200).contains(&lost), "{lost} of 100000");
    }

    #[test]
    fn bursts_have_their_average_and_their_length() {
        let drawn = draw(Loss::bursts(0.02, 5.0), 1, 400_000);
        let lost = drawn.iter().filter(|lost| **lost).count();
        let bursts = drawn.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((7_000..9_000).contains(&lost), "{lost} of 400000");
        let length = lost as f64 / bursts as f64;
        assert!((4.5..5.5).contains(&length), "{length} packets");
    }
}
