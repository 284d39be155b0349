//! What an agent used of its uplink in a month, as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::store::DataRow;

/// `GET /agents/{id}/data`.
#[derive(Debug, Serialize, ToSchema)]
pub struct DataBody {
    /// The agent.
    pub agent: String,
    /// The calendar month (UTC).
    #[schema(example = "2026-11")]
    pub month: String,
    /// Octets sent and received: with TLS, WebSocket and HTTP, without the headers of TCP and IP.
    pub total: i64,
    /// Octets received by the agent, whatever for.
    pub received: i64,
    /// Octets sent that were of the connection itself: TLS, WebSocket, HTTP.
    pub overhead: i64,
    /// Octets sent for control messages, acknowledgements and the like.
    pub control: i64,
    /// Octets sent late: what an outage left behind, and recordings. Those of cameras are among them.
    pub backfill: i64,
    /// Octets for each camera.
    pub cameras: Vec<CameraDataBody>,
    /// Months of which something is known, the newest first.
    pub months: Vec<String>,
}

/// One camera's part.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct CameraDataBody {
    /// The camera.
    pub camera: String,
    /// Live octets by source.
    pub live: BTreeMap<String, i64>,
    /// Octets sent late by source: a part of the agent's `backfill`.
    pub backfill: BTreeMap<String, i64>,
    /// Octets sent through tunnels by service.
    pub tunnels: BTreeMap<String, i64>,
    /// Octets received through tunnels by service: a part of the agent's `received`.
    pub tunnels_received: BTreeMap<String, i64>,
}

impl DataBody {
    /// From the rows of a month.
    #[must_use]
    pub fn new(agent: &str, month: &str, rows: Vec<DataRow>, months: Vec<String>) -> Self {
        let mut body = Self {
            agent: agent.to_owned(),
            month: month.to_owned(),
            total: DataRow::total(&rows),
            received: 0,
            overhead: 0,
            control: 0,
            backfill: 0,
            cameras: Vec::new(),
            months,
        };
        for DataRow { camera, cause, octets } in rows {
            match (cause.as_str(), cause.split_once(':')) {
                ("received", _) => body.received += octets,
                ("overhead", _) => body.overhead += octets,
                ("control", _) => body.control += octets,
                ("backfill", _) => body.backfill += octets,
                (_, Some((kind, part))) => body.part(camera, kind, part, octets),
                _ => {}
            }
        }
        body
    }

    fn part(&mut self, camera: String, kind: &str, part: &str, octets: i64) {
        let at = match self.cameras.iter().position(|known| known.camera == camera) {
            Some(at) => at,
            None => {
                self.cameras.push(CameraDataBody { camera, ..CameraDataBody::default() });
                self.cameras.len() - 1
            }
        };
        let of_camera = &mut self.cameras[at];
        let parts = match kind {
            "live" => &mut of_camera.live,
            "backfill" => &mut of_camera.backfill,
            "received" => &mut of_camera.tunnels_received,
            _ => &mut of_camera.tunnels,
        };
        *parts.entry(part.to_owned()).or_default() += octets;
    }
}

/// Whether a text is a month, as `2026-11`.
#[must_use]
pub fn is_month(text: &str) -> bool {
    let Some((year, month)) = text.split_once('-') else { return false };
    let is_number =
        |part: &str, digits: usize| part.len() == digits && part.bytes().all(|octet| octet.is_ascii_digit());
    is_number(year, 4) && is_number(month, 2) && (1..=12).contains(&month.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_cameras_and_a_sum() {
        let row = |camera: &str, cause: &str, octets| DataRow { camera: camera.into(), cause: cause.into(), octets };
        let rows = vec![
            row("", "control", 1),
            row("", "received", 20),
            row("gate", "live:main", 300),
            row("gate", "tunnel:http", 4_000),
            row("", "backfill", 50_000),
            row("gate", "backfill:main", 40_000),
            row("gate", "received:http", 15),
        ];
        let body = DataBody::new("a", "2026-11", rows, vec!["2026-11".into()]);
        assert_eq!((body.total, body.control, body.received, body.cameras.len()), (54_321, 1, 20, 1));
        let gate = &body.cameras[0];
        assert_eq!((gate.live["main"], gate.tunnels["http"]), (300, 4_000));
        assert_eq!((body.backfill, gate.backfill["main"], gate.tunnels_received["http"]), (50_000, 40_000, 15));
        assert!(is_month("2026-11") && !is_month("2026-13") && !is_month("26-11") && !is_month("2026-1x"));
    }
}
