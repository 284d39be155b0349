//! Tunnels side by side: camagent and what people use today, everybody encrypted, in one run and in turn, so that what
//! the machine does meanwhile falls on all of them alike.
//!
//! A contender's two ends, the camera's service and its visitors share the machine and loopback: the numbers tell what
//! the programs cost, not what a network does. They share a network namespace, in which TCP is what Linux ships (CUBIC), and
//! in another section BBR, which a host may have chosen: it spreads what is sent by a timer, at a cost for everybody that
//! would hide the programs' own.

mod source;
mod visitor;

use std::collections::BTreeMap;
use std::time::Duration;

use camagent_testkit::netns::Namespace;
use serde_json::{Value, json};

use crate::page::Measured;
use crate::programs::{ALL, Contender, Ground, Place, Service, Tunnel, Usage};

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Amount {
    /// Rounds in which everybody has a turn.
    pub(crate) rounds: usize,
    /// How long each load lasts.
    pub(crate) length: Duration,
    /// Only this contender.
    pub(crate) only: Option<String>,
    /// What the host's TCP does by default.
    pub(crate) host: Host,
}

/// A host's default of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Cubic,
    Bbr,
}

impl Host {
    /// Its name for the kernel.
    fn congestion_control(self) -> &'static str {
        match self {
            Host::Cubic => "cubic",
            Host::Bbr => "bbr",
        }
    }

    fn bench(self) -> &'static str {
        match self {
            Host::Cubic => "tunnel",
            Host::Bbr => "tunnel-bbr",
        }
    }
}

/// The kernel's setting, of the namespace of who asks.
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Streams at once, in the second of the two throughput loads.
const MANY: usize = 20;
/// Visitors, one after the other, for the connect time.
const CONNECTS: usize = 100;

/// What is measured, with its unit, in the order of the table.
const METRICS: &[(&str, &str, &str)] = &[
    ("throughput_1", "MB/s", "one stream, MB/s"),
    ("throughput_20", "MB/s", "20 streams together, MB/s"),
    ("requests", "1/s", "requests a second, a connection each"),
    ("connect_p50", "ms", "connect to first octet, median, ms"),
    ("cpu_agent_1", "s/GB", "agent's side, CPU s per GB, one stream"),
    ("cpu_server_1", "s/GB", "server's side, CPU s per GB, one stream"),
    ("cpu_agent_20", "s/GB", "agent's side, CPU s per GB, 20 streams"),
    ("cpu_server_20", "s/GB", "server's side, CPU s per GB, 20 streams"),
    ("memory_agent", "MB", "agent's side, peak memory, MB"),
    ("memory_server", "MB", "server's side, peak memory, MB"),
];

/// Values of each contender and metric, one of each round.
type Values = BTreeMap<(&'static str, &'static str), Vec<f64>>;

/// Measures everybody who is there; and whether that may be kept: everybody is, on the host that was asked for.
pub(crate) fn run(amount: &Amount) -> Result<(Measured, bool), String> {
    let wanted = amount.host.congestion_control();
    let namespace = match Namespace::make("tunnel") {
        Ok(namespace) => namespace,
        Err(error) => {
            crate::note(&format!("no network namespace can be made, so TCP is as this machine has it: {error}"));
            return side_by_side(amount).map(|(measured, _)| (measured, false));
        }
    };
    namespace.within(|| {
        let set = std::fs::write(CONGESTION_CONTROL, wanted);
        if let Err(error) = &set {
            crate::note(&format!(
                "TCP is as this machine has it: {CONGESTION_CONTROL} does not take {wanted}: {error}"
            ));
        }
        let (measured, is_whole) = side_by_side(amount)?;
        Ok((measured, is_whole && set.is_ok()))
    })
}

