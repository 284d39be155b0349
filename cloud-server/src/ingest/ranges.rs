//! Sets of frame numbers: as ranges, because frames come in long rows.

use std::collections::BTreeMap;

/// A set of numbers as half-open ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// End by start.
    ranges: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Whether a number is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, end)| number < *end)
    }

    /// Adds `first..end`.
    pub fn insert(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let (mut first, mut end) = (first, end);
        if let Some((&start, &before)) = self.ranges.range(..=first).next_back()
            && before >= first
        {
            first = start;
            end = end.max(before);
        }
        while let Some((&start, &behind)) = self.ranges.range(first..=end).next() {
            end = end.max(behind);
            self.ranges.remove(&start);
        }
        self.ranges.insert(first, end);
    }

    /// Takes `first..end` out.
    pub fn remove(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let touched: Vec<_> =
            self.ranges.range(..end).rev().take_while(|(_, own)| **own > first).map(|(a, b)| (*a, *b)).collect();
        for (start, own_end) in touched {
            self.ranges.remove(&start);
            if start < first {
                self.ranges.insert(start, first);
            }
            if own_end > end {
                self.ranges.insert(end, own_end);
            }
        }
    }

    /// The first number from `start` on that is not in the set.
    #[must_use]
    pub fn gap_from(&self, start: u64) -> u64 {
        self.ranges.range(..=start).next_back().map_or(start, |(_, end)| start.max(*end))
    }

    /// What of `first..end` is not in the set, lowest first.
    #[must_use]
    pub fn missing(&self, first: u64, end: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut at = self.gap_from(first);
        while at < end {
            let next = self.ranges.range(at..end).next().map_or(end, |(start, _)| *start);
            missing.push((at, next));
            at = self.gap_from(next);
        }
        missing
    }

    /// The smallest number.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.ranges.first_key_value().map(|(first, _)| *first)
    }

    /// The ranges, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(first, end)| (*first, *end))
    }

    /// How many numbers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.iter().map(|(first, end)| end - first).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_together() {
        let mut ranges = Ranges::default();
        for (first, end) in [(10, 20), (30, 40), (20, 30), (0, 5), (7, 7)] {
            ranges.insert(first, end);
        }
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, 5), (10, 40)]);
        assert_eq!((ranges.gap_from(0), ranges.gap_from(5), ranges.gap_from(12)), (5, 5, 40));
        assert!(ranges.contains(39) && !ranges.contains(40) && !ranges.contains(9));
        ranges.remove(3, 12);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, 3), (12, 40)]);
        assert_eq!((ranges.count(), ranges.first()), (31, Some(0)));
    }

    #[test]
    fn it_is_the_same_as_a_plain_set() {
        let mut seed = 7_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 40
        };
        let (mut ranges, mut plain) = (Ranges::default(), std::collections::BTreeSet::new());
        for _ in 0..2_000 {
            let first = next() % 60;
            let end = first + next() % 12;
            if next() % 3 == 0 {
                ranges.remove(first, end);
                (first..end).for_each(|number| {
                    plain.remove(&number);
                });
            } else {
                ranges.insert(first, end);
                plain.extend(first..end);
            }
            assert!((0..80).all(|number| ranges.contains(number) == plain.contains(&number)));
            assert!((0..80).all(|number| ranges.gap_from(number) == (number..).find(|n| !plain.contains(n)).unwrap()));
            let among: Vec<u64> = ranges.missing(first, end).into_iter().flat_map(|(from, to)| from..to).collect();
            assert_eq!(among, (first..end).filter(|number| !plain.contains(number)).collect::<Vec<_>>());
            let touching = ranges.iter().zip(ranges.iter().skip(1)).any(|(one, other)| one.1 >= other.0);
            assert!(!touching);
        }
    }
}
