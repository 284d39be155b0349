//! Who goes next: five classes of what an agent sends, and flows that take turns within one of them.
//!
//! | class | content | rule |
//! |---|---|---|
//! | [`Class::Control`] | control messages; answers, ends and credit of tunnels | first, as long as it keeps to its share |
//! | [`Class::Audio`] | live audio | before everything but control, as long as it leaves a fifth to the others: who announces as sound what fills the link starves nobody |
//! | [`Class::Video`] | live video, and audio that is late already | four octets for each one of a tunnel while both wait |
//! | [`Class::Tunnels`] | octets of tunnels; objects, snapshots for one, are fetched through them | a fifth of what control and audio leave, at least: who configures the camera is never starved |
//! | [`Class::Backfill`] | recordings of the past | records that nobody else wants |
//!
//! Nobody is asked before the transport takes something: nothing queues behind the choice. Flows of one class take turns by deficit round robin
//! (Shreedhar and Varghese 1995), see [`Turns`].
//!
//! A value: what waits and what was sent goes in, an order comes out. What does not belong here: how much may be sent at all (`governor`),
//! and what a class puts into a record (`transfer`, `mux`).

use alloc::vec::Vec;

/// What an agent sends, by urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Control messages, and what tunnels have to say besides their octets.
    Control,
    /// Audio that is worth hearing now.
    Audio,
    /// Video, and audio that waits for so long that it is not live any more.
    Video,
    /// Octets of tunnels.
    Tunnels,
    /// What was left out of the live classes and is still wanted.
    Backfill,
}

/// Octets of video for each one of a tunnel, while both wait.
const VIDEO_WEIGHT: i64 = 4;
/// The most that video or tunnels can be owed: somebody who comes after a pause goes first for one record.
const MOST_OWED: i64 = 16 << 10;
/// Octets of others for each one of control beyond its burst, while others wait: commands in a flood keep to a fifth.
const CONTROL_SHARE: i64 = 4;
/// What control may send at once, however busy the others are.
const CONTROL_BURST: i64 = 16 << 10;

/// Octets of audio for each one of the others beyond its burst, while they wait.
const AUDIO_SHARE: i64 = 4;
/// What audio may send at once, however busy the others are: seconds of it, after a pause of the path.
const AUDIO_BURST: i64 = 64 << 10;
/// What audio may owe: it also sends while nobody waits, and who comes then is not to hold it up.
const AUDIO_DEBT: i64 = 4 << 10;

/// Decides in which order the classes are asked for the next record.
#[derive(Clone, Debug)]
pub struct Scheduler {
    /// What control may send before everybody else.
    control: i64,
    /// What audio may send before video and tunnels.
    audio: i64,
    /// What tunnels may send before video.
    owed_to_tunnels: i64,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self { control: CONTROL_BURST, audio: AUDIO_BURST, owed_to_tunnels: 0 }
    }
}

impl Scheduler {
    /// The classes in the order in which they may fill the next record. Each fills what those before it have left.
    pub fn order(&self) -> [Class; 5] {
        let (first, second) = match self.owed_to_tunnels > 0 {
            true => (Class::Tunnels, Class::Video),
            false => (Class::Video, Class::Tunnels),
        };
        let live = match self.audio_goes_first() {
            true => [Class::Audio, first, second],
            false => [first, second, Class::Audio],
        };
        let [one, two, three] = live;
        match self.control_goes_first() {
            true => [Class::Control, one, two, three, Class::Backfill],
            false => [one, two, three, Class::Control, Class::Backfill],
        }
    }

    /// Whether audio has kept to its share.
    pub fn audio_goes_first(&self) -> bool {
        self.audio > 0
    }

    /// Whether control has kept to its share.
    pub fn control_goes_first(&self) -> bool {
        self.control > 0
    }

    /// A class has put so many octets into a record.
    pub fn sent(&mut self, class: Class, octets: usize) {
        let octets = i64::try_from(octets).unwrap_or(i64::MAX).min(1 << 30);
        match class {
            Class::Control => self.control -= octets,
            _ => self.control += octets / CONTROL_SHARE,
        }
        match class {
            Class::Audio => self.audio -= octets,
            Class::Video | Class::Tunnels => self.audio += octets * AUDIO_SHARE,
            Class::Control | Class::Backfill => {}
        }
        self.audio = self.audio.clamp(-AUDIO_DEBT, AUDIO_BURST);
        match class {
            Class::Video => self.owed_to_tunnels += octets / VIDEO_WEIGHT,
            Class::Tunnels => self.owed_to_tunnels -= octets,
            _ => {}
        }
        self.control = self.control.clamp(-CONTROL_BURST, CONTROL_BURST);
        self.owed_to_tunnels = self.owed_to_tunnels.clamp(-MOST_OWED, MOST_OWED);
    }
}

