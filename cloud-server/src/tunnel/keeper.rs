//! Keeps the listeners as they should be: opens those that are known, gives ports to services that agents name for the
//! first time, closes what is withdrawn, tries again what is blocked. One task does all of it, so nothing is done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use camagent_proto::message::{Camera, Policy, Service, ServiceMode, is_name};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::Context;
use super::address::{RTSP, address, language};
use super::door::{Accepting, Door, choose_congestion_control};
use super::ports::Ports;
use super::traffic::{Seats, Traffic};
use crate::config::RtspMode;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::rtsp::CameraNames;
use crate::shutdown::Shutdown;
use crate::store::{SourcePath, TunnelRow, TunnelState};

/// How soon a port that was taken is tried again, and a camera that went is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// An agent with many cameras names them in several messages; what it did not name within this time it has no more.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// Services of one camera that are remembered, also when they are withdrawn: a hostile agent gets no port after port.
const MOST_SERVICES: usize = 32;
/// Paths of one camera that are listed, and octets of one.
const MOST_PATHS: usize = 16;
const MOST_OF_A_PATH: usize = 1024;

type Key = (String, String);

/// The task's state.
pub(super) struct Keeper {
    context: Arc<Context>,
    ports: Ports,
    shutdown: Shutdown,
    kept: BTreeMap<Key, Kept>,
    seats: BTreeMap<String, Seats>,
    /// Agents that are to be looked at again: a camera of theirs is not in the database yet.
    again: BTreeSet<String>,
    /// Agents that came, and when what they did not name is withdrawn.
    settling: BTreeMap<String, Instant>,
}

struct Kept {
    row: TunnelRow,
    door: Arc<Door>,
    accepting: Option<Accepting>,
}

impl Keeper {
    pub(super) fn new(context: Arc<Context>, own: impl IntoIterator<Item = u16>, shutdown: Shutdown) -> Self {
        let ports = Ports::new(&context.config, own);
        Self {
            context,
            ports,
            shutdown,
            kept: BTreeMap::new(),
            seats: BTreeMap::new(),
            again: BTreeSet::new(),
            settling: BTreeMap::new(),
        }
    }

    /// Opens what the database knows, so that URLs work before the agents are back.
    pub(super) async fn open_known(&mut self) -> Result<()> {
        for row in self.context.store.tunnels().await? {
            let withdrawn = row.state == TunnelState::Withdrawn;
            let key = self.keep(row);
            if !withdrawn {
                self.give_own_address(&key).await;
                self.open(&key).await;
            }
        }
        Ok(())
    }

