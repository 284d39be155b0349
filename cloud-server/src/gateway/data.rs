//! An agent's octets by cause, from its statistics into the database: only sources and services that there are count by name.

use std::collections::BTreeMap;

use camagent_proto::message::Camera;
use camagent_proto::stats::DataUse;

use crate::store::DataRow;

/// The rows of one report. What is of no source or service of the agent's is left out: it made it up.
pub(super) fn rows(data: &DataUse, cameras: &[Camera], has_source: impl Fn(&Camera, &str) -> bool) -> Vec<DataRow> {
    let of_camera = |id: &str| cameras.iter().find(|camera| camera.id == id);
    let has_service = |camera: &Camera, name: &str| camera.services.iter().any(|service| service.name == name);
    let mut rows = Vec::new();
    let mut add = |parts: &BTreeMap<String, u64>, kind: &str, has: &dyn Fn(&Camera, &str) -> bool| {
        for (name, octets) in parts {
            let known = name.split_once('/').filter(|(id, part)| of_camera(id).is_some_and(|camera| has(camera, part)));
            if let Some((camera, part)) = known {
                rows.push(row(camera, format!("{kind}:{part}"), *octets));
            }
        }
    };
    add(&data.live, "live", &has_source);
    add(&data.tunnels, "tunnel", &has_service);
    add(&data.backfill_of, "backfill", &has_source);
    add(&data.received_of, "received", &has_service);
    let rest = [
        ("backfill", data.backfill),
        ("control", data.control),
        ("overhead", data.overhead),
        ("received", data.received),
    ];
    rows.extend(rest.map(|(cause, octets)| row("", cause.to_owned(), octets)));
    rows
}

fn row(camera: &str, cause: String, octets: u64) -> DataRow {
    DataRow { camera: camera.to_owned(), cause, octets: i64::try_from(octets).unwrap_or(i64::MAX) }
}

#[cfg(test)]
mod tests {
    use camagent_proto::message::Source;

    use super::*;

    #[test]
    fn only_registered_names_become_rows() {
        let source = Source { name: "main".into(), ..Source::default() };
        let cameras = [Camera { id: "gate".into(), sources: vec![source], ..Camera::default() }];
        let live = ["gate/main", "gate/sub", "yard/main", "gate", "/", "gate/main/x"];
        let live = live.iter().map(|name| ((*name).to_owned(), 5)).collect();
        let backfill_of = [("gate/main".to_owned(), 3), ("gate/old".to_owned(), 4)].into();
        let received_of = [("gate/http".to_owned(), 9)].into();
        let data = DataUse { live, control: 7, backfill: 7, backfill_of, received_of, ..DataUse::default() };
        let rows = rows(&data, &cameras, |camera, name| camera.sources.iter().any(|source| source.name == name));
        assert_eq!(rows.iter().filter(|row| !row.camera.is_empty()).count(), 2);
        assert_eq!(rows[0], row("gate", "live:main".into(), 5));
        assert!(rows.contains(&row("", "control".into(), 7)));
        // The whole counts, and the parts of it that are known by name do not again.
        assert!(
            rows.contains(&row("gate", "backfill:main".into(), 3)) && rows.contains(&row("", "backfill".into(), 7))
        );
        assert_eq!(rows.iter().filter(|row| !row.is_part()).map(|row| row.octets).sum::<i64>(), 5 + 7 + 7);
    }
}
