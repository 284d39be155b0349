//! One viewer's socket. Drives its [`Session`], and while it plays writes frames from the live log: a batch of frames
//! leaves in one vectored write, straight from the memory that all viewers share. Responses and reports go between
//! whole packets only.

use std::future::pending;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camagent_media::rtp::rtcp::{NtpTime, SenderReport};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::accounts::Judgement;
use super::listener::Relay;
use super::liveness::Liveness;
use super::names::Names;
use super::path::{Delay, Path};
use super::session::{Refusal, Session, Step};
use super::transport::Channels;
use crate::event::Event;
use crate::live::{Ended, Found, Frame, Interest, Presentation, Report, Source, Unavailable, Viewer};
use crate::playback::delayed::Refused;
use crate::shutdown::Shutdown;

/// Characters of a name that nobody has, in an event.
const MOST_OF_A_NAME: usize = 64;
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// A viewer whose burst takes longer than this gets its first report in between.
const FIRST_REPORT: Duration = Duration::from_millis(800);

/// Why a viewer's connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the viewer")]
    Closed,
    #[error("session ended")]
    Finished,
    #[error("no sign of life")]
    Idle,
    #[error("takes no data")]
    Stalled,
    #[error("server stops")]
    Stopping,
    #[error("format changed")]
    FormatChanged,
    #[error("account removed")]
    AccountRemoved,
    #[error("camera gone")]
    CameraGone,
    #[error("{0}")]
    Io(#[from] io::Error),
}

struct Connection {
    relay: Relay,
    stream: TcpStream,
    address: SocketAddr,
    shutdown: Shutdown,
    session: Session,
    viewer: Option<Viewer>,
    started: Instant,
    next_report: Instant,
    liveness: Liveness,
    /// The account that it watches with, and what wakes it to look whether that is still there.
    account: Option<String>,
    accounts: tokio::sync::watch::Receiver<std::collections::BTreeSet<String>>,
}

/// Serves one viewer until the connection ends; `said` is what was read of it before.
pub(super) async fn serve(
    relay: Relay,
    stream: TcpStream,
    address: SocketAddr,
    shutdown: Shutdown,
    names: Names,
    said: &[u8],
) {
    // Without it the last packet of a frame would wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut random = [0; 16];
    // The id guards nothing that the TCP connection does not guard already, so doing without randomness is bearable.
    let _ = getrandom::fill(&mut random);
    let [a, b, c, d, e, f, g, h, rest @ ..] = random;
    let id = format!("{:016x}", u64::from_be_bytes(rest));
    let description = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
    let session = Session::new(id, description, relay.config.session_timeout.as_secs());
    let mut session = session.with_names(names).with_login(relay.login);
    session.receive(said);
    let now = Instant::now();
    let liveness = Liveness::new(relay.config.session_timeout, now);
    let accounts = relay.accounts.watch();
    let mut connection = Connection {
        account: None,
        accounts,
        relay,
        stream,
        address,
        shutdown,
        session,
        viewer: None,
        started: now,
        next_report: now,
        liveness,
    };
    let end = match connection.run().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    tracing::debug!(viewer = %connection.address, reason = %end, "RTSP connection ended");
    connection.leave(&end.to_string());
}

enum Never {}

