//! The way to the servers: the clock, the name, TCP, the proxy, TLS, the WebSocket handshake with the token, the round trip.
//! It ends before `register`, so a running agent of the same id keeps its session.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use camagent_proto::version::SUBPROTOCOL;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use super::{Check, Report, millis, place};
use crate::{
    clock::rfc3339,
    config::{Config, Proxy, Trust},
    error::Error,
    net::{ServerTime, Socket, Tls, WebSocket, build_time, pass, tls_advice, upgrade},
};

/// Addresses that are tried; a name with more has some trouble of its own.
const MAX_ADDRESSES: usize = 8;
/// Round trips that are measured.
const PINGS: u8 = 5;
/// A round trip above this delays commands and key frames so much that people notice.
const SLOW: Duration = Duration::from_millis(800);
/// A clock that is further off than this is wrong, not imprecise.
const CLOCK_OFF: u64 = 60;
/// No build is used for so long: the clock is wrong.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 86_400);
/// Both ends speak, and not the same.
const OTHER_VERSION: &str = "agent and server are of different versions, and the older one must be updated; or what answers there is no camagent server at all";
/// A certificate that ends within this is somebody's task now.
const ENDS_SOON: [u64; 4] = [1, 3, 7, 14];

pub(super) async fn examine<T: FnMut(&Check)>(config: &Config, patience: Duration, report: &mut Report<T>) {
    clock(now(), report);
    for server in &config.servers {
        if config.servers.len() > 1 {
            report.server = server.authority();
        }
        let only = Config { servers: vec![server.clone()], ..config.clone() };
        examine_one(&only, patience, report).await;
    }
    report.server.clear();
}

async fn examine_one<T: FnMut(&Check)>(config: &Config, patience: Duration, report: &mut Report<T>) {
    let rest: &[&str] = match &config.proxy {
        Some(_) => &["dns", "tcp", "proxy", "tls", "websocket", "server_clock", "round_trip"],
        None => &["dns", "tcp", "tls", "websocket", "server_clock", "round_trip"],
    };
    let reached = reach(config, patience, report).await;
    let done = match reached {
        Ok(()) => rest.len(),
        Err(failed) => rest.iter().position(|id| *id == failed).map_or(rest.len(), |at| at + 1),
    };
    for id in &rest[done..] {
        report.skip(id, "", "a step before it failed");
    }
}

/// The steps that need each other; the error is the one that failed.
async fn reach<T: FnMut(&Check)>(
    config: &Config,
    patience: Duration,
    report: &mut Report<T>,
) -> Result<(), &'static str> {
    let addresses = resolve(config, patience, report).await.ok_or("dns")?;
    let mut socket = connect(config, addresses, patience, report).await.ok_or("tcp")?;
    if let Some(proxy) = &config.proxy {
        through(proxy, config, &mut socket, patience, report).await.ok_or("proxy")?;
    }
    let socket = encrypt(config, socket, patience, report).await.ok_or("tls")?;
    let asked = Instant::now();
    let answered = timeout(patience, upgrade(config, &config.servers[0], socket)).await;
    let took = asked.elapsed();
    let (mut socket, date) = match answered {
        Ok(Ok((socket, response))) => {
            let path = config.servers[0].path_of(&config.agent_id);
            report.ok("websocket", "", format!("{path}: upgraded to {SUBPROTOCOL}, token accepted, {}", millis(took)));
            (socket, response.headers().get("date").and_then(|date| date.to_str().ok()).map(String::from))
        }
        Ok(Err(error)) => {
            let advice = upgrade_advice(config, &error);
            report.fail("websocket", "", error.to_string(), advice);
            return Err("websocket");
        }
        Err(_) => {
            let advice = "something accepts connections there and does not answer HTTP: a proxy without its server, or another program";
            report.fail("websocket", "", format!("no answer within {}", millis(patience)), advice);
            return Err("websocket");
        }
    };
    server_clock(date.as_deref(), report);
    round_trip(&mut socket, patience, report).await;
    // The server need not answer: nothing was agreed on.
    let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
    Ok(())
}

