//! Tokens: 256 random bits, shown once, kept as SHA-256. A check is a look-up by that hash, so its time tells nothing
//! about the token; the database is asked each time, so a removal holds at once. Viewers have shorter secrets,
//! kept as Digest needs them; the relay knows how.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::store::{Store, TokenHash};

/// A token that was just made: the only moment its text exists on the server.
pub struct Token(String);

impl Token {
    /// 256 bits of the system's randomness as base64url.
    pub fn generate() -> Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| Error::Refused(format!("no randomness: {error}")))?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// 128 bits of it: as many as MD5 makes sense of, and short enough for the forms of recorders.
    pub fn generate_short() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| Error::Refused(format!("no randomness: {error}")))?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The text to be shown once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(secret)")
    }
}

/// SHA-256 of a token's text.
#[must_use]
pub fn hash(token: &str) -> TokenHash {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// The token of an `Authorization: Bearer …` header's value.
#[must_use]
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Auth {
    store: Store,
    clock: Clock,
}

/// What an agent's token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The agent exists and this is its token.
    Granted,
    /// The agent exists, the token is not its token.
    WrongToken,
    /// There is no such agent.
    UnknownAgent,
}

impl Auth {
    /// Checks against this database.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Adds an agent and gives its token.
    pub async fn add_agent(&self, id: &str) -> Result<Token> {
        refuse_bad_id("an agent id", id)?;
        let token = Token::generate()?;
        self.store.add_agent(id, &hash(token.reveal()), self.clock.utc_us()).await?;
        Ok(token)
    }

    /// Adds an API token.
    pub async fn add_token(&self, name: &str) -> Result<Token> {
        refuse_bad_id("a token name", name)?;
        let token = Token::generate()?;
        self.store.add_token(name, &hash(token.reveal()), self.clock.utc_us()).await?;
        Ok(token)
    }

    /// Adds a viewer's account and gives its secret; `ha1` makes of name and secret what is kept.
    pub async fn add_viewer(&self, name: &str, ha1: fn(&str, &str) -> String) -> Result<Token> {
        refuse_bad_id("a viewer's name", name)?;
        let secret = Token::generate_short()?;
        self.store.add_viewer(name, &ha1(name, secret.reveal()), self.clock.utc_us()).await?;
        Ok(secret)
    }

    /// Is this the agent's token?
    pub async fn agent(&self, id: &str, token: &str) -> Result<Verdict> {
        if self.store.agent_has_token(id, &hash(token)).await? {
            return Ok(Verdict::Granted);
        }
        Ok(if self.store.has_agent(id).await? { Verdict::WrongToken } else { Verdict::UnknownAgent })
    }

    /// The name of the API token, if it is one.
    pub async fn api(&self, token: &str) -> Result<Option<String>> {
        self.store.token_name(&hash(token)).await
    }
}

fn refuse_bad_id(what: &str, id: &str) -> Result<()> {
    if camagent_proto::message::is_name(id) {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "\"{id}\" cannot be {what}: 1 to 64 of A-Z a-z 0-9 . _ - are allowed, beginning with a letter or digit"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tokens_open_what_they_were_made_for_and_nothing_else() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::open(folder.path()).await.expect("opens");
        let auth = Auth::new(store.clone(), Clock::new());
        let agent = auth.add_agent("cam-1").await.expect("adds");
        let other = auth.add_agent("cam-2").await.expect("adds");
        let api = auth.add_token("ops").await.expect("adds");
        assert_eq!(agent.reveal().len(), 43);
        assert_eq!(auth.agent("cam-1", agent.reveal()).await.expect("reads"), Verdict::Granted);
        assert_eq!(auth.agent("cam-1", other.reveal()).await.expect("reads"), Verdict::WrongToken);
        assert_eq!(auth.agent("cam-3", other.reveal()).await.expect("reads"), Verdict::UnknownAgent);
        assert_eq!(auth.api(api.reveal()).await.expect("reads").as_deref(), Some("ops"));
        assert_eq!(auth.api(agent.reveal()).await.expect("reads"), None);
        assert!(auth.add_agent("cam-1").await.is_err(), "an id exists once");
        assert!(auth.add_agent("../etc").await.is_err());
        assert!(!format!("{agent:?}").contains(agent.reveal()));
    }

    #[test]
    fn bearer_headers() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer(" bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("Bearer "), None);
    }
}
