//! The command line: five things to do, one of them at a time.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use camagent_core::{DEFAULT_LOG_FILE, Examination};

/// Where the configuration lies when nobody says otherwise.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/camera_agent/config.json";

pub(crate) const USAGE: &str = "\
usage: camagentd [--config FILE] [--log-file [FILE]]
       camagentd [--config FILE] --check-config
       camagentd doctor [--config FILE] [--json] [--register] [--wait SECONDS]
       camagentd --help | --version

Runs the edge agent of a configuration file: it dials the server of that file and
keeps dialling, registers its cameras, fetches their streams from their RTSP servers,
and lets the server reach their services, those that the file names and no others.
One process serves all cameras of the file. SIGTERM and SIGINT stop it within a few
seconds.

  --config FILE      the configuration, JSON; default /etc/camera_agent/config.json
  --check-config     read it, print what it means and what is wrong, and end
  --log-file [FILE]  write the log there instead of standard error, rotated by size;
                     default /var/log/camera_agent/agent.log. SIGHUP opens it again.
                     The key agent.log_file of the configuration does the same
  doctor             look why nothing arrives; `camagentd doctor --help` says more
  --help, -h         print this
  --version, -V      print the version

exit codes: 0 done or stopped, 1 failed, 2 the command line is wrong
";

pub(crate) const DOCTOR_USAGE: &str = "\
usage: camagentd doctor [--config FILE] [--json] [--register] [--wait SECONDS]

Goes the agent's way step by step and prints of each step how it is, what was
measured and what to do: configuration, clock, name lookup, TCP, TLS, WebSocket with
version and token, round trip; then each camera's RTSP server, its codecs and key
frames, and each service that tunnels lead to. A step takes 10 s at most.

A running agent of the same id keeps its session: the examination ends before it would
register. Whether the server takes the cameras' ids is therefore not looked at, unless
--register says so: then a running agent loses its session for up to a minute.

  --config FILE    the configuration, JSON; default /etc/camera_agent/config.json
  --json           print one JSON object instead of lines
  --register       register a session too; better stop the running agent before
  --wait SECONDS   what a step may take, 1 to 300; default 10
  --help, -h       print this

exit codes: 0 all is well, or there are warnings only; 1 something failed;
2 the command line is wrong
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Options {
    Help,
    Version,
    /// Read this file and say what is wrong with it.
    Check(PathBuf),
    /// Run the agent of this file.
    Run {
        config: PathBuf,
        /// The log file that was named here, which counts more than the configuration's.
        log_file: Option<PathBuf>,
    },
    DoctorHelp,
    /// Look why nothing arrives.
    Doctor {
        config: PathBuf,
        how: Examination,
        as_json: bool,
    },
}

impl Options {
    /// Reads the arguments behind the program's name. The error says what is not understood.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter().peekable();
        let (mut config, mut log_file, mut checks) = (None, None, false);
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--help" | "-h") => return Ok(Options::Help),
                Some("--version" | "-V") => return Ok(Options::Version),
                Some("doctor") if log_file.is_none() && !checks => return Self::parse_doctor(config, arguments),
                Some("--check-config") => checks = true,
                Some("--config") => set(&mut config, "--config", arguments.next().unwrap_or_default())?,
                Some("--log-file") => {
                    let named = arguments.next_if(|next| !next.as_encoded_bytes().starts_with(b"-"));
                    set(&mut log_file, "--log-file", named.unwrap_or_else(|| DEFAULT_LOG_FILE.into()))?;
                }
                Some(joined) => match joined.split_once('=') {
                    Some(("--config", file)) => set(&mut config, "--config", file.into())?,
                    Some(("--log-file", file)) => set(&mut log_file, "--log-file", file.into())?,
                    _ => return Err(not_understood(&argument)),
                },
                None => return Err(not_understood(&argument)),
            }
        }
        let config = config.unwrap_or_else(|| DEFAULT_CONFIG.into());
        match (checks, log_file) {
            (true, Some(_)) => Err("--log-file does not go together with --check-config".into()),
            (true, None) => Ok(Options::Check(config)),
            (false, log_file) => Ok(Options::Run { config, log_file }),
        }
    }
}

