//! Peers that are a few lines around a library: the flows as streams of rust-yamux and of QMux, as TLS connections of their
//! own, and all in one plain TLS connection. TLS 1.3 for everybody, TCP_NODELAY, settings as the libraries come.

use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use camagent_testkit::emulator::FAR;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use web_transport_trait::{SendStream as _, Session as _};

use super::traffic::{Flow, Inlet, Outlet, Traffic, drain, feed};
use crate::programs::Ground;
use crate::stage::Stage;

/// Higher goes first: what a program would choose that knows what is urgent.
const PRIORITIES: [i32; 4] = [200, 150, 100, 10];
/// Messages of a flow that wait in front of the one connection.
const IN_FRONT: usize = 10_000;
/// Octets of one flow that wait behind the one connection for their reader.
const BEHIND: usize = 1 << 20;

type Client = client::TlsStream<TcpStream>;
type Server = server::TlsStream<TcpStream>;

/// TLS for both ends.
#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl Tls {
    fn of(certificates: &Path) -> Result<Self, String> {
        let read = |name: &str| certificates.join(name);
        let told = |error: &dyn std::fmt::Display| format!("the certificate: {error}");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authority = CertificateDer::from_pem_file(read("ca.pem")).map_err(|error| told(&error))?;
        let chain = CertificateDer::from_pem_file(read("cert.pem")).map_err(|error| told(&error))?;
        let key = PrivateKeyDer::from_pem_file(read("key.pem")).map_err(|error| told(&error))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(|error| told(&error))?;
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| told(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| told(&error))?
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .map_err(|error| told(&error))?;
        Ok(Self { connector: Arc::new(client).into(), acceptor: Arc::new(server).into() })
    }

    /// A connection over the link: the camera's end and the server's.
    fn pair(&self, stage: &Stage) -> Result<(Client, Server), String> {
        let bound = stage.far.run(TcpListener::bind((FAR, 0))).map_err(|error| format!("the far end: {error}"))?;
        let address = bound.local_addr().map_err(|error| error.to_string())?;
        let (acceptor, connector) = (self.acceptor.clone(), self.connector.clone());
        let accepted = stage.far.spawn(async move {
            let (stream, _) = bound.accept().await?;
            stream.set_nodelay(true)?;
            acceptor.accept(stream).await
        });
        let dialled = stage.near.run(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connector.connect(ServerName::from(std::net::IpAddr::from(FAR)), stream).await
        });
        let dialled = dialled.map_err(|error| format!("a TLS connection: {error}"))?;
        let accepted = stage.far.run(accepted).map_err(|error| error.to_string())?;
        Ok((dialled, accepted.map_err(|error| format!("a TLS connection: {error}"))?))
    }
}

/// A connection for each flow, as tunnels without a multiplexer have it.
pub(crate) fn separate(stage: &Stage, ground: &Ground, traffic: &Arc<Traffic>) -> Result<(), String> {
    let tls = Tls::of(&ground.certificates)?;
    for flow in traffic.load.flows() {
        let (near, far) = tls.pair(stage)?;
        stage.far.spawn(drain(Arc::clone(traffic), flow, Inlet::Octets(Box::new(far))));
        stage.near.spawn(feed(Arc::clone(traffic), flow, Outlet::Octets(Box::new(near))));
    }
    Ok(())
}

/// One connection for all flows: whenever the socket has taken the last message it gets the most urgent one. What a program
/// does that knows what is urgent, and nothing of what the kernel and the modem hold back.
pub(crate) fn plain(stage: &Stage, ground: &Ground, traffic: &Arc<Traffic>) -> Result<(), String> {
    let (mut near, far) = Tls::of(&ground.certificates)?.pair(stage)?;
    stage.far.spawn(divide(Arc::clone(traffic), far));
    let mut queues = Vec::new();
    for flow in Flow::ALL {
        let (queue, waiting) = mpsc::channel(if flow == Flow::Bulk { 1 } else { IN_FRONT });
        queues.push(waiting);
        if traffic.load.has(flow) {
            stage.near.spawn(feed(Arc::clone(traffic), flow, Outlet::Queue(queue)));
        }
    }
    let notes = Arc::clone(traffic);
    stage.near.spawn(async move {
        loop {
            let (flow, message) = std::future::poll_fn(|cx| {
                for (queue, flow) in queues.iter_mut().zip(Flow::ALL) {
                    // A flow that is not there has no sender, and nothing to say.
                    if let Poll::Ready(Some(message)) = queue.poll_recv(cx) {
                        return Poll::Ready((flow, message));
                    }
                }
                Poll::Pending
            })
            .await;
            let length = (message.len() as u16).to_be_bytes();
            let framed = [&flow.greeting(), &length[..], &message].concat();
            let written = async {
                near.write_all(&framed).await?;
                near.flush().await
            };
            if let Err(error) = written.await {
                return notes.fail(flow, &error.to_string());
            }
        }
    });
    Ok(())
}

/// Gives each flow of the one connection what is its own.
async fn divide(traffic: Arc<Traffic>, mut stream: Server) {
    let mut writers = Vec::new();
    for flow in Flow::ALL {
        let (writer, reader) = tokio::io::duplex(BEHIND);
        tokio::spawn(drain(Arc::clone(&traffic), flow, Inlet::Octets(Box::new(reader))));
        writers.push(writer);
    }
    let mut part = async || -> std::io::Result<()> {
        let flow = usize::from(stream.read_u8().await?);
        let length = u64::from(stream.read_u16().await?);
        let writer = writers.get_mut(flow).ok_or_else(|| std::io::Error::other("no such flow"))?;
        tokio::io::copy(&mut (&mut stream).take(length), writer).await.map(drop)
    };
    loop {
        if let Err(error) = part().await {
            return traffic.fail(Flow::Bulk, &error.to_string());
        }
    }
}

