//! What becomes of the machine's own network: the kernel's notices about addresses and routes (rtnetlink(7)), and which way it would take now.
//! What does not belong here: what is done about it (`driver`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use tokio::{io::unix::AsyncFd, time::sleep};

/// An address brings its routes, and other addresses: they are one change.
const SETTLES_WITHIN: Duration = Duration::from_millis(200);
const BUFFER: usize = 8 << 10;

/// The kernel's notices.
pub(crate) struct Notices(AsyncFd<OwnedFd>);

impl Notices {
    /// Needs a runtime with I/O. An error where netlink is forbidden, in a container for one: then only the host can tell.
    pub(crate) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket takes no pointers.
        let descriptor = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just created and belongs to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // SAFETY: all zeros is a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let groups =
            libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_IPV6_ROUTE;
        address.nl_groups = groups as u32;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the address is valid for its length, which is given.
        if unsafe { libc::bind(descriptor.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor stays the same and open for as long as it is registered, because it is owned by what is registered.
        Ok(Self(unsafe { AsyncFd::register(descriptor) }?))
    }

    /// Comes back when addresses or routes have changed and settled. Never comes back when the kernel tells no more. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            if let Ok(read) = ready.try_io(|socket| drain(socket.as_raw_fd())) {
                match read {
                    Ok(()) => {}
                    Err(_) => return std::future::pending().await,
                }
                sleep(SETTLES_WITHIN).await;
                // What came meanwhile belongs to it.
                let _ = drain(self.0.as_raw_fd());
                return;
            }
        }
    }
}

/// Takes what is there; the groups are all that it can be about. `WouldBlock` when there is nothing.
fn drain(socket: i32) -> io::Result<()> {
    let mut buffer = [0_u8; BUFFER];
    let mut had = false;
    loop {
        // SAFETY: at most the buffer's length is written into it.
        let read = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), BUFFER, 0) };
        if read > 0 {
            had = true;
            continue;
        }
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            // More came than there is room for: it is a change in any case.
            Some(libc::ENOBUFS) => {
                had = true;
                continue;
            }
            Some(libc::EINTR) => continue,
            Some(libc::EAGAIN) if had => Ok(()),
            _ => Err(error),
        };
    }
}

/// The address that the kernel would dial `peer` from now; `None` when there is no way there. Nothing is sent.
pub(crate) fn way_to(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Whether an address is one of this machine's.
pub(crate) fn is_own(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_loopback_and_foreign_addresses_are_not_ours() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(way_to(loopback), Some(loopback.ip()));
        assert!(is_own(loopback.ip()));
        assert!(!is_own([192, 0, 2, 77].into()));
    }
}
