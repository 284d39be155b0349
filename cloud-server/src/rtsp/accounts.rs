//! Viewer accounts: looks up in the database what [`super::digest`] judges. Nothing is remembered, so an account that was
//! removed opens nothing any more.

use std::sync::Arc;

use super::digest::{Answer, Digest, Verdict};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::store::Store;

/// Who may watch.
#[derive(Clone, Debug)]
pub struct Accounts {
    store: Store,
    clock: Clock,
    digest: Arc<Digest>,
}

/// What a request shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its method, which is part of the digest.
    pub method: String,
    /// Its `Authorization` header.
    pub authorization: Option<String>,
}

/// What becomes of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It may pass.
    Granted,
    /// It may not, but the same with this `WWW-Authenticate` answered may.
    Challenged(String),
    /// The same, after a wrong name or secret.
    Refused {
        /// The new challenge.
        challenge: String,
        /// The name that was tried.
        name: String,
    },
}

impl Accounts {
    /// Accounts of this database; nonces of an earlier value are stale.
    pub fn new(store: Store, clock: Clock) -> Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| Error::Refused(format!("no randomness: {error}")))?;
        Ok(Self { store, clock, digest: Arc::new(Digest::new(&secret)) })
    }

    /// Judges a request.
    pub async fn judge(&self, claim: &Claim) -> Judgement {
        let now_us = self.clock.utc_us();
        let Some(answer) = claim.authorization.as_deref().and_then(Answer::parse) else {
            return Judgement::Challenged(self.digest.challenge(now_us, false));
        };
        let ha1 = self.store.viewer_ha1(&answer.username).await.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot look a viewer's account up");
            None
        });
        match self.digest.judge(&answer, &claim.method, ha1.as_deref(), now_us) {
            Verdict::Granted => Judgement::Granted,
            Verdict::Stale => Judgement::Challenged(self.digest.challenge(now_us, true)),
            Verdict::Wrong => {
                Judgement::Refused { challenge: self.digest.challenge(now_us, false), name: answer.username }
            }
        }
    }
}