fn side_by_side(amount: &Amount) -> Result<(Measured, bool), String> {
    let certificates = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let ground = Ground::make(certificates.path())?;
    let source = source::start().map_err(|error| format!("the source: {error}"))?;
    let service = Service { name: "bench", source };
    let busy = crate::load_average();
    let (mut present, mut people) = (Vec::new(), Vec::new());
    for contender in ALL.iter().filter(|contender| amount.only.as_deref().is_none_or(|only| only == contender.who)) {
        match (contender.introduce)(&ground) {
            Ok(introduction) => {
                present.push(contender);
                people.push((contender.who, introduction));
            }
            Err(why) => {
                crate::note(&format!("{} does not take part: {why}", contender.who));
                people.push((contender.who, format!("{} did not take part: {why}", contender.who)));
            }
        }
    }
    let mut values = Values::new();
    for round in 0..amount.rounds {
        // Each begins a round once, so that none is always the first.
        for turn in 0..present.len() {
            let contender = present[(round + turn) % present.len()];
            let suite = measure(contender, &ground, &service, amount.length, &mut values)
                .map_err(|error| format!("{} in round {}: {error}", contender.who, round + 1))?;
            if let (0, Some(person)) = (round, people.iter_mut().find(|(who, _)| *who == contender.who)) {
                person.1 = format!("{}{suite}", person.1);
            }
        }
    }
    Ok((measured(&present, &people, amount, &busy, values), present.len() == ALL.len()))
}

/// One turn of one contender: the suite that was negotiated.
fn measure(
    contender: &'static Contender,
    ground: &Ground,
    service: &Service,
    length: Duration,
    values: &mut Values,
) -> Result<String, String> {
    let mut tunnel = (contender.start)(ground, &Place::LOOPBACK, std::slice::from_ref(service))?;
    let door = tunnel.doors[0];
    tunnel.wait(|| visitor::ask(door).map(drop))?;
    // What the programs said last is gone with their folder.
    load(contender, ground, &tunnel, length, values)
        .map_err(|error| format!("{error}; {}; {}", tunnel.server.last_words(), tunnel.agent.last_words()))
}

/// All loads, one after the other.
fn load(
    contender: &'static Contender,
    ground: &Ground,
    tunnel: &Tunnel,
    length: Duration,
    values: &mut Values,
) -> Result<String, String> {
    let (who, door) = (contender.who, tunnel.doors[0]);
    let suite = (contender.suite)(ground, tunnel);
    let suite = suite.map(|suite| format!(" {suite}")).unwrap_or_default();
    let mut put = |metric, value: f64| values.entry((who, metric)).or_default().push(value);
    put("connect_p50", visitor::first_octet(door, CONNECTS)?.as_secs_f64() * 1_000.0);
    let (requests, failed) = visitor::requests(door, length);
    if failed > 0 {
        crate::note(&format!("{who}: {failed} requests were not answered"));
    }
    put("requests", requests);
    for (count, throughput, cpu_agent, cpu_server) in
        [(1, "throughput_1", "cpu_agent_1", "cpu_server_1"), (MANY, "throughput_20", "cpu_agent_20", "cpu_server_20")]
    {
        let sample = || (tunnel.agent.usage(), tunnel.server.usage());
        let carried = visitor::streams(door, count, length, sample)?;
        let gigabytes = carried.octets as f64 / 1e9;
        let ((agent_before, server_before), (agent, server)) = carried.samples;
        put(throughput, gigabytes * 1_000.0 / carried.time.as_secs_f64());
        put(cpu_agent, (agent.cpu_s - agent_before.cpu_s) / gigabytes);
        put(cpu_server, (server.cpu_s - server_before.cpu_s) / gigabytes);
    }
    let megabytes = |usage: Usage| usage.peak_memory as f64 / 1e6;
    put("memory_agent", megabytes(tunnel.agent.usage()));
    put("memory_server", megabytes(tunnel.server.usage()));
    Ok(suite)
}