    pub(super) async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let context = Arc::clone(&self.context);
            tokio::select! {
                biased;
                () = self.shutdown.begun() => return,
                agents = context.agents.cameras_told() => {
                    for agent in agents {
                        self.settling.insert(agent.clone(), Instant::now() + SETTLED_AFTER);
                        self.learn(&agent).await;
                    }
                }
                _ = look.tick() => self.look().await,
            }
        }
    }

    /// What happens by itself: rows go with their cameras, ports become free, agents have said all.
    async fn look(&mut self) {
        match self.context.store.tunnel_keys().await {
            Ok(keys) => {
                let gone: Vec<Key> = self.kept.keys().filter(|key| !keys.contains(key)).cloned().collect();
                for key in gone {
                    self.forget(&key).await;
                }
            }
            Err(error) => tracing::error!(%error, "cannot read the tunnels"),
        }
        for agent in std::mem::take(&mut self.again) {
            self.learn(&agent).await;
        }
        let blocked = self.kept.iter().filter(|(_, kept)| kept.row.state == TunnelState::Blocked);
        for key in blocked.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.give_own_address(&key).await;
            self.open(&key).await;
        }
        let now = Instant::now();
        let settled: Vec<String> =
            self.settling.iter().filter(|(_, at)| **at <= now).map(|(agent, _)| agent.clone()).collect();
        for agent in settled {
            self.settling.remove(&agent);
            self.settle(&agent).await;
        }
    }

    /// Withdraws the services of cameras that the agent did not name.
    async fn settle(&mut self, agent: &str) {
        let Some(status) = self.context.agents.status(agent).filter(|status| status.online) else { return };
        let named: BTreeSet<&str> = status.cameras.iter().map(|camera| camera.id.as_str()).collect();
        let gone = self.kept.iter().filter(|(key, kept)| kept.row.agent == agent && !named.contains(key.0.as_str()));
        for key in gone.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.withdraw(&key).await;
        }
    }

    /// Brings the tunnels of an agent's cameras to what it says now.
    async fn learn(&mut self, agent: &str) {
        let Some(status) = self.context.agents.status(agent).filter(|status| status.online) else { return };
        // A camera that is named twice is as it was named last.
        let cameras: BTreeMap<&str, &Camera> =
            status.cameras.iter().map(|camera| (camera.id.as_str(), camera)).collect();
        for camera in cameras.into_values() {
            let services: BTreeMap<&str, &Service> = camera
                .services
                .iter()
                .filter(|service| is_name(&service.name) && service.port > 0)
                .map(|service| (service.name.as_str(), service))
                .collect();
            for service in services.values() {
                self.offer(agent, camera, service).await;
            }
            let gone = self.kept.range((camera.id.clone(), String::new())..).take_while(|(key, _)| key.0 == camera.id);
            let gone = gone.filter(|(key, kept)| kept.row.agent == agent && !services.contains_key(key.1.as_str()));
            for key in gone.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                self.withdraw(&key).await;
            }
        }
    }

    async fn offer(&mut self, agent: &str, camera: &Camera, service: &Service) {
        let key = (camera.id.clone(), service.name.clone());
        if self.kept.get(&key).is_some_and(|kept| kept.row.agent != agent) {
            // The database will say whose it is: another agent's cameras are not given away.
            match self.context.store.camera_owner(&camera.id).await {
                Ok(Some(owner)) if owner == agent => self.forget(&key).await,
                _ => return,
            }
        }
        let paths = if service.name == RTSP { paths(camera) } else { Vec::new() };
        let Some(kept) = self.kept.get_mut(&key) else {
            return self.give_port(agent, camera, service, paths).await;
        };
        let before = kept.row.clone();
        let moved = self.context.config.loopback_addresses && kept.row.camera_port != service.port;
        kept.row.camera_port = service.port;
        kept.row.mode = service.mode;
        kept.row.paths = paths;
        kept.door.share(shared(&self.context, &kept.row));
        let accepting = if moved { kept.accepting.take() } else { None };
        let listens = kept.accepting.is_some();
        let changed = kept.row != before;
        if let Some(accepting) = accepting {
            accepting.stop().await;
        }
        if !listens {
            self.give_own_address(&key).await;
            self.open(&key).await;
        }
        if changed {
            self.save(&key).await;
        }
    }

    /// The first time that a service is named.
    async fn give_port(&mut self, agent: &str, camera: &Camera, service: &Service, paths: Vec<SourcePath>) {
        let known = self.kept.range((camera.id.clone(), String::new())..).take_while(|(key, _)| key.0 == camera.id);
        if known.count() >= MOST_SERVICES {
            let reason = format!("the camera has had {MOST_SERVICES} services; those keep their ports");
            return self.tell_blocked(&camera.id, &service.name, String::new(), reason);
        }
        let own_addresses = self.context.config.loopback_addresses;
        let taken: BTreeSet<u16> = self.kept.values().map(|kept| kept.row.port).collect();
        let mut found = None;
        for port in self.ports.candidates(language(&service.name) == RTSP, &taken) {
            // A port that another program holds at this moment is no good beginning.
            match TcpListener::bind((self.context.config.bind, port)).await {
                Ok(listener) => {
                    let port = listener.local_addr().map_or(port, |address| address.port());
                    if !taken.contains(&port) {
                        found = Some((port, (!own_addresses).then_some(listener)));
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                // Another port would not do either: the address is wrong, or descriptors are used up.
                Err(_) if port > 0 => {
                    found = Some((port, None));
                    break;
                }
                Err(_) => {}
            }
        }
        let Some((port, listener)) = found else {
            let reason = "no port is free from tunnels.first_rtsp_port or tunnels.first_port upwards".to_owned();
            return self.tell_blocked(&camera.id, &service.name, String::new(), reason);
        };
        let row = TunnelRow {
            camera: camera.id.clone(),
            service: service.name.clone(),
            agent: agent.to_owned(),
            port,
            camera_port: service.port,
            mode: service.mode,
            paths,
            state: TunnelState::Blocked,
            reason: Some("is being opened".to_owned()),
            own_address: None,
        };
        match self.context.store.add_tunnel(&row, self.context.clock.utc_us()).await {
            Ok(true) => {
                let key = self.keep(row);
                self.give_own_address(&key).await;
                match listener {
                    Some(listener) => self.listen(&key, listener).await,
                    None => self.open(&key).await,
                }
            }
            // The gateway is just writing whose camera it is.
            Ok(false) => {
                self.again.insert(agent.to_owned());
            }
            Err(trouble) => {
                self.again.insert(agent.to_owned());
                self.disk_trouble(&trouble);
            }
        }
    }

    fn keep(&mut self, row: TunnelRow) -> Key {
        let key = (row.camera.clone(), row.service.clone());
        let seats = Arc::clone(self.seats.entry(row.camera.clone()).or_default());
        let traffic = Traffic::new(Arc::clone(&self.context.relay.metrics));
        let door = Door::new(&row.camera, &row.service, &row.agent, seats, traffic);
        door.share(shared(&self.context, &row));
        self.context.show(&row, &door.traffic);
        self.kept.insert(key.clone(), Kept { row, door, accepting: None });
        key
    }

    async fn give_own_address(&mut self, key: &Key) {
        let Some(kept) = self.kept.get_mut(key) else { return };
        if !self.context.config.loopback_addresses || kept.row.own_address.is_some() {
            return;
        }
        match self.context.store.give_own_address(&key.0).await {
            Ok(own_address) => kept.row.own_address = own_address,
            Err(trouble) => self.disk_trouble(&trouble),
        }
    }

    /// Tries to listen.
    async fn open(&mut self, key: &Key) {
        let Some(kept) = self.kept.get(key).filter(|kept| kept.accepting.is_none()) else { return };
        let Some(address) = address(&kept.row, &self.context.config) else {
            return self.block(key, "no address is left in 127.10.0.0/16".to_owned()).await;
        };
        match TcpListener::bind(address).await {
            Ok(listener) => self.listen(key, listener).await,
            Err(error) => {
                let reason = self.trouble(key, address, &error);
                self.block(key, reason).await;
            }
        }
    }

    async fn listen(&mut self, key: &Key, listener: TcpListener) {
        let Some(kept) = self.kept.get_mut(key) else { return };
        if listener.local_addr().is_ok_and(|address| address.ip().is_loopback()) {
            choose_congestion_control(&listener);
        }
        let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        let door = Arc::clone(&kept.door);
        kept.accepting = Some(Accepting::start(Arc::clone(&self.context), door, listener, self.shutdown.clone()));
        let (camera, service) = key.clone();
        self.context.events.emit(Event::TunnelListening { camera, service, address });
        self.set_state(key, TunnelState::Listening, None).await;
    }

    async fn block(&mut self, key: &Key, reason: String) {
        let Some(kept) = self.kept.get(key) else { return };
        if kept.row.state != TunnelState::Blocked || kept.row.reason.as_ref() != Some(&reason) {
            let address = address(&kept.row, &self.context.config).map(|address| address.to_string());
            self.tell_blocked(&key.0, &key.1, address.unwrap_or_default(), reason.clone());
        }
        self.set_state(key, TunnelState::Blocked, Some(reason)).await;
    }

    fn tell_blocked(&self, camera: &str, service: &str, address: String, reason: String) {
        let (camera, service) = (camera.to_owned(), service.to_owned());
        self.context.events.emit(Event::TunnelBlocked { camera, service, address, reason });
    }

    /// Closes the listener; the port stays the service's.
    async fn withdraw(&mut self, key: &Key) {
        let Some(kept) = self.kept.get_mut(key).filter(|kept| kept.row.state != TunnelState::Withdrawn) else { return };
        if let Some(accepting) = kept.accepting.take() {
            accepting.stop().await;
        }
        let (camera, service) = key.clone();
        self.context.events.emit(Event::TunnelWithdrawn { camera, service });
        self.set_state(key, TunnelState::Withdrawn, None).await;
    }

    /// The camera is gone.
    async fn forget(&mut self, key: &Key) {
        let Some(kept) = self.kept.remove(key) else { return };
        if let Some(accepting) = kept.accepting {
            accepting.stop().await;
        }
        self.context.hide(key);
        if !self.kept.keys().any(|other| other.0 == key.0) {
            self.seats.remove(&key.0);
        }
    }

    async fn set_state(&mut self, key: &Key, state: TunnelState, reason: Option<String>) {
        let Some(kept) = self.kept.get_mut(key) else { return };
        if kept.row.state == state && kept.row.reason == reason {
            return self.context.show(&kept.row, &kept.door.traffic);
        }
        kept.row.state = state;
        kept.row.reason = reason;
        self.save(key).await;
    }

    async fn save(&self, key: &Key) {
        let Some(kept) = self.kept.get(key) else { return };
        self.context.show(&kept.row, &kept.door.traffic);
        if let Err(trouble) = self.context.store.update_tunnel(&kept.row).await {
            self.disk_trouble(&trouble);
        }
    }

    fn disk_trouble(&self, trouble: &Error) {
        let (what, reason) = ("the port of a service".to_owned(), trouble.to_string());
        self.context.events.emit(Event::DiskTrouble { what, reason });
    }

    /// Why an address cannot be had, and what to do.
    fn trouble(&self, key: &Key, address: SocketAddr, error: &std::io::Error) -> String {
        let is_at =
            |kept: &Kept| kept.accepting.is_some() && super::address(&kept.row, &self.context.config) == Some(address);
        let same = self.kept.iter().find(|(other, kept)| *other != key && is_at(kept));
        match (error.kind(), same) {
            (ErrorKind::AddrInUse, Some((other, _))) => {
                format!("service {} of this camera has the same port and answers there", other.1)
            }
            (ErrorKind::AddrInUse, None) => format!("another program uses {address}; it is tried again"),
            (ErrorKind::PermissionDenied, _) => format!(
                "port {} needs a privilege: give the server CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), or set the \
                 sysctl net.ipv4.ip_unprivileged_port_start={}",
                address.port(),
                address.port()
            ),
            (ErrorKind::AddrNotAvailable, _) => format!("this machine does not have the address {}", address.ip()),
            _ => error.to_string(),
        }
    }
}

/// The paths of a camera's sources, as far as they can be paths.
fn paths(camera: &Camera) -> Vec<SourcePath> {
    let listed = camera.sources.iter().filter_map(|source| {
        let path = source.path.as_ref()?;
        let printable = path.len() <= MOST_OF_A_PATH && path.bytes().all(|octet| octet.is_ascii_graphic());
        let carried = source.policy != Policy::Off;
        (printable && is_name(&source.name)).then(|| SourcePath {
            source: source.name.clone(),
            path: path.clone(),
            carried,
        })
    });
    listed.take(MOST_PATHS).collect()
}

/// The names under which visitors are answered from the relay, where they are.
fn shared(context: &Context, row: &TunnelRow) -> Option<CameraNames> {
    let is_shared = match context.config.rtsp_mode {
        RtspMode::Agent => row.mode == ServiceMode::Shared,
        RtspMode::Raw => false,
        RtspMode::Shared => true,
    };
    let carried = row.paths.iter().filter(|path| path.carried);
    (row.service == RTSP && is_shared)
        .then(|| CameraNames::new(&row.camera, carried.map(|path| (path.source.as_str(), path.path.as_str()))))
}