/// This machine's UTC.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn clock<T: FnMut(&Check)>(now: Duration, report: &mut Report<T>) {
    let shown = rfc3339(now);
    if now < build_time() {
        let measured = format!("{shown} is before this program was built ({})", rfc3339(build_time()));
        let advice = "set the clock, by NTP for one; certificates are judged by the date of the build until then";
        report.warn("clock", "", measured, advice);
    } else if now > build_time() + FAR_FUTURE {
        let measured = format!("{shown} is long after this program was built ({})", rfc3339(build_time()));
        report.warn(
            "clock",
            "",
            measured,
            "set the clock, by NTP for one: to a clock in the future all certificates have ended",
        );
    } else {
        report.ok("clock", "", shown);
    }
}

/// The server's `Date` (RFC 9110 section 6.6.1), which is whole seconds and as old as the answer.
fn server_clock<T: FnMut(&Check)>(date: Option<&str>, report: &mut Report<T>) {
    let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return report.skip("server_clock", "", "the answer has no Date");
    };
    let theirs = date.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let ours = now().as_secs();
    let off = ours.abs_diff(theirs);
    let way = if ours > theirs { "ahead of" } else { "behind" };
    if off > CLOCK_OFF {
        let advice = "set the clocks of both machines by NTP; pictures get the server's time, events and logs that of their machine";
        report.warn("server_clock", "", format!("this clock is {off} s {way} the server's"), advice);
    } else {
        report.ok("server_clock", "", format!("within {} s of the server's", off.max(1)));
    }
}

async fn resolve<T: FnMut(&Check)>(
    config: &Config,
    patience: Duration,
    report: &mut Report<T>,
) -> Option<Vec<SocketAddr>> {
    let (host, port) = first_hop(config);
    if let Ok(address) = host.parse::<IpAddr>() {
        report.ok("dns", "", format!("{address} needs no lookup"));
        return Some(vec![SocketAddr::new(address, port)]);
    }
    let began = Instant::now();
    let found = timeout(patience, lookup_host((host, port))).await;
    let took = millis(began.elapsed());
    let failed = match found {
        Ok(Ok(addresses)) => {
            let mut addresses: Vec<SocketAddr> = addresses.collect();
            addresses.dedup();
            if !addresses.is_empty() {
                let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
                report.ok("dns", "", format!("{host} is {} ({took})", shown.join(", ")));
                addresses.truncate(MAX_ADDRESSES);
                return Some(addresses);
            }
            format!("{host} has no address ({took})")
        }
        Ok(Err(error)) => format!("{host}: {error} ({took})"),
        Err(_) => format!("{host}: no answer within {took}"),
    };
    let asked = match name_servers().as_slice() {
        [] => "/etc/resolv.conf names no name server: DHCP or the network's settings should".into(),
        servers => format!("asked: {}; are they reachable?", servers.join(", ")),
    };
    report.fail("dns", "", failed, format!("is {} spelled right? {asked}", key_of_first_hop(config)));
    None
}

/// What the agent itself connects to: the proxy, or the server.
fn first_hop(config: &Config) -> (&str, u16) {
    match &config.proxy {
        Some(proxy) => (proxy.host(), proxy.port()),
        None => (config.servers[0].host(), config.servers[0].port()),
    }
}

fn key_of_first_hop(config: &Config) -> &'static str {
    if config.proxy.is_some() { "network.proxy" } else { "agent.cloud_server_url" }
}

