//! The fuzz targets: a name, and a body that lives in the crate that it tests, where `cargo test` reaches it too.
//!
//! `cargo xtask fuzz NAME` runs one with libFuzzer; `cargo test` replays each corpus through its body. A crash becomes a
//! file in `corpus/NAME` in the same commit as its cure.

/// A target: the name is that of its corpus folder.
pub struct Target {
    /// As given to `cargo xtask fuzz`.
    pub name: &'static str,
    /// Must hold its own assertions; anything but a return is a finding.
    pub body: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "annexb", body: camagent_media::fuzz::annexb },
    Target { name: "parameter_sets", body: camagent_media::fuzz::parameter_sets },
    Target { name: "track_reader", body: camagent_media::fuzz::track_reader },
    Target { name: "mp4", body: camagent_media::fuzz::mp4 },
    Target { name: "record", body: camagent_proto::fuzz::record },
    Target { name: "frame", body: camagent_proto::fuzz::frame },
    Target { name: "control_json", body: camagent_proto::fuzz::control_json },
    Target { name: "session", body: camagent_proto::fuzz::session },
    Target { name: "tunnels", body: camagent_proto::fuzz::tunnels },
    Target { name: "journal_segment", body: camagent_core::fuzz_journal_segment },
    Target { name: "persisted_log", body: cloud_server::ingest::fuzz_persisted_log },
    Target { name: "rtsp_request", body: cloud_server::rtsp::fuzz_request },
    Target { name: "rtsp_watch", body: cloud_server::tunnel::fuzz_watch },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
