//! Builds and wires everything. [`Server::start`] gives a running server: `main` waits for a signal and calls
//! [`Server::stop`], tests start one in their process with all ports 0.

mod admission;
pub mod certificate;
mod listen;
mod read_ahead;
mod silence;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::any;
use axum::{Extension, Router};
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};

use crate::agents::Agents;
use crate::api::{Api, OnLoopback};
use crate::auth::{Auth, Token};
use crate::clock::Clock;
use crate::config::{Config, Limits};
use crate::error::{Error, Result};
use crate::event::{self, Event, Events};
use crate::gateway::{Gateway, berth::Berths};
use crate::live::Hub;
use crate::metrics::Metrics;
use crate::playback::Delayed;
use crate::record::{self, Recording};
use crate::rtsp::{Accounts, Relay};
use crate::shutdown::{Shutdown, Stopper};
use crate::store::Store;
use crate::tunnel::Tunnels;

use self::admission::Admission;
use self::certificate::Identity;
use self::read_ahead::ReadAheadAcceptor;
use self::silence::Silence;

/// How long a graceful stop may take.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How soon a running server notices agents that the command line removed.
const ENFORCE_EVERY: Duration = Duration::from_secs(2);
/// A connection that asks for nothing more within this time is closed: silent strangers cannot use the descriptors up.
const NEXT_REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// Where a running server listens: the real ports, also for configured port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Plain HTTP and WebSocket.
    pub http: SocketAddr,
    /// The same over TLS.
    pub tls: SocketAddr,
    /// The RTSP relay.
    pub rtsp: SocketAddr,
}

/// A running server.
pub struct Server {
    addresses: Addresses,
    identity: Identity,
    store: Store,
    auth: Auth,
    hub: Arc<Hub>,
    agents: Arc<Agents>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    tunnels: Tunnels,
    recording: Option<Recording>,
    stopper: Stopper,
    http: Handle<SocketAddr>,
    tls: Handle<SocketAddr>,
}