/// The proxy's answer to CONNECT.
async fn through<T: FnMut(&Check)>(
    proxy: &Proxy,
    config: &Config,
    socket: &mut TcpStream,
    patience: Duration,
    report: &mut Report<T>,
) -> Option<()> {
    let (began, server) = (Instant::now(), &config.servers[0]);
    let error = match timeout(patience, pass(socket, proxy, server)).await {
        Ok(Ok(())) => {
            report.ok(
                "proxy",
                "",
                format!("{proxy} made a way to {}, {}", server.authority(), millis(began.elapsed())),
            );
            return Some(());
        }
        Ok(Err(error)) => error,
        Err(_) => Error::Unreachable(format!("proxy {proxy}: no answer within {}", millis(patience))),
    };
    let advice = match &error {
        Error::Proxy { status: 401 | 407, .. } => {
            "write the account into network.proxy: http://USER:PASSWORD@HOST:PORT, percent-encoded"
        }
        Error::Proxy { status: 403 | 405, .. } => {
            "who runs the proxy has to allow CONNECT to this host and port, or the server gets a port that is allowed, as a rule 443"
        }
        Error::Proxy { status: 502..=504, .. } => {
            "the proxy is well and does not reach the server: is agent.cloud_server_url right, seen from the proxy, and does the server run?"
        }
        _ => "is network.proxy an HTTP proxy that knows CONNECT? SOCKS and https:// proxies are not supported",
    };
    report.fail("proxy", "", error.to_string(), advice);
    None
}

/// The name servers of resolv.conf(5).
fn name_servers() -> Vec<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|rest| rest.split_whitespace().next()).take(3).map(String::from).collect()
}

/// Every address is tried; the first that answers is taken.
async fn connect<T: FnMut(&Check)>(
    config: &Config,
    addresses: Vec<SocketAddr>,
    patience: Duration,
    report: &mut Report<T>,
) -> Option<TcpStream> {
    let (mut taken, mut good, mut bad) = (None, Vec::new(), Vec::new());
    let mut worst = None;
    for address in addresses {
        let began = Instant::now();
        match timeout(patience, TcpStream::connect(address))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        {
            Ok(socket) => {
                good.push(format!("{address} ({})", millis(began.elapsed())));
                taken.get_or_insert(socket);
            }
            Err(error) => {
                bad.push(format!("{address}: {}", no_connection(&error)));
                worst.get_or_insert(error);
            }
        }
    }
    let Some(error) = worst else {
        report.ok("tcp", "", format!("connected to {}", good.join(", ")));
        return taken;
    };
    if taken.is_some() {
        let measured = format!("connected to {}; not to {}", good.join(", "), bad.join(", "));
        report.warn(
            "tcp",
            "",
            measured,
            "each start tries the dead addresses too: take them out of the DNS, or let them work",
        );
    } else {
        let (_, port) = first_hop(config);
        let advice = match error.kind() {
            io::ErrorKind::ConnectionRefused if config.proxy.is_some() => {
                format!(
                    "the machine is there and nothing listens on port {port}: does the proxy run, and is the port in network.proxy its own?"
                )
            }
            io::ErrorKind::ConnectionRefused => format!(
                "the machine is there and nothing listens on port {port}: does the server run, and is the port in agent.cloud_server_url its `tls` (wss://) or `http` (ws://) one?"
            ),
            io::ErrorKind::TimedOut => {
                format!(
                    "a firewall drops the packets, or nobody has this address: outgoing TCP to port {port} must be allowed"
                )
            }
            _ => "this machine has no way there: look at its address, default route and cable or SIM".into(),
        };
        report.fail("tcp", "", bad.join(", "), advice);
    }
    taken
}

/// Words for an error of connect(2).
pub(super) fn no_connection(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".into(),
        io::ErrorKind::TimedOut => "no answer".into(),
        _ => error.to_string(),
    }
}

