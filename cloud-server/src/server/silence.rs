//! Counts the connections that end because no request came on them in time; the time itself is axum-server's.
//!
//! What does not belong here: TLS handshakes (`admission`), agents that do not register (`gateway`).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum_server::accept::Accept;
use tower_service::Service;

use crate::metrics::Metrics;

/// Accepts what `inner` accepts.
#[derive(Clone, Debug)]
pub(super) struct Silence<A> {
    inner: A,
    longest: Duration,
    metrics: Arc<Metrics>,
}

impl<A> Silence<A> {
    /// A first request may take `longest`.
    pub(super) fn new(inner: A, longest: Duration, metrics: &Arc<Metrics>) -> Self {
        Self { inner, longest, metrics: Arc::clone(metrics) }
    }
}

impl<A, I, S> Accept<I, S> for Silence<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = Listening<A::Service>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let (accepted, longest, metrics) =
            (self.inner.accept(stream, service), self.longest, Arc::clone(&self.metrics));
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            let first = First { since: Instant::now(), longest, has_come: AtomicBool::new(false), metrics };
            Ok((stream, Listening { service, first: Arc::new(first) }))
        })
    }
}

/// What answers on one connection.
#[derive(Clone, Debug)]
pub(super) struct Listening<S> {
    service: S,
    first: Arc<First>,
}

/// Whether anything was asked. Goes with its connection.
#[derive(Debug)]
struct First {
    since: Instant,
    longest: Duration,
    has_come: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Drop for First {
    fn drop(&mut self) {
        if !self.has_come.load(Ordering::Relaxed) && self.since.elapsed() >= self.longest {
            self.metrics.breach("request timeout");
        }
    }
}

impl<S: Service<R>, R> Service<R> for Listening<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.first.has_come.store(true, Ordering::Relaxed);
        self.service.call(request)
    }
}
