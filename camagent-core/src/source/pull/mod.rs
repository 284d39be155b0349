//! Frames that the agent fetches itself from the cameras' own RTSP servers: for the daemon, whose host pushes nothing.
//!
//! Here: one task for each source, on the agent's own thread, which dials while the source is to be uploaded, tells what is wrong, and tries
//! again. One session with a camera is in `session`, the times of its frames in `timeline`, the pauses in `patience`. What is uploaded
//! when, and what a server wants, is [`Intake`]'s to know.

mod patience;
mod session;
mod timeline;

use std::{
    fmt,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use camagent_proto::message::Policy;
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use retina::client::{Described, Session, SessionGroup};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::Intake;
use crate::{
    config::{Config, PullPace, RtspTransport, Secret},
    logger::Logger,
    resolve::Resolver,
};
use patience::Patience;
use session::{Ending, Numbers};

/// What cameras get to hear that nobody listens any more, when the agent stops.
const FAREWELL: Duration = Duration::from_millis(500);
/// A session that brought frames for so long ends an outage.
const STABLE: Duration = Duration::from_secs(10);
/// How often a source on demand looks whether there is a server.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pause after a bug in a task.
const AFTER_BUG: Duration = Duration::from_secs(60);

/// The agent around the tasks.
pub(crate) trait Home: Send + Sync + 'static {
    /// Where frames go.
    fn intake(&self) -> &Intake;
    /// A track is there to be announced.
    fn track_began(&self);
    /// A frame is there to be sent.
    fn frame_came(&self);
    /// Whether there is a session with the server.
    fn is_connected(&self) -> bool;
    /// Something that the operator should know; it is logged as well.
    fn warn(&self, message: String);
}

/// One source of a camera as it is fetched.
pub(crate) struct Puller {
    camera: String,
    source: String,
    url: String,
    account: Option<(String, Secret)>,
    transport: RtspTransport,
    policy: Policy,
    pace: PullPace,
    logger: Logger,
    door: Arc<Door>,
    addresses: Resolver,
}

impl fmt::Display for Puller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "camera {}, source {}", self.camera, self.source)
    }
}

/// A camera's door, which its sources share: one knocks at a time, and after a wrong password nobody for a while, because cameras lock
/// accounts.
#[derive(Debug, Default)]
struct Door {
    one_at_a_time: tokio::sync::Mutex<()>,
    /// Until when the password need not be tried again.
    closed_until: Mutex<Option<Instant>>,
}

impl Door {
    fn closed_until(&self) -> Option<Instant> {
        *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that is a change.
    fn set(&self, closed_until: Option<Instant>) -> bool {
        let before =
            std::mem::replace(&mut *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner), closed_until);
        before.is_some() != closed_until.is_some()
    }
}

/// The tasks of all sources. They end with the value.
pub(crate) struct Pulls {
    tasks: JoinSet<()>,
    sessions: Arc<SessionGroup>,
}

impl Pulls {
    /// Starts a task for each source that has a path and may be uploaded. Within a runtime only.
    pub(crate) fn start<H: Home>(home: &Arc<H>, config: &Config, logger: &Logger) -> Self {
        let sessions = Arc::new(SessionGroup::default());
        let mut tasks = JoinSet::new();
        let addresses = Resolver::of_cameras();
        for camera in &config.cameras {
            let door = Arc::new(Door::default());
            let place = if camera.host.contains(':') {
                format!("[{}]:{}", camera.host, camera.rtsp_port)
            } else {
                format!("{}:{}", camera.host, camera.rtsp_port)
            };
            let account = camera.user.as_ref().map(|user| {
                let password = camera.password.clone().unwrap_or_else(|| Secret::new(""));
                (user.clone(), password)
            });
            for source in camera.sources.iter().filter(|source| source.policy != Policy::Off) {
                let Some(path) = &source.path else { continue };
                let puller = Puller {
                    camera: camera.id.clone(),
                    source: source.name.clone(),
                    url: format!("rtsp://{place}{path}"),
                    account: account.clone(),
                    transport: camera.rtsp_transport,
                    policy: source.policy,
                    pace: config.pull_pace,
                    logger: logger.clone(),
                    door: Arc::clone(&door),
                    addresses: addresses.clone(),
                };
                tasks.spawn(survive(puller, Arc::clone(home), Arc::clone(&sessions)));
            }
        }
        Self { tasks, sessions }
    }

    /// Ends all tasks, and tells the cameras as far as that goes quickly.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
        // A camera that does not answer forgets the session by itself.
        let _ = timeout(FAREWELL, self.sessions.await_teardown()).await;
    }
}

/// A bug in what reads a camera's octets ends neither the agent nor the source.
async fn survive<H: Home>(puller: Puller, home: Arc<H>, sessions: Arc<SessionGroup>) {
    loop {
        let work = AssertUnwindSafe(puller.work(&*home, &sessions));
        if work.catch_unwind().await.is_ok() {
            return;
        }
        home.warn(format!("{puller}: a bug in the reader of its stream; it starts anew in {} s", AFTER_BUG.as_secs()));
        sleep(AFTER_BUG).await;
    }
}