impl Server {
    /// Starts a server; when it returns, all ports accept. Needs a multi-threaded or current-thread tokio runtime with
    /// time and io.
    pub async fn start(config: Config) -> Result<Self> {
        config.check()?;
        let store = Store::open(&config.storage.data_dir).await?;
        if let Some(key) = config.opens_beyond_loopback()
            && store.viewers().await?.is_empty()
        {
            return Err(Error::Config(format!(
                "{key}: beyond this machine viewers need accounts; make one with `camagent-cloud viewer add NAME`, or use a \
                 loopback address"
            )));
        }
        let identity = Identity::load_or_make(&config.tls, &config.storage.data_dir)?;
        let http_listener = listen::bind("HTTP", config.listen.http, "listen.http (--host, --port)")?;
        let tls_listener = listen::bind("TLS", config.listen.tls, "listen.tls")?;
        let rtsp_listener = listen::bind("RTSP", config.listen.rtsp, "listen.rtsp")?;
        let addresses = Addresses {
            http: listen::address(&http_listener)?,
            tls: listen::address(&tls_listener)?,
            rtsp: listen::address(&rtsp_listener)?,
        };

        let clock = Clock::new();
        let events = Arc::new(Events::new());
        tokio::spawn(event::log(events.subscribe()));
        let metrics = Metrics::new();
        let stopper = Stopper::new();
        let auth = Auth::new(store.clone(), clock);
        let agents = Arc::new(Agents::new(Arc::clone(&events)));
        let hub = Arc::new(Hub::new(config.live.clone(), Arc::clone(&events)));
        for camera in store.cameras().await? {
            // The database knows each camera once.
            let _ = hub.claim(&camera.id, &camera.agent_id);
        }

        let recording = record::start_or_tell(&config.recordings, clock, &events).await;
        let archive = recording.as_ref().map(|recording| Arc::clone(&recording.archive));

        let accounts = Accounts::new(store.clone(), clock)?;
        let relay = Relay {
            hub: Arc::clone(&hub),
            delayed: Delayed::new(archive.clone(), Arc::clone(&hub), config.live.clone(), clock),
            events: Arc::clone(&events),
            metrics: Arc::clone(&metrics),
            config: config.rtsp.clone(),
            accounts: accounts.clone(),
            login: config.rtsp.login || !addresses.rtsp.ip().is_loopback(),
        };
        let tunnels = Tunnels::start(
            config.tunnels.clone(),
            store.clone(),
            Arc::clone(&agents),
            Relay { login: config.rtsp.login || !config.tunnels.bind.is_loopback(), ..relay.clone() },
            clock,
            [addresses.http, addresses.tls, addresses.rtsp].map(|address| address.port()),
            stopper.handle(),
        )
        .await?;

        let gateway = Gateway {
            auth: auth.clone(),
            store: store.clone(),
            agents: Arc::clone(&agents),
            hub: Arc::clone(&hub),
            ingest: recording.as_ref().map(|recording| Arc::clone(&recording.ingest)),
            events: Arc::clone(&events),
            goaway: Arc::new(config.goaway.clone()),
            limits: Arc::new(config.limits.clone()),
            metrics: Arc::clone(&metrics),
            writing: Arc::default(),
            berths: Arc::new(Berths::new(config.tunnels.resume_time)),
            clock,
            shutdown: stopper.handle(),
        };
        let api = Api {
            clips: Arc::default(),
            auth: auth.clone(),
            store: store.clone(),
            agents: Arc::clone(&agents),
            hub: Arc::clone(&hub),
            tunnels: tunnels.clone(),
            archive,
            events: Arc::clone(&events),
            metrics: Arc::clone(&metrics),
            clock,
            rtsp_address: addresses.rtsp.to_string(),
        };
        let agent_route =
            Router::new().route("/agent/{id}", any(crate::gateway::endpoint::upgrade)).with_state(gateway);
        let router = crate::api::routes::router(api).merge(agent_route);

        let rtsp_listener = listen::into_tokio(rtsp_listener)?;
        tokio::spawn(relay.serve(rtsp_listener, stopper.handle()));
        tokio::spawn(enforce(store.clone(), Arc::clone(&agents), Arc::clone(&hub), accounts, stopper.handle()));
        let (http, tls) = (Handle::new(), Handle::new());
        let mut local = router.clone();
        if addresses.http.ip().is_loopback() {
            local = local.layer(Extension(OnLoopback));
        }
        serve_http(http_listener, local, http.clone(), &config.limits, &metrics)?;
        serve_tls(tls_listener, router, tls.clone(), &identity, &config.limits, &metrics)?;

        events.emit(Event::ServerStarted {
            http: addresses.http.to_string(),
            tls: addresses.tls.to_string(),
            rtsp: addresses.rtsp.to_string(),
        });
        Ok(Self {
            addresses,
            identity,
            store,
            auth,
            hub,
            agents,
            events,
            metrics,
            tunnels,
            recording,
            stopper,
            http,
            tls,
        })
    }

    /// The real addresses.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The TLS certificate, its fingerprint and its pin.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Adds an agent; its token.
    pub async fn add_agent(&self, id: &str) -> Result<String> {
        self.auth.add_agent(id).await.map(|token| Token::reveal(&token).to_owned())
    }

    /// Adds an API token.
    pub async fn add_token(&self, name: &str) -> Result<String> {
        self.auth.add_token(name).await.map(|token| Token::reveal(&token).to_owned())
    }

    /// Adds a viewer's account; its secret.
    pub async fn add_viewer(&self, name: &str) -> Result<String> {
        let secret = self.auth.add_viewer(name, crate::rtsp::digest::ha1).await?;
        Ok(Token::reveal(&secret).to_owned())
    }

