//! What a session tells the database while it goes on. It is written beside the session: a commit takes as long as the disk takes, and whoever
//! waits for an answer must not wait for that. Only the newest is kept, because sums that are told again make earlier ones worthless.
//!
//! What does not belong here: what a session has to know before it begins (`connection`), what stands in a row (`data`).

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::Gateway;
use crate::clock::month;
use crate::store::DataRow;

/// What is to be written: the newest of each.
#[derive(Clone, Debug, Default)]
struct Note {
    seen_us: Option<i64>,
    /// What the agent's octets were for, by camera and cause: a report names what has changed.
    used: BTreeMap<(String, String), i64>,
    used_us: i64,
    /// Cameras that came after register, and when: no more than an agent may have.
    claims: Vec<(String, i64)>,
}

/// The notes of one session. When it is dropped the last of them are still written, and nobody waits for that but the server's stop.
pub(super) struct Notes {
    newest: watch::Sender<Note>,
}

impl Notes {
    /// Begins to write for this run of an agent.
    pub(super) fn begin(gateway: &Gateway, agent: &str, boot: [u8; 16]) -> Self {
        let (newest, told) = watch::channel(Note::default());
        tokio::spawn(write(gateway.clone(), agent.to_owned(), boot, told));
        Self { newest }
    }

    /// The agent was there.
    pub(super) fn seen(&self, now_us: i64) {
        self.newest.send_modify(|note| note.seen_us = Some(now_us));
    }

    /// It has told its sums.
    pub(super) fn used(&self, rows: Vec<DataRow>, now_us: i64) {
        self.newest.send_modify(|note| {
            note.used.extend(rows.into_iter().map(|row| ((row.camera, row.cause), row.octets)));
            note.used_us = now_us;
        });
    }

    /// One more camera is its own.
    pub(super) fn claimed(&self, camera: &str, now_us: i64) {
        self.newest.send_modify(|note| {
            if !note.claims.iter().any(|(known, _)| known == camera) {
                note.claims.push((camera.to_owned(), now_us));
            }
        });
    }
}

/// A database that cannot be written is told, and has the rest once more with the next note.
async fn write(gateway: Gateway, agent: String, boot: [u8; 16], mut told: watch::Receiver<Note>) {
    let (store, mut written) = (&gateway.store, Note::default());
    while told.changed().await.is_ok() {
        let _turn = gateway.writing.lock().await;
        let note = told.borrow_and_update().clone();
        for claim in &note.claims {
            if written.claims.contains(claim) {
                continue;
            }
            match store.claim_camera(&claim.0, &agent, claim.1).await {
                Ok(()) => written.claims.push(claim.clone()),
                Err(trouble) => gateway.disk_trouble("the owner of a camera", &trouble),
            }
        }
        if let Some(seen_us) = note.seen_us.filter(|_| note.seen_us != written.seen_us) {
            match store.note_agent_seen(&agent, seen_us).await {
                Ok(()) => written.seen_us = note.seen_us,
                Err(trouble) => gateway.disk_trouble("when an agent was seen", &trouble),
            }
        }
        let row = |((camera, cause), octets): (&(String, String), &i64)| {
            let is_new = written.used.get(&(camera.clone(), cause.clone())) != Some(octets);
            is_new.then(|| DataRow { camera: camera.clone(), cause: cause.clone(), octets: *octets })
        };
        let rows: Vec<_> = note.used.iter().filter_map(row).collect();
        if !rows.is_empty() {
            match store.add_data(&agent, &boot, &month(note.used_us), &rows, note.used_us).await {
                Ok(()) => written.used = note.used,
                Err(trouble) => gateway.disk_trouble("what an agent used", &trouble),
            }
        }
    }
}