async fn encrypt<T: FnMut(&Check)>(
    config: &Config,
    socket: TcpStream,
    patience: Duration,
    report: &mut Report<T>,
) -> Option<Box<dyn Socket>> {
    // Where a ping waits for more to be sent, the round trip is not the network's.
    let _ = socket.set_nodelay(true);
    if !config.servers[0].is_tls() {
        let advice =
            "token and pictures can be read on the way: use wss:// and the server's `tls` port outside a laboratory";
        report.warn("tls", "", "none, the URL is ws://", advice);
        return Some(Box::new(socket));
    }
    let name = match ServerName::try_from(config.servers[0].host().to_owned()) {
        Ok(name) => name,
        Err(error) => {
            report.fail(
                "tls",
                "",
                format!("{}: {error}", config.servers[0].host()),
                "write a name that a certificate can have",
            );
            return None;
        }
    };
    let tls = match Tls::new(&config.trust, Arc::new(ServerTime::default())) {
        Ok(tls) => tls,
        Err(error) => {
            report.fail("tls", "", error.to_string(), "agent.ca_file or agent.server_pin say whom to believe");
            return None;
        }
    };
    let began = Instant::now();
    let session = match timeout(patience, tls.connector().connect(name.clone(), socket)).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => {
            let advice = tls_advice(config.servers[0].host(), &error);
            report.fail("tls", "", error.to_string(), advice);
            return None;
        }
        Err(_) => {
            let advice = "something accepts connections there and speaks no TLS: is this the server's `tls` port?";
            report.fail("tls", "", format!("no handshake within {}", millis(patience)), advice);
            return None;
        }
    };
    let took = millis(began.elapsed());
    let (_, connection) = session.get_ref();
    let version = connection
        .protocol_version()
        .and_then(|version| version.as_str())
        .unwrap_or("?")
        .replace("TLSv", "TLS ")
        .replace('_', ".");
    let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("?");
    let believed = match &config.trust {
        Trust::Pin(_) => "the key is the pinned one".to_owned(),
        Trust::CaFile(path) => format!("the certificate is of an authority in {path}"),
        Trust::CaPem(_) => "the certificate is of a given authority".to_owned(),
        Trust::Roots => "the certificate is of an authority that this system knows".to_owned(),
    };
    let found = format!("{version}, {suite}, {believed}, {took}");
    let chain = connection.peer_certificates().unwrap_or_default();
    let ends = |days: &u64| !tls.believes_after(chain, &name, Duration::from_secs(days * 86_400));
    match ENDS_SOON.iter().find(|days| ends(days)) {
        Some(days) => {
            let measured = format!("{found}; the certificate ends within {days} day(s)");
            report.warn("tls", "", measured, "renew the server's certificate: afterwards no agent connects any more");
        }
        None => report.ok("tls", "", found),
    }
    Some(Box::new(session))
}

fn upgrade_advice(config: &Config, error: &Error) -> String {
    match error {
        Error::Http { status: 401 | 403, .. } => format!(
            "agent.agent_id or agent.cloud_server_token is wrong: `camagent-cloud agent add {}` on the server makes both, and shows the token once",
            config.agent_id
        ),
        Error::Http { status: 404 | 405, .. } => {
            "there is a web server, and no agents' door at this path: agent.cloud_server_url ends in /agent, and a reverse proxy must pass that path on".into()
        }
        Error::Http { status: 301..=308, .. } => {
            "the server redirects, and an agent does not follow with its token: write the final place into agent.cloud_server_url".into()
        }
        Error::Http { status: 502..=504, .. } => {
            "a proxy answers and has no server behind it, or the server is busy: the agent tries again by itself".into()
        }
        Error::Http { status: 400, detail, .. } if detail.contains("sub-protocol") => OTHER_VERSION.into(),
        Error::Http { status: 200 | 400 | 426, .. } => {
            "what answers there takes no WebSocket: a reverse proxy must pass on Upgrade and Connection, and HTTP/1.1".into()
        }
        Error::Session(_) => OTHER_VERSION.into(),
        _ => "what answers there is no camagent server, or something between cut the connection: is the port right?".into(),
    }
}

