//! A WebSocket to the server: the opening handshake (RFC 6455 section 4) with the token, and buffers that are sized on purpose.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use camagent_proto::{CloseCode, frame::MAX_RECORD, message::MAX_REGISTER, session::Transmit, version::SUBPROTOCOL};
use futures_util::{Sink, Stream};
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        error::ProtocolError,
        handshake::client::generate_key,
        http::{Request, Response, header},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode as WebSocketCloseCode},
    },
};

use super::{
    Traffic,
    advice::tls_advice,
    counted::Counted,
    dial::dial,
    frames::{Frames, Opcode},
    proxy, retry_after,
    tls::Tls,
};
use crate::{
    burst::MAX_BURST,
    config::{Config, ServerUrl},
    error::Error,
    resolve::Resolver,
};

/// Octets that are read at once.
const READ_BUFFER: usize = 8 << 10;
/// What may wait in the WebSocket library: answers to pings, and a close. Messages are not written by it.
const WRITE_LIMIT: usize = 4 << 10;
/// What may wait in the TLS layer besides: the burst as TLS records.
const TLS_BUFFER: usize = MAX_BURST + 1_024;

pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Socket for T {}

/// The library that reads, and what writes below it.
pub(crate) type WebSocket = WebSocketStream<Frames<Box<dyn Socket>>>;

/// An open connection.
pub(crate) struct Connection {
    socket: WebSocket,
    /// The TCP connection below, to ask the kernel about it.
    connection: OwnedFd,
    /// Its octets.
    traffic: Rc<Traffic>,
    ends: Option<(SocketAddr, SocketAddr)>,
    /// The fastest that the kernel may send, as it was told.
    paced: u32,
    has_left: bool,
    /// The server's address, for people.
    pub(crate) address: String,
}

/// What a kernel knows of the packets of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipts {
    /// About so many of the octets that are not acknowledged have arrived behind a packet that is missing (RFC 2018).
    pub(crate) sacked: u64,
    /// Packets that were ever retransmitted.
    pub(crate) retransmitted: u64,
}

/// What the server said.
pub(crate) enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// A ping, which the WebSocket layer answers itself, or a pong.
    Ping,
    /// The end: the close code, 1006 (RFC 6455 section 7.1.5) without one, and words.
    Closed(u16, String),
}

/// Dials, passes the proxy, encrypts and upgrades. `tls` is there when the URL of any server asks for it.
pub(super) async fn connect(
    config: &Config,
    server: &ServerUrl,
    addresses: &Resolver,
    tls: Option<&Tls>,
    traffic: &Rc<Traffic>,
) -> Result<Connection, Error> {
    let (host, port) = match &config.proxy {
        Some(proxy) => (proxy.host(), proxy.port()),
        None => (server.host(), server.port()),
    };
    let (socket, address) = dial(host, port, addresses).await.map_err(|error| match (&config.proxy, error) {
        (Some(proxy), Error::Unreachable(why)) => Error::Unreachable(format!("proxy {proxy}: {why}")),
        (_, error) => error,
    })?;
    let connection = socket.as_fd().try_clone_to_owned().map_err(Error::io("cannot watch the connection"))?;
    let own = Rc::new(Traffic::default());
    let ends = socket.local_addr().ok().zip(socket.peer_addr().ok());
    let mut socket = Counted::new(socket, Rc::clone(traffic), Rc::clone(&own));
    let mut place = address.to_string();
    if let Some(proxy) = &config.proxy {
        proxy::pass(&mut socket, proxy, server).await?;
        place = format!("{} through proxy {proxy}", server.authority());
    }
    let socket: Box<dyn Socket> = match tls.filter(|_| server.is_tls()) {
        None if server.is_tls() => return Err(Error::Tls("no certificate authorities were read".into())),
        None => Box::new(socket),
        Some(tls) => {
            let name = ServerName::try_from(server.host().to_owned())
                .map_err(|error| Error::Tls(format!("{}: {error}", server.host())))?;
            let limit = |session: &mut rustls::ClientConnection| session.set_buffer_limit(Some(TLS_BUFFER));
            let session = tls.connector().connect_with(name, socket, limit).await;
            let session = session.map_err(|error| {
                let advice = tls_advice(server.host(), &error);
                Error::Tls(format!("{place}: {error}; {advice}"))
            });
            Box::new(session?)
        }
    };
    let (socket, _) = upgrade(config, server, socket).await?;
    Ok(Connection { socket, connection, traffic: own, ends, paced: u32::MAX, has_left: true, address: place })
}

