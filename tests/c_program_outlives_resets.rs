//! A C program with default signal dispositions lives through 200 abrupt resets of its wss:// connections: SIGPIPE never reaches it.

use std::{process::Stdio, time::Duration};

use camagent_testkit::{
    CloudServer, Link,
    c_library::{Sdk, root, succeeded},
    wait,
};
use tokio::process::Command;

const RESETS: u32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_resets_do_not_kill_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("many_agents");
    Sdk::find().compile(&root().join("tests/c/many_agents.c"), &[], &program);
    let server = CloudServer::start().await;
    let link = Link::to(server.addresses().tls).await;
    let mut command = Command::new(&program);
    command.arg(link.address().port().to_string()).arg(server.pin());
    for number in 0..8 {
        command.arg(server.add_agent(&format!("many-{number}")).await);
    }
    // The harness ignores SIGPIPE, and a child would inherit that: it gets the default back, as a camera's program has it.
    // SAFETY: signal() is async-signal-safe, and nothing else is done between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            Ok(())
        });
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut reset = 0;
    while reset < RESETS {
        let before = link.connections();
        link.reset();
        // Each reset hits what is connected then; the next one waits until somebody has come back and sends again.
        let (seen, sent) = (before, link.carried_upwards());
        wait::until("agents come back", Duration::from_secs(30), || {
            link.connections() > seen && link.carried_upwards() > sent + 40_000
        })
        .await;
        reset += link.connections() - before;
        assert!(child.try_wait().unwrap().is_none(), "the process has died after {reset} resets");
    }
    drop(child.stdin.take());
    let output = wait::within("the program ends", Duration::from_secs(30), child.wait_with_output()).await.unwrap();
    let said = succeeded("many_agents", &output);
    let sessions: u32 = said.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
    assert!(sessions >= RESETS / 2, "{said}");
}
