//! A whole session of a real agent: whether the server takes this agent and its cameras. It replaces a running agent's session (the newest
//! connection wins), so it is done only when the operator says so.

use std::time::Instant;

use camagent_proto::{CloseCode, message::Policy};

use super::{Check, Examination, Report, Verdict};
use crate::{
    agent::{Agent, Host},
    config::Config,
    event::Event,
};

const ID: &str = "register";

pub(super) fn examine<T: FnMut(&Check)>(config: &Config, how: Examination, report: &mut Report<T>) {
    if !how.register {
        let why = "it would take the place of a running agent for up to a minute: --register does it";
        return report.skip(ID, "", why);
    }
    if report.worst == Verdict::Fail {
        return report.skip(ID, "", "a step before it failed");
    }
    let mut config = config.clone();
    // Nothing is fetched from the cameras for this.
    for source in config.cameras.iter_mut().flat_map(|camera| &mut camera.sources) {
        source.policy = Policy::Off;
    }
    config.warnings.clear();
    let agent = match Agent::start(config.clone(), Host::default()) {
        Ok(agent) => agent,
        Err(error) => return report.fail(ID, "", error.to_string(), "this machine cannot run an agent"),
    };
    let until = Instant::now() + how.patience;
    loop {
        match agent.poll_event(until.saturating_duration_since(Instant::now())) {
            Some(Event::Connected { session_id, .. }) => {
                let cameras: Vec<&str> = config.cameras.iter().map(|camera| camera.id.as_str()).collect();
                report.ok(ID, "", format!("session {session_id}, camera(s) {} accepted", cameras.join(", ")));
                break;
            }
            Some(Event::Disconnected { reason, code, .. }) => {
                report.fail(ID, "", reason, advice(code));
                break;
            }
            Some(_) => {}
            None => {
                report.fail(ID, "", "no session came to be in time", "the log of the server says what became of it");
                break;
            }
        }
    }
    // Dropping the agent closes its session in order.
}

fn advice(code: u16) -> &'static str {
    let is = |known: CloseCode| known.number() == code;
    if is(CloseCode::Forbidden) {
        "a camera's id belongs to another agent: give each camera its own, or remove the other agent on the server"
    } else if is(CloseCode::AuthFailed) || is(CloseCode::AgentRemoved) || is(CloseCode::AuthExpired) {
        "the server does not know this agent with this token: `camagent-cloud agent add` makes one"
    } else if is(CloseCode::VersionUnsupported) {
        "agent and server have no version of the protocol in common: update the older one"
    } else {
        "the log of the server says more"
    }
}
