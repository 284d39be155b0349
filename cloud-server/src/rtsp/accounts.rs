//! Viewer accounts: looks up in the database what [`super::digest`] judges. Nothing is remembered, so an account that was
//! removed opens nothing any more; and whoever watches with one is woken when accounts change.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

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
    /// The names, as they were at the last look.
    names: watch::Sender<BTreeSet<String>>,
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
    /// It may pass, with this account.
    Granted(String),
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
        Ok(Self { store, clock, digest: Arc::new(Digest::new(&secret)), names: watch::Sender::default() })
    }

    /// Looks whether accounts came or went, and wakes those who watch when they did.
    pub async fn look(&self) -> Result<()> {
        let names: BTreeSet<String> = self.store.viewers().await?.into_iter().map(|row| row.name).collect();
        self.names.send_if_modified(|known| {
            let changed = *known != names;
            *known = names;
            changed
        });
        Ok(())
    }

    /// Is woken when accounts came or went.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeSet<String>> {
        self.names.subscribe()
    }

    /// False when the account is certainly gone.
    pub async fn may_go_on(&self, name: &str) -> bool {
        !matches!(self.store.viewer_ha1(name).await, Ok(None))
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
            Verdict::Granted => Judgement::Granted(answer.username),
            Verdict::Stale => Judgement::Challenged(self.digest.challenge(now_us, true)),
            Verdict::Wrong => {
                Judgement::Refused { challenge: self.digest.challenge(now_us, false), name: answer.username }
            }
        }
    }
}
