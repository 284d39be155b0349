//! `network.proxy`: the HTTP proxy that connections to the server go through (CONNECT, RFC 9110 section 9.3.6).
//! What does not belong here: how it is asked (`net::proxy`), and environment variables, which are a program's business.

use std::fmt;

use super::Secret;

/// What is accepted, for error messages.
pub(super) const FORM: &str = "http://[USER:PASSWORD@]HOST[:PORT]";

/// A proxy, with the account there if it wants one.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// `user:password` as Basic wants it (RFC 7617).
    account: Option<Secret>,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`; port 80 unless it is named, user and password percent-encoded where they must be. The
    /// error says what is allowed, and never what was given.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || String::from(FORM);
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        if scheme.eq_ignore_ascii_case("https") {
            return Err(format!("{FORM}: the way to the proxy itself is not encrypted, what passes through it is"));
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(form());
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (account, place) = match rest.rsplit_once('@') {
            Some((account, place)) => (Some(account), place),
            None => (None, rest),
        };
        let account = match account {
            None => None,
            Some(account) => {
                let (user, password) = account.split_once(':').ok_or_else(form)?;
                let (user, password) = (decoded(user).ok_or_else(form)?, decoded(password).ok_or_else(form)?);
                if user.is_empty() || user.contains(':') || user.len() + password.len() > 512 {
                    return Err(form());
                }
                Some(Secret::new(format!("{user}:{password}")))
            }
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(ipv6) => {
                let (host, after) = ipv6.split_once(']').ok_or_else(form)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| form())?;
                (host, after.strip_prefix(':').map_or(after, |port| port))
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > 253 || !host.chars().all(known) {
            return Err(form());
        }
        let port = match port {
            "" => 80,
            digits => digits.parse().ok().filter(|port| *port != 0).ok_or("a port from 1 to 65535")?,
        };
        Ok(Self { host: host.into(), port, account })
    }

    /// Name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// User and password as Basic wants them.
    pub(crate) fn account(&self) -> Option<&Secret> {
        self.account.as_ref()
    }

    /// The password alone, to keep it out of what is shown.
    #[cfg(feature = "doctor")]
    pub(crate) fn password(&self) -> Option<Secret> {
        let (_, password) = self.account.as_ref()?.reveal().split_once(':')?;
        Some(Secret::new(password))
    }
}

impl fmt::Display for Proxy {
    /// Without the account.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "http://[{}]:{}", self.host, self.port),
            false => write!(f, "http://{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Takes percent-encoding off (RFC 3986 section 2.1). Control characters have no place in a header.
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet == b'%' {
            let digit = |octet: u8| char::from(octet).to_digit(16);
            let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
            octets.push(u8::try_from(value).ok()?);
        } else {
            octets.push(octet);
        }
    }
    String::from_utf8(octets).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_their_account_is_never_shown() {
        let proxy = Proxy::parse("http://me:p%40ss%3a@proxy.example:3128/").unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("proxy.example", 3_128));
        assert_eq!(proxy.account().unwrap().reveal(), "me:p@ss:");
        assert_eq!((format!("{proxy}"), format!("{proxy:?}")), ("http://proxy.example:3128".into(), proxy.to_string()));
        assert_eq!(Proxy::parse("HTTP://[::1]").unwrap().to_string(), "http://[::1]:80");
        assert_eq!(Proxy::parse("http://10.0.0.1:8080").unwrap().account(), None);
    }

    #[test]
    fn everything_else_is_refused_without_telling_the_password() {
        for text in [
            "",
            "proxy:3128",
            "socks5://proxy",
            "http://",
            "http://h:0",
            "http://h:x",
            "http://secret@h",
            "http://:secret@h",
            "http://u:secret%@h",
            "http://u:secret%0a@h",
            "http://a b",
            "http://h/secret",
            "http://h?x",
            "http://[::1",
        ] {
            let error = Proxy::parse(text).unwrap_err();
            assert!(!error.contains("secret"), "{text}: {error}");
        }
        assert!(Proxy::parse("https://h").unwrap_err().contains("not encrypted"));
    }
}
