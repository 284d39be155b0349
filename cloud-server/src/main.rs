//! `camagent-cloud`: the command line. Reads options and configuration, then serves or edits the database.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use cloud_server::api::data::is_month;
use cloud_server::auth::Auth;
use cloud_server::clock::{self, Clock, rfc3339};
use cloud_server::descriptors;
use cloud_server::error::{Error, Result};
use cloud_server::memory;
use cloud_server::record;
use cloud_server::store::{DataRow, Store, TunnelState};
use cloud_server::tunnel;
use cloud_server::{Config, Server};

/// The server that camagent edge agents dial.
#[derive(Parser)]
#[command(name = "camagent-cloud", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
    /// Show the values in force as TOML and end.
    #[arg(long, global = true)]
    print_config: bool,
}

#[derive(Args)]
struct Options {
    /// The configuration file; without it camagent-cloud.toml of the working folder, if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the plain HTTP listener (listen.http).
    #[arg(long, global = true, value_name = "ADDRESS")]
    host: Option<std::net::IpAddr>,
    /// Port of the plain HTTP listener (listen.http).
    #[arg(long, global = true)]
    port: Option<u16>,
    /// Folder of database, certificate and key (storage.data_dir).
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve; what happens without a command.
    Serve,
    /// Agents that may dial.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Tokens for the HTTP API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show what an agent sent and received in a month, and what for.
    Data {
        /// The agent's id.
        agent: String,
        /// The calendar month (UTC), as 2026-11; the present one without it.
        #[arg(long)]
        month: Option<String>,
    },
    /// Show where the services of all cameras are found on this server.
    Tunnels,
    /// Accounts of viewers, for RTSP.
    #[command(subcommand)]
    Viewer(ViewerCommand),
    /// What was recorded.
    #[command(subcommand)]
    Recordings(RecordingsCommand),
    /// Show the values in force as TOML.
    Config,
    /// Show the description of the HTTP API as JSON.
    Openapi,
}

#[derive(Subcommand)]
enum AgentCommand {
    /// Add an agent and show its token, once.
    Add {
        /// The agent's id.
        id: String,
    },
    /// Show all agents.
    List,
    /// Remove an agent; a running server ends its session within seconds.
    Remove {
        /// The agent's id.
        id: String,
    },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Add an API token and show it, once.
    Add {
        /// What to call it.
        name: String,
    },
    /// Show the names of all API tokens.
    List,
    /// Remove an API token; a running server refuses it at once.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Subcommand)]
enum ViewerCommand {
    /// Add an account and show its secret, once.
    Add {
        /// The user name.
        name: String,
    },
    /// Show the names of all accounts.
    List,
    /// Remove an account; a running server refuses it at once, and ends what it watches within seconds.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Subcommand)]
enum RecordingsCommand {
    /// Show which times of each source are recorded.
    List {
        /// Of this camera only.
        camera: Option<String>,
    },
    /// Verify the invariants of the folder of recordings; say what does not hold.
    Check {
        /// Mend it as well. No server may record into the folder meanwhile.
        #[arg(long)]
        repair: bool,
    },
}

/// How long threads have to end, after everything else did.
const LAST_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    memory::keep_free_pages();
    descriptors::raise_limit();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("no runtime: {error}")),
    };
    let ended = runtime.block_on(run(Cli::parse()));
    // A thread that a disk holds up is not waited for: what it was to write was never told to be safe.
    runtime.shutdown_timeout(LAST_WAIT);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string()),
    }
}

fn complain(error: &str) -> ExitCode {
    // A closed standard error leaves only the exit code to tell.
    let _ = writeln!(std::io::stderr(), "camagent-cloud: {error}");
    ExitCode::FAILURE
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|source| Error::Io { what: "standard output".to_owned(), source })
}

async fn run(cli: Cli) -> Result<()> {
    let config = load(&cli.options)?;
    if cli.print_config {
        return say(config.to_string().trim_end());
    }
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(config).await,
        Command::Agent(command) => agent(&config, command).await,
        Command::Token(command) => token(&config, command).await,
        Command::Data { agent, month } => data(&config, &agent, month).await,
        Command::Tunnels => tunnels(&config).await,
        Command::Recordings(command) => recordings(&config, command).await,
        Command::Viewer(command) => viewer(&config, command).await,
        Command::Config => say(config.to_string().trim_end()),
        Command::Openapi => say(cloud_server::api::openapi::text().trim_end()),
    }
}

