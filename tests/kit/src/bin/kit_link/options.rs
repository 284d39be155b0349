//! The command line of `camagent-kit-link`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use camagent_testkit::emulator::{Change, Setting, Setup, split_way, time};

pub(crate) const HELP: &str = "\
usage: cargo xtask link [OPTIONS] [-- COMMAND…]

Runs COMMAND as a camera behind an emulated uplink, prints what went over the link, and ends as COMMAND did. Everything
is inside network namespaces that go with it. Needs root and iproute2. Without COMMAND the link stays until Ctrl-C.

addresses: COMMAND has 192.168.77.108 and reaches 203.0.113.2 (and all of 203.0.113.0/24) over the link. That far end
sees it as 198.51.100.1, after a change of address as 198.51.100.2 and so on. There are no names: write addresses. Each
program finds them in CAMAGENT_LINK_FAR, CAMAGENT_LINK_NEAR and CAMAGENT_LINK_OUTSIDE.

  --far COMMAND          run this shell command at the far end: servers whose delays are measured belong there
  --far-ready PORT       COMMAND starts when the far end accepts connections at this TCP port (30 s at most)
  --relay PORT[=A:PORT]  203.0.113.2:PORT is carried to 127.0.0.1:PORT of this machine, or to that address. TCP only

  --profile NAME         a link with a name; --list-profiles shows them. Without: no limit, no delay, no loss
  --rate BITS            bits a second of IP packets: 2M, 700k, none; 0 stands still
  --delay TIME           one way: 30ms        --jitter TIME      up to so much more; packets keep their order
  --loss PART[/LENGTH]   1% each packet by itself; 1%/5 the same in bursts of five packets in the mean
  --reorder PART[/TIME]  so many packets are held back by TIME (10ms)
  --duplicate PART       so many come twice   --queue OCTETS     the modem's queue: 250k
                         each for both ways, or for one: --rate-up 2M --loss-down 1%. They change the profile
  --at TIME CHANGE       at this time, any of rate=, loss-up=, … as above, and
                         black-hole[=all|known|oldest|newest]    swallows these connections without a word
                         heal                                    ends every black hole
                         reset[=all|oldest|newest]               RST to both ends of these TCP connections
                         address[=lost|renumbered]               the camera's address changes; old connections are
                                                                 swallowed, or continue under the new one
  --seed NUMBER          the same seed, the same losses (0)
  --for TIME             ends COMMAND after this time (1h)
  --json FILE            writes the counters as JSON too
  --list-profiles        shows the profiles

example: a link whose radio goes away for ten seconds
  cargo xtask link --profile lte --relay 8443 --at 20s black-hole --at 30s heal -- camagentd --config camera.json
";

/// A TCP port of the far end and where it is carried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    pub(crate) target: SocketAddr,
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) setup: Setup,
    pub(crate) command: Vec<String>,
    pub(crate) far: Option<String>,
    pub(crate) far_ready: Option<u16>,
    pub(crate) relays: Vec<Relay>,
    pub(crate) longest: Duration,
    pub(crate) json: Option<PathBuf>,
}

/// Something else than a link.
#[derive(Debug)]
pub(crate) enum Request {
    Help,
    Profiles,
    Link(Box<Options>),
}

