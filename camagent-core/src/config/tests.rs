use super::*;
use camagent_proto::message::Policy;

/// The configuration of the product's owner, as it stands.
const OWNERS: &str = r#"
{"agent":{"agent_id":"dahua-2449s-il-001","cloud_server_url":"ws://your-server.com:8080/agent","cloud_server_token":"your-secret-token","log_level":"INFO"},
 "streaming":{"quality":"high","buffer_size":2097152,"rtsp_port":554,"stream_paths":["/cam/realmonitor?channel=1&subtype=0","/cam/realmonitor?channel=1&subtype=1"]},
 "network":{"connection_timeout":30,"reconnect_interval":10,"heartbeat_interval":30},
 "camera":{"model":"dahua-2449s-il","max_resolution":"2688x1520","max_fps":20,"codec":"H.265","features":["WDR","3D-DNR","Smart Detection"]}}"#;

fn with(change: impl FnOnce(&mut Value)) -> Result<Config, Error> {
    let mut value: Value = serde_json::from_str(OWNERS).unwrap();
    change(&mut value);
    Config::from_value(&value)
}

fn policies(config: &Config) -> Vec<(&str, Policy)> {
    config.cameras[0].sources.iter().map(|source| (source.name.as_str(), source.policy)).collect()
}

#[test]
fn the_owners_file_is_accepted_as_it_stands() {
    let config = Config::from_json(OWNERS).unwrap();
    assert_eq!(config.agent_id, "dahua-2449s-il-001");
    assert_eq!(config.servers[0].to_string(), "ws://your-server.com:8080/agent");
    assert_eq!(config.token.reveal(), "your-secret-token");
    assert_eq!((config.log_level, config.buffer_size), (log::LevelFilter::Info, 2_097_152));
    assert_eq!(config.connection_timeout, Duration::from_secs(30));
    assert_eq!(config.reconnect_interval, Duration::from_secs(10));
    assert_eq!(config.heartbeat_interval, Duration::from_secs(30));
    let camera = &config.cameras[0];
    assert_eq!((camera.id.as_str(), camera.host.as_str(), camera.rtsp_port), ("dahua-2449s-il-001", "127.0.0.1", 554));
    assert_eq!((camera.services.len(), camera.rtsp_transport), (1, RtspTransport::Tcp));
    assert_eq!(camera.sources[1].path.as_deref(), Some("/cam/realmonitor?channel=1&subtype=1"));
    assert_eq!(camera.description["model"], "dahua-2449s-il");
    assert_eq!(camera.description["max_fps"], 20);
    assert_eq!(camera.description["features"][2], "Smart Detection");
    assert_eq!(config.warnings.len(), 2, "only the two placeholders: {:?}", config.warnings);
}

#[test]
fn quality_decides_what_is_wanted() {
    use Policy::{Always, Off, OnDemand};
    for (quality, main) in [("high", Always), ("medium", OnDemand), ("low", Off)] {
        let config = with(|value| value["streaming"]["quality"] = quality.into()).unwrap();
        assert_eq!(policies(&config), [("main", main), ("sub", Always)]);
    }
    let config = with(|value| {
        value["streaming"]["sources"] = serde_json::json!({"main": {"upload": "on_demand"}, "crop": {}});
    });
    assert_eq!(policies(&config.unwrap()), [("main", OnDemand), ("sub", Always), ("crop", Always)]);
}

#[test]
fn servers_are_one_or_several_and_a_proxy_is_kept_secret() {
    let list = ["wss://a.example/agent", "ws://[::1]:8080/x"];
    let config = with(|value| {
        value["agent"]["cloud_server_url"] = serde_json::json!(list);
        value["network"]["proxy"] = "http://me:hunter2@proxy:3128".into();
        value["network"]["return_interval"] = 7.into();
    });
    let config = config.unwrap();
    let shown: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["wss://a.example:443/agent", "ws://[::1]:8080/x"]);
    assert_eq!(config.return_interval, Duration::from_secs(7));
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.proxy.unwrap().to_string(), "http://proxy:3128");
}

#[test]
fn unknown_keys_warn() {
    let config = with(|value| value["network"]["speed"] = 3.into()).unwrap();
    assert!(config.warnings.iter().any(|warning| warning.contains("network.speed")), "{:?}", config.warnings);
}