impl Connection {
    async fn run(&mut self) -> Result<Never, End> {
        let mut batch = Vec::new();
        let mut input = vec![0; 8 << 10];
        loop {
            // One viewer that sends without end keeps no thread for itself.
            tokio::task::consume_budget().await;
            while let Some(step) = self.session.poll() {
                self.liveness.understood();
                self.take_step(step).await?;
            }
            self.liveness.waits_for_rest(self.session.has_partial(), Instant::now());
            let deadline = self.liveness.deadline(self.viewer.is_some());
            let report_at = self.viewer.is_some().then_some(self.next_report);
            let happened = {
                let viewer = self.viewer.as_mut();
                let frames = async {
                    match viewer {
                        Some(viewer) => viewer.next(&mut batch).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = self.shutdown.begun() => return Err(End::Stopping),
                    ready = self.stream.readable() => ready.map(|()| Happened::Input)?,
                    () = wait_until(deadline) => return Err(End::Idle),
                    () = wait_until(report_at) => Happened::ReportDue,
                    Ok(()) = self.accounts.changed(), if self.account.is_some() => Happened::AccountsChanged,
                    frames = frames => Happened::Frames(frames),
                }
            };
            match happened {
                Happened::Input => self.read(&mut input)?,
                Happened::ReportDue => self.report().await?,
                Happened::AccountsChanged => {
                    if let Some(name) = &self.account
                        && !self.relay.accounts.may_go_on(name).await
                    {
                        self.goodbye().await?;
                        return Err(End::AccountRemoved);
                    }
                }
                Happened::Frames(Ok(skip)) => {
                    if let Some((viewer, skip)) = self.viewer.as_ref().zip(skip) {
                        let source = viewer.source();
                        self.relay.events.emit(Event::ViewerSkipped {
                            camera: source.camera.clone(),
                            source: source.name.clone(),
                            address: self.address.to_string(),
                            frames: skip.frames,
                        });
                    }
                    self.write_frames(&batch).await?;
                    // A stalled viewer must not hold memory that the log let go.
                    batch.clear();
                    let due = self.viewer.as_ref().is_some_and(|viewer| {
                        viewer.is_report_due() && (viewer.is_caught_up() || self.started.elapsed() > FIRST_REPORT)
                    });
                    if due {
                        self.report().await?;
                    }
                }
                Happened::Frames(Err(ended)) => {
                    self.goodbye().await?;
                    return Err(match ended {
                        Ended::FormatChanged => End::FormatChanged,
                        Ended::CameraGone | Ended::CameraRemoved => End::CameraGone,
                    });
                }
            }
        }
    }

    fn read(&mut self, input: &mut [u8]) -> Result<(), End> {
        match self.stream.try_read(input) {
            Ok(0) => Err(End::Closed),
            Ok(length) => {
                self.session.receive(&input[..length]);
                self.liveness.heard(Instant::now());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn take_step(&mut self, step: Step) -> Result<(), End> {
        let mut next = Some(step);
        while let Some(step) = next.take() {
            match step {
                Step::Send(bytes) => self.write(&[&bytes]).await?,
                Step::Authenticate(claim) => {
                    let judgement = self.relay.accounts.judge(&claim).await;
                    match &judgement {
                        Judgement::Granted(name) => self.account = Some(name.clone()),
                        Judgement::Challenged(_) => {}
                        Judgement::Refused { name, .. } => {
                            let name = name.chars().take(MOST_OF_A_NAME).collect();
                            self.relay.events.emit(Event::ViewerRefused { name, address: self.address.to_string() });
                        }
                    }
                    next = Some(self.session.judged(judgement));
                }
                Step::Lookup(path) => {
                    let shutdown = self.shutdown.clone();
                    let found = tokio::select! {
                        biased;
                        () = self.shutdown.begun() => return Err(End::Stopping),
                        found = look_up(&self.relay, &path, &shutdown) => found.map(|found| found.presentation),
                    };
                    self.liveness.heard(Instant::now());
                    next = Some(self.session.looked_up(found));
                }
                Step::Play { path, tracks, layout } => {
                    let (source, _interest) = match path.delay {
                        Delay::Live => match self.relay.hub.find(&path.camera, &path.source) {
                            Found::Source(source) => (source, None),
                            _ => return Err(End::CameraGone),
                        },
                        // It may have ended since it was described; then it begins anew, with the same tracks.
                        _ => match look_up(&self.relay, &path, &self.shutdown).await {
                            Ok(found) => (found.source, found.interest),
                            Err(_) => return Err(End::CameraGone),
                        },
                    };
                    let viewer = source.join(tracks);
                    if viewer.layout() != layout {
                        // What was described is not what would come.
                        self.goodbye().await?;
                        return Err(End::FormatChanged);
                    }
                    next = Some(self.session.started(&viewer.starts()));
                    self.viewer = Some(viewer);
                    self.started = Instant::now();
                    self.next_report = self.started + REPORT_INTERVAL;
                    self.relay.events.emit(Event::ViewerJoined {
                        camera: source.camera.clone(),
                        source: source.name.clone(),
                        address: self.address.to_string(),
                    });
                }
                Step::Pause => self.leave("paused"),
                Step::Keep { tracks: 0 } => self.leave("torn down"),
                Step::Keep { tracks } => {
                    if let Some(viewer) = &mut self.viewer {
                        viewer.keep(tracks);
                    }
                }
                Step::Close => return Err(End::Finished),
            }
        }
        Ok(())
    }

    fn leave(&mut self, reason: &str) {
        let Some(viewer) = self.viewer.take() else { return };
        self.relay.events.emit(Event::ViewerLeft {
            camera: viewer.source().camera.clone(),
            source: viewer.source().name.clone(),
            address: self.address.to_string(),
            reason: reason.to_owned(),
        });
    }

    async fn write_frames(&mut self, batch: &[Frame]) -> Result<(), End> {
        let moved: Vec<Option<Bytes>> = batch.iter().map(|frame| self.on_own_channel(frame)).collect();
        let pieces: Vec<&[u8]> =
            batch.iter().zip(&moved).map(|(frame, own)| own.as_ref().unwrap_or(&frame.data).as_ref()).collect();
        self.write(&pieces).await
    }

    /// A copy with the viewer's channel, only for viewers that asked for another one than the log's.
    fn on_own_channel(&self, frame: &Frame) -> Option<Bytes> {
        let track = usize::from(frame.track);
        let channels = self.session.channels(track)?;
        if channels.rtp == Channels::canonical(track).rtp {
            return None;
        }
        let mut copy = frame.data.to_vec();
        let mut at = 0;
        while let Some([_, channel, high, low]) = copy.get_mut(at..at + 4) {
            *channel = channels.rtp;
            at += 4 + usize::from(u16::from_be_bytes([*high, *low]));
        }
        Some(Bytes::from(copy))
    }

    /// Sender reports for all tracks (RFC 3550 6.4.1), of one moment, so that players can join the tracks.
    async fn report(&mut self) -> Result<(), End> {
        self.next_report = Instant::now() + REPORT_INTERVAL;
        self.write_reports(SenderReport::write).await
    }

    /// The last report says BYE, so that a player knows that this is the end and no break.
    async fn goodbye(&mut self) -> Result<(), End> {
        self.write_reports(SenderReport::write_bye).await
    }

    async fn write_reports(&mut self, write: fn(&SenderReport, &str, &mut Vec<u8>)) -> Result<(), End> {
        let Some(viewer) = &mut self.viewer else { return Ok(()) };
        let name = format!("{}/{}", viewer.source().camera, viewer.source().name);
        let reports = viewer.reports();
        let mut out = Vec::new();
        for Report { track, ssrc, utc_us, rtp_time, packets, octets } in reports {
            let Some(channels) = self.session.channels(track) else { continue };
            let ntp = NtpTime::from_unix_micros(utc_us);
            let report = SenderReport { ssrc, ntp, rtp_time, packet_count: packets, octet_count: octets };
            let mut packet = Vec::new();
            write(&report, &name, &mut packet);
            let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&[b'$', channels.rtcp]);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&packet);
        }
        self.write(&[&out]).await
    }

    /// Writes all pieces with as few system calls as the socket allows.
    async fn write(&mut self, pieces: &[&[u8]]) -> Result<(), End> {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.stream.try_write_vectored(rest) {
                Ok(0) => return Err(End::Closed),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        biased;
                        () = self.shutdown.begun() => return Err(End::Stopping),
                        ready = timeout(self.relay.config.stall_timeout, self.stream.writable()) => {
                            ready.map_err(|_| End::Stalled)??;
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

enum Happened {
    Input,
    ReportDue,
    AccountsChanged,
    Frames(Result<Option<crate::live::Skip>, Ended>),
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// What a path leads to.
struct LookedUp {
    source: Arc<Source>,
    presentation: Presentation,
    /// Keeps a delayed source until the viewer has joined.
    interest: Option<Interest>,
}

async fn look_up(relay: &Relay, path: &Path, shutdown: &Shutdown) -> Result<LookedUp, Refusal> {
    let patience = relay.config.describe_timeout;
    let found = relay.hub.find(&path.camera, &path.source);
    let (source, interest) = match (path.delay, found) {
        (Delay::Bad, _) => return Err(Refusal::BadDelay),
        (_, Found::UnknownCamera) => return Err(Refusal::UnknownCamera),
        (_, Found::UnknownSource) => return Err(Refusal::UnknownSource),
        (Delay::Live, Found::Source(source)) => (source, None),
        (Delay::Live, Found::NeverSeen) => return Err(Refusal::Offline),
        (Delay::Behind(seconds), Found::Source(_) | Found::NeverSeen) => {
            let found = relay.delayed.source(&path.camera, &path.source, seconds, shutdown);
            let (source, interest) = found.map_err(|refused| match refused {
                Refused::NotRecorded => Refusal::NotRecorded,
                Refused::TooMany => Refusal::TooManyDelays,
            })?;
            (source, Some(interest))
        }
    };
    match source.wait_presentation(patience).await {
        Ok(presentation) => Ok(LookedUp { source, presentation, interest }),
        Err(_) if interest.is_some() => Err(Refusal::NothingThen),
        Err(Unavailable::Offline) => Err(Refusal::Offline),
        Err(Unavailable::NoPicture) => Err(Refusal::NoPicture),
    }
}