/// Streams of rust-yamux, which knows no priorities.
pub(crate) fn yamux(stage: &Stage, ground: &Ground, traffic: &Arc<Traffic>) -> Result<(), String> {
    let (near, far) = Tls::of(&ground.certificates)?.pair(stage)?;
    let notes = Arc::clone(traffic);
    stage.far.spawn(async move {
        let mut connection = yamux::Connection::new(far.compat(), yamux::Config::default(), yamux::Mode::Server);
        while let Some(Ok(stream)) = std::future::poll_fn(|cx| connection.poll_next_inbound(cx)).await {
            tokio::spawn(take(Arc::clone(&notes), Inlet::Octets(Box::new(stream.compat()))));
        }
        notes.fail(Flow::Bulk, "yamux ended");
    });
    let notes = Arc::clone(traffic);
    stage.near.spawn(async move {
        let mut connection = yamux::Connection::new(near.compat(), yamux::Config::default(), yamux::Mode::Client);
        for flow in notes.load.flows() {
            match std::future::poll_fn(|cx| connection.poll_new_outbound(cx)).await {
                Ok(stream) => {
                    tokio::spawn(give(Arc::clone(&notes), flow, Outlet::Octets(Box::new(stream.compat()))));
                }
                Err(error) => notes.fail(flow, &error.to_string()),
            }
        }
        // Nobody comes in; asking is what drives the connection.
        while let Some(Ok(_)) = std::future::poll_fn(|cx| connection.poll_next_inbound(cx)).await {}
        notes.fail(Flow::Bulk, "yamux ended");
    });
    Ok(())
}

/// Streams of a QMux session, each with its priority.
pub(crate) fn qmux(stage: &Stage, ground: &Ground, traffic: &Arc<Traffic>) -> Result<(), String> {
    let (near, far) = Tls::of(&ground.certificates)?.pair(stage)?;
    let notes = Arc::clone(traffic);
    stage.far.spawn(async move {
        let config = qmux::Config::default();
        let transport = qmux::transport::Stream::new(far, config.version, config.max_record_size);
        let session = match qmux::Session::accept(transport, config).await {
            Ok(session) => session,
            Err(error) => return notes.fail(Flow::Bulk, &error.to_string()),
        };
        while let Ok(stream) = session.accept_uni().await {
            tokio::spawn(take(Arc::clone(&notes), Inlet::Qmux(stream)));
        }
        notes.fail(Flow::Bulk, "the QMux session ended");
    });
    let notes = Arc::clone(traffic);
    stage.near.spawn(async move {
        let config = qmux::Config::default();
        let transport = qmux::transport::Stream::new(near, config.version, config.max_record_size);
        let session = match qmux::Session::connect(transport, config).await {
            Ok(session) => session,
            Err(error) => return notes.fail(Flow::Bulk, &error.to_string()),
        };
        for flow in notes.load.flows() {
            match session.open_uni().await {
                Ok(mut stream) => {
                    stream.set_priority(PRIORITIES[flow as usize]);
                    tokio::spawn(give(Arc::clone(&notes), flow, Outlet::Qmux(stream)));
                }
                Err(error) => notes.fail(flow, &error.to_string()),
            }
        }
        // The session ends with its last handle.
        std::future::pending::<()>().await;
        drop(session);
    });
    Ok(())
}

/// Says whose stream it is, and feeds it.
async fn give(traffic: Arc<Traffic>, flow: Flow, mut outlet: Outlet) {
    match outlet.write(&flow.greeting()).await {
        Ok(()) => feed(traffic, flow, outlet).await,
        Err(why) => traffic.fail(flow, &why),
    }
}

/// Hears whose stream it is, and drains it.
async fn take(traffic: Arc<Traffic>, mut inlet: Inlet) {
    let mut octet = [0];
    match (inlet.read(&mut octet).await, Flow::greeted(octet[0])) {
        (Ok(1), Some(flow)) => drain(traffic, flow, inlet).await,
        (read, _) => traffic.fail(Flow::Bulk, &format!("a stream without its flow: {read:?}")),
    }
}

/// Bare TCP without TLS: another device on the link, or the least that audio can cost.
pub(crate) fn bare(stage: &Stage, traffic: &Arc<Traffic>) -> Result<(), String> {
    for flow in traffic.load.flows() {
        let bound = stage.far.run(TcpListener::bind((FAR, 0))).map_err(|error| format!("the far end: {error}"))?;
        let address = bound.local_addr().map_err(|error| error.to_string())?;
        let accepted = stage.far.spawn(async move { bound.accept().await });
        let near = stage.near.run(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true).map(|()| stream)
        });
        let near = near.map_err(|error| format!("a connection: {error}"))?;
        let (far, _) = stage
            .far
            .run(accepted)
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("a connection: {error}"))?;
        stage.far.spawn(drain(Arc::clone(traffic), flow, Inlet::Octets(Box::new(far))));
        stage.near.spawn(feed(Arc::clone(traffic), flow, Outlet::Octets(Box::new(near))));
    }
    Ok(())
}
