//! Digest (RFC 2617, also RFC 7616 with MD5) of viewers, as a value: who asks, what they answer, what time it is. Nonces
//! carry the time they were made and a seal, so that nothing is remembered and any connection may use one until it is
//! old. The digest's `uri` is not compared with the request's: clients write it in too many ways, and an account opens
//! all cameras alike. Looking accounts up belongs to [`super::accounts`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_auth::parser::ChallengeParser;
use md5::{Digest as _, Md5};
use ring::hmac;

/// The realm of all accounts.
pub const REALM: &str = "camagent";
/// How long a nonce is good for.
const NONCE_LIFETIME_US: i64 = 300_000_000;
/// Octets of the time and the seal in a nonce.
const TIME: usize = 8;
const SEAL: usize = 16;
/// No real header comes near.
const MAX_HEADER: usize = 4096;

/// Makes and judges challenges.
#[derive(Debug)]
pub struct Digest {
    key: hmac::Key,
}

/// A viewer's `Authorization: Digest …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who it says it is.
    pub username: String,
    nonce: String,
    uri: String,
    response: String,
    /// nc and cnonce of `qop=auth`; none in the form of RFC 2069.
    counted: Option<(String, String)>,
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It knows the secret.
    Granted,
    /// It knows the secret and used a nonce that is not good any more: it may try again without asking its user.
    Stale,
    /// It does not know the secret.
    Wrong,
}

/// HA1 of RFC 2617: what is kept of an account's secret.
#[must_use]
pub fn ha1(name: &str, secret: &str) -> String {
    md5_hex(&[name, REALM, secret])
}

impl Digest {
    /// Nonces of this value are good with this value only.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The value of `WWW-Authenticate`.
    #[must_use]
    pub fn challenge(&self, now_us: i64, stale: bool) -> String {
        let time = now_us.to_be_bytes();
        let mut nonce = time.to_vec();
        nonce.extend_from_slice(&hmac::sign(&self.key, &time).as_ref()[..SEAL]);
        let nonce = URL_SAFE_NO_PAD.encode(nonce);
        let stale = if stale { ", stale=TRUE" } else { "" };
        format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\", qop=\"auth\", algorithm=MD5{stale}")
    }

    /// Judges the answer to a request of this method; `ha1` is the account's, none when there is no such account.
    #[must_use]
    pub fn judge(&self, answer: &Answer, method: &str, ha1: Option<&str>, now_us: i64) -> Verdict {
        let Some(ha1) = ha1 else { return Verdict::Wrong };
        let ha2 = md5_hex(&[method, &answer.uri]);
        let expected = match &answer.counted {
            Some((count, nonce)) => md5_hex(&[ha1, &answer.nonce, count, nonce, "auth", &ha2]),
            None => md5_hex(&[ha1, &answer.nonce, &ha2]),
        };
        // As long for any two strings: how much of a guess is right must not show.
        let given = answer.response.to_ascii_lowercase();
        let differs = expected.bytes().zip(given.bytes()).fold(0, |differs, (one, other)| differs | (one ^ other));
        match differs == 0 && expected.len() == given.len() {
            false => Verdict::Wrong,
            true if self.is_good(&answer.nonce, now_us) => Verdict::Granted,
            true => Verdict::Stale,
        }
    }

    fn is_good(&self, nonce: &str, now_us: i64) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return false };
        let Some((time, seal)) = bytes.split_first_chunk::<TIME>().filter(|(_, seal)| seal.len() == SEAL) else {
            return false;
        };
        let age = now_us.saturating_sub(i64::from_be_bytes(*time));
        hmac::sign(&self.key, time).as_ref()[..SEAL] == *seal && (0..NONCE_LIFETIME_US).contains(&age)
    }
}

