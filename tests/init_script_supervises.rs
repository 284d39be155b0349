//! The init script that `sdk-docs/howto/run-the-daemon.md` gives to firmware without a supervisor, exactly as it stands there: it starts the
//! daemon, starts it again when it died, and stops both in time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use camagent_testkit::wait::{self, SOON};
use serde_json::json;

const PAGE: &str = include_str!("../sdk-docs/howto/run-the-daemon.md");

/// The script with a folder of the test in place of the machine's.
fn script(folder: &Path) -> String {
    let start = PAGE.find("#!/bin/sh").expect("the page has a script");
    let script = &PAGE[start..start + PAGE[start..].find("```").expect("it ends")];
    let mut script = script.to_owned();
    for (usual, ours) in [
        ("/usr/bin/camagentd", env!("CARGO_BIN_EXE_camagentd").to_owned()),
        ("/etc/camera_agent/config.json", folder.join("config.json").display().to_string()),
        ("/tmp/camagent.log", folder.join("log").display().to_string()),
        ("/var/run/camagentd.pid", folder.join("pid").display().to_string()),
    ] {
        assert!(script.contains(usual), "{usual}");
        script = script.replace(usual, &ours);
    }
    script
}

struct Init {
    folder: tempfile::TempDir,
}

impl Init {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("S96camagentd"), script(folder.path())).expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, heartbeat: i32) {
        let agent = json!({"agent_id": "a", "cloud_server_url": "ws://127.0.0.1:9/agent", "cloud_server_token": "t"});
        let config = json!({"agent": agent, "network": {"heartbeat_interval": heartbeat}});
        fs::write(self.path("config.json"), config.to_string()).expect("written");
    }

    fn call(&self, what: &str) -> Output {
        Command::new("sh").arg(self.path("S96camagentd")).arg(what).output().expect("sh is there")
    }

    /// The process number of the loop.
    fn supervisor(&self) -> String {
        fs::read_to_string(self.path("pid")).unwrap_or_default().trim().to_owned()
    }

    /// The process number of the daemon, while the loop has one.
    fn daemon(&self) -> Option<i32> {
        let tasks = format!("/proc/{0}/task/{0}/children", self.supervisor());
        let children = fs::read_to_string(tasks).ok()?;
        let is_daemon =
            |id: &&str| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim_end() == "camagentd");
        children.split_whitespace().find(is_daemon)?.parse().ok()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        self.call("stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_starts_again_and_stops() {
    let init = Init::new();
    init.configure(0);
    let refused = init.call("start");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("network.heartbeat_interval"));
    assert_eq!(init.call("status").status.code(), Some(3));
    assert_eq!(init.call("dance").status.code(), Some(2));

    init.configure(30);
    assert_eq!(init.call("start").status.code(), Some(0));
    let first = wait::found("the daemon", SOON, || init.daemon()).await;
    wait::until("its first line", SOON, || init.log().matches("agent a with 1 camera(s)").count() == 1).await;
    assert_eq!(init.call("start").status.code(), Some(0), "once is enough");
    assert_eq!(init.call("status").status.code(), Some(0));
    // SAFETY: the process is the daemon of this test's own loop.
    assert_eq!(unsafe { libc::kill(first, libc::SIGKILL) }, 0);
    let second = wait::found("another daemon", SOON, || init.daemon().filter(|id| *id != first)).await;
    wait::until("the other's first line", SOON, || init.log().matches("agent a with 1 camera(s)").count() == 2).await;
    assert_eq!(init.call("reload").status.code(), Some(0));
    wait::until("the log is opened again", SOON, || init.log().contains("SIGHUP")).await;
    assert_eq!(init.daemon(), Some(second), "a reload ends nothing");

    assert_eq!(init.call("stop").status.code(), Some(0));
    assert!(init.log().contains("SIGTERM: stopping"), "{}", init.log());
    assert_eq!(init.call("status").status.code(), Some(3));
    assert!(!init.path("pid").exists() && !Path::new(&format!("/proc/{second}")).exists());
}
