//! A source as it was some seconds ago, from what is recorded: what an agent sent late has arrived by then, so that viewers see no
//! hole. One task for each source and delay reads the samples shortly before they are due and publishes them to a
//! [`Source`] that is in no hub; all viewers with that delay share it, and it ends some seconds after the last one left.
//!
//! Time is the UTC of the recording, for pictures and sound alike. A time of which nothing is recorded passes as it was, and what
//! follows it begins with a key frame.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use camagent_media::codec::g711::Law;
use camagent_media::{Codec, Framing, Parameters};
use tokio::time::Instant;

use super::reel::{Placed, Reel};
use crate::clock::Clock;
use crate::config::Live;
use crate::event::Events;
use crate::live::timeline::Stamps;
use crate::live::{Found, Hub, Interest, PublishedFrame, Publisher, Source, TrackFormat};
use crate::record::Archive;
use crate::shutdown::Shutdown;

/// How often the index is asked for what is new.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What is due within this time is in memory.
const AHEAD_US: i64 = 700_000;
/// Sources and delays at once.
const MOST: usize = 64;
/// A player may take so long between asking for the description and playing.
const LINGER: Duration = Duration::from_secs(10);

/// Why there is no such source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not recorded.
    NotRecorded,
    /// Too many are being watched.
    TooMany,
}

/// Camera, source and seconds.
type Name = (String, String, u32);

/// All delayed sources.
#[derive(Clone)]
pub struct Delayed {
    shared: Arc<Shared>,
}

struct Shared {
    archive: Option<Arc<Archive>>,
    hub: Arc<Hub>,
    limits: Live,
    clock: Clock,
    running: Mutex<BTreeMap<Name, Arc<Source>>>,
}

impl Delayed {
    /// None runs yet. Without an archive there will be none.
    #[must_use]
    pub fn new(archive: Option<Arc<Archive>>, hub: Arc<Hub>, limits: Live, clock: Clock) -> Self {
        let limits = Live { viewer_linger: limits.viewer_linger.max(LINGER), ..limits };
        Self { shared: Arc::new(Shared { archive, hub, limits, clock, running: Mutex::default() }) }
    }