impl Answer {
    /// Reads the value of `Authorization`; none when it is no answer to a challenge of ours.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        if header.len() > MAX_HEADER {
            return None;
        }
        let fields = ChallengeParser::new(header).next()?.ok()?;
        if !fields.scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let find = |name: &str| {
            let found = fields.params.iter().find(|(own, _)| own.eq_ignore_ascii_case(name))?;
            Some(found.1.to_unescaped())
        };
        if find("algorithm").is_some_and(|algorithm| !algorithm.eq_ignore_ascii_case("MD5")) {
            return None;
        }
        let counted = match find("qop") {
            None => None,
            Some(qop) if qop.eq_ignore_ascii_case("auth") => Some((find("nc")?, find("cnonce")?)),
            Some(_) => return None,
        };
        let (nonce, uri, response) = (find("nonce")?, find("uri")?, find("response")?);
        find("realm").filter(|realm| realm == REALM)?;
        Some(Self { username: find("username")?, nonce, uri, response, counted })
    }
}

/// MD5 of the parts, joined by colons, in hexadecimal digits.
fn md5_hex(parts: &[&str]) -> String {
    Md5::digest(parts.join(":")).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_760_000_000_000_000;

    fn nonce(challenge: &str) -> &str {
        challenge.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a nonce")
    }

    fn header(secret: &str, nonce: &str, counted: bool) -> String {
        let ha2 = md5_hex(&["DESCRIBE", "rtsp://h/a"]);
        let ha1 = ha1("ops", secret);
        let (response, rest) = if counted {
            (
                md5_hex(&[&ha1, nonce, "00000001", "0a4f113b", "auth", &ha2]),
                ", qop=auth, nc=00000001, cnonce=\"0a4f113b\"",
            )
        } else {
            (md5_hex(&[&ha1, nonce, &ha2]), "")
        };
        format!(
            "Digest username=\"ops\", realm=\"camagent\", nonce=\"{nonce}\", uri=\"rtsp://h/a\", response=\"{response}\"{rest}"
        )
    }

    #[test]
    fn the_example_of_rfc_2617() {
        let ha1 = md5_hex(&["Mufasa", "testrealm@host.com", "Circle Of Life"]);
        assert_eq!(ha1, "939e7578ed9e3c518a452acee763bce9");
        let answer = Answer {
            username: "Mufasa".into(),
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093".into(),
            uri: "/dir/index.html".into(),
            response: "6629fae49393a05397450978507c4ef1".into(),
            counted: Some(("00000001".into(), "0a4f113b".into())),
        };
        let digest = Digest::new(&[1; 32]);
        assert_eq!(digest.judge(&answer, "GET", Some(&ha1), NOW), Verdict::Stale, "right, with a foreign nonce");
        assert_eq!(digest.judge(&answer, "PUT", Some(&ha1), NOW), Verdict::Wrong);
    }

    #[test]
    fn with_and_without_qop() {
        let digest = Digest::new(&[1; 32]);
        let challenge = digest.challenge(NOW, false);
        let ha1 = ha1("ops", "right");
        for counted in [false, true] {
            let judge = |secret, ha1: Option<&str>, now| {
                let answer = Answer::parse(&header(secret, nonce(&challenge), counted)).expect("an answer");
                digest.judge(&answer, "DESCRIBE", ha1, now)
            };
            assert_eq!(judge("right", Some(&ha1), NOW), Verdict::Granted);
            assert_eq!(judge("wrong", Some(&ha1), NOW), Verdict::Wrong);
            assert_eq!(judge("right", None, NOW), Verdict::Wrong);
            assert_eq!(judge("right", Some(&ha1), NOW + NONCE_LIFETIME_US), Verdict::Stale);
            assert_eq!(judge("right", Some(&ha1), NOW - 1), Verdict::Stale, "made in the future");
        }
        assert!(digest.challenge(NOW, true).contains("stale=TRUE"));
    }

    #[test]
    fn what_is_no_answer() {
        let good = header("x", "n", true);
        assert!(Answer::parse(&good).is_some());
        for (from, to) in [
            ("Digest ", "Basic "),
            ("qop=auth", "qop=auth-int"),
            ("nc=00000001, ", ""),
            ("realm=\"camagent\"", "realm=\"other\""),
            ("username", "user"),
            ("Digest ", "Digest algorithm=SHA-256, "),
        ] {
            assert_eq!(Answer::parse(&good.replace(from, to)), None, "{from}");
        }
        assert_eq!(Answer::parse(""), None);
        assert_eq!(Answer::parse("Basic YTpi"), None);
    }
}
