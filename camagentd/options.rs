//! The command line: four things to do, one of them at a time.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

pub(crate) const USAGE: &str = "\
usage: camagentd --config FILE
       camagentd --config FILE --check-config
       camagentd --help | --version

Runs the edge agent of a configuration file: it dials the server of that file and
keeps dialling, registers its cameras, sends heartbeats with statistics and
answers the command `restart`. Log lines go to standard error. SIGTERM and SIGINT
stop it within a few seconds.

Pictures come from a program that links the library (camagent.h): this version
of the daemon does not fetch them from the camera's RTSP server, and opens no
tunnels. Commands other than `restart` are answered with an error.

  --config FILE    the configuration, JSON; required
  --check-config   read it, print warnings and errors, and end
  --help, -h       print this
  --version, -V    print the version

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
    Run(PathBuf),
}

impl Options {
    /// Reads the arguments behind the program's name. The error says what is not understood.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let (mut file, mut checks) = (None, false);
        while let Some(argument) = arguments.next() {
            let given = match argument.to_str() {
                Some("--help" | "-h") => return Ok(Options::Help),
                Some("--version" | "-V") => return Ok(Options::Version),
                Some("--check-config") => {
                    checks = true;
                    continue;
                }
                Some("--config") => arguments.next().ok_or("--config needs a FILE")?,
                Some(joined) if joined.starts_with("--config=") => joined["--config=".len()..].into(),
                _ => return Err(format!("{argument:?} is not understood")),
            };
            if given.as_os_str() == OsStr::new("") {
                return Err("--config needs a FILE".into());
            }
            if file.replace(PathBuf::from(given)).is_some() {
                return Err("--config is given twice".into());
            }
        }
        let file = file.ok_or("--config FILE is missing")?;
        Ok(if checks { Options::Check(file) } else { Options::Run(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn each_thing_has_its_words() {
        assert_eq!(parse(&["--config", "a"]), Ok(Options::Run("a".into())));
        assert_eq!(parse(&["--config=a"]), Ok(Options::Run("a".into())));
        assert_eq!(parse(&["--check-config", "--config", "a"]), Ok(Options::Check("a".into())));
        assert_eq!(parse(&["--config", "a", "-h"]), Ok(Options::Help));
        assert_eq!(parse(&["--version"]), Ok(Options::Version));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (arguments, named) in [
            (&[][..], "--config FILE"),
            (&["--config"], "needs a FILE"),
            (&["--config="], "needs a FILE"),
            (&["--config", "a", "--config", "b"], "twice"),
            (&["--config", "a", "--loud"], "--loud"),
            (&["--check-config"], "missing"),
        ] {
            let wrong = parse(arguments).unwrap_err();
            assert!(wrong.contains(named), "{wrong}");
        }
    }
}
