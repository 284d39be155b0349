//! The same four flows for everybody: small control messages, live audio, live video, and a bulk that takes whatever is
//! left; and what became of them. Times are those of one clock: both sides are on one machine.
//!
//! A message counts from the moment when it was due, so that a sender who is held up does not hide its own delay.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use web_transport_trait::{RecvStream as _, SendStream as _};

/// A control message goes so often.
pub(crate) const CONTROL_EVERY: Duration = Duration::from_millis(100);
/// Its octets.
pub(crate) const CONTROL_OCTETS: usize = 64;
/// G.711: so long a piece, and its samples of an octet each.
pub(crate) const AUDIO_EVERY: Duration = Duration::from_millis(20);
/// See [`AUDIO_EVERY`].
pub(crate) const AUDIO_OCTETS: usize = 160;
/// 25 pictures a second.
pub(crate) const VIDEO_EVERY: Duration = Duration::from_millis(40);
/// Pictures from key frame to key frame: two seconds.
pub(crate) const VIDEO_GROUP: usize = 50;
/// A key frame is so many times as large as another picture.
const KEY_FACTOR: usize = 8;
/// Octets of one write of the bulk.
const BULK_BLOCK: usize = 16 << 10;

/// One of the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// A message of [`CONTROL_OCTETS`] every [`CONTROL_EVERY`].
    Control,
    /// [`AUDIO_OCTETS`] every [`AUDIO_EVERY`].
    Audio,
    /// 25 pictures a second.
    Video,
    /// As fast as it is taken.
    Bulk,
}

impl Flow {
    /// All, in the order of their importance.
    pub(crate) const ALL: [Self; 4] = [Self::Control, Self::Audio, Self::Video, Self::Bulk];

    /// Its name in configurations.
    pub(crate) fn name(self) -> &'static str {
        ["control", "audio", "video", "bulk"][self as usize]
    }

    /// A stream of several begins with this octet.
    pub(crate) fn greeting(self) -> [u8; 1] {
        [self as u8]
    }

    /// Reads [`Self::greeting`].
    pub(crate) fn greeted(octet: u8) -> Option<Self> {
        Self::ALL.get(usize::from(octet)).copied()
    }
}

/// Which flows there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) control: bool,
    pub(crate) audio: bool,
    /// Bits a second; 0 without.
    pub(crate) video: u64,
    pub(crate) bulk: bool,
}

impl Load {
    /// Whether a flow is there.
    pub(crate) fn has(&self, flow: Flow) -> bool {
        match flow {
            Flow::Control => self.control,
            Flow::Audio => self.audio,
            Flow::Video => self.video > 0,
            Flow::Bulk => self.bulk,
        }
    }

    /// The flows that are there.
    pub(crate) fn flows(&self) -> Vec<Flow> {
        Flow::ALL.into_iter().filter(|flow| self.has(*flow)).collect()
    }

    /// Octets of the picture with this number.
    pub(crate) fn picture(&self, number: usize) -> usize {
        let group_octets = self.video as usize / 8 * VIDEO_GROUP * VIDEO_EVERY.as_millis() as usize / 1_000;
        let one = group_octets / (VIDEO_GROUP + KEY_FACTOR - 1);
        if self.is_key(number) { one * KEY_FACTOR } else { one }
    }

    /// Whether the picture with this number is a key frame.
    pub(crate) fn is_key(&self, number: usize) -> bool {
        number.is_multiple_of(VIDEO_GROUP)
    }
}

/// When each message of a flow was due, and when it arrived.
#[derive(Debug, Default)]
struct Times(Mutex<Vec<(Instant, Option<Instant>)>>);

impl Times {
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Option<Instant>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens to the flows of one contender.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) load: Load,
    is_over: AtomicBool,
    control: Times,
    audio: Times,
    octets: Mutex<[u64; 4]>,
    failed: Mutex<Option<String>>,
}

impl Traffic {
    pub(crate) fn of(load: Load) -> Arc<Self> {
        Arc::new(Self {
            load,
            is_over: AtomicBool::new(false),
            control: Times::default(),
            audio: Times::default(),
            octets: Mutex::default(),
            failed: Mutex::default(),
        })
    }

