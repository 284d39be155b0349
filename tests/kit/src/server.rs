//! The server in the test's process, in a folder of its own, on free ports that it keeps over a restart.

use std::net::SocketAddr;
use std::path::Path;

use camagent_core::{Config as AgentConfig, Trust};
use cloud_server::store::TunnelState;
use cloud_server::{Addresses, Config, Server};
use serde_json::{Value, json};

use crate::http::Api;
use crate::wait;

/// A server that may be down.
pub struct CloudServer {
    server: Option<Server>,
    config: Config,
    pin: String,
    folder: tempfile::TempDir,
}

impl CloudServer {
    /// A server with the defaults.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with some values changed.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config::for_tests(folder.path());
        change(&mut config);
        let server = Server::start(config.clone()).await.expect("the server starts");
        let addresses = server.addresses();
        (config.listen.http, config.listen.tls, config.listen.rtsp) = (addresses.http, addresses.tls, addresses.rtsp);
        let pin = server.identity().pin().expect("a key that can be pinned").to_owned();
        Self { server: Some(server), config, pin, folder }
    }

    /// The running server.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the test has not stopped it")
    }

    /// Its addresses, also while it is down.
    pub fn addresses(&self) -> Addresses {
        Addresses { http: self.config.listen.http, tls: self.config.listen.tls, rtsp: self.config.listen.rtsp }
    }

    /// Its values.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What an agent pins: `sha256/…`.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// Stops it gracefully; whether everybody left in time.
    pub async fn stop(&mut self) -> bool {
        match self.server.take() {
            Some(server) => server.stop().await,
            None => true,
        }
    }

    /// Starts it again on the same ports, with the same data.
    pub async fn start_again(&mut self) {
        assert!(self.server.is_none(), "it runs");
        self.server = Some(Server::start(self.config.clone()).await.expect("the same ports and data"));
    }

    /// Adds an agent; its token.
    pub async fn add_agent(&self, id: &str) -> String {
        self.server().add_agent(id).await.expect("a new id")
    }

    /// The API with a new token.
    pub async fn api(&self, name: &str) -> Api {
        let token = self.server().add_token(name).await.expect("a new name");
        Api::new(self.addresses().http, Some(&token))
    }

    /// Where players find a source.
    pub fn url(&self, camera: &str, source: &str) -> String {
        format!("rtsp://{}/{camera}/{source}", self.addresses().rtsp)
    }

    /// Where a service of an agent's only camera is, once it can be knocked at.
    pub async fn tunnel(&self, agent: &str, service: &str) -> SocketAddr {
        let listening = || {
            let all = self.server().tunnels().of_agent(agent);
            let own = all.into_iter().find(|status| status.row.service == service)?;
            (own.row.state == TunnelState::Listening).then_some(own.address).flatten()
        };
        wait::found(&format!("a port for {service} of {agent}"), wait::SOON, listening).await
    }

    /// Visitors of a service of an agent's only camera now, those who wait included.
    pub fn visitors(&self, agent: &str, service: &str) -> usize {
        let all = self.server().tunnels().of_agent(agent);
        all.iter().filter(|status| status.row.service == service).map(|status| status.visitors).sum()
    }

    /// A configuration file in the owner's form for an agent that dials wss:// at `address` and pins this server's key.
    pub fn agent_json(&self, id: &str, token: &str, address: SocketAddr) -> Value {
        json!({
            "agent": {
                "agent_id": id, "cloud_server_url": format!("wss://{address}/agent"), "cloud_server_token": token,
                "log_level": "TRACE", "server_pin": self.pin,
            },
            "streaming": {"quality": "high", "buffer_size": 2_097_152},
            "network": {"connection_timeout": 10, "reconnect_interval": 1, "heartbeat_interval": 1, "statistics_interval": 1},
        })
    }

    /// The same, read: straight to the server's TLS listener.
    pub fn agent(&self, id: &str, token: &str) -> AgentConfig {
        self.agent_at(id, token, self.addresses().tls)
    }

    /// The same through another address, of a link as a rule.
    pub fn agent_at(&self, id: &str, token: &str, address: SocketAddr) -> AgentConfig {
        let config = AgentConfig::from_json(&self.agent_json(id, token, address).to_string()).expect("a good file");
        assert!(matches!(config.trust, Trust::Pin(_)));
        config
    }

    /// How often the named event happened.
    pub fn event_count(&self, name: &str) -> u64 {
        self.server().events().count(name)
    }

    /// Frames that arrived of a camera's source since the server started.
    pub fn frames(&self, camera: &str, source: &str) -> u64 {
        let of_source = |status: &cloud_server::live::SourceStatus| status.camera == camera && status.source == source;
        self.server().hub().status().into_iter().filter(of_source).map(|status| status.frames).sum()
    }

    /// Viewers of a camera's source, and how often they were skipped.
    pub fn viewers(&self, camera: &str, source: &str) -> (u32, u32) {
        let all = self.server().hub().status();
        let status = all.iter().find(|status| status.camera == camera && status.source == source);
        status.map_or((0, 0), |status| (status.viewers, status.viewer_skips))
    }
}
