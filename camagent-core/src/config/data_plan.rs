//! `data_plan`: how much may go over the agent's uplink in a month, and what stops first when that is not enough.

use camagent_proto::message::is_name;

use super::{CameraConfig, NAME, reader::Section};
use crate::error::Error;

/// What stands for all tunnels in `stops_first`.
pub const TUNNELS: &str = "tunnels";
/// What stands there for frames of the past: what an outage has left in the storage.
pub const BACKFILL: &str = "backfill";
/// The least that can be planned with: less is gone before the first picture.
const LEAST: u64 = 1_000_000;
/// 2^53 - 1, as in all of the protocol's JSON.
const MOST: u64 = (1 << 53) - 1;

/// A month's octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPlan {
    /// Octets of a calendar month (UTC), sent and received together, with TLS and everything but the headers of TCP and IP.
    pub monthly_bytes: u64,
    /// Names of sources, `tunnels` and `backfill`, in the order in which they stop. What is not named never stops; control never does.
    pub stops_first: Vec<String>,
}

pub(super) fn read(root: &Section<'_>, cameras: &[CameraConfig]) -> Result<Option<DataPlan>, Error> {
    if !root.has("data_plan") {
        return Ok(None);
    }
    let section = root.section("data_plan")?;
    let monthly_bytes = section.required("monthly_bytes", |section, key| section.integer(key, LEAST, MOST))?;
    let has = |name: &str| cameras.iter().flat_map(|camera| &camera.sources).any(|source| source.name == name);
    let named = section.strings("stops_first")?;
    let stops_first = match named {
        None => {
            let usual = ["main", "third", "sub"].into_iter().filter(|name| has(name));
            let past = root.has("storage").then_some(BACKFILL);
            [TUNNELS].into_iter().chain(past).chain(usual).map(String::from).collect()
        }
        Some(names) => {
            for (at, name) in names.iter().enumerate() {
                if names[..at].contains(name) {
                    return Err(section.wrong("stops_first", &format!("each name once, {name:?} stands there twice")));
                }
                if !is_name(name) {
                    let allowed = format!("\"tunnels\", \"backfill\" and names of sources: {NAME}");
                    return Err(section.wrong("stops_first", &allowed));
                }
                if ![TUNNELS, BACKFILL].contains(&name.as_str()) && !has(name) {
                    root.warn(format!("data_plan.stops_first names {name:?}, which is no source of a camera here"));
                }
            }
            names
        }
    };
    section.finish();
    Ok(Some(DataPlan { monthly_bytes, stops_first }))
}

#[cfg(test)]
mod tests {
    use crate::Config;

    fn read(plan: &str) -> Result<Config, crate::Error> {
        let agent = r#""agent":{"agent_id":"a","cloud_server_url":"wss://h","cloud_server_token":"t"}"#;
        Config::from_json(&format!(
            r#"{{{agent},"data_plan":{plan},"camera":{{"sources":{{"main":{{}},"sub":{{}}}}}}}}"#
        ))
    }

    #[test]
    fn a_plan_has_an_order_or_gets_one() {
        let plan = read(r#"{"monthly_bytes":5000000000}"#).unwrap().data_plan.unwrap();
        assert_eq!(
            (plan.monthly_bytes, plan.stops_first),
            (5_000_000_000, ["tunnels", "main", "sub"].map(String::from).into())
        );
        let plan = read(r#"{"monthly_bytes":5000000000,"stops_first":["main"]}"#).unwrap().data_plan.unwrap();
        assert_eq!(plan.stops_first, ["main"]);
        let plan = read(r#"{"monthly_bytes":5000000000,"stops_first":["backfill","sub"]}"#).unwrap();
        assert_eq!(
            (plan.data_plan.unwrap().stops_first, plan.warnings),
            (["backfill", "sub"].map(String::from).into(), vec![])
        );
        let config = read(r#"{"monthly_bytes":5000000000,"stops_first":["man"]}"#).unwrap();
        assert!(config.warnings.iter().any(|warning| warning.contains("\"man\"")), "{:?}", config.warnings);
    }

    #[test]
    fn wrong_plans_name_the_key() {
        for (plan, parts) in [
            ("{}", ["data_plan.monthly_bytes", "required"]),
            (r#"{"monthly_bytes":10}"#, ["data_plan.monthly_bytes", "1000000"]),
            (r#"{"monthly_bytes":"5 GB"}"#, ["data_plan.monthly_bytes", "whole number"]),
            (r#"{"monthly_bytes":5000000,"stops_first":["main","main"]}"#, ["data_plan.stops_first", "twice"]),
            (r#"{"monthly_bytes":5000000,"stops_first":["/x"]}"#, ["data_plan.stops_first", "tunnels"]),
        ] {
            let error = read(plan).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