fn load(options: &Options) -> Result<Config> {
    let default = PathBuf::from("camagent-cloud.toml");
    let file = options.config.clone().or_else(|| default.exists().then_some(default));
    let mut config = Config::default();
    if let Some(file) = file {
        let loaded = Config::load(&file)?;
        for warning in loaded.warnings {
            let _ = writeln!(std::io::stderr(), "camagent-cloud: {}: {warning}", file.display());
        }
        config = loaded.config;
    }
    if let Some(host) = options.host {
        config.listen.http.set_ip(host);
    }
    if let Some(port) = options.port {
        config.listen.http.set_port(port);
    }
    if let Some(folder) = &options.data_dir {
        config.storage.data_dir.clone_from(folder);
    }
    config.check()?;
    Ok(config)
}

async fn serve(config: Config) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new(format!("warn,cloud_server={0},event={0}", config.log.level))
    });
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut stop = Signals::new()?;
    let server = Server::start(config).await?;
    let addresses = server.addresses();
    let identity = server.identity();
    say(&format!("http:        http://{}", addresses.http))?;
    say(&format!("tls:         https://{}", addresses.tls))?;
    say(&format!("relay:       rtsp://{}/{{camera}}/{{source}}", addresses.rtsp))?;
    say(&format!("certificate: SHA-256 {}", identity.fingerprint()))?;
    if let Some(pin) = identity.pin() {
        say(&format!("pin:         {pin}"))?;
    }
    stop.wait().await;
    server.stop().await;
    Ok(())
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|source| Error::Io { what: "signals".to_owned(), source });
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn agent(config: &Config, command: AgentCommand) -> Result<()> {
    let store = Store::open(&config.storage.data_dir).await?;
    match command {
        AgentCommand::Add { id } => {
            let token = Auth::new(store, Clock::new()).add_agent(&id).await?;
            say(token.reveal())
        }
        AgentCommand::List => {
            for row in store.agents().await? {
                let seen = row.seen_us.map_or_else(|| "never".to_owned(), rfc3339);
                say(&format!("{}\tadded {}\tseen {seen}", row.id, rfc3339(row.created_us)))?;
            }
            Ok(())
        }
        AgentCommand::Remove { id } => store.remove_agent(&id).await,
    }
}

async fn token(config: &Config, command: TokenCommand) -> Result<()> {
    let store = Store::open(&config.storage.data_dir).await?;
    match command {
        TokenCommand::Add { name } => {
            let token = Auth::new(store, Clock::new()).add_token(&name).await?;
            say(token.reveal())
        }
        TokenCommand::List => {
            for row in store.tokens().await? {
                say(&format!("{}\tadded {}", row.name, rfc3339(row.created_us)))?;
            }
            Ok(())
        }
        TokenCommand::Remove { name } => store.remove_token(&name).await,
    }
}

async fn viewer(config: &Config, command: ViewerCommand) -> Result<()> {
    let store = Store::open(&config.storage.data_dir).await?;
    match command {
        ViewerCommand::Add { name } => {
            let secret = Auth::new(store, Clock::new()).add_viewer(&name, cloud_server::rtsp::digest::ha1).await?;
            say(secret.reveal())
        }
        ViewerCommand::List => {
            for row in store.viewers().await? {
                say(&format!("{}\tadded {}", row.name, rfc3339(row.created_us)))?;
            }
            Ok(())
        }
        ViewerCommand::Remove { name } => store.remove_viewer(&name).await,
    }
}