#[test]
fn wrong_values_name_key_value_and_what_is_allowed() {
    let cases: [(&str, Value, &str); 29] = [
        ("/agent/agent_id", "a/b".into(), "1 to 64"),
        ("/agent/cloud_server_url", "http://x".into(), "ws://HOST"),
        ("/agent/cloud_server_url", serde_json::json!([]), "1 to 8"),
        ("/agent/cloud_server_url", serde_json::json!(["ws://a", "ws://a:80/agent"]), "different"),
        ("/agent/cloud_server_url", serde_json::json!(["ws://a", 5]), "list of strings"),
        ("/agent/cloud_server_token", "a b".into(), "visible ASCII"),
        ("/agent/log_level", "LOUD".into(), "one of OFF, ERROR"),
        ("/agent/server_pin", "abc".into(), "sha256/"),
        ("/streaming/quality", "best".into(), "one of high, medium, low"),
        ("/streaming/buffer_size", 100.into(), "from 65536"),
        ("/streaming/rtsp_port", 0.into(), "from 1 to 65535"),
        ("/streaming/rtsp_transport", "http".into(), "one of tcp, udp"),
        ("/streaming/stream_paths", serde_json::json!(["x"]), "begin with /"),
        ("/streaming/sources", serde_json::json!({"main": {"upload": "never"}}), "always, on_demand, off"),
        ("/streaming/sources", serde_json::json!({"main": {"retention": "ever"}}), "live, record"),
        ("/network/connection_timeout", 0.into(), "from 1 to 3600"),
        ("/network/reconnect_interval", (-1).into(), "from 1 to 3600"),
        ("/network/heartbeat_interval", "30".into(), "from 1 to 3600"),
        ("/network/proxy", "socks5://me:hunter2@p".into(), "http://[USER:PASSWORD@]HOST[:PORT]"),
        ("/camera/model", 7.into(), "a string"),
        ("/camera/serial", "9".repeat(129).into(), "at most 128 bytes"),
        ("/camera/features", serde_json::json!(vec!["x"; 33]), "at most 32 texts"),
        ("/camera/max_resolution", "big".into(), "WIDTHxHEIGHT"),
        ("/camera/max_fps", 0.into(), "from 1"),
        ("/camera/codec", "VP8".into(), "one of H.265"),
        ("/camera/features", "WDR".into(), "a list of strings"),
        ("/camera/host", "".into(), "a host name"),
        ("/camera/id", "..".into(), "1 to 64"),
        ("/camera/password", 5.into(), "a string"),
    ];
    for (pointer, wrong, allowed) in cases {
        let (section, key) = pointer[1..].split_once('/').unwrap();
        let error = with(|value| value[section][key] = wrong.clone()).unwrap_err().to_string();
        assert!(error.contains(&format!("{section}.{key}")) && error.contains(allowed), "{error}");
        let secret = matches!(key, "cloud_server_token" | "password" | "proxy");
        assert_eq!(error.contains("***"), secret, "{error}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let error = Config::from_json("{}").unwrap_err().to_string();
    assert!(error.contains("agent is missing"), "{error}");
    let error = with(|value| {
        value["agent"].as_object_mut().unwrap().remove("agent_id");
    })
    .unwrap_err()
    .to_string();
    assert!(error.contains("agent.agent_id is missing"), "{error}");
    for text in ["", "[]", "{\"agent\":"] {
        assert!(matches!(Config::from_json(text), Err(Error::ConfigText(_))), "{text}");
    }
}

#[test]
fn several_cameras_share_what_streaming_says() {
    let config = with(|value| {
        value.as_object_mut().unwrap().remove("camera");
        value["cameras"] = serde_json::json!([
            {"id": "gate", "host": "192.0.2.5", "rtsp_port": 8554, "user": "admin", "password": "p"},
            {"id": "yard", "stream_paths": ["/only"], "sources": {"sub": {"upload": "off"}}},
        ]);
    });
    let config = config.unwrap();
    let ids: Vec<&str> = config.cameras.iter().map(|camera| camera.id.as_str()).collect();
    assert_eq!(ids, ["gate", "yard"]);
    assert_eq!((config.cameras[0].rtsp_port, config.cameras[1].rtsp_port), (8_554, 554));
    assert_eq!(config.cameras[1].sources[1].policy, Policy::Off);
    assert_eq!(config.cameras[1].sources[0].path.as_deref(), Some("/only"));
    let twice = with(|value| {
        value.as_object_mut().unwrap().remove("camera");
        value["cameras"] = serde_json::json!([{"id": "a"}, {"id": "a"}]);
    });
    assert!(twice.unwrap_err().to_string().contains("cameras[1].id"));
    assert!(with(|value| value["cameras"] = serde_json::json!([{"id": "a"}])).is_err(), "camera and cameras");
}

#[test]
fn a_pin_is_read_as_the_server_prints_it() {
    let pin = "sha256/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let config = with(|value| value["agent"]["server_pin"] = pin.into()).unwrap();
    assert_eq!(config.trust, Trust::Pin(std::array::from_fn(|at| at as u8)));
    let both = with(|value| {
        value["agent"]["server_pin"] = pin.into();
        value["agent"]["ca_file"] = "/x".into();
    });
    assert!(both.is_err());
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let config = with(|value| value["camera"]["password"] = "hunter2".into()).unwrap();
    assert!(config.warnings.iter().any(|warning| warning.contains("has a password and no user")));
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("your-secret-token\""), "{shown}");
}

#[test]
fn what_is_told_of_a_camera_fits_into_one_message() {
    let sources: serde_json::Map<String, Value> =
        (0..13).map(|at| (format!("{at:064}"), serde_json::json!({"upload": "on_demand"}))).collect();
    let services: serde_json::Map<String, Value> =
        (0..15).map(|at| (format!("{at:064}"), serde_json::json!(65_535))).collect();
    let long = |features: usize| {
        with(|value| {
            for key in ["model", "maker", "firmware", "serial"] {
                value["camera"][key] = "\"".repeat(128).into();
            }
            value["camera"]["features"] = serde_json::json!(vec!["\"".repeat(128); features]);
            value["camera"]["sources"] = sources.clone().into();
            value["camera"]["services"] = services.clone().into();
            value["streaming"]["stream_paths"] = serde_json::json!(vec![format!("/{}", "\\".repeat(511)); 3]);
        })
    };
    let camera = &long(20).unwrap().cameras[0];
    let told = camagent_proto::message::Camera {
        id: camera.id.clone(),
        sources: camera
            .sources
            .iter()
            .map(|source| camagent_proto::message::Source {
                name: source.name.clone(),
                policy: source.policy,
                retention: source.retention,
                path: source.path.clone(),
            })
            .collect(),
        services: camera
            .services
            .iter()
            .map(|service| camagent_proto::message::Service {
                name: service.name.clone(),
                port: service.port,
                mode: service.mode,
            })
            .collect(),
        description: camera.description.clone(),
    };
    let text = serde_json::to_string(&told).unwrap();
    assert!(text.len() > 10_000 && text.len() + 200 < camagent_proto::message::MAX_REGISTER, "{}", text.len());
    let error = long(32).unwrap_err().to_string();
    assert!(error.contains("camera.features") && error.contains("16384 bytes"), "{error}");
}

#[test]
fn a_latency_budget_is_the_sources_own_or_that_of_all() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let config = Config::from_json(OWNERS).unwrap();
    assert_eq!(
        (config.latency_budget, config.latency_budget_of("dahua-2449s-il-001", "sub")),
        (seconds(3), seconds(3))
    );
    let config = with(|value| {
        value["streaming"]["latency_budget"] = 5.into();
        value["streaming"]["sources"] =
            serde_json::json!({"main": {"latency_budget": 0}, "sub": {"latency_budget": 2}});
        value["camera"]["sources"] = serde_json::json!({"sub": {"latency_budget": 4}});
    });
    let config = config.unwrap();
    let of = |source| config.latency_budget_of("dahua-2449s-il-001", source);
    assert_eq!((of("main"), of("sub"), of("crop")), (None, seconds(4), seconds(5)));
    let error = with(|value| value["streaming"]["latency_budget"] = 1.5.into()).unwrap_err().to_string();
    assert!(error.contains("latency_budget") && error.contains("3600"), "{error}");
}

