//! An agent without its network: joins the registry, and carries visitors to addresses of this machine, as the gateway and
//! a real agent would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use camagent_proto::message::{Camera, Policy, Service, ServiceMode, Source};
use cloud_server::Server;
use cloud_server::agents::{Farewell, Joining, Visit};
use tokio::net::TcpStream;

/// Its cameras' services lead here; those that are missing are refused.
pub type Targets = BTreeMap<(String, String), SocketAddr>;

pub struct FakeAgent {
    pub id: String,
    generation: u64,
    server: Arc<cloud_server::agents::Agents>,
    task: tokio::task::JoinHandle<()>,
    /// Who came: camera, service, visitor.
    pub seen: Arc<Mutex<Vec<(String, String, String)>>>,
}

impl FakeAgent {
    /// Adds the agent when it is new, claims its cameras, and joins.
    pub async fn join(server: &Server, id: &str, cameras: Vec<Camera>, targets: Targets) -> Self {
        let _ = server.add_agent(id).await;
        for camera in &cameras {
            let _ = server.hub().claim(&camera.id, id);
            server.store().claim_camera(&camera.id, id, 1).await.expect("claims");
        }
        let joining = Joining {
            address: "192.0.2.1:1".into(),
            token_hash: [0; 32],
            boot: [1; 16],
            software: "fake".into(),
            cameras,
            capabilities: Vec::new(),
            now_us: 1,
        };
        let mut member = server.agents().join(id, joining);
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let noted = Arc::clone(&seen);
        let generation = member.generation;
        let task = tokio::spawn(async move {
            // Dropped with the task, as a session's visits go with the session.
            let mut visits = tokio::task::JoinSet::new();
            while let Some(visit) = member.visits.recv().await {
                let key = (visit.camera.clone(), visit.service.clone());
                noted.lock().expect("no panic").push((key.0.clone(), key.1.clone(), visit.visitor.clone()));
                visits.spawn(carry(visit, targets.get(&key).copied()));
            }
        });
        Self { id: id.to_owned(), generation, server: Arc::clone(server.agents()), task, seen }
    }

    /// The connection is cut.
    pub fn leave(&self) {
        self.task.abort();
        self.server.leave(&self.id, self.generation, "cut");
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut visit: Visit, target: Option<SocketAddr>) {
    let connected = match target {
        Some(target) => TcpStream::connect(target).await.map_err(|error| error.to_string()),
        None => Err("not allowed".to_owned()),
    };
    let farewell = match connected {
        Ok(mut stream) => {
            let copied = tokio::io::copy_bidirectional(&mut visit.socket, &mut stream).await;
            let (to_camera, to_visitor) = copied.unwrap_or_default();
            Farewell { reason: "closed".into(), reached: true, to_visitor, to_camera, unused: None }
        }
        Err(reason) => Farewell { reason, reached: false, to_visitor: 0, to_camera: 0, unused: None },
    };
    drop(visit.socket);
    let _ = visit.farewell.send(farewell);
}

/// A camera with these services at these ports of its own.
pub fn camera(id: &str, services: &[(&str, u16)]) -> Camera {
    let service = |(name, port): &(&str, u16)| Service { name: (*name).into(), port: *port, mode: ServiceMode::Raw };
    Camera { id: id.into(), services: services.iter().map(service).collect(), ..Camera::default() }
}

/// The same with sources at paths of its own RTSP server, shared.
pub fn shared_camera(id: &str, sources: &[(&str, &str)]) -> Camera {
    let mut camera = camera(id, &[("rtsp", 554)]);
    camera.services[0].mode = ServiceMode::Shared;
    let source = |(name, path): &(&str, &str)| Source {
        name: (*name).into(),
        policy: Policy::OnDemand,
        path: Some((*path).into()),
        ..Source::default()
    };
    camera.sources = sources.iter().map(source).collect();
    camera
}
