//! Where something is measured over an emulated link: the link, and a runtime on either side of it whose threads and
//! sockets are in that side's namespace.

use std::time::Duration;

use camagent_testkit::emulator::{Setup, Uplink};
use camagent_testkit::netns::Namespace;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Threads of a side.
const THREADS: usize = 2;

/// The link and its sides, which end before it.
pub(crate) struct Stage {
    /// Where the camera is.
    pub(crate) near: Side,
    /// Where the server is.
    pub(crate) far: Side,
    pub(crate) link: Uplink,
}

impl Stage {
    /// Makes a link whose time begins now.
    pub(crate) fn make(setup: Setup) -> Result<Self, String> {
        let link = Uplink::make(setup)?;
        let (near, far) = (Side::within(&link.near)?, Side::within(&link.far)?);
        Ok(Self { near, far, link })
    }
}

/// One side.
pub(crate) struct Side(Option<Runtime>);

impl Side {
    fn within(namespace: &Namespace) -> Result<Self, String> {
        let runtime = namespace.within(|| Builder::new_multi_thread().worker_threads(THREADS).enable_all().build());
        Ok(Self(Some(runtime.map_err(|error| format!("threads of one side: {error}"))?)))
    }

    /// Lets something run there.
    pub(crate) fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.as_ref().expect("until it is dropped").spawn(future)
    }

    /// Lets something run there and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (tell, told) = std::sync::mpsc::channel();
        self.spawn(async move {
            // Who waits below is there.
            let _ = tell.send(future.await);
        });
        told.recv().expect("what runs on a side does not panic")
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// Asks the kernel for the processors before everybody else, for this program and all that it starts: otherwise it is
/// measured what else the machine does. Only root may.
pub(crate) fn be_first() {
    // SAFETY: a plain system call; 0 is the calling thread, whose children inherit it.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
}