    /// Live video, for whoever publishes or watches within the process. Cameras of agents that are not in the database go
    /// within seconds: who publishes here adds the agent first.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The registry of agents.
    #[must_use]
    pub fn agents(&self) -> &Arc<Agents> {
        &self.agents
    }

    /// The tunnels.
    #[must_use]
    pub fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// The folder of the recordings, where something is recorded.
    #[must_use]
    pub fn recordings_folder(&self) -> Option<std::path::PathBuf> {
        self.recording.as_ref().map(|recording| recording.archive.folder().to_owned())
    }

    /// What happens.
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Stops: nobody new is accepted, agents are told to come back later, viewers are closed. Takes at most five seconds;
    /// true when everybody left in time.
    pub async fn stop(self) -> bool {
        self.events.emit(Event::ServerStopping);
        self.http.graceful_shutdown(Some(STOP_WITHIN));
        self.tls.graceful_shutdown(Some(STOP_WITHIN));
        let in_time = self.stopper.stop(STOP_WITHIN).await;
        self.http.shutdown();
        self.tls.shutdown();
        if let Some(recording) = self.recording
            && tokio::time::timeout(STOP_WITHIN, recording.stop()).await.is_err()
        {
            tracing::warn!("the disk of the recordings does not answer; what was persisted is safe");
        }
        // The last sessions may still be writing; the pool waits for them, and must not wait for ever.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.store.close()).await;
        in_time
    }
}

fn serve_http(
    listener: std::net::TcpListener,
    router: Router,
    handle: Handle<SocketAddr>,
    limits: &Limits,
    metrics: &Arc<Metrics>,
) -> Result<()> {
    let mut server = axum_server::from_tcp(listener)
        .map_err(|source| Error::Io { what: "the HTTP listener".to_owned(), source })?
        .acceptor(Silence::new(NoDelayAcceptor::new(), limits.request_timeout, metrics))
        .handle(handle)
        .first_request_timeout(limits.request_timeout);
    server.http_builder().http1().keep_alive(true).header_read_timeout(NEXT_REQUEST_WITHIN);
    tokio::spawn(server.serve(router.into_make_service_with_connect_info::<SocketAddr>()));
    Ok(())
}

fn serve_tls(
    listener: std::net::TcpListener,
    router: Router,
    handle: Handle<SocketAddr>,
    identity: &Identity,
    limits: &Limits,
    metrics: &Arc<Metrics>,
) -> Result<()> {
    let config = RustlsConfig::from_config(identity.server_config());
    let handshake = RustlsAcceptor::new(config).handshake_timeout(limits.handshake_timeout).acceptor(ReadAheadAcceptor);
    let acceptor = Admission::new(handshake, limits.clone(), Arc::clone(metrics));
    let mut server = axum_server::from_tcp(listener)
        .map_err(|source| Error::Io { what: "the TLS listener".to_owned(), source })?
        .acceptor(Silence::new(acceptor, limits.request_timeout, metrics))
        .handle(handle)
        .first_request_timeout(limits.request_timeout);
    server.http_builder().http1().keep_alive(true).header_read_timeout(NEXT_REQUEST_WITHIN);
    tokio::spawn(server.serve(router.into_make_service_with_connect_info::<SocketAddr>()));
    Ok(())
}

/// Ends sessions, and forgets cameras, of agents that were removed from the database by the command line; viewers whose
/// account went are woken.
async fn enforce(store: Store, agents: Arc<Agents>, hub: Arc<Hub>, accounts: Accounts, mut shutdown: Shutdown) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.begun() => return,
            () = tokio::time::sleep(ENFORCE_EVERY) => {}
        }
        match store.agents().await {
            Ok(rows) => {
                agents.enforce(&rows);
                hub.retain_agents(|agent| rows.iter().any(|row| row.id == agent));
            }
            Err(error) => tracing::error!(%error, "cannot read the agents"),
        }
        if let Err(error) = accounts.look().await {
            tracing::error!(%error, "cannot read the accounts of viewers");
        }
    }
}
