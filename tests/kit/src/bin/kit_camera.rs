//! `camagent-kit-camera`: the kit's camera as a program, for demonstrations and for trying the product by hand.

use std::net::SocketAddr;
use std::process::ExitCode;

use camagent_testkit::rtsp_camera::{MAIN, SNAPSHOT, SUB, Setup, THIRD};

const HELP: &str = "\
usage: camagent-kit-camera [--rtsp ADDR:PORT] [--http ADDR:PORT] [--user NAME] [--password TEXT]

A camera with synthetic pictures, in real time, with the paths of a Dahua camera:
  /cam/realmonitor?channel=1&subtype=0   H.265 and G.711 A-law
  /cam/realmonitor?channel=1&subtype=1   H.264 and AAC
  /cam/realmonitor?channel=1&subtype=2   G.711 mu-law alone
  /cgi-bin/snapshot.cgi                  a JPEG, over HTTP
Digest authentication. Addresses are 127.0.0.1 with a free port when they are not given; user admin, password admin-pass.
Prints one line `rtsp ADDR:PORT`, one line `http ADDR:PORT` and its URLs, and runs until SIGINT or SIGTERM.
";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people and scripts")]
async fn main() -> ExitCode {
    let setup = match read(std::env::args().skip(1)) {
        Ok(Some(setup)) => setup,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprint!("camagent-kit-camera: {problem}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let mut camera = match setup.start().await {
        Ok(camera) => camera,
        Err(error) => {
            eprintln!("camagent-kit-camera: cannot listen: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("rtsp {}\nhttp {}", camera.rtsp_address(), camera.http_address());
    for path in [MAIN, SUB, THIRD] {
        println!("{}", camera.url(path));
    }
    println!("http://{}{SNAPSHOT}", camera.http_address());
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(error) => {
            eprintln!("camagent-kit-camera: {error}");
            return ExitCode::FAILURE;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    camera.stop().await;
    ExitCode::SUCCESS
}

/// `None` for help; the error says what is not understood.
fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Setup>, String> {
    let mut setup = Setup::default();
    let (mut user, mut password) = (String::from("admin"), String::from("admin-pass"));
    while let Some(name) = arguments.next() {
        if name == "--help" || name == "-h" {
            return Ok(None);
        }
        let value = arguments.next().ok_or_else(|| format!("{name} is not understood, or needs a value"))?;
        let address = || value.parse::<SocketAddr>().map_err(|_| format!("{name} {value}: ADDR:PORT is expected"));
        match name.as_str() {
            "--rtsp" => setup = setup.rtsp(address()?),
            "--http" => setup = setup.http(address()?),
            "--user" => user = value,
            "--password" => password = value,
            _ => return Err(format!("{name} is not understood")),
        }
    }
    Ok(Some(setup.account(&user, &password)))
}