/// Reads the command line; the error says which word is wrong.
pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Request, String> {
    let mut options = Options {
        setup: Setup::default(),
        command: Vec::new(),
        far: None,
        far_ready: None,
        relays: Vec::new(),
        longest: Duration::from_secs(3_600),
        json: None,
    };
    let mut settings = Vec::new();
    let mut words = arguments.into_iter();
    while let Some(name) = words.next() {
        match name.as_str() {
            "-h" | "--help" => return Ok(Request::Help),
            "--list-profiles" => return Ok(Request::Profiles),
            "--" => {
                options.command = words.collect();
                if options.command.is_empty() {
                    return Err("after -- stands the command".into());
                }
                break;
            }
            _ => {}
        }
        let Some(option) = name.strip_prefix("--") else {
            return Err(format!("`{name}` is not understood; the command stands after --"));
        };
        let mut value = || words.next().ok_or_else(|| format!("{name} is not understood, or needs a value"));
        let told = |problem: String| format!("{name}: {problem}");
        match option {
            "profile" => {
                let Setup { up, down, .. } = Setup::profile(&value()?)?;
                (options.setup.up, options.setup.down) = (up, down);
            }
            "far" => options.far = Some(value()?),
            "far-ready" => options.far_ready = Some(port(&value()?).map_err(told)?),
            "relay" => options.relays.push(relay(&value()?).map_err(told)?),
            "at" => {
                let (at, change) = (time(&value()?).map_err(told)?, Change::read(&value()?).map_err(told)?);
                options.setup.script.push((at, change));
            }
            "seed" => {
                let text = value()?;
                options.setup.seed = text.parse().map_err(|_| format!("{name}: `{text}` is no number"))?;
            }
            "for" => options.longest = time(&value()?).map_err(told)?,
            "json" => options.json = Some(value()?.into()),
            _ => {
                let (setting, way) = split_way(option);
                if !Setting::NAMES.contains(&setting) {
                    return Err(format!("{name} is not understood"));
                }
                settings.push((way, Setting::read(setting, &value()?).map_err(told)?));
            }
        }
    }
    // Whatever the order, they change the profile.
    settings.into_iter().for_each(|(way, setting)| options.setup.set(way, setting));
    Ok(Request::Link(Box::new(options)))
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("`{text}` is no port"))
}

fn relay(text: &str) -> Result<Relay, String> {
    let Some((own, target)) = text.split_once('=') else {
        let port = port(text)?;
        return Ok(Relay { port, target: SocketAddr::from(([127, 0, 0, 1], port)) });
    };
    let target = target.parse().map_err(|_| format!("`{target}`: after = stands ADDRESS:PORT"))?;
    Ok(Relay { port: port(own)?, target })
}

#[cfg(test)]
mod tests {
    use camagent_testkit::emulator::{Flows, Way};

    use super::*;

    fn read_line(line: &str) -> Result<Request, String> {
        read(line.split_whitespace().map(str::to_owned))
    }

    fn options(line: &str) -> Options {
        match read_line(line).unwrap() {
            Request::Link(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_change_the_profile_whatever_their_order() {
        let read = options("--rate-up 3M --profile lte --loss 2% --delay-down 7ms --seed 9 -- curl --help");
        let lte = Setup::profile("lte").unwrap();
        assert_eq!((read.setup.up.rate, read.setup.down.rate), (Some(3_000_000), lte.down.rate));
        assert_eq!((read.setup.up.delay, read.setup.down.delay), (lte.up.delay, Duration::from_millis(7)));
        assert_eq!(read.setup.up.loss, read.setup.down.loss);
        assert_eq!((read.setup.seed, read.command), (9, vec!["curl".to_owned(), "--help".to_owned()]));
    }

    #[test]
    fn scripts_and_relays_are_read() {
        let read = options("--at 5s rate-up=1M --at 20s black-hole=oldest --relay 8443 --relay 80=10.0.0.1:8080");
        let Change::Set(Some(Way::Up), Setting::Rate(Some(1_000_000))) = read.setup.script[0].1 else {
            panic!("{:?}", read.setup.script)
        };
        assert_eq!(read.setup.script[1], (Duration::from_secs(20), Change::BlackHole(Flows::Oldest)));
        let targets: Vec<_> = read.relays.iter().map(|relay| (relay.port, relay.target.to_string())).collect();
        assert_eq!(targets, [(8443, "127.0.0.1:8443".to_owned()), (80, "10.0.0.1:8080".to_owned())]);
        assert!(read.command.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("curl", "after --"),
            ("--", "command"),
            ("--profile isdn", "dsl-2m-bloat"),
            ("--bandwidth 3", "--bandwidth"),
            ("--rate-up", "--rate-up"),
            ("--rate-up quick", "quick"),
            ("--at 5s", "--at"),
            ("--at 5s nothing=1", "black-hole"),
            ("--relay 0", "no port"),
            ("--relay 80=there", "there"),
            ("--seed x", "`x`"),
        ] {
            let problem = read_line(line).unwrap_err();
            assert!(problem.contains(part), "{line}: {problem}");
        }
        assert!(matches!(read_line("--help"), Ok(Request::Help)));
        assert!(matches!(read_line("--list-profiles"), Ok(Request::Profiles)));
    }
}