/// The opening handshake with the token; the server's answer speaks our sub-protocol.
pub(crate) async fn upgrade(
    config: &Config,
    server: &ServerUrl,
    socket: Box<dyn Socket>,
) -> Result<(WebSocket, Response<Option<Vec<u8>>>), Error> {
    let sizes = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_LIMIT)
        .max_message_size(Some(MAX_RECORD.max(MAX_REGISTER)))
        .max_frame_size(Some(MAX_RECORD.max(MAX_REGISTER)));
    let request = request(config, server)?;
    let (socket, response) = client_async_with_config(request, Frames::new(socket), Some(sizes))
        .await
        .map_err(|error| refused(error, &server.to_string()))?;
    let protocol = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    if protocol.is_none_or(|protocol| protocol.as_bytes() != SUBPROTOCOL.as_bytes()) {
        return Err(other_protocol(&server.to_string()));
    }
    Ok((socket, response))
}

impl Connection {
    /// Octets that were handed to the kernel.
    pub(crate) fn sent(&self) -> u64 {
        self.traffic.sent.get()
    }

    /// Whether the kernel was handed all that was ever sent.
    pub(crate) fn has_left(&self) -> bool {
        self.has_left
    }

    /// Octets that came.
    pub(crate) fn received(&self) -> u64 {
        self.traffic.received.get()
    }

    /// This machine's address, and what it is connected to: the server, or the proxy.
    pub(crate) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.ends
    }

    /// Octets that the kernel was given and the peer's kernel has not acknowledged (SIOCOUTQ, tcp(7)); 0 when it cannot be told.
    pub(crate) fn outstanding(&self) -> u64 {
        let mut octets: libc::c_int = 0;
        // SAFETY: the descriptor is open as long as this value lives, and the call fills one integer.
        let told = unsafe { libc::ioctl(self.connection.as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
        if told == 0 { u64::try_from(octets).unwrap_or(0) } else { 0 }
    }

    /// Octets that the kernel was given and has not put on the wire yet (SIOCOUTQNSD, tcp(7)); 0 when it cannot be told.
    pub(crate) fn unsent(&self) -> u64 {
        /// Of linux/sockios.h; libc has no name for it.
        const SIOCOUTQNSD: libc::c_int = 0x894b;
        let mut octets: libc::c_int = 0;
        // SAFETY: as in `outstanding`.
        let told = unsafe { libc::ioctl(self.connection.as_raw_fd(), SIOCOUTQNSD as _, &raw mut octets) };
        if told == 0 { u64::try_from(octets).unwrap_or(0) } else { 0 }
    }

    /// What the kernel knows of single packets (TCP_INFO, tcp(7)), when so many octets were [outstanding](Self::outstanding) just before.
    pub(crate) fn receipts(&self, outstanding: u64) -> Option<Receipts> {
        let words = self.kernel_words()?;
        let [unacked, sacked, retransmitted] = [6, 7, 25].map(|at: usize| u64::from(words[at]));
        // Packets are of different sizes.
        let sacked = match sacked {
            0 => 0,
            _ => outstanding.saturating_sub(self.unsent()) * sacked.min(unacked) / unacked.max(1),
        };
        Some(Receipts { sacked, retransmitted })
    }

    /// The round trip that the kernel measured (TCP_INFO, tcp(7)).
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.kernel_words()?[17].into()))
    }

    /// The beginning of `struct tcp_info` of linux/tcp.h, in words; libc does not have it for every target.
    fn kernel_words(&self) -> Option<[u32; 26]> {
        let mut words = [0_u32; 26];
        let size = libc::socklen_t::try_from(size_of_val(&words)).ok()?;
        let mut length = size;
        let (socket, value) = (self.connection.as_raw_fd(), words.as_mut_ptr().cast());
        // SAFETY: the descriptor is open as long as this value lives, and the call writes no more than `length` octets.
        let told = unsafe { libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut length) };
        (told == 0 && length == size).then_some(words)
    }

    /// The kernel sends no faster from now on, in octets a second (SO_MAX_PACING_RATE, socket(7)). A kernel that cannot does not.
    pub(crate) fn pace(&mut self, rate: Option<u64>) {
        let rate = rate.map_or(u32::MAX, |rate| u32::try_from(rate).unwrap_or(u32::MAX));
        // Not for every little difference.
        if rate.abs_diff(self.paced) <= self.paced / 32 {
            return;
        }
        self.paced = rate;
        let size = libc::socklen_t::try_from(size_of_val(&rate)).unwrap_or(0);
        let (socket, value) = (self.connection.as_raw_fd(), (&raw const rate).cast());
        // SAFETY: the descriptor is open as long as this value lives, and the call reads `size` octets.
        unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, value, size) };
    }

    /// Octets that one packet carries at most (TCP_MAXSEG, tcp(7)).
    pub(crate) fn segment(&self) -> u64 {
        SockRef::from(&self.connection).tcp_mss().map_or(1_400, u64::from)
    }

    /// The next message, if there is one.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        Pin::new(&mut self.socket).poll_next(cx).map(|next| match next {
            Some(Ok(Message::Text(text))) => Incoming::Text(text.as_str().into()),
            Some(Ok(Message::Binary(octets))) => Incoming::Binary(octets),
            Some(Ok(Message::Close(close))) => {
                let (code, reason) =
                    close.map_or((1005, String::new()), |close| (u16::from(close.code), close.reason.as_str().into()));
                Incoming::Closed(code, reason)
            }
            // Raw frames are never read, as `Message` says.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Incoming::Ping,
            Some(Err(error)) => Incoming::Closed(1006, error.to_string()),
            None => Incoming::Closed(1006, "the connection has ended".into()),
        })
    }

    /// Adds a message to the burst that [`Connection::poll_flush`] writes; only after that said that the one before has left.
    pub(crate) fn send(&mut self, transmit: Transmit) -> Result<(), String> {
        self.has_left = false;
        match transmit {
            Transmit::Text(text) => self.socket.get_mut().push(Opcode::Text, text.as_bytes()),
            Transmit::Binary(octets) => self.socket.get_mut().push(Opcode::Binary, &octets),
            Transmit::Close(code, reason) => {
                let close = Message::Close(Some(close_frame(code, &reason)));
                Pin::new(&mut self.socket).start_send(close).map_err(|error| error.to_string())
            }
        }
    }

    /// Pushes what was sent into the socket; ready when it has taken all.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx).map_err(|error| error.to_string());
        self.has_left |= flushed.is_ready();
        flushed
    }
}

