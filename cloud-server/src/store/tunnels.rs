//! The table of tunnels: which port of the server is which service of which camera, for as long as the camera exists.
//! A server writes the state that it last saw, so that the command line can show it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use camagent_proto::message::ServiceMode;
use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::Store;
use crate::error::Result;

/// Cameras that can have an address of their own: 127.10.0.1 to 127.10.255.254, without those that end in 0 or 255.
const MOST_ADDRESSES: u16 = 256 * 254;

/// What became of a tunnel's listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelState {
    /// Visitors are taken in.
    Listening,
    /// The port cannot be had now; it is tried again.
    Blocked,
    /// The agent does not offer the service any more; the port stays reserved.
    Withdrawn,
}

impl TunnelState {
    /// The word for programs and people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Listening => "listening",
            Self::Blocked => "blocked",
            Self::Withdrawn => "withdrawn",
        }
    }

    fn read(word: &str) -> Self {
        match word {
            "listening" => Self::Listening,
            "blocked" => Self::Blocked,
            _ => Self::Withdrawn,
        }
    }
}

/// Where a source is on its camera's own RTSP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePath {
    /// The source's name.
    pub source: String,
    /// Its path, query included, as the agent tells it.
    pub path: String,
    /// Whether it is ever carried to the server.
    pub carried: bool,
}

/// One service of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelRow {
    /// The camera.
    pub camera: String,
    /// The service's name.
    pub service: String,
    /// The agent that owns the camera.
    pub agent: String,
    /// The server's port.
    pub port: u16,
    /// The camera's own port.
    pub camera_port: u16,
    /// How RTSP visitors are answered, as the agent says.
    pub mode: ServiceMode,
    /// The camera's sources; for an RTSP service only.
    pub paths: Vec<SourcePath>,
    /// What a server last saw.
    pub state: TunnelState,
    /// Why it is blocked.
    pub reason: Option<String>,
    /// The camera's own address, once it was given one.
    pub own_address: Option<Ipv4Addr>,
}

impl Store {
    /// All tunnels by camera and service.
    pub async fn tunnels(&self) -> Result<Vec<TunnelRow>> {
        let rows = sqlx::query(
            "SELECT t.camera_id, t.service, c.agent_id, t.port, t.camera_port, t.mode, t.paths, t.state, t.reason, a.number \
             FROM tunnels t JOIN cameras c ON c.id = t.camera_id LEFT JOIN camera_addresses a ON a.camera_id = t.camera_id \
             ORDER BY t.camera_id, t.service",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let mode: String = row.try_get(5)?;
                let paths: String = row.try_get(6)?;
                let state: String = row.try_get(7)?;
                let number: Option<u16> = row.try_get(9)?;
                Ok(TunnelRow {
                    camera: row.try_get(0)?,
                    service: row.try_get(1)?,
                    agent: row.try_get(2)?,
                    port: row.try_get(3)?,
                    camera_port: row.try_get(4)?,
                    mode: if mode == "shared" { ServiceMode::Shared } else { ServiceMode::Raw },
                    // Written by this file; what an editor made of it costs the shared mode only.
                    paths: serde_json::from_str(&paths).unwrap_or_default(),
                    state: TunnelState::read(&state),
                    reason: row.try_get(8)?,
                    own_address: number.map(own_address),
                })
            })
            .collect()
    }

    /// The cameras and services of all tunnels.
    pub async fn tunnel_keys(&self) -> Result<BTreeSet<(String, String)>> {
        let rows = sqlx::query("SELECT camera_id, service FROM tunnels").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Adds a tunnel. False when the camera is not the agent's (yet), or tunnel or port exist already.
    pub async fn add_tunnel(&self, row: &TunnelRow, now_us: i64) -> Result<bool> {
        let done = sqlx::query(
            "INSERT INTO tunnels (camera_id, service, port, camera_port, mode, paths, state, reason, created_us) \
             SELECT id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 FROM cameras WHERE id = ?1 AND agent_id = ?2 ON CONFLICT DO NOTHING",
        )
        .bind(&row.camera)
        .bind(&row.agent)
        .bind(&row.service)
        .bind(row.port)
        .bind(row.camera_port)
        .bind(mode(row.mode))
        .bind(paths(row))
        .bind(row.state.word())
        .bind(&row.reason)
        .bind(now_us)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Writes everything about a tunnel but its port, which never moves.
    pub async fn update_tunnel(&self, row: &TunnelRow) -> Result<()> {
        sqlx::query(
            "UPDATE tunnels SET camera_port = ?3, mode = ?4, paths = ?5, state = ?6, reason = ?7 \
             WHERE camera_id = ?1 AND service = ?2",
        )
        .bind(&row.camera)
        .bind(&row.service)
        .bind(row.camera_port)
        .bind(mode(row.mode))
        .bind(paths(row))
        .bind(row.state.word())
        .bind(&row.reason)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The camera's own loopback address, given at the first call. None when there is no such camera, or no address left.
    pub async fn give_own_address(&self, camera: &str) -> Result<Option<Ipv4Addr>> {
        sqlx::query(
            "INSERT INTO camera_addresses (camera_id, number) SELECT cameras.id, free.number FROM cameras, \
             (SELECT 0 AS number UNION SELECT number + 1 FROM camera_addresses) AS free \
             WHERE cameras.id = ?1 AND free.number < ?2 AND free.number NOT IN (SELECT number FROM camera_addresses) \
             ORDER BY free.number LIMIT 1 ON CONFLICT DO NOTHING",
        )
        .bind(camera)
        .bind(MOST_ADDRESSES)
        .execute(&self.pool)
        .await?;
        let row = sqlx::query("SELECT number FROM camera_addresses WHERE camera_id = ?")
            .bind(camera)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.map(own_address))
    }
}

fn mode(mode: ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Raw => "raw",
        ServiceMode::Shared => "shared",
    }
}