/// What a flow may send in one turn. Small, because the next flow waits for it.
const QUANTUM: i64 = 4 << 10;

/// Flows that take turns by octets: deficit round robin.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    present: Option<u32>,
    /// What each waiting flow may still send, by its number.
    deficits: Vec<(u32, i64)>,
}

impl Turns {
    /// The flow that goes next. `waiting` are the numbers of those that have something, rising; a flow that is not among them starts anew when
    /// it comes back.
    pub fn next(&mut self, waiting: &[u32]) -> Option<u32> {
        self.deficits.retain(|(flow, _)| waiting.binary_search(flow).is_ok());
        let first = *waiting.first()?;
        if let [only] = waiting {
            self.deficits.clear();
            self.present = Some(*only);
            return self.present;
        }
        if let Some(present) = self.present
            && self.deficits.iter().any(|(flow, left)| *flow == present && *left > 0)
        {
            return self.present;
        }
        let mut at = self.present;
        loop {
            let next = waiting.iter().copied().find(|flow| at.is_some_and(|at| *flow > at)).unwrap_or(first);
            at = Some(next);
            let deficit = match self.deficits.iter_mut().find(|(flow, _)| *flow == next) {
                Some((_, deficit)) => deficit,
                None => {
                    self.deficits.push((next, 0));
                    let (_, deficit) = self.deficits.last_mut()?;
                    deficit
                }
            };
            *deficit += QUANTUM;
            if *deficit > 0 {
                self.present = Some(next);
                return self.present;
            }
        }
    }