impl Options {
    /// What follows `doctor`; the file may have been named before it.
    fn parse_doctor(
        mut config: Option<PathBuf>,
        mut arguments: impl Iterator<Item = OsString>,
    ) -> Result<Self, String> {
        let (mut how, mut as_json) = (Examination::default(), false);
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--help" | "-h") => return Ok(Options::DoctorHelp),
                Some("--json") => as_json = true,
                Some("--register") => how.register = true,
                Some("--wait") => how.patience = seconds(&arguments.next().unwrap_or_default())?,
                Some("--config") => set(&mut config, "--config", arguments.next().unwrap_or_default())?,
                Some(joined) => match joined.split_once('=') {
                    Some(("--config", file)) => set(&mut config, "--config", file.into())?,
                    Some(("--wait", number)) => how.patience = seconds(OsStr::new(number))?,
                    _ => return Err(not_understood(&argument)),
                },
                None => return Err(not_understood(&argument)),
            }
        }
        Ok(Options::Doctor { config: config.unwrap_or_else(|| DEFAULT_CONFIG.into()), how, as_json })
    }
}

fn not_understood(argument: &OsStr) -> String {
    format!("{argument:?} is not understood")
}

fn seconds(text: &OsStr) -> Result<Duration, String> {
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| (1..=300).contains(number));
    number.map(Duration::from_secs).ok_or_else(|| format!("--wait is {text:?}, allowed is 1 to 300 seconds"))
}

/// Takes the value of an option that may be given once.
fn set(slot: &mut Option<PathBuf>, option: &str, given: OsString) -> Result<(), String> {
    if given.as_os_str() == OsStr::new("") {
        return Err(format!("{option} needs a FILE"));
    }
    if slot.replace(given.into()).is_some() {
        return Err(format!("{option} is given twice"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    fn run(config: &str, log_file: Option<&str>) -> Result<Options, String> {
        Ok(Options::Run { config: config.into(), log_file: log_file.map(PathBuf::from) })
    }

    #[test]
    fn each_thing_has_its_words() {
        assert_eq!(parse(&[]), run(DEFAULT_CONFIG, None));
        assert_eq!(parse(&["--config", "a"]), run("a", None));
        assert_eq!(parse(&["--config=a"]), run("a", None));
        assert_eq!(parse(&["--check-config", "--config", "a"]), Ok(Options::Check("a".into())));
        assert_eq!(parse(&["--check-config"]), Ok(Options::Check(DEFAULT_CONFIG.into())));
        assert_eq!(parse(&["--log-file", "b", "--config", "a"]), run("a", Some("b")));
        assert_eq!(parse(&["--log-file=b"]), run(DEFAULT_CONFIG, Some("b")));
        assert_eq!(parse(&["--log-file", "--config", "a"]), run("a", Some(DEFAULT_LOG_FILE)));
        assert_eq!(parse(&["--log-file"]), run(DEFAULT_CONFIG, Some(DEFAULT_LOG_FILE)));
        assert_eq!(parse(&["--config", "a", "-h"]), Ok(Options::Help));
        assert_eq!(parse(&["--version"]), Ok(Options::Version));
        let config = PathBuf::from(DEFAULT_CONFIG);
        let how = Examination::default();
        assert_eq!(parse(&["doctor"]), Ok(Options::Doctor { config: config.clone(), how, as_json: false }));
        let how = Examination { register: true, patience: Duration::from_secs(3) };
        let all = ["doctor", "--json", "--register", "--wait", "3", "--config", DEFAULT_CONFIG];
        assert_eq!(parse(&all), Ok(Options::Doctor { config, how, as_json: true }));
        let doctor =
            |config: &str| Options::Doctor { config: config.into(), how: Examination::default(), as_json: false };
        assert_eq!(parse(&["--config", "a", "doctor"]), Ok(doctor("a")));
        assert_eq!(parse(&["doctor", "--json", "--help"]), Ok(Options::DoctorHelp));
        assert!(DOCTOR_USAGE.contains(DEFAULT_CONFIG));
        assert!(USAGE.contains(DEFAULT_CONFIG) && USAGE.contains(DEFAULT_LOG_FILE));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (arguments, named) in [
            (&["--config"][..], "--config needs a FILE"),
            (&["--config="], "--config needs a FILE"),
            (&["--log-file="], "--log-file needs a FILE"),
            (&["--config", "a", "--config", "b"], "twice"),
            (&["--config", "a", "--loud"], "--loud"),
            (&["--check-config", "--log-file"], "does not go together"),
            (&["a"], "\"a\" is not understood"),
            (&["--json", "doctor"], "\"--json\" is not understood"),
            (&["doctor", "--check-config"], "--check-config"),
            (&["--check-config", "doctor"], "\"doctor\" is not understood"),
            (&["--config", "a", "doctor", "--config", "b"], "twice"),
            (&["doctor", "--wait", "soon"], "--wait is \"soon\", allowed is 1 to 300"),
        ] {
            let wrong = parse(arguments).unwrap_err();
            assert!(wrong.contains(named), "{wrong}");
        }
    }
}
