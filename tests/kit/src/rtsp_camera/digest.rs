//! Digest authentication as a camera asks for it (RFC 2617, MD5): the challenge, and whether an answer is right.
//!
//! Cameras offer no `qop` over RTSP and `auth` over HTTP; an answer in either form is understood.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use md5::{Digest as _, Md5};

/// What a camera calls itself when it asks for a password.
const REALM: &str = "Login to 4c11bf27a3d0";

/// The one account of a camera. Its password may change while the camera runs.
#[derive(Debug)]
pub(super) struct Account {
    user: String,
    password: Mutex<String>,
}

impl Account {
    pub(super) fn new(user: &str, password: &str) -> Self {
        Self { user: user.into(), password: Mutex::new(password.into()) }
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn password(&self) -> String {
        self.password.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_password(&self, password: &str) {
        *self.password.lock().unwrap_or_else(PoisonError::into_inner) = password.into();
    }

    /// Whether an `Authorization` header answers the challenge with this nonce. `is_target` tells whether a URI is the request's.
    pub(super) fn accepts(&self, header: &str, method: &str, nonce: &str, is_target: impl Fn(&str) -> bool) -> bool {
        let Some(rest) = header.strip_prefix("Digest ") else { return false };
        let values = values(rest);
        let value = |name: &str| values.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value);
        let uri = value("uri");
        if value("username") != self.user || value("realm") != REALM || value("nonce") != nonce || !is_target(uri) {
            return false;
        }
        let ha1 = hex(&format!("{}:{REALM}:{}", self.user, self.password()));
        let ha2 = hex(&format!("{method}:{uri}"));
        let expected = match value("qop") {
            "" => hex(&format!("{ha1}:{nonce}:{ha2}")),
            qop => hex(&format!("{ha1}:{nonce}:{}:{}:{qop}:{ha2}", value("nc"), value("cnonce"))),
        };
        value("response").eq_ignore_ascii_case(&expected)
    }
}

/// A `WWW-Authenticate` header.
pub(super) fn challenge(nonce: &str, with_qop: bool) -> String {
    let qop = if with_qop { ", qop=\"auth\"" } else { "" };
    format!("Digest realm=\"{REALM}\"{qop}, nonce=\"{nonce}\"")
}

/// A nonce that nobody has seen before.
pub(super) fn nonce() -> String {
    let random = getrandom::u64().expect("the system has random numbers");
    format!("{random:016x}")
}

/// MD5 in hexadecimal digits.
pub(crate) fn hex(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().fold(String::new(), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// `name=value` or `name="value"`, separated by commas; no value here holds a quotation mark.
pub(crate) fn values(text: &str) -> Vec<(&str, &str)> {
    let (mut values, mut rest) = (Vec::new(), text);
    while let Some((name, behind)) = rest.split_once('=') {
        let name = name.trim_start_matches([',', ' ']).trim_end();
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => behind.split_once(',').unwrap_or((behind, "")),
        };
        values.push((name, value.trim()));
        rest = behind;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_is_that_of_the_rfc() {
        // RFC 2617 3.5: HA1 of Mufasa.
        assert_eq!(hex("Mufasa:testrealm@host.com:Circle Of Life"), "939e7578ed9e3c518a452acee763bce9");
    }

    #[test]
    fn the_right_answer_only() {
        let account = Account::new("admin", "secret");
        let ha1 = hex(&format!("admin:{REALM}:secret"));
        let response = hex(&format!("{ha1}:n:{}", hex("DESCRIBE:rtsp://h/a?b=1,2")));
        let header = format!(
            "Digest username=\"admin\", realm=\"{REALM}\", nonce=\"n\", uri=\"rtsp://h/a?b=1,2\", response=\"{response}\""
        );
        let is_target = |uri: &str| uri == "rtsp://h/a?b=1,2";
        assert!(account.accepts(&header, "DESCRIBE", "n", is_target));
        assert!(!account.accepts(&header, "SETUP", "n", is_target));
        assert!(!account.accepts(&header, "DESCRIBE", "m", is_target));
        account.set_password("other");
        assert!(!account.accepts(&header, "DESCRIBE", "n", is_target));
        assert!(!account.accepts("Basic YTpi", "DESCRIBE", "n", is_target));
    }
}