    /// A source so many seconds ago. It lives as long as the interest, and its viewers'.
    pub fn source(
        &self,
        camera: &str,
        source: &str,
        seconds: u32,
        shutdown: &Shutdown,
    ) -> Result<(Arc<Source>, Interest), Refused> {
        let archive = self.shared.archive.as_ref().filter(|archive| archive.records(camera, source));
        let archive = Arc::clone(archive.ok_or(Refused::NotRecorded)?);
        let name = (camera.to_owned(), source.to_owned(), seconds);
        let mut running = self.shared.running();
        if let Some(known) = running.get(&name) {
            return Ok((Arc::clone(known), known.demand.interest()));
        }
        if running.len() >= MOST {
            return Err(Refused::TooMany);
        }
        // Its own events: that somebody looks back is no news of the camera.
        let made = Source::apart(camera, source, self.shared.limits.clone(), Arc::new(Events::new()));
        let interest = made.demand.interest();
        let Some(publisher) = made.publish("", 0, [0; 16]) else { return Err(Refused::TooMany) };
        running.insert(name.clone(), Arc::clone(&made));
        drop(running);
        let delay_us = i64::from(seconds) * 1_000_000;
        let from_us = self.shared.clock.utc_us().saturating_sub(delay_us);
        let feed = Feed {
            reel: Reel::new(camera, source, from_us),
            shared: Arc::clone(&self.shared),
            archive,
            publisher,
            name,
            delay_us,
            announced: [None, None],
            queue: VecDeque::new(),
        };
        tokio::spawn(feed.run(shutdown.clone()));
        Ok((made, interest))
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Source>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task of one source and delay.
struct Feed {
    shared: Arc<Shared>,
    archive: Arc<Archive>,
    publisher: Publisher,
    name: Name,
    delay_us: i64,
    reel: Reel,
    /// What viewers know of pictures and sound.
    announced: [Option<Parameters>; 2],
    queue: VecDeque<(Placed, Bytes)>,
}

impl Feed {
    async fn run(mut self, mut shutdown: Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.begun() => {}
            () = self.play() => {}
        }
        // Another of the same name may have begun since this one was over.
        let own = self.publisher.source();
        self.shared.running().retain(|_, running| !Arc::ptr_eq(running, own));
    }

    async fn play(&mut self) {
        let mut next_look = Instant::now();
        loop {
            let now_us = self.shown_us();
            while self.queue.front().is_some_and(|(placed, _)| placed.due_us <= now_us) {
                let Some((placed, bytes)) = self.queue.pop_front() else { break };
                self.publish(&placed, bytes);
            }
            if next_look <= Instant::now() {
                if self.is_over() {
                    return;
                }
                next_look = Instant::now() + LOOK_EVERY;
                if self.look(now_us).await {
                    next_look = Instant::now();
                }
            }
            let due = self.queue.front().map_or(AHEAD_US, |(placed, _)| placed.due_us.saturating_sub(self.shown_us()));
            let due = Instant::now() + Duration::from_micros(u64::try_from(due).unwrap_or(0));
            tokio::time::sleep_until(due.min(next_look)).await;
        }
    }

    /// The moment that is being shown, UTC.
    fn shown_us(&self) -> i64 {
        self.shared.clock.utc_us().saturating_sub(self.delay_us)
    }

    /// True when nobody wants it any more; nobody can come to want it then.
    fn is_over(&self) -> bool {
        if matches!(self.shared.hub.find(&self.name.0, &self.name.1), Found::UnknownCamera) {
            self.publisher.source().remove();
            return true;
        }
        let mut running = self.shared.running();
        let is_over = !self.publisher.source().demand.watch().borrow().wanted;
        if is_over {
            running.remove(&self.name);
        }
        is_over
    }

    /// Puts what is due next into the queue. True: there is more of it.
    async fn look(&mut self, now_us: i64) -> bool {
        let until_us = now_us.saturating_add(AHEAD_US);
        if let Err(error) = self.reel.look(&self.archive, now_us, until_us).await {
            tracing::debug!(%error, "what is recorded cannot be looked up");
            return false;
        }
        if self.announced == [None, None] {
            self.describe(now_us).await;
        }
        let (taken, more) = self.reel.take(until_us);
        let read = Reel::bytes(&self.archive, taken).await;
        self.queue.extend(read);
        self.queue.make_contiguous().sort_by_key(|(placed, _)| placed.due_us);
        more
    }

    /// Players must know what comes before it comes: what is recorded of any time since the one that is shown tells.
    async fn describe(&mut self, now_us: i64) {
        let soon = self.reel.formats(&self.archive, now_us, now_us.saturating_add(2 * AHEAD_US)).await;
        let formats = match soon {
            Ok(formats) if !formats.is_empty() => Ok(formats),
            _ => self.reel.formats(&self.archive, now_us, self.shared.clock.utc_us()).await,
        };
        for parameters in formats.unwrap_or_default() {
            self.announce(&parameters);
        }
    }

    fn announce(&mut self, parameters: &Parameters) {
        let track = usize::from(!parameters.codec().is_video());
        if self.announced[track].as_ref() == Some(parameters) {
            return;
        }
        self.announced[track] = Some(parameters.clone());
        let Some(format) = format(parameters) else { return };
        let number = u32::from(!parameters.codec().is_video());
        if let Err(error) = self.publisher.announce_track(number, format) {
            tracing::debug!(%error, "a recorded track cannot be played");
        }
    }

    fn publish(&mut self, placed: &Placed, payload: Bytes) {
        self.announce(&placed.parameters);
        let at_us = u64::try_from(placed.due_us).unwrap_or_default();
        let pts_us = placed.sample.utc_us.saturating_add(placed.sample.composition_us);
        // One clock for everything: that of the recording.
        let stamps = Stamps { pts_us, arrival_us: at_us, received_us: at_us, utc_us: pts_us };
        let track = u32::from(!placed.parameters.codec().is_video());
        self.publisher.push(&PublishedFrame { track, stamps, discontinuity: placed.discontinuity, payload });
    }
}

/// A recorded track as an agent would announce it; none of a codec that this version does not know.
fn format(parameters: &Parameters) -> Option<TrackFormat> {
    let annex_b = |sets: &[&Bytes]| {
        let there = sets.iter().filter(|set| !set.is_empty());
        there.flat_map(|set| [&[0, 0, 0, 1], &set[..]].concat()).collect::<Bytes>()
    };
    let plain = |codec, framing, config| TrackFormat { codec, framing, sample_rate: 0, channels: 0, config };
    let format = match parameters {
        Parameters::H264 { sps, pps, .. } => {
            let sets: Vec<&Bytes> = std::iter::once(sps).chain(pps).collect();
            plain(Codec::H264, Framing::Length4, annex_b(&sets))
        }
        Parameters::H265 { vps, sps, pps, .. } => {
            let sets: Vec<&Bytes> = [vps, sps].into_iter().chain(pps).collect();
            plain(Codec::H265, Framing::Length4, annex_b(&sets))
        }
        Parameters::Aac { config, sample_rate, channels } => TrackFormat {
            codec: Codec::Aac,
            framing: Framing::Raw,
            sample_rate: *sample_rate,
            channels: *channels,
            config: config.clone(),
        },
        Parameters::G711 { law, sample_rate, channels } => TrackFormat {
            codec: if matches!(law, Law::A) { Codec::Pcma } else { Codec::Pcmu },
            framing: Framing::Raw,
            sample_rate: *sample_rate,
            channels: *channels,
            config: Bytes::new(),
        },
        _ => return None,
    };
    Some(format)
}
