//! The command line: four things to do, one of them at a time.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use camagent_core::DEFAULT_LOG_FILE;

/// Where the configuration lies when nobody says otherwise.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/camera_agent/config.json";

pub(crate) const USAGE: &str = "\
usage: camagentd [--config FILE] [--log-file [FILE]]
       camagentd [--config FILE] --check-config
       camagentd --help | --version

Runs the edge agent of a configuration file: it dials the server of that file and
keeps dialling, registers its cameras, sends heartbeats with statistics and
answers the command `restart`. One process serves all cameras of the file.
SIGTERM and SIGINT stop it within a few seconds.

  --config FILE      the configuration, JSON; default /etc/camera_agent/config.json
  --check-config     read it, print what it means and what is wrong, and end
  --log-file [FILE]  write the log there instead of standard error, rotated by size;
                     default /var/log/camera_agent/agent.log. SIGHUP opens it again.
                     The key agent.log_file of the configuration does the same
  --help, -h         print this
  --version, -V      print the version

exit codes: 0 done or stopped, 1 failed, 2 the command line is wrong
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
                Some("--check-config") => checks = true,
                Some("--config") => set(&mut config, "--config", arguments.next().unwrap_or_default())?,
                Some("--log-file") => {
                    let named = arguments.next_if(|next| !next.as_encoded_bytes().starts_with(b"-"));
                    set(&mut log_file, "--log-file", named.unwrap_or_else(|| DEFAULT_LOG_FILE.into()))?;
                }
                Some(joined) => match joined.split_once('=') {
                    Some(("--config", file)) => set(&mut config, "--config", file.into())?,
                    Some(("--log-file", file)) => set(&mut log_file, "--log-file", file.into())?,
                    _ => return Err(format!("{argument:?} is not understood")),
                },
                None => return Err(format!("{argument:?} is not understood")),
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
        ] {
            let wrong = parse(arguments).unwrap_err();
            assert!(wrong.contains(named), "{wrong}");
        }
    }
}