#[test]
fn the_queue_target_has_bounds() {
    assert_eq!(Config::from_json(OWNERS).unwrap().queue_target, Duration::from_millis(40));
    let set = |target: u64| with(|value| value["network"]["queue_target_ms"] = target.into());
    assert_eq!(set(150).unwrap().queue_target, Duration::from_millis(150));
    for wrong in [24, 151] {
        let error = set(wrong).unwrap_err().to_string();
        assert!(error.contains("network.queue_target_ms") && error.contains("25"), "{error}");
    }
}

#[test]
fn a_camera_has_an_outage_source_that_it_uploads() {
    let with = |streaming: &str, rest: &str| {
        Config::from_json(&format!(
            r#"{{"agent":{{"agent_id":"a","cloud_server_url":"ws://h","cloud_server_token":"t"}},"streaming":{{{streaming}}}{rest}}}"#
        ))
    };
    let of = |config: &Config, at: usize| config.cameras[at].outage_source.clone();
    assert_eq!(of(&with("", "").unwrap(), 0), None);
    let cameras = r#","cameras":[{"id":"gate"},{"id":"yard","outage_source":"main"},{"id":"lab","outage_source":""}]"#;
    let config = with(r#""outage_source":"sub""#, cameras).unwrap();
    assert_eq!([0, 1, 2].map(|at| of(&config, at)), [Some("sub".into()), Some("main".into()), None]);
    assert_eq!(config.warnings, [] as [String; 0]);
    for streaming in [r#""outage_source":"tiny""#, r#""outage_source":"sub","sources":{"sub":{"upload":"off"}}"#] {
        let error = with(streaming, "").unwrap_err().to_string();
        assert!(error.contains("outage_source") && error.contains("uploaded: main"), "{error}");
    }
    let beside = with(r#""outage_source":"sub""#, r#","storage":{"path":"/mnt"}"#).unwrap();
    assert!(beside.warnings[0].contains("does nothing beside storage.path"), "{:?}", beside.warnings);
}