    /// A flow has sent so many octets.
    pub fn sent(&mut self, flow: u32, octets: usize) {
        if let Some((_, deficit)) = self.deficits.iter_mut().find(|(other, _)| *other == flow) {
            // More than one record is never sent in a turn.
            *deficit -= i64::try_from(octets).unwrap_or(i64::MAX).min(1 << 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [Class; 5] = [Class::Control, Class::Audio, Class::Video, Class::Tunnels, Class::Backfill];

    /// Octets that wait, by class.
    struct Sides([usize; 5]);

    impl Sides {
        /// Fills one record of `size`, and says what each class put into it. Control messages are records of their own.
        fn record(&mut self, scheduler: &mut Scheduler, size: usize) -> [usize; 5] {
            let mut sent = [0; 5];
            let mut room = size;
            for class in scheduler.order() {
                let at = CLASSES.iter().position(|other| *other == class).unwrap();
                if class == Class::Control && room < size {
                    continue;
                }
                sent[at] = self.0[at].min(room);
                self.0[at] -= sent[at];
                room -= sent[at];
                scheduler.sent(class, sent[at]);
                if class == Class::Control && sent[at] > 0 {
                    break;
                }
            }
            sent
        }

        fn records(&mut self, scheduler: &mut Scheduler, count: usize, size: usize) -> [usize; 5] {
            (0..count).fold([0; 5], |mut all, _| {
                let record = self.record(scheduler, size);
                all.iter_mut().zip(record).for_each(|(all, sent)| *all += sent);
                all
            })
        }
    }

    const ENDLESS: usize = 1 << 40;

    #[test]
    fn tunnels_get_a_fifth_beside_video_whatever_the_record_size() {
        for size in [1_200, 2_500, 16_376] {
            let mut scheduler = Scheduler::default();
            let sent = Sides([0, 0, ENDLESS, ENDLESS, ENDLESS]).records(&mut scheduler, 1_000, size);
            let share = sent[3] as f64 / (sent[2] + sent[3]) as f64;
            assert!((0.19..0.21).contains(&share), "records of {size}: {share:.3}");
            assert_eq!(sent[4], 0, "backfill has only what nobody wants");
        }
    }

    #[test]
    fn audio_goes_before_video_and_tunnels_and_takes_no_more_than_it_has() {
        let mut scheduler = Scheduler::default();
        let mut sides = Sides([0, 0, ENDLESS, ENDLESS, 0]);
        sides.records(&mut scheduler, 100, 2_500);
        sides.0[1] = 170;
        assert_eq!(sides.record(&mut scheduler, 2_500)[1], 170);
    }

    #[test]
    fn audio_that_fills_the_link_leaves_a_fifth_of_it() {
        for size in [1_200, 2_500, 16_376] {
            let mut scheduler = Scheduler::default();
            let mut sides = Sides([0, ENDLESS, 0, ENDLESS, ENDLESS]);
            assert_eq!(sides.records(&mut scheduler, 1, size)[1], size, "a burst of it goes at once");
            sides.records(&mut scheduler, 100, size);
            let sent = sides.records(&mut scheduler, 1_000, size);
            let share = sent[3] as f64 / sent.iter().sum::<usize>() as f64;
            assert!((0.19..0.21).contains(&share), "records of {size}: {share:.3}");
            let sent = Sides([0, ENDLESS, ENDLESS, ENDLESS, 0]).records(&mut scheduler, 1_000, size);
            assert!(sent[3] * 40 > sent.iter().sum::<usize>(), "also beside video: {sent:?}");
        }
        let mut scheduler = Scheduler::default();
        let alone = Sides([0, ENDLESS, 0, 0, ENDLESS]).records(&mut scheduler, 1_000, 2_500);
        assert_eq!(alone[1], 2_500_000, "nobody else wants it");
        let sent = Sides([0, ENDLESS, ENDLESS, ENDLESS, 0]).records(&mut scheduler, 2, 1_200);
        assert_eq!(sent[1], 1_200, "who comes then has one record's time and no more");
    }

    #[test]
    fn control_goes_first_until_it_floods() {
        let mut scheduler = Scheduler::default();
        let mut sides = Sides([400, 0, ENDLESS, ENDLESS, 0]);
        assert_eq!(sides.record(&mut scheduler, 2_500), [400, 0, 0, 0, 0]);
        sides.records(&mut scheduler, 10, 2_500);
        sides.0[0] = ENDLESS;
        let sent = sides.records(&mut scheduler, 1_000, 2_500);
        let share = sent[0] as f64 / sent.iter().sum::<usize>() as f64;
        assert!((0.19..0.22).contains(&share), "a flood of commands has {share:.3}");
        let audio = Sides([ENDLESS, ENDLESS, ENDLESS, 0, 0]).records(&mut scheduler, 1_000, 2_500);
        assert!(audio[1] > audio[0] * 3, "sound goes on beside it: {audio:?}");
    }

    #[test]
    fn a_flood_that_nobody_else_minds_has_all() {
        let sent = Sides([ENDLESS, 0, 0, 0, 0]).records(&mut Scheduler::default(), 100, 2_500);
        assert_eq!(sent, [250_000, 0, 0, 0, 0]);
    }

    #[test]
    fn who_comes_after_a_pause_waits_for_no_debt_of_others() {
        let mut scheduler = Scheduler::default();
        Sides([0, 0, ENDLESS, 0, 0]).records(&mut scheduler, 1_000, 2_500);
        let mut sides = Sides([0, 0, ENDLESS, 5_000, 0]);
        assert_eq!(sides.records(&mut scheduler, 2, 2_500)[3], 5_000, "a click goes at once");
        Sides([0, 0, 0, ENDLESS, 0]).records(&mut scheduler, 1_000, 2_500);
        let mut sides = Sides([0, 0, 50_000, ENDLESS, 0]);
        assert_eq!(sides.records(&mut scheduler, 20, 2_500)[2], 50_000, "a picture too");
    }

    #[test]
    fn backfill_has_the_records_that_nobody_wants() {
        let mut scheduler = Scheduler::default();
        let mut sides = Sides([0, 100, 0, 0, ENDLESS]);
        assert_eq!(sides.record(&mut scheduler, 2_500), [0, 100, 0, 0, 2_400]);
        sides.0[2] = 2_500;
        assert_eq!(sides.record(&mut scheduler, 2_500), [0, 0, 2_500, 0, 0]);
    }

    #[test]
    fn flows_share_by_octets_whatever_their_pieces_are() {
        let mut turns = Turns::default();
        let mut sent = [0_usize; 3];
        let mut longest = [0_usize; 3];
        let mut since = [0_usize; 3];
        for _ in 0..30_000 {
            let flow = turns.next(&[2, 5, 9]).unwrap();
            let (at, piece) = match flow {
                2 => (0, 160),
                5 => (1, 1_400),
                _ => (2, 16_000),
            };
            turns.sent(flow, piece);
            sent[at] += piece;
            for other in (0..3).filter(|other| *other != at) {
                since[other] += piece;
                longest[other] = longest[other].max(since[other]);
            }
            since[at] = 0;
        }
        let mean = sent.iter().sum::<usize>() / 3;
        assert!(sent.iter().all(|sent| sent.abs_diff(mean) < mean / 20), "{sent:?}");
        assert!(longest[0] < 16_000 + 3 * QUANTUM as usize, "nobody waits long: {longest:?}");
    }

    #[test]
    fn a_flow_that_comes_back_has_saved_nothing_and_owes_nothing() {
        let mut turns = Turns::default();
        for _ in 0..10 {
            assert_eq!(turns.next(&[1, 2]).map(|flow| turns.sent(flow, 16_000)), Some(()));
        }
        assert_eq!(turns.next(&[2]), Some(2));
        turns.sent(2, 1 << 19);
        assert_eq!(turns.next(&[1, 2]), Some(1));
        assert_eq!(turns.next(&[]), None);
    }
}
