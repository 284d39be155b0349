//! `[goaway]`: what agents are told when the server stops.

use std::time::Duration;

use camagent_proto::message;

use super::reader::{Section, quoted};

/// Agents hear of no more.
const MAX_SERVERS: usize = message::Goaway::MAX_SERVERS;

/// When agents come back, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goaway {
    /// Each agent comes back at a random moment within this time, so that thousands do not come at once. Default 5 s.
    pub come_back_within: Duration,
    /// Servers to go to instead, the best first, as URLs that the agents' configuration names too. Default none: agents come back here.
    pub servers: Vec<String>,
}

impl Default for Goaway {
    fn default() -> Self {
        Self { come_back_within: Duration::from_secs(5), servers: Vec::new() }
    }
}

impl Goaway {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let own = Self::default();
        let allowed = "must be at most 8 URLs of servers, as [\"wss://b.example.com:8443/agent\"]";
        Self {
            come_back_within: section.seconds("come_back_within", 0.0..=600.0, own.come_back_within),
            servers: section.few_parsed("servers", MAX_SERVERS, allowed, url),
        }
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let servers: Vec<_> = self.servers.iter().map(|server| quoted(server)).collect();
        vec![
            ("come_back_within", self.come_back_within.as_secs_f64().to_string()),
            ("servers", format!("[{}]", servers.join(", "))),
        ]
    }
}

/// What can be an agent's server; whether it is one is seen when agents go there. Eight such fit into a message.
fn url(text: &str) -> Option<String> {
    let rest = text.strip_prefix("wss://").or_else(|| text.strip_prefix("ws://"))?;
    let good = !rest.is_empty() && text.len() <= 300 && text.bytes().all(|octet| octet.is_ascii_graphic());
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn servers_are_urls_and_times_are_bounded() {
        let good = "[goaway]\ncome_back_within = 60\nservers = [\"wss://b.example:8443/agent\"]";
        let config = Config::parse(good).expect("reads").config;
        assert_eq!((config.goaway.come_back_within.as_secs(), config.goaway.servers.len()), (60, 1));
        for (text, part) in [
            ("[goaway]\nservers = [\"https://b\"]", "wss://"),
            ("[goaway]\nservers = [\"wss://\"]", "goaway.servers"),
            ("[goaway]\ncome_back_within = 601", "600"),
            (&format!("[goaway]\nservers = [{}]", "\"wss://b.example\",".repeat(9)), "at most 8"),
        ] {
            let error = Config::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
