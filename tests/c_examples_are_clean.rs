//! The examples build by plain `make` with every warning an error, and run against a real server without a finding of AddressSanitizer,
//! UndefinedBehaviorSanitizer or valgrind.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use camagent_testkit::{
    CloudServer, Viewer,
    c_library::{Sdk, root, succeeded},
    clip,
    core::Codec,
    program::is_installed,
    wait,
};
use tokio::{io::AsyncWriteExt, process::Command};

#[test]
fn plain_make_builds_the_examples() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["Makefile", "minimal.c", "push_file.c"] {
        std::fs::copy(root().join("examples-c").join(file), folder.path().join(file)).unwrap();
    }
    let sdk = Sdk::find().include().parent().unwrap().to_owned();
    let made = std::process::Command::new("make").arg(format!("SDK={}", sdk.display())).current_dir(&folder).output();
    succeeded("make", &made.unwrap());
    assert!(folder.path().join("minimal").is_file() && folder.path().join("push_file").is_file());
    let lines = std::fs::read_to_string(root().join("examples-c/minimal.c")).unwrap().lines().count();
    assert!(lines <= 40, "minimal.c has {lines} lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_file_passes_the_sanitizers_over_tls() {
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
    let (server, folder, program) = setting(&flags).await;
    let config = configure(&server, folder.path(), true).await;
    let done = push_file(&mut Command::new(&program), &config).await;
    assert!(done.contains("connected to") && done.contains(" 0 frames were left"), "{done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_file_leaves_nothing_behind_under_valgrind() {
    if !is_installed("valgrind", "valgrind") {
        return;
    }
    let (server, folder, program) = setting(&[]).await;
    // Without TLS: ring's assembly reads whole blocks, which valgrind takes for uninitialised memory.
    let config = configure(&server, folder.path(), false).await;
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=all"]).arg(&program);
    let done = push_file(&mut command, &config).await;
    assert!(done.contains("connected to"), "{done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minimal_shows_its_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("minimal");
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    Sdk::find().compile(&root().join("examples-c/minimal.c"), &flags, &program);
    let server = CloudServer::start().await;
    let config = configure(&server, folder.path(), true).await;
    let mut child = Command::new(&program).arg(&config).stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut encoder = child.stdin.take().unwrap();
    let pictures = clip::pictures(Codec::H264, &clip::read("main.h264"));
    for picture in &pictures {
        let octets: Vec<u8> = picture.units.iter().flat_map(|unit| [&[0, 0, 0, 1], unit.as_slice()].concat()).collect();
        encoder.write_all(&u32::try_from(octets.len()).unwrap().to_be_bytes()).await.unwrap();
        encoder.write_all(&octets).await.unwrap();
    }
    let viewer = Viewer::play_again(&server.url("porch", "main"), wait::SOON).await;
    viewer.wait_count(0, 25, wait::SOON).await;
    drop(encoder);
    let status = wait::within("minimal ends", wait::SOON, child.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

async fn setting(flags: &[&str]) -> (CloudServer, tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("push_file");
    Sdk::find().compile(&root().join("examples-c/push_file.c"), flags, &program);
    (CloudServer::start().await, folder, program)
}

async fn configure(server: &CloudServer, folder: &Path, tls: bool) -> PathBuf {
    let token = server.add_agent("porch").await;
    let mut json = server.agent_json("porch", &token, server.addresses().tls);
    if !tls {
        json["agent"]["cloud_server_url"] = format!("ws://{}/agent", server.addresses().http).into();
    }
    let file = folder.join("agent.json");
    std::fs::write(&file, json.to_string()).unwrap();
    file
}

/// Plays the clip for three seconds: what the program and its checker said.
async fn push_file(command: &mut Command, config: &Path) -> String {
    let clips = root().join("tests/data/clips");
    command.arg("--config").arg(config).args(["--seconds", "3", "--video"]).arg(clips.join("main.h264"));
    command.arg("--audio").arg(clips.join("main.aac")).kill_on_drop(true);
    let output = wait::within("push_file ends", Duration::from_secs(120), command.output()).await.unwrap();
    succeeded("push_file", &output)
}