/// A line for each cause, and their sum.
async fn data(config: &Config, agent: &str, month: Option<String>) -> Result<()> {
    let month = month.unwrap_or_else(|| clock::month(Clock::new().utc_us()));
    if !is_month(&month) {
        return Err(Error::Refused(format!("{month:?} is no month: as 2026-11")));
    }
    let store = Store::open(&config.storage.data_dir).await?;
    if !store.has_agent(agent).await? {
        return Err(Error::Refused(format!("there is no agent \"{agent}\"")));
    }
    let rows = store.data(agent, &month).await?;
    let total = DataRow::total(&rows);
    for row in rows {
        let camera = if row.camera.is_empty() { "-" } else { &row.camera };
        let (kind, part) = row.cause.split_once(':').unwrap_or((&row.cause, "-"));
        say(&format!("{camera}\t{kind}\t{part}\t{}", row.octets))?;
    }
    say(&format!("-\ttotal\t{month}\t{total}"))
}

async fn recordings(config: &Config, command: RecordingsCommand) -> Result<()> {
    let Some(folder) = &config.recordings.path else {
        return Err(Error::Config("recordings.path is not set: nothing is recorded".to_owned()));
    };
    let clock = Clock::new();
    match command {
        RecordingsCommand::Check { repair } => {
            let report = record::check::check(folder, repair, clock).await?;
            for problem in &report.problems {
                say(problem)?;
            }
            say(&format!(
                "files {} frames {} problems {} mended {}",
                report.files,
                report.frames,
                report.problems.len(),
                report.mended
            ))?;
            match report.problems.len() - report.mended.min(report.problems.len()) {
                0 => Ok(()),
                left => Err(Error::Refused(format!("{left} problems are left; --repair mends what can be mended"))),
            }
        }
        RecordingsCommand::List { camera } => {
            let mends = "a start of the server, or `camagent-cloud recordings check --repair`, makes it anew";
            let index = match record::index::Index::look(folder).await {
                Ok(Some(index)) => index,
                Ok(None) => return Err(Error::Refused(format!("{} has no index; {mends}", folder.display()))),
                Err(error) => return Err(Error::Refused(format!("{error}; {mends}"))),
            };
            if !index.is_complete().await? {
                let folder = folder.display();
                return Err(Error::Refused(format!("the index of {folder} was not filled to its end; {mends}")));
            }
            let mut rows = index.all().await?;
            rows.retain(|row| camera.as_ref().is_none_or(|camera| row.camera == *camera));
            rows.sort_by_key(|row| (row.camera.clone(), row.source.clone(), row.start_us()));
            for row in &rows {
                let (from, to) = (rfc3339(row.start_us()), rfc3339(row.end_us()));
                say(&format!(
                    "{}/{}\t{}\t{from}\t{to}\t{}\t{}",
                    row.camera, row.source, row.codec, row.bytes, row.name
                ))?;
            }
            Ok(())
        }
    }
}

/// A line for each URL; columns are as wide as their longest word.
async fn tunnels(config: &Config) -> Result<()> {
    let store = Store::open(&config.storage.data_dir).await?;
    let mut lines = vec![["CAMERA", "SERVICE", "STATE", "URL"].map(str::to_owned)];
    for row in store.tunnels().await? {
        let address = tunnel::address(&row, &config.tunnels);
        let urls = address.map(|address| tunnel::urls(&row, address)).unwrap_or_default();
        // Whether the server is there, its own port tells: what nobody holds nobody answers.
        let is_free = address.is_some_and(|address| std::net::TcpListener::bind(address).is_ok());
        let state = match row.state {
            TunnelState::Listening if is_free => "not running".to_owned(),
            state => state.word().to_owned(),
        };
        let reason = row.reason.filter(|_| row.state == TunnelState::Blocked);
        let mut urls = if urls.is_empty() { vec!["-".to_owned()] } else { urls };
        if let Some((reason, last)) = reason.zip(urls.last_mut()) {
            last.push_str(&format!("  ({reason})"));
        }
        lines.extend(urls.into_iter().map(|url| [row.camera.clone(), row.service.clone(), state.clone(), url]));
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let (camera, service, state) = (width(0), width(1), width(2));
    for line in &lines {
        say(&format!("{:camera$}  {:service$}  {:state$}  {}", line[0], line[1], line[2], line[3]))?;
    }
    if lines.len() == 1 {
        say("No agent has offered a service of a camera yet; \"services\" of its configuration names them.")?;
    }
    Ok(())
}