impl Puller {
    /// Fetches the source whenever it is to be uploaded; returns when the agent takes nothing more.
    async fn work<H: Home>(&self, home: &H, sessions: &Arc<SessionGroup>) {
        let mut patience = Patience::new(self.pace);
        let mut numbers = Numbers::default();
        // A pause lasts, however often a server changes its mind meanwhile.
        let mut not_before = Instant::now();
        loop {
            self.until_wanted(home, true).await;
            if self.unless_unwanted(home, sleep_until(not_before)).await.is_none() {
                continue;
            }
            let pause = match self.attempt(home, sessions, &mut patience, &mut numbers).await {
                Ending::Stopped => return,
                Ending::Refused => self.refused(home, &mut patience),
                Ending::Unwanted { soon } => {
                    self.logger.info(format_args!("{self}: nobody watches any more"));
                    if soon { patience.left_soon(random()) } else { Duration::ZERO }
                }
                Ending::Lost(why) => {
                    let is_first = patience.is_calm();
                    let pause = patience.next(random());
                    let message = format!("{self}: {why}; next attempt in {:.1} s", pause.as_secs_f64());
                    // The operator hears of an outage once; its course is in the log.
                    if is_first {
                        home.warn(message)
                    } else {
                        self.logger.info(format_args!("{message}"))
                    }
                    pause
                }
            };
            not_before = Instant::now() + pause;
        }
    }

    /// One session from dial to end.
    async fn attempt<H: Home>(
        &self,
        home: &H,
        sessions: &Arc<SessionGroup>,
        patience: &mut Patience,
        numbers: &mut Numbers,
    ) -> Ending {
        // A question that was asked is heard to its end, wanted or not: how the camera takes the password is worth knowing.
        let described = match self.describe(home, sessions).await {
            Ok(described) => described,
            Err(ending) => return ending,
        };
        let began = Instant::now();
        match self.unless_unwanted(home, self.carry(described, home, patience, numbers)).await {
            Some(Ok(ending) | Err(ending)) => ending,
            None => Ending::Unwanted { soon: began.elapsed() < STABLE },
        }
    }

    /// Asks the camera for the source, when it is this source's turn.
    async fn describe<H: Home>(&self, home: &H, sessions: &Arc<SessionGroup>) -> Result<Session<Described>, Ending> {
        let turn = self.unless_unwanted(home, self.door.one_at_a_time.lock()).await;
        let Some(_turn) = turn else { return Err(Ending::Unwanted { soon: false }) };
        if self.door.closed_until().is_some_and(|until| until > Instant::now()) {
            return Err(Ending::Refused);
        }
        self.logger.debug(format_args!("{self}: asking {}", self.url));
        let described = session::describe(self, sessions).await.map_err(|ending| match ending {
            Ending::Lost(why) => Ending::Lost(format!("{}: {why}", self.url)),
            other => other,
        })?;
        if self.door.set(None) {
            self.logger.info(format_args!("camera {} takes the password now", self.camera));
        }
        Ok(described)
    }

    async fn carry<H: Home>(
        &self,
        described: Session<Described>,
        home: &H,
        patience: &mut Patience,
        numbers: &mut Numbers,
    ) -> Result<Ending, Ending> {
        let mut playing = session::play(self, described, home.intake(), numbers).await?;
        home.track_began();
        self.logger.info(format_args!("{self}: {} from {}", playing.what, self.url));
        let mut first = None;
        let ending = playing
            .carry(self, home.intake(), || {
                let began = *first.get_or_insert_with(Instant::now);
                if began.elapsed() >= STABLE {
                    patience.calm_down();
                }
                home.frame_came();
            })
            .await;
        Ok(ending)
    }

    /// The camera refuses the password: all its sources wait, and the operator hears of it once.
    fn refused<H: Home>(&self, home: &H, patience: &mut Patience) -> Duration {
        if let Some(until) = self.door.closed_until().filter(|until| *until > Instant::now()) {
            // Another source has tried it and told.
            return until - Instant::now() + Duration::from_millis(random() % 100);
        }
        let pause = patience.refused(random());
        let is_news = self.door.set(Some(Instant::now() + pause));
        let message = match &self.account {
            Some((user, _)) => format!(
                "camera {} refuses the password of user {user}; next attempt in {:.0} s",
                self.camera,
                pause.as_secs_f64()
            ),
            None => format!(
                "camera {} wants a user and a password, and the configuration has none; next attempt in {:.0} s",
                self.camera,
                pause.as_secs_f64()
            ),
        };
        if is_news {
            home.warn(message)
        } else {
            self.logger.info(format_args!("{message}"))
        }
        pause
    }

    /// What comes of `work`, or `None` when the source is not to be uploaded any more.
    async fn unless_unwanted<H: Home, T>(&self, home: &H, work: impl Future<Output = T>) -> Option<T> {
        match select(pin!(work), pin!(self.until_wanted(home, false))).await {
            Either::Left((result, _)) => Some(result),
            Either::Right(_) => None,
        }
    }

    /// Waits until the source is to be uploaded, or no longer. What is on demand begins with a server only, and ends some time after one.
    async fn until_wanted<H: Home>(&self, home: &H, wanted: bool) {
        if self.policy == Policy::Always {
            if !wanted {
                std::future::pending::<()>().await;
            }
            return;
        }
        let mut changes = home.intake().watch_wanted();
        let mut alone_since = None;
        loop {
            let has_server = if home.is_connected() {
                alone_since = None;
                true
            } else {
                let alone = alone_since.get_or_insert_with(Instant::now).elapsed();
                !wanted && alone < self.pace.without_server
            };
            let intake = home.intake();
            let is_wanted = has_server && intake.is_wanted(&self.camera, &self.source)
                || intake.is_kept_offline(&self.camera, &self.source);
            if is_wanted == wanted {
                return;
            }
            // Either what is wanted changes, or it is time to look for the server.
            let _ = timeout(LOOK_EVERY, changes.changed()).await;
        }
    }
}

/// Random bits for the jitter; a source without any gives the middle.
fn random() -> u64 {
    getrandom::u64().unwrap_or(250)
}