    fn times(&self, flow: Flow) -> &Times {
        if flow == Flow::Control { &self.control } else { &self.audio }
    }

    /// A message is on its way: its number.
    pub(crate) fn sent(&self, flow: Flow, due: Instant) -> u32 {
        let mut times = self.times(flow).lock();
        times.push((due, None));
        times.len() as u32 - 1
    }

    /// A message arrived just now, for the first time.
    pub(crate) fn arrived(&self, flow: Flow, number: u32, octets: usize) {
        let now = Instant::now();
        self.count(flow, octets);
        if let Some((_, arrival)) = self.times(flow).lock().get_mut(number as usize) {
            arrival.get_or_insert(now);
        }
    }

    /// Octets of what the flow is for arrived.
    pub(crate) fn count(&self, flow: Flow, octets: usize) {
        self.octets.lock().unwrap_or_else(PoisonError::into_inner)[flow as usize] += octets as u64;
    }

    /// Octets that arrived so far, by flow.
    pub(crate) fn octets(&self) -> [u64; 4] {
        *self.octets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more is sent from now on.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// What a flow of it broke on; the first counts, and only before the end.
    pub(crate) fn fail(&self, flow: Flow, why: &str) {
        if !self.is_over() {
            self.failed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(|| format!("{}: {why}", flow.name()));
        }
    }

    /// An error when a flow broke.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }

    /// The delays of all messages that were due within the time, in milliseconds; infinite for what did not arrive.
    pub(crate) fn delays(&self, flow: Flow, from: Instant, to: Instant) -> Vec<f64> {
        let delay = |(due, arrival): &(Instant, Option<Instant>)| {
            arrival.map_or(f64::INFINITY, |arrival| arrival.saturating_duration_since(*due).as_secs_f64() * 1_000.0)
        };
        if !self.load.has(flow) {
            return Vec::new();
        }
        let times = self.times(flow).lock();
        let mut delays: Vec<_> = times.iter().filter(|(due, _)| (from..to).contains(due)).map(delay).collect();
        // A sender that is held up for long has not even come to what was due; one more or less is the edge of the time.
        let every = if flow == Flow::Control { CONTROL_EVERY } else { AUDIO_EVERY };
        let due = (to.duration_since(from).as_micros() / every.as_micros()) as usize;
        if delays.len() + 1 < due {
            delays.resize(due, f64::INFINITY);
        }
        delays
    }
}

/// Where a flow is written.
pub(crate) enum Outlet {
    /// A stream of octets.
    Octets(Box<dyn AsyncWrite + Send + Unpin>),
    /// One of a QMux session.
    Qmux(qmux::SendStream),
    /// The queue of a flow in front of a connection for all flows.
    Queue(tokio::sync::mpsc::Sender<Vec<u8>>),
}

impl Outlet {
    pub(crate) async fn write(&mut self, octets: &[u8]) -> Result<(), String> {
        match self {
            Self::Octets(stream) => {
                stream.write_all(octets).await.map_err(|error| error.to_string())?;
                stream.flush().await.map_err(|error| error.to_string())
            }
            Self::Qmux(stream) => stream.write_all(octets).await.map_err(|error| error.to_string()),
            Self::Queue(queue) => queue.send(octets.to_vec()).await.map_err(|_| "its connection ended".into()),
        }
    }
}

/// Where a flow is read.
pub(crate) enum Inlet {
    /// A stream of octets.
    Octets(Box<dyn AsyncRead + Send + Unpin>),
    /// One of a QMux session.
    Qmux(qmux::RecvStream),
}

impl Inlet {
    /// Some octets; none at the end.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, String> {
        match self {
            Self::Octets(stream) => stream.read(buffer).await.map_err(|error| error.to_string()),
            Self::Qmux(stream) => {
                stream.read(buffer).await.map(Option::unwrap_or_default).map_err(|error| error.to_string())
            }
        }
    }
}

/// Sends a flow until the end.
pub(crate) async fn feed(traffic: Arc<Traffic>, flow: Flow, mut outlet: Outlet) {
    if let Err(why) = feed_until(&traffic, flow, &mut outlet).await {
        traffic.fail(flow, &why);
    }
    // An end would be seen by the reader before what is still on its way in the kernels; the runtime's end is soon enough.
    std::future::pending().await
}

