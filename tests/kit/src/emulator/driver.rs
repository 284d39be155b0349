//! The thread that carries packets between two TUN devices and an [`Emulator`], at the times that it says.
//!
//! It sleeps in ppoll(2) with timer slack off, and asks for a real-time priority, so that a busy machine does not look like
//! a bad link: deadlines are met to some tenths of a millisecond.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::flows::Way;
use super::model::Emulator;

/// Packets of one device that are read before the other's turn.
const TURN: usize = 64;
/// The longest IP packet.
const LONGEST: usize = 65_535;
/// The lowest real-time priority: before every ordinary thread, behind everything else.
const PRIORITY: libc::c_int = 1;

/// A link that runs: time is counted from `begun`.
struct Running {
    emulator: Emulator,
    begun: Instant,
}

struct Shared {
    running: Mutex<Running>,
    /// Ends the thread's sleep when something changed.
    wake: File,
    stop: AtomicBool,
}

/// The thread. Ends with the value.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Driver {
    /// Begins to carry packets between the camera's device and the far one.
    pub(crate) fn start(emulator: Emulator, near: File, far: File) -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let wake = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if wake < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the number is a new file of ours that nothing else closes.
        let wake = File::from(unsafe { OwnedFd::from_raw_fd(wake) });
        let running = Mutex::new(Running { emulator, begun: Instant::now() });
        let shared = Arc::new(Shared { running, wake, stop: AtomicBool::new(false) });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("link".into()).spawn(move || carry(&own, &near, &far))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Works on the emulator, with the time on its clock; the thread looks at it again afterwards.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Emulator, Duration) -> T) -> T {
        let mut running = self.shared.running();
        let now = running.begun.elapsed();
        let result = work(&mut running.emulator, now);
        drop(running);
        self.shared.rouse();
        result
    }

    /// Another link takes the place of this one, at time zero. What was in it is gone.
    pub(crate) fn replace(&self, emulator: Emulator) {
        *self.shared.running() = Running { emulator, begun: Instant::now() };
        self.shared.rouse();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.rouse();
        let ended = self.thread.take().map(JoinHandle::join);
        // A link that ended by itself was no link: whatever was measured is worth nothing.
        match ended {
            Some(Err(panic)) if !std::thread::panicking() => std::panic::resume_unwind(panic),
            Some(Ok(Err(error))) if !std::thread::panicking() => panic!("the link's devices: {error}"),
            _ => {}
        }
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rouse(&self) {
        // A full counter has roused already.
        let _ = (&self.wake).write(&1u64.to_ne_bytes());
    }
}

fn carry(shared: &Shared, near: &File, far: &File) -> io::Result<()> {
    be_prompt();
    let mut buffer = vec![0; LONGEST];
    while !shared.stop.load(Ordering::Acquire) {
        let mut running = shared.running();
        let begun = running.begun;
        let mut more = false;
        for (way, mut device) in [(Way::Up, near), (Way::Down, far)] {
            let mut count = 0;
            while count < TURN {
                match device.read(&mut buffer) {
                    Ok(length) => running.emulator.handle_packet(way, &buffer[..length], begun.elapsed()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
                count += 1;
            }
            more |= count == TURN;
        }
        running.emulator.handle_timeout(begun.elapsed());
        while let Some((way, packet)) = running.emulator.poll_transmit() {
            // The kernel refuses what is no packet for it, as it would from any device.
            let _ = match way {
                Way::Up => (&*far).write(&packet),
                Way::Down => (&*near).write(&packet),
            };
        }
        let deadline = running.emulator.deadline();
        drop(running);
        if !more {
            sleep([near, far, &shared.wake], deadline.map(|at| at.saturating_sub(begun.elapsed())))?;
            // Reading sets the counter back; nothing to read means that nobody roused.
            let _ = (&shared.wake).read(&mut [0; 8]);
        }
    }
    Ok(())
}

/// Until one of the files can be read, or `longest` is over.
fn sleep(files: [&File; 3], longest: Option<Duration>) -> io::Result<()> {
    let mut polls = files.map(|file| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let time = longest.map(|longest| libc::timespec {
        tv_sec: longest.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: longest.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the array has as many entries as are told, the time is null or lives through the call, and no signal mask
    // is given.
    let ready = unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, time, std::ptr::null()) };
    let error = io::Error::last_os_error();
    if ready < 0 && error.kind() != io::ErrorKind::Interrupted { Err(error) } else { Ok(()) }
}

/// Gives the calling thread as much promptness as this process may have; what it starts is ordinary again. The link's own
/// thread has it, and whoever measures delays over the link should: otherwise a busy machine is measured. Such a thread
/// must wait most of the time. Where it is not allowed nothing changes.
pub fn be_prompt() {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: both are plain system calls about the calling thread; the parameters live through the call.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong);
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters);
    }
}
