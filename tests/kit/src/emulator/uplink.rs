//! The emulated link with its two namespaces: `near` where the camera is, `far` where the Internet is.
//!
//! Cameras run cubic (RFC 9438), so every connection over the link does, and no program can choose otherwise: the routes
//! carry the algorithm, locked (ip-route(8), `congctl`), and a connection over the new link shows that it took effect. The
//! sysctl would not do: outside the first namespace it takes only algorithms that everybody may use.

use std::ffi::CStr;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::change::Change;
use super::counters::Counters;
use super::driver::Driver;
use super::model::{Emulator, FAR, NEAR, Setup};
use super::tun;
use crate::netns::Namespace;
use crate::program;

/// What cameras run.
const CONGESTION: &str = "cubic";
/// The devices. The queue in front of them must never be the one that drops: the emulated one is in octets and counted.
const DEVICE_QUEUE: u32 = 20_000;
/// What the first connection may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The link, running. Namespaces and devices go with the value, and with the process.
pub struct Uplink {
    /// Where the camera is: address [`NEAR`], everything leads over the link.
    pub near: Namespace,
    /// Where the server is: address [`FAR`]; it sees the camera as [`Self::outside`].
    pub far: Namespace,
    driver: Driver,
}

impl Uplink {
    /// Makes a link whose time begins now. Nothing where this machine cannot: see [`program::is_missing`].
    pub fn of(setup: Setup) -> Option<Self> {
        match Self::make(setup) {
            Ok(uplink) => Some(uplink),
            Err(problem) => {
                program::is_missing("an emulated link", &problem);
                None
            }
        }
    }

    /// The same; the error says what the machine lacks.
    pub fn make(setup: Setup) -> Result<Self, String> {
        // SAFETY: geteuid has no preconditions and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return Err("network namespaces and TUN devices need root: run it as root".into());
        }
        let told = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| format!("{what}: {error}")
        };
        let near = Namespace::make("near").map_err(told("a network namespace (needs CAP_SYS_ADMIN)"))?;
        let far = Namespace::make("far").map_err(told("a network namespace (needs CAP_SYS_ADMIN)"))?;
        let devices = [
            near.within(|| tun::open("up0")).map_err(told("the camera's TUN device"))?,
            far.within(|| tun::open("net0")).map_err(told("the far TUN device"))?,
        ];
        for (place, device, own) in [(&near, "up0", NEAR), (&far, "net0", FAR)] {
            place.within(prepare).map_err(told("a namespace's settings"))?;
            // No route but these: each carries the algorithm.
            place.ip(&format!("addr add {own}/32 dev {device}"))?;
            place.ip(&format!("link set {device} txqueuelen {DEVICE_QUEUE} up"))?;
            place.ip(&format!("route add default dev {device} src {own} congctl lock {CONGESTION}"))?;
        }
        far.ip("route add local 203.0.113.0/24 dev lo")?;
        let [near_device, far_device] = devices;
        let driver = Driver::start(Emulator::new(Setup::default()), near_device, far_device)
            .map_err(told("the thread of the link"))?;
        let uplink = Self { near, far, driver };
        uplink.try_out().map_err(told("a connection over the new link"))?;
        uplink.driver.replace(Emulator::new(setup));
        Ok(uplink)
    }

    /// Changes the link now.
    pub fn change(&self, change: Change) {
        self.driver.with(|emulator, now| emulator.change(change, now));
    }

    /// Another link takes the place of this one, at time zero: empty, with new counters, script and chance. Connections
    /// stay; they are unknown to it until their next packet.
    pub fn restart(&self, setup: Setup) {
        self.driver.replace(Emulator::new(setup));
    }

    /// What went through since the beginning.
    pub fn counters(&self) -> Counters {
        self.driver.with(|emulator, now| {
            emulator.handle_timeout(now);
            emulator.counters(now)
        })
    }

    /// What the far end sees of the camera's new connections.
    pub fn outside(&self) -> std::net::Ipv4Addr {
        self.driver.with(|emulator, _| emulator.outside())
    }

    /// Connects over the link, both ways once, and looks at what congestion control both ends got.
    fn try_out(&self) -> io::Result<()> {
        let listener = self.far.within(|| TcpListener::bind((FAR, 0)))?;
        let to = listener.local_addr()?;
        let mut camera = self.near.within(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        let (mut server, _) = listener.accept()?;
        for socket in [&camera, &server] {
            socket.set_read_timeout(Some(PATIENCE))?;
            let used = congestion(socket)?;
            if used != CONGESTION {
                return Err(io::Error::other(format!(
                    "it runs {used}, not {CONGESTION} as cameras do (modprobe tcp_cubic)"
                )));
            }
        }
        let mut octet = [0; 1];
        camera.write_all(&[1])?;
        server.read_exact(&mut octet)?;
        server.write_all(&octet)?;
        camera.read_exact(&mut octet)?;
        // A reset leaves nothing behind that the link's counters would show.
        close_with_reset(camera)?;
        match server.read(&mut octet) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            other => Err(io::Error::other(format!("its end was not seen: {other:?}"))),
        }
    }

    /// Connects to the far end from the camera's place.
    pub fn dial(&self, port: u16) -> io::Result<TcpStream> {
        let to = SocketAddr::from((FAR, port));
        self.near.within(|| TcpStream::connect_timeout(&to, PATIENCE))
    }
}

/// Settings of the calling thread's namespace: what would make one run depend on the one before, or send packets that
/// nobody asked for.
fn prepare() -> io::Result<()> {
    let set = |name: &str, value: &str| match std::fs::write(format!("/proc/sys/net/{name}"), value) {
        // Without IPv6 there is nothing to turn off.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    set("ipv6/conf/all/disable_ipv6", "1")?;
    set("ipv6/conf/default/disable_ipv6", "1")?;
    set("ipv4/tcp_no_metrics_save", "1")
}

fn congestion(socket: &TcpStream) -> io::Result<String> {
    let mut name = [0u8; 16];
    let mut length = name.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets into `name`; both live through the call.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
    Ok(name.to_string_lossy().into_owned())
}

fn close_with_reset(socket: TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the kernel reads one `linger`, which lives through the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