fn close_frame(code: CloseCode, reason: &str) -> CloseFrame {
    CloseFrame { code: WebSocketCloseCode::from(code.number()), reason: reason.into() }
}

fn request(config: &Config, server: &ServerUrl) -> Result<Request<()>, Error> {
    let scheme = if server.is_tls() { "wss" } else { "ws" };
    Request::builder()
        .uri(format!("{scheme}://{}{}", server.authority(), server.path_of(&config.agent_id)))
        .header(header::HOST, server.authority())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, generate_key())
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .header(header::USER_AGENT, crate::SOFTWARE)
        .header(header::AUTHORIZATION, format!("Bearer {}", config.token.reveal()))
        .body(())
        .map_err(|error| Error::Usage(format!("cannot ask {server}: {error}")))
}

fn other_protocol(server: &str) -> Error {
    Error::Session(camagent_proto::Error::Incompatible {
        supported: SUBPROTOCOL.into(),
        offered: format!("no such WebSocket sub-protocol at {server}; is it a camagent server?"),
    })
}

fn refused(error: tungstenite::Error, server: &str) -> Error {
    match error {
        tungstenite::Error::Http(response) => http_error(&response),
        tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => other_protocol(server),
        other => Error::Unreachable(format!("{server}: {other}")),
    }
}

/// An HTTP answer instead of an upgrade: its status, its words, and when to come back.
fn http_error(response: &Response<Option<Vec<u8>>>) -> Error {
    let body = response.body().as_deref().unwrap_or_default();
    let message = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|body| body["error"]["message"].as_str().map(String::from));
    let detail = message.unwrap_or_else(|| String::from_utf8_lossy(&body[..body.len().min(200)]).trim().into());
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header(header::RETRY_AFTER);
    Error::Http {
        status: response.status().as_u16(),
        detail,
        retry_after_s: retry_after.and_then(|value| retry_after::seconds(value, header(header::DATE))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_errors_carry_the_servers_words() {
        let response = |body: &str| {
            Response::builder().status(401).header("Retry-After", "9").body(Some(body.as_bytes().to_vec())).unwrap()
        };
        let error = http_error(&response(r#"{"error":{"code":"unauthorized","message":"wrong token"}}"#));
        assert_eq!(error.to_string(), "the server refused the connection: HTTP 401: wrong token");
        assert!(matches!(error, Error::Http { retry_after_s: Some(9), .. }));
        assert_eq!(http_error(&response("")).to_string(), "the server refused the connection: HTTP 401");
    }

    #[test]
    fn the_request_names_agent_protocol_and_token() {
        let config = Config::new("cam-1", "ws://[::1]:8080/agent", "secret").unwrap();
        let request = request(&config, &config.servers[0]).unwrap();
        assert_eq!(request.uri().path(), "/agent/cam-1");
        assert_eq!(request.headers()["host"], "[::1]:8080");
        assert_eq!(request.headers()["authorization"], "Bearer secret");
        assert_eq!(request.headers()["sec-websocket-protocol"], "camagent.v1");
    }
}
