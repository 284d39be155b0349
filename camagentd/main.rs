//! `camagentd`: the camagent edge agent as a daemon. It runs the agent of one configuration file until SIGTERM or SIGINT.
//!
//! What the agent does is `camagent-core`'s; here are only the command line, the log, the
//! signals, and how an examination is shown.

mod doctor;
mod log;
mod options;
mod signal;

use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use camagent_core::{Agent, CameraConfig, Config, Error, Host, Policy, SOFTWARE, ServiceMode, Trust};

use crate::{
    log::Logger,
    options::{DEFAULT_CONFIG, DOCTOR_USAGE, Options, USAGE},
    signal::{Asked, Signals},
};

/// The command line is not understood.
const EXIT_USAGE: u8 = 2;
/// What a stop grants to frames and events that still wait.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// How soon an agent whose thread has ended is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let done = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Options::Help) => say(USAGE),
        Ok(Options::Version) => say(&format!("camagentd {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Options::Check(file)) => check(&file),
        Ok(Options::Run { config, log_file }) => run(&config, log_file),
        Ok(Options::DoctorHelp) => say(DOCTOR_USAGE),
        Ok(Options::Doctor { config, how, as_json }) => match doctor::run(&config, how, as_json) {
            Ok(true) => Ok(()),
            // The steps above say what failed.
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Err(wrong) => {
            complain(&format!("{wrong}\n`camagentd --help` tells what it understands"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// `--check-config`: what is noticed goes to standard output, what is wrong is the error.
fn check(file: &Path) -> Result<(), String> {
    let config = load(file)?;
    for warning in warnings(&config) {
        say(&format!("warning: {warning}\n"))?;
    }
    let servers: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
    let through = config.proxy.as_ref().map_or(String::new(), |proxy| format!(" through proxy {proxy}"));
    say(&format!("{}: agent {} dials {}{through}\n", file.display(), config.agent_id, servers.join(", then ")))?;
    for camera in &config.cameras {
        say(&describe(camera))?;
    }
    Ok(())
}

fn run(file: &Path, log_file: Option<PathBuf>) -> Result<(), String> {
    let mut config = load(file)?;
    if log_file.is_some() {
        config.log_file.path = log_file;
    }
    let logger = Arc::new(Logger::new(config.log_level, &config.log_file));
    // Before the agent has a thread, so that no thread is left that a signal could end the process in.
    let signals = Signals::block().map_err(|error| format!("cannot wait for signals: {error}"))?;
    logger.info(format_args!("{SOFTWARE}: agent {} with {} camera(s)", config.agent_id, config.cameras.len()));
    let host = Host {
        logger: Some(Arc::clone(&logger) as Arc<dyn ::log::Log>),
        // The agent logs all that it tells a host, and there is nobody else here to tell.
        on_event: Some(Box::new(|_| {})),
        answers_commands: false,
    };
    let done = Agent::start(config, host)
        .map_err(|error| error.to_string())
        .and_then(|agent| attend(&agent, &signals, &logger));
    if let Err(error) = &done {
        // Standard error hears it from `main`; who reads the file is told as well.
        logger.error(format_args!("ends: {error}"));
    }
    done
}

/// Waits for signals while the agent works; returns when it has stopped.
fn attend(agent: &Agent, signals: &Signals, logger: &Logger) -> Result<(), String> {
    let name = loop {
        match signals.wait(LOOK_EVERY) {
            Ok(Some(Asked::Stop(name))) => break name,
            Ok(Some(Asked::Reopen)) => {
                if logger.reopen() {
                    logger.info(format_args!("SIGHUP: the log goes on here"));
                }
            }
            Ok(None) => {
                logger.look();
                agent.check().map_err(|error| error.to_string())?;
            }
            Err(error) => return Err(format!("cannot wait for signals: {error}")),
        }
    };
    logger.info(format_args!("{name}: stopping"));
    let begun = Instant::now();
    let report = agent.stop(STOP_WITHIN).map_err(|error| error.to_string())?;
    if !report.has_ended {
        return Err(format!("the agent did not stop within {} s", begun.elapsed().as_secs()));
    }
    Ok(())
}

fn load(file: &Path) -> Result<Config, String> {
    let config = Config::from_file(file).map_err(|error| advise(file, &error))?;
    if let Trust::CaFile(path) = &config.trust {
        std::fs::File::open(path).map_err(|error| {
            format!("configuration: agent.ca_file is {path:?}, allowed is a file that can be read: {error}")
        })?;
    }
    Ok(config)
}

/// What is wrong, and what to do when it is not something in the file.
fn advise(file: &Path, error: &Error) -> String {
    let Error::Io { source, .. } = error else { return error.to_string() };
    let chosen = match file == Path::new(DEFAULT_CONFIG) {
        true => "It is read where --config names no other file",
        false => "--config names it",
    };
    let advice = match source.kind() {
        ErrorKind::NotFound => "write it, or name the one that there is with --config FILE",
        ErrorKind::PermissionDenied => "let the user that camagentd runs as read it",
        _ => "name a text file with --config FILE",
    };
    format!(
        "{error}. {chosen}: {advice}; the keys it needs are agent.agent_id, agent.cloud_server_url and agent.cloud_server_token"
    )
}

fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = config.warnings.clone();
    for server in config.servers.iter().filter(|server| !server.is_tls()) {
        warnings.push(format!("{server} is not encrypted: use wss:// outside a laboratory"));
    }
    warnings
}

/// A camera in lines for people; never its user or password.
fn describe(camera: &CameraConfig) -> String {
    let sources: Vec<String> =
        camera.sources.iter().map(|source| format!("{} {}", source.name, policy(source.policy))).collect();
    let mut text = format!("camera {}: {}\n", camera.id, sources.join(", "));
    for source in &camera.sources {
        if let Some(path) = &source.path {
            let place = place(&camera.host, camera.rtsp_port);
            text.push_str(&format!("  source {}: rtsp://{place}{path}\n", source.name));
        }
    }
    for service in &camera.services {
        let place = place(&service.host, service.port);
        let mode = match service.mode {
            ServiceMode::Raw => "raw",
            ServiceMode::Shared => "shared",
        };
        text.push_str(&format!("  service {}: {place}, {mode}\n", service.name));
    }
    text
}

/// Host and port as in a URL.
fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Always => "always",
        Policy::OnDemand => "on_demand",
        Policy::Off => "off",
    }
}

fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))
}

fn complain(error: &str) {
    // A closed standard error leaves only the exit code to tell.
    let _ = writeln!(std::io::stderr(), "camagentd: {error}");
}
