//! A camera's network as it is out there: network namespaces `cloud`, `router` and `site`, and real NAT between them
//! (nftables masquerade). What runs in `site` reaches `cloud`; nothing in `cloud` reaches `site`.
//!
//! It needs root, `ip` and `nft`. Namespaces go with the value, and with the process however it ends: they are held by an
//! open file only. The name that `ip netns exec` takes is a link to it; the next test removes one that leads nowhere.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::program;

/// The server's address, of the block for documentation (RFC 5737).
pub const CLOUD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// What the cloud sees of the site.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The camera's own address, private (RFC 1918).
pub const CAMERA: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 108);

/// All names begin so; the process's number follows.
const PREFIX: &str = "camagent-";

/// What the router does: it masquerades what leaves, lets answers in, and refuses everything else.
const RULES: &str = "
table ip nat {
    chain leaving { type nat hook postrouting priority srcnat; oifname \"cloud\" masquerade; }
}
table ip filter {
    chain passing {
        type filter hook forward priority filter;
        iifname \"site\" accept
        ct state established,related accept
        reject with icmp type admin-prohibited
    }
}
";

/// The three namespaces.
pub struct Nat {
    /// Where the server and its viewers are.
    pub cloud: Namespace,
    /// Between them.
    pub router: Namespace,
    /// Where the camera is.
    pub site: Namespace,
}

impl Nat {
    /// Makes them. Nothing where this machine cannot: see [`program::is_missing`].
    pub fn make() -> Option<Self> {
        // SAFETY: geteuid has no preconditions and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            program::is_missing("root, who alone makes network namespaces,", "run the test as root");
            return None;
        }
        if !program::is_installed("ip", "iproute2") || !program::is_installed("nft", "nftables") {
            return None;
        }
        let nat =
            Self { cloud: Namespace::new("cloud"), router: Namespace::new("router"), site: Namespace::new("site") };
        // Each link has the name of the other end at the router, so that its rules read well.
        for (end, own, other) in [(&nat.cloud, CLOUD, ROUTER), (&nat.site, CAMERA, Ipv4Addr::new(192, 168, 77, 1))] {
            let (name, place) = (&end.name, end.place);
            ip(&format!("-n {name} link add up0 type veth peer name {place} netns {}", nat.router.name));
            ip(&format!("-n {name} addr add {own}/24 dev up0"));
            ip(&format!("-n {name} link set up0 up"));
            ip(&format!("-n {} addr add {other}/24 dev {place}", nat.router.name));
            ip(&format!("-n {} link set {place} up", nat.router.name));
            // Also from the cloud: it is the router that refuses, not a route that is missing.
            ip(&format!("-n {name} route add default via {other}"));
        }
        nat.router.within(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("the router forwards");
        let mut nft = nat.router.command("nft");
        let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft starts");
        nft.stdin.take().expect("piped").write_all(RULES.as_bytes()).expect("nft reads");
        assert!(nft.wait().is_ok_and(|status| status.success()), "nft takes the router's rules");
        Some(nat)
    }

    /// From now on the router forgets a connection that was idle for so many seconds, and swallows what comes on it afterwards, as the routers of
    /// people and of mobile networks do.
    pub fn forget_after(&self, seconds: u32) {
        let set = |name: &str, value: u32| {
            fs::write(format!("/proc/sys/net/netfilter/nf_conntrack_tcp_{name}"), value.to_string()).expect(name);
        };
        self.router.within(|| {
            set("timeout_established", seconds);
            // What belongs to no connection that is known is not taken for one.
            set("loose", 0);
        });
        let rule = ["insert", "rule", "ip", "filter", "passing", "ct", "state", "invalid", "drop"];
        assert!(self.router.command("nft").args(rule).status().is_ok_and(|status| status.success()), "nft takes it");
    }
}

/// One network namespace. Goes with the value, as soon as nothing runs in it any more.
pub struct Namespace {
    place: &'static str,
    name: String,
    handle: File,
}

impl Namespace {
    fn new(place: &'static str) -> Self {
        Self::make(place).expect("root may make namespaces")
    }

    /// Makes one, with loopback; `place` becomes part of its name.
    pub fn make(place: &'static str) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_orphans();
        let name = format!("{PREFIX}{}-{}-{place}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let thread = std::thread::spawn(|| {
            // SAFETY: unshare takes no pointers; it moves this thread alone.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            File::open("/proc/thread-self/ns/net")
        });
        let handle = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        fs::create_dir_all(folder())?;
        let file = format!("/proc/{}/fd/{}", std::process::id(), handle.as_raw_fd());
        std::os::unix::fs::symlink(file, folder().join(&name))?;
        let namespace = Self { place, name, handle };
        namespace.ip("link set lo up").map_err(io::Error::other)?;
        Ok(namespace)
    }

    /// What `ip netns exec` calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with these words in this namespace.
    pub fn ip(&self, line: &str) -> Result<(), String> {
        run_ip(&format!("-n {} {line}", self.name))
    }

    /// Calls `work` in a thread whose sockets, threads and programs are in this namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(self.handle.as_raw_fd()).expect("root may enter");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a future on a runtime of its own, all of whose threads are in this namespace.
    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        self.within(|| tokio::runtime::Runtime::new().expect("threads").block_on(future))
    }

    /// A program that will run in this namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let handle = self.handle.as_raw_fd();
        // SAFETY: setns is a plain system call, allowed between fork and exec; the namespace outlives the call, or the
        // number is no namespace and the call fails.
        unsafe { command.pre_exec(move || enter(handle)) };
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What fails here is tried again by the next test.
        let _ = fs::remove_file(folder().join(&self.name));
    }
}

fn enter(handle: i32) -> io::Result<()> {
    // SAFETY: setns takes no pointers; a wrong number is an error.
    if unsafe { libc::setns(handle, libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where `ip` keeps them.
fn folder() -> PathBuf {
    PathBuf::from("/run/netns")
}

fn ip(line: &str) {
    run_ip(line).unwrap_or_else(|problem| panic!("{problem}"));
}

fn run_ip(line: &str) -> Result<(), String> {
    let output = Command::new("ip").args(line.split(' ')).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("ip cannot be started (Debian package iproute2): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
}

/// Removes namespaces of tests that are gone.
fn remove_orphans() {
    let Ok(entries) = fs::read_dir(folder()) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !PathBuf::from(format!("/proc/{owner}")).exists()) {
            // Another test may have been faster.
            let _ = fs::remove_file(folder().join(&name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_site_reaches_the_cloud_and_not_the_other_way() {
        let Some(nat) = Nat::make() else { return };
        let dial = |address: Ipv4Addr, port: u16| {
            TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(5)).map(|_| ())
        };
        let camera = nat.site.within(|| TcpListener::bind((CAMERA, 554))).expect("nobody else is there");
        let server = nat.cloud.within(|| TcpListener::bind((CLOUD, 8443))).expect("nobody else is there");
        nat.site.within(|| dial(CLOUD, 8443)).expect("cameras dial out");
        let (_, seen) = server.accept().expect("it came");
        assert_eq!(seen.ip(), ROUTER, "its address is masqueraded");
        assert!(nat.cloud.within(|| dial(CAMERA, 554)).is_err(), "the router refuses");
        assert!(nat.cloud.within(|| dial(ROUTER, 554)).is_err(), "no port is forwarded");
        nat.site.within(|| dial(CAMERA, 554)).expect("it does listen");
        drop(camera);
    }
}
