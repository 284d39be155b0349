//! The handlers, and the guard in front of them.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use camagent_proto::message::{Command, CommandStatus};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::{AgentBody, AgentsBody, ControlBody, ControlResultBody, HealthBody, StreamBody, StreamsBody};
use super::data::{DataBody, is_month};
use super::refusal::{ErrorBody, Refusal};
use super::{Api, OnLoopback};
use super::{openapi, recordings};
use crate::agents::CommandFailure;
use crate::auth::bearer;
use crate::clock;
use crate::metrics::{Gauges, MEDIA_TYPE};

/// How long a command may take without `timeout_ms`, and at most.
const DEFAULT_TIMEOUT_MS: u64 = 10_000;
const MAX_TIMEOUT_MS: u64 = 120_000;
/// Octets of an action's name, and of its arguments: a control message has 4096 for all.
const MAX_ACTION: usize = 64;
const MAX_ARGS: usize = 3_072;

/// All routes of the API.
pub fn router(api: Api) -> Router {
    let guarded = Router::new()
        .route("/agents", get(agents))
        .route("/agents/{id}", get(agent))
        .route("/agents/{id}/control", post(control))
        .route("/agents/{id}/data", get(data))
        .route("/streams", get(streams))
        .route("/recordings", get(recordings::recordings))
        .route("/recordings/clip", get(recordings::clip))
        .route("/openapi.json", get(description))
        .route_layer(from_fn_with_state(api.clone(), guard));
    let open_here =
        Router::new().route("/metrics", get(metrics)).route_layer(from_fn_with_state(api.clone(), guard_beyond));
    let all = Router::new().route("/health", get(health)).merge(guarded).merge(open_here);
    Router::new()
        .merge(all.clone())
        // The same under a versioned name, for clients that outlive servers.
        .nest("/api/v1", all)
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .with_state(api)
}

async fn guard(State(api): State<Api>, request: Request, next: Next) -> Result<Response, Refusal> {
    let unauthorized = |message: &str| Err(Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message));
    let Some(header) = request.headers().get(header::AUTHORIZATION) else {
        return unauthorized("Authorization: Bearer <API token> is missing; `camagent-cloud token add NAME` makes one");
    };
    let Some(token) = header.to_str().ok().and_then(bearer) else {
        return unauthorized("Authorization must be \"Bearer <API token>\"");
    };
    match api.auth.api(token).await? {
        Some(_) => Ok(next.run(request).await),
        None => unauthorized("this API token is not known"),
    }
}

/// What a monitoring program on this machine may ask without a token: by the listener on loopback, and through no proxy.
async fn guard_beyond(state: State<Api>, request: Request, next: Next) -> Result<Response, Refusal> {
    let headers = request.headers();
    let is_passed_on = headers.contains_key(header::FORWARDED)
        || headers.contains_key(header::VIA)
        || headers.contains_key("x-forwarded-for")
        || headers.contains_key("x-real-ip");
    if request.extensions().get::<OnLoopback>().is_some() && !is_passed_on {
        return Ok(next.run(request).await);
    }
    guard(state, request, next).await
}

/// Is the server well? Open to everybody.
#[utoipa::path(get, path = "/health", security(()), responses((status = 200, body = HealthBody)))]
pub(super) async fn health(State(api): State<Api>) -> Json<HealthBody> {
    let readable = api.store.tokens().await.is_ok();
    Json(HealthBody {
        status: if readable { "ok" } else { "degraded" },
        version: env!("CARGO_PKG_VERSION"),
        agents_online: api.agents.online(),
        disk_trouble: api.events.count("disk_trouble"),
    })
}

/// All agents.
#[utoipa::path(get, path = "/agents", responses(
    (status = 200, body = AgentsBody),
    (status = 401, body = ErrorBody, description = "No or unknown API token"),
))]
pub(super) async fn agents(State(api): State<Api>) -> Result<Json<AgentsBody>, Refusal> {
    let rows = api.store.agents().await?;
    let agents = rows.into_iter().map(|row| {
        let (status, tunnels) = (api.agents.status(&row.id), api.tunnels.of_agent(&row.id));
        AgentBody::new(row, status, tunnels)
    });
    Ok(Json(AgentsBody { agents: agents.collect() }))
}