async fn feed_until(traffic: &Traffic, flow: Flow, outlet: &mut Outlet) -> Result<(), String> {
    let (every, length) = match flow {
        Flow::Control => (CONTROL_EVERY, CONTROL_OCTETS),
        Flow::Audio => (AUDIO_EVERY, AUDIO_OCTETS),
        Flow::Video => (VIDEO_EVERY, 0),
        Flow::Bulk => (Duration::ZERO, BULK_BLOCK),
    };
    let noise = noise(BULK_BLOCK);
    let mut message = noise[..length].to_vec();
    let mut due = Instant::now();
    let mut picture = 0;
    while !traffic.is_over() {
        tokio::time::sleep_until(due.into()).await;
        match flow {
            Flow::Control | Flow::Audio => {
                let number = traffic.sent(flow, due);
                message[..4].copy_from_slice(&number.to_be_bytes());
                outlet.write(&message).await?;
            }
            Flow::Video => {
                let mut left = traffic.load.picture(picture);
                picture += 1;
                while left > 0 {
                    let part = left.min(noise.len());
                    outlet.write(&noise[..part]).await?;
                    left -= part;
                }
            }
            Flow::Bulk => outlet.write(&message).await?,
        }
        due += every;
    }
    Ok(())
}

/// Receives a flow for as long as it comes. What was read already may stand in front.
pub(crate) async fn drain(traffic: Arc<Traffic>, flow: Flow, mut inlet: Inlet) {
    let length = match flow {
        Flow::Control => CONTROL_OCTETS,
        Flow::Audio => AUDIO_OCTETS,
        Flow::Video | Flow::Bulk => 0,
    };
    let mut buffer = vec![0; 64 << 10];
    let mut held = 0;
    loop {
        match inlet.read(&mut buffer[held..]).await {
            Ok(0) => return traffic.fail(flow, "it ended"),
            Err(why) => return traffic.fail(flow, &why),
            Ok(more) if length == 0 => traffic.count(flow, more),
            Ok(more) => {
                held += more;
                let whole = held / length * length;
                for message in buffer[..whole].chunks_exact(length) {
                    let number = u32::from_be_bytes([message[0], message[1], message[2], message[3]]);
                    traffic.arrived(flow, number, length);
                }
                buffer.copy_within(whole..held, 0);
                held -= whole;
            }
        }
    }
}

/// Octets that nothing compresses away.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_the_rate_that_was_asked() {
        let load = Load { control: false, audio: false, video: 800_000, bulk: false };
        let octets: usize = (0..VIDEO_GROUP).map(|number| load.picture(number)).sum();
        assert!((198_000..=200_000).contains(&octets), "{octets} in two seconds");
        assert_eq!(load.flows(), [Flow::Video]);
    }

    #[test]
    fn a_flow_is_timed_from_when_it_was_due() {
        let traffic = Traffic::of(Load { control: true, audio: true, video: 0, bulk: false });
        let due = Instant::now();
        assert_eq!(traffic.sent(Flow::Audio, due), 0);
        assert_eq!(traffic.sent(Flow::Audio, due + AUDIO_EVERY), 1);
        traffic.arrived(Flow::Audio, 1, AUDIO_OCTETS);
        let delays = traffic.delays(Flow::Audio, due, due + 2 * AUDIO_EVERY);
        assert!(delays[0].is_infinite() && delays[1].is_finite());
        assert_eq!(traffic.delays(Flow::Audio, due + AUDIO_EVERY, due + 2 * AUDIO_EVERY).len(), 1);
        let with_unsent = traffic.delays(Flow::Audio, due, due + 10 * AUDIO_EVERY);
        assert_eq!((with_unsent.len(), with_unsent[9]), (10, f64::INFINITY));
        assert_eq!(traffic.octets(), [0, 160, 0, 0]);
        traffic.fail(Flow::Bulk, "reset");
        assert_eq!(traffic.check(), Err("bulk: reset".into()));
    }
}