fn paths(row: &TunnelRow) -> String {
    serde_json::to_string(&row.paths).unwrap_or_else(|_| "[]".to_owned())
}

fn own_address(number: u16) -> Ipv4Addr {
    let octet = |value: u16| u8::try_from(value).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 10, octet(number / 254), octet(number % 254 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(camera: &str, service: &str, port: u16) -> TunnelRow {
        TunnelRow {
            camera: camera.into(),
            service: service.into(),
            agent: "a".into(),
            port,
            camera_port: 554,
            mode: ServiceMode::Shared,
            paths: vec![SourcePath { source: "main".into(), path: "/cam?x=1&y=2".into(), carried: true }],
            state: TunnelState::Listening,
            reason: None,
            own_address: None,
        }
    }

    #[tokio::test]
    async fn a_tunnel_keeps_its_port_until_its_camera_goes() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::open(folder.path()).await.expect("opens");
        store.add_agent("a", &[1; 32], 1).await.expect("adds");
        assert!(!store.add_tunnel(&row("door", "rtsp", 8554), 1).await.expect("asks"), "nobody claimed the camera");
        store.claim_camera("door", "a", 1).await.expect("claims");
        assert!(store.add_tunnel(&row("door", "rtsp", 8554), 1).await.expect("adds"));
        assert!(!store.add_tunnel(&row("door", "http", 8554), 1).await.expect("asks"), "a port is given once");
        assert!(
            !store.add_tunnel(&TunnelRow { agent: "b".into(), ..row("door", "http", 8555) }, 1).await.expect("asks")
        );
        let changed = TunnelRow {
            port: 1,
            camera_port: 80,
            mode: ServiceMode::Raw,
            paths: Vec::new(),
            state: TunnelState::Blocked,
            reason: Some("taken".into()),
            ..row("door", "rtsp", 8554)
        };
        assert_eq!(store.tunnels().await.expect("reads"), [row("door", "rtsp", 8554)]);
        store.update_tunnel(&changed).await.expect("updates");
        assert_eq!(store.tunnels().await.expect("reads"), [TunnelRow { port: 8554, ..changed }]);
        store.remove_agent("a").await.expect("removes");
        assert_eq!(store.tunnels().await.expect("reads"), []);
    }

    #[tokio::test]
    async fn each_camera_has_an_address_and_a_free_one_is_given_again() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::open(folder.path()).await.expect("opens");
        for agent in ["a", "b", "c"] {
            store.add_agent(agent, &[1; 32], 1).await.expect("adds");
            store.claim_camera(agent, agent, 1).await.expect("claims");
        }
        let address =
            async |camera: &str| store.give_own_address(camera).await.expect("gives").map(|ip| ip.to_string());
        assert_eq!(address("a").await.as_deref(), Some("127.10.0.1"));
        assert_eq!(address("b").await.as_deref(), Some("127.10.0.2"));
        assert_eq!(address("a").await.as_deref(), Some("127.10.0.1"), "for good");
        assert_eq!(address("nobody").await, None);
        store.remove_agent("a").await.expect("removes");
        assert_eq!(address("c").await.as_deref(), Some("127.10.0.1"));
        assert_eq!(own_address(253).to_string(), "127.10.0.254");
        assert_eq!(own_address(254).to_string(), "127.10.1.1");
        assert_eq!(own_address(MOST_ADDRESSES - 1).to_string(), "127.10.255.254");
    }
}
