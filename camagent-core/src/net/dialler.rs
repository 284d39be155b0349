//! Everything that a dial needs, so that one can be under way while a connection is still there.

use std::{pin::Pin, rc::Rc, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Connection, Tls, Traffic, websocket};
use crate::{config::Config, error::Error, resolve::Resolver};

/// With several servers, one that does not answer holds the others up no longer than this.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(10);

/// A dial under way.
pub(crate) type Dial = Pin<Box<dyn Future<Output = Result<Connection, Error>>>>;

/// Makes connections to the servers of the configuration.
#[derive(Clone)]
pub(crate) struct Dialler {
    config: Arc<Config>,
    addresses: Resolver,
    tls: Option<Tls>,
    traffic: Rc<Traffic>,
}

impl Dialler {
    pub(crate) fn new(config: &Arc<Config>, addresses: &Resolver, tls: Option<Tls>, traffic: &Rc<Traffic>) -> Self {
        Self { config: Arc::clone(config), addresses: addresses.clone(), tls, traffic: Rc::clone(traffic) }
    }

    /// What an attempt may take, `register` included.
    pub(crate) fn patience(&self) -> Duration {
        let several = self.config.servers.len() > 1;
        if several { self.config.connection_timeout.min(ONE_OF_SEVERAL) } else { self.config.connection_timeout }
    }

    /// Begins a dial to the server of this number. It ends within `longest`, and within [`Dialler::patience`].
    pub(crate) fn dial(&self, server: usize, longest: Duration) -> Dial {
        let (this, longest) = (self.clone(), longest.min(self.patience()));
        Box::pin(async move {
            let url = &this.config.servers[server];
            let connect = websocket::connect(&this.config, url, &this.addresses, this.tls.as_ref(), &this.traffic);
            match timeout(longest, connect).await {
                Ok(done) => done,
                Err(_) => Err(Error::Unreachable(format!("{url}: no connection within {} s", longest.as_secs()))),
            }
        })
    }
}