/// One agent.
#[utoipa::path(get, path = "/agents/{id}", params(("id" = String, Path, description = "The agent's id")), responses(
    (status = 200, body = AgentBody),
    (status = 401, body = ErrorBody, description = "No or unknown API token"),
    (status = 404, body = ErrorBody, description = "No such agent"),
))]
pub(super) async fn agent(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<AgentBody>, Refusal> {
    let row = api.store.agents().await?.into_iter().find(|row| row.id == id).ok_or_else(|| unknown_agent(&id))?;
    Ok(Json(AgentBody::new(row, api.agents.status(&id), api.tunnels.of_agent(&id))))
}

/// Gives an agent a command and waits for what comes of it.
#[utoipa::path(post, path = "/agents/{id}/control", params(("id" = String, Path, description = "The agent's id")),
    request_body = ControlBody, responses(
    (status = 200, body = ControlResultBody, description = "The agent did it"),
    (status = 400, body = ErrorBody, description = "The body cannot be read"),
    (status = 401, body = ErrorBody, description = "No or unknown API token"),
    (status = 404, body = ErrorBody, description = "No such agent"),
    (status = 409, body = ErrorBody, description = "The agent is not connected"),
    (status = 422, body = ErrorBody, description = "The agent could not do it; code and message are the agent's"),
    (status = 429, body = ErrorBody, description = "Too many commands wait for this agent"),
    (status = 504, body = ErrorBody, description = "The agent did not answer in time"),
))]
pub(super) async fn control(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Result<Json<ControlBody>, JsonRejection>,
) -> Result<Json<ControlResultBody>, Refusal> {
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", message);
    let Json(body) = body.map_err(|rejection| bad(rejection.body_text()))?;
    if body.action.is_empty() || body.action.len() > MAX_ACTION {
        return Err(bad(format!("action has 1 to {MAX_ACTION} bytes")));
    }
    let args = body.args.map_or(serde_json::Value::Null, |args| args.into_iter().collect());
    if args.to_string().len() > MAX_ARGS {
        return Err(bad(format!("args has more than {MAX_ARGS} bytes")));
    }
    let timeout_ms = body.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
    if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
        return Err(bad(format!("timeout_ms = {timeout_ms}: must be 1 to {MAX_TIMEOUT_MS}")));
    }
    if !api.store.has_agent(&id).await? {
        return Err(unknown_agent(&id));
    }
    let command = Command { id: None, camera: body.camera, action: body.action, args, timeout_ms };
    let result = api.agents.command(&id, command, Duration::from_millis(timeout_ms)).await.map_err(|failure| {
        if failure == CommandFailure::Busy {
            api.metrics.breach("commands of an agent");
        }
        let (status, code, message) = match failure {
            CommandFailure::Offline => {
                (StatusCode::CONFLICT, "agent_offline", format!("agent \"{id}\" is not connected"))
            }
            CommandFailure::Busy => (
                StatusCode::TOO_MANY_REQUESTS,
                "agent_busy",
                format!(
                    "agent \"{id}\" has too many commands: at most 64 wait for an answer, and 100 come in ten seconds"
                ),
            ),
            CommandFailure::TimedOut => {
                let message = format!("agent \"{id}\" did not answer within {timeout_ms} ms");
                (StatusCode::GATEWAY_TIMEOUT, "timeout", message)
            }
        };
        Refusal::new(status, code, message)
    })?;
    match result.status {
        CommandStatus::Ok => Ok(Json(ControlResultBody { id: result.id, status: "ok", result: result.result })),
        CommandStatus::Error => {
            let error = result.error.unwrap_or_default();
            let code = if error.code.is_empty() { "failed".to_owned() } else { error.code };
            Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, code, error.message))
        }
    }
}

/// Which month.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MonthQuery {
    /// The calendar month (UTC), as `2026-11`; the present one without it.
    month: Option<String>,
}

/// What an agent sent and received in a month, and what for. An agent tells it with its statistics, at least every ten minutes.
#[utoipa::path(get, path = "/agents/{id}/data", params(("id" = String, Path, description = "The agent's id"), MonthQuery),
    responses(
    (status = 200, body = DataBody),
    (status = 400, body = ErrorBody, description = "This is no month"),
    (status = 401, body = ErrorBody, description = "No or unknown API token"),
    (status = 404, body = ErrorBody, description = "No such agent"),
))]
pub(super) async fn data(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Result<Query<MonthQuery>, QueryRejection>,
) -> Result<Json<DataBody>, Refusal> {
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", message);
    let Query(query) = query.map_err(|rejection| bad(rejection.body_text()))?;
    let month = query.month.unwrap_or_else(|| clock::month(api.clock.utc_us()));
    if !is_month(&month) {
        return Err(bad(format!("month = {month:?}: must be as 2026-11")));
    }
    if !api.store.has_agent(&id).await? {
        return Err(unknown_agent(&id));
    }
    let (rows, months) = (api.store.data(&id, &month).await?, api.store.data_months(&id).await?);
    Ok(Json(DataBody::new(&id, &month, rows, months)))
}

/// All sources that can be watched.
#[utoipa::path(get, path = "/streams", responses(
    (status = 200, body = StreamsBody),
    (status = 401, body = ErrorBody, description = "No or unknown API token"),
))]
pub(super) async fn streams(State(api): State<Api>) -> Json<StreamsBody> {
    let streams = api.hub.status().into_iter().map(|status| StreamBody::new(status, &api.rtsp_address));
    Json(StreamsBody { streams: streams.collect() })
}

/// Numbers for monitoring, in the OpenMetrics text form. On the plain HTTP listener no token is needed while that is bound to loopback and
/// no proxy passes the request on.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
    (status = 401, body = ErrorBody, description = "No or unknown API token"),
))]
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let sources = api.hub.status();
    let gauges = Gauges {
        agents_online: api.agents.online() as u64,
        sources: sources.len() as u64,
        viewers: sources.iter().map(|source| u64::from(source.viewers)).sum(),
        visitors: api.tunnels.visitors() as u64,
        events: api.events.counts(),
        frames_lost: api.events.lost(),
        recordings: match &api.archive {
            Some(archive) => Some(archive.gauges().await),
            None => None,
        },
    };
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], api.metrics.text(&gauges))
}

async fn description() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi::description())
}

async fn nothing() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
}

async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not know that method")
}

fn unknown_agent(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "unknown_agent", format!("there is no agent \"{id}\""))
}