fn measured(
    present: &[&Contender],
    people: &[(&str, String)],
    amount: &Amount,
    busy: &str,
    mut values: Values,
) -> Measured {
    let (mut rows, mut shown) = (Vec::new(), Vec::new());
    for (metric, unit, words) in METRICS {
        let mut line = json!({ "metric": words });
        for contender in present {
            let Some(all) = values.get_mut(&(contender.who, *metric)) else { continue };
            all.sort_by(f64::total_cmp);
            let (value, min, max) = (median(all), all[0], all[all.len() - 1]);
            line[contender.who] = format!("{} ({}–{})", short(value), short(min), short(max)).into();
            rows.push(json!({
                "bench": amount.host.bench(), "who": contender.who, "peer": contender.is_peer, "metric": metric, "unit": unit,
                "value": rounded(value), "min": rounded(min), "max": rounded(max), "rounds": all.len(),
            }));
        }
        shown.push(line);
    }
    let people: Vec<_> = people.iter().map(|(_, introduction)| introduction.as_str()).collect();
    let congestion_control = std::fs::read_to_string(CONGESTION_CONTROL).unwrap_or_default();
    let text = format!(
        "From the camera's TCP service to its visitors, over loopback, everybody encrypted: the service, both ends of the \
         tunnel and the visitors share the machine. Median (least–most) of {} rounds in turn, {} s for each load, after \
         both ends were started anew; requests come from 8 visitors at once, each over a new connection; CPU and memory \
         are those of the processes and their children. What nobody chooses otherwise is the host's default of TCP: {}. The \
         machine's load average was {busy} when it began. {}.\n\n{}",
        amount.rounds,
        amount.length.as_secs_f64(),
        congestion_control.trim(),
        people.join("; "),
        verdict(&rows),
    );
    let columns = [("metric", "")].into_iter().chain(present.iter().map(|contender| (contender.who, contender.who)));
    let title = match amount.host {
        Host::Cubic => "Tunnels",
        Host::Bbr => "Tunnels on a host whose default is BBR",
    };
    Measured { name: amount.host.bench(), title, text, columns: columns.collect(), rows, shown: Some(shown) }
}

/// How camagent compares with the best peer, metric by metric, the lost ones included.
fn verdict(rows: &[Value]) -> String {
    let lines = METRICS.iter().filter_map(|(metric, unit, words)| {
        let of = |peer: bool| {
            rows.iter()
                .filter(move |row| row["metric"] == *metric && row["peer"] == peer)
                .filter_map(|row| Some((row["value"].as_f64()?, row["who"].as_str()?)))
        };
        let more_is_better = matches!(*unit, "MB/s" | "1/s");
        let (own, _) = of(false).next()?;
        let (best, who) =
            of(true).reduce(|one, other| if (one.0 > other.0) == more_is_better { one } else { other })?;
        let factor = own / best;
        let bar = match *metric {
            "throughput_1" | "throughput_20" => Some(factor >= 1.3),
            "cpu_agent_1" | "cpu_agent_20" | "memory_agent" => Some(factor <= 1.0),
            _ => None,
        };
        let bar = match bar {
            Some(true) => ", the bar is met",
            Some(false) => ", the bar is missed",
            None if (factor > 1.0) == more_is_better => "",
            None => ", behind",
        };
        Some(format!("* {words}: {factor:.2} of the best peer's ({who}){bar}"))
    });
    let lines: Vec<_> = lines.collect();
    if lines.is_empty() {
        return "Nothing to compare: one side did not take part.".into();
    }
    format!(
        "camagent's share of the best peer's value (bars: throughput >= 1.3, the agent's CPU and memory <= 1):\n\n{}",
        lines.join("\n")
    )
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Three digits that count, for people.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_answers_its_visitors() {
        let door = source::start().unwrap();
        assert!(visitor::first_octet(door, 5).unwrap() > Duration::ZERO);
        assert_eq!(visitor::requests(door, Duration::from_millis(50)).1, 0);
        let carried = visitor::streams(door, 3, Duration::from_millis(100), || ()).unwrap();
        assert!(carried.octets > 1_000_000);
    }

    #[test]
    fn lost_cases_are_told() {
        let row = |who, peer, metric, value| json!({"who": who, "peer": peer, "metric": metric, "value": value});
        let text = verdict(&[
            row("camagent", false, "throughput_1", 120.0),
            row("rathole", true, "throughput_1", 100.0),
            row("ssh", true, "throughput_1", 90.0),
            row("camagent", false, "memory_server", 30.0),
            row("rathole", true, "memory_server", 40.0),
            row("ssh", true, "memory_server", 20.0),
        ]);
        assert!(text.contains("1.20 of the best peer's (rathole), the bar is missed"), "{text}");
        assert!(text.contains("1.50 of the best peer's (ssh), behind"), "{text}");
    }
}