/// Pings (RFC 6455 section 5.5.2), which the server answers before `register` too.
async fn round_trip<T: FnMut(&Check)>(socket: &mut WebSocket, patience: Duration, report: &mut Report<T>) {
    let until = Instant::now() + patience.min(Duration::from_secs(3));
    let mut times = Vec::new();
    let lost = loop {
        if times.len() == usize::from(PINGS) {
            break None;
        }
        let payload = vec![times.len() as u8; 8];
        let began = Instant::now();
        if let Err(error) = socket.send(Message::Ping(payload.clone().into())).await {
            break Some(error.to_string());
        }
        let answered = async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Pong(octets))) if octets == payload => break Ok(()),
                    Some(Ok(Message::Close(close))) => {
                        break Err(close.map_or("closed".into(), |close| close.reason.to_string()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Err(error.to_string()),
                    None => break Err("the connection ended".into()),
                }
            }
        };
        match timeout(until.saturating_duration_since(Instant::now()), answered).await {
            Ok(Ok(())) => times.push(began.elapsed()),
            Ok(Err(problem)) => break Some(problem),
            Err(_) => break Some("no answer".into()),
        }
    };
    let (least, most) = (times.iter().min().copied(), times.iter().max().copied());
    match (least, most, lost) {
        (Some(least), Some(most), None) if least < SLOW => {
            report.ok("round_trip", "", format!("{} to {} in {PINGS} pings", millis(least), millis(most)));
        }
        (Some(least), Some(most), _) => {
            let measured = format!("{} to {}, {} of {PINGS} pings answered", millis(least), millis(most), times.len());
            report.warn(
                "round_trip",
                "",
                measured,
                "a slow or lossy link: commands and first pictures take that much longer",
            );
        }
        (_, _, problem) => {
            let measured = format!("no ping was answered: {}", problem.unwrap_or_default());
            report.warn(
                "round_trip",
                "",
                measured,
                "something between takes WebSockets and swallows their pings, or the link is dead",
            );
        }
    }
}

/// Where a TCP service is, and whether it takes connections: how long it took, or what is wrong and what to do.
pub(super) async fn knock(host: &str, port: u16, patience: Duration) -> Result<Duration, (String, String)> {
    let (began, place) = (Instant::now(), place(host, port));
    let error = match timeout(patience, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => return Ok(began.elapsed()),
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    let advice = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!(
                "a machine answers at {host}, and nothing listens on port {port}: is the service on in the camera's settings, and on this port?"
            )
        }
        io::ErrorKind::TimedOut => {
            format!("nobody answers at {host}: is the camera on, is this its address, is it in this network?")
        }
        _ => format!("there is no way to {host}: is the address right, and this machine in the camera's network?"),
    };
    Err((format!("{place}: {}", no_connection(&error)), advice))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn told(look: impl FnOnce(&mut Report<&mut dyn FnMut(&Check)>)) -> Check {
        let mut found = Vec::new();
        let mut tell = |check: &Check| found.push(check.clone());
        let tell: &mut dyn FnMut(&Check) = &mut tell;
        look(&mut Report { secrets: Vec::new(), server: String::new(), worst: Verdict::Ok, tell });
        found.remove(0)
    }

    #[test]
    fn a_clock_that_was_never_set_and_one_in_the_far_future_are_told() {
        let build = build_time();
        for (now, verdict, measured, advice) in [
            (Duration::ZERO, Verdict::Warn, "1970-01-01T00:00:00", "set the clock, by NTP"),
            (build - Duration::from_secs(1), Verdict::Warn, "before this program was built", "date of the build"),
            (build, Verdict::Ok, "Z", ""),
            (build + FAR_FUTURE, Verdict::Ok, "Z", ""),
            (build + FAR_FUTURE + Duration::from_secs(1), Verdict::Warn, "long after", "all certificates have ended"),
        ] {
            let check = told(|report| clock(now, report));
            assert_eq!((check.id, check.verdict), ("clock", verdict), "{check:?}");
            assert!(check.measured.contains(measured) && check.advice.contains(advice), "{check:?}");
        }
    }

    #[test]
    fn a_servers_clock_counts_as_wrong_beyond_a_minute() {
        for (off, verdict) in [(-70, Verdict::Warn), (-50, Verdict::Ok), (50, Verdict::Ok), (70, Verdict::Warn)] {
            let theirs = SystemTime::now() + Duration::from_secs(1_000) - Duration::from_secs((1_000 - off) as u64);
            let date = httpdate::fmt_http_date(theirs);
            let check = told(|report| server_clock(Some(&date), report));
            assert_eq!((check.id, check.verdict), ("server_clock", verdict), "{check:?}");
            let way = if off < 0 { "ahead of the server's" } else { "behind the server's" };
            assert_eq!(check.measured.contains(way), verdict == Verdict::Warn, "{check:?}");
        }
        assert_eq!(told(|report| server_clock(Some("yesterday"), report)).verdict, Verdict::Skip);
    }
}
