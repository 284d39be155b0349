//! The HTTP side of `GET /agent/{id}`: who may upgrade to a WebSocket. Answers are the API's JSON errors.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use camagent_proto::message::is_name;
use camagent_proto::version::SUBPROTOCOL;
use serde_json::json;

use super::{Gateway, connection};
use crate::auth::{Verdict, bearer, hash};
use crate::event::Event;

/// Octets of a message: four records; anything longer is no agent of ours.
const MAX_MESSAGE: usize = 64 << 10;
/// After so long it is worth while to ask again when the database does not answer.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Octets that are read from an agent at once: tungstenite would set 128 KiB aside for each.
const READ_BUFFER: usize = 16 << 10;

/// Serves `GET /agent/{id}`.
pub async fn upgrade(
    State(gateway): State<Gateway>,
    Path(agent): Path<String>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let refuse = |reason: &str| {
        let shown = if is_name(&agent) { agent.clone() } else { "?".to_owned() };
        let (address, reason) = (address.to_string(), reason.to_owned());
        gateway.events.emit(Event::AgentRefused { agent: shown, address, reason });
    };
    if !is_name(&agent) {
        refuse("not an agent id");
        return error(StatusCode::BAD_REQUEST, "bad_agent_id", "the path is not /agent/{agent id}");
    }
    let token_hash = match headers.get(header::AUTHORIZATION) {
        None => None,
        Some(value) => {
            let Some(token) = value.to_str().ok().and_then(bearer) else {
                refuse("Authorization is not Bearer");
                return error(StatusCode::UNAUTHORIZED, "unauthorized", "Authorization must be \"Bearer <token>\"");
            };
            match gateway.auth.agent(&agent, token).await {
                Ok(Verdict::Granted) => Some(hash(token)),
                Ok(verdict) => {
                    refuse(if verdict == Verdict::WrongToken { "wrong token" } else { "unknown agent" });
                    // Outside both look the same: who guesses ids learns nothing.
                    return error(StatusCode::UNAUTHORIZED, "unauthorized", &turned_away(&agent));
                }
                Err(trouble) => {
                    tracing::error!(%trouble, "cannot check a token");
                    return error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the token cannot be checked now");
                }
            }
        }
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return error(rejection.status(), "websocket_expected", &rejection.body_text()),
    };
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(READ_BUFFER);
    if upgrade.selected_protocol().is_none() {
        refuse("another sub-protocol");
        return error(StatusCode::BAD_REQUEST, "subprotocol_expected", "the WebSocket sub-protocol is camagent.v1");
    }
    upgrade.on_upgrade(move |socket| connection::serve(gateway, socket, agent, token_hash, address))
}

/// The words for a wrong token and an unknown agent alike.
pub(super) fn turned_away(agent: &str) -> String {
    format!("agent \"{agent}\" is not known here, or this is not its token; `camagent-cloud agent add` makes both")
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let mut response = (status, Json(json!({"error": {"code": code, "message": message}}))).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}
