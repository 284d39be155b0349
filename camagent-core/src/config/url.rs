//! Where the server is: `ws://` or `wss://`, host, port and path, no more.

use std::fmt;

/// The URL that an agent dials, without the agent's id at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl ServerUrl {
    /// Reads `ws[s]://host[:port][/path]`. The error says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || String::from("ws://HOST[:PORT][/PATH] or wss://HOST[:PORT][/PATH]");
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("wss") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ws") => (false, rest),
            _ => return Err(form()),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/agent"),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(ipv6) => {
                let (host, after) = ipv6.split_once(']').ok_or_else(form)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| form())?;
                (host, after.strip_prefix(':').map_or(after, |port| port))
            }
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > 253 || !host.chars().all(known) {
            return Err(form());
        }
        let port = match port {
            "" if tls => 443,
            "" => 80,
            digits => digits.parse().ok().filter(|port| *port != 0).ok_or("a port from 1 to 65535")?,
        };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains(['?', '#']) {
            return Err(form() + " without query");
        }
        Ok(Self { tls, host: host.into(), port, path: path.trim_end_matches('/').into() })
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Name or address of the server, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as in a `Host` header.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The path for an agent: its id comes last.
    pub(crate) fn path_of(&self, agent_id: &str) -> String {
        format!("{}/{agent_id}", self.path)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "wss" } else { "ws" }, self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_completed() {
        for (text, shown) in [
            ("ws://your-server.com:8080/agent", "ws://your-server.com:8080/agent"),
            ("WSS://example.org", "wss://example.org:443/agent"),
            ("wss://[::1]:8443/a/", "wss://[::1]:8443/a"),
            ("ws://10.0.0.1/", "ws://10.0.0.1:80"),
        ] {
            assert_eq!(ServerUrl::parse(text).unwrap().to_string(), shown);
        }
        let url = ServerUrl::parse("ws://h/agent").unwrap();
        assert_eq!(url.path_of("cam"), "/agent/cam");
        assert_eq!(url.path_of("agent"), "/agent/agent");
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", "http://h", "ws://", "ws://h:0", "ws://h:99999", "ws://u@h/", "ws://h/a?b", "ws://[::1", "ws://a b"]
        {
            assert!(ServerUrl::parse(text).is_err(), "{text}");
        }
    }
}
