//! The table of agents that may dial.

use sqlx::Row;

use super::{Store, TokenHash};
use crate::error::{Error, Result};

/// One agent that may dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRow {
    /// Its id.
    pub id: String,
    /// SHA-256 of its token.
    pub token_hash: Vec<u8>,
    /// When it was added, microseconds since 1970.
    pub created_us: i64,
    /// When its last session began or ended.
    pub seen_us: Option<i64>,
}

impl Store {
    /// Adds an agent; an id that exists is refused.
    pub async fn add_agent(&self, id: &str, token_hash: &TokenHash, now_us: i64) -> Result<()> {
        let done =
            sqlx::query("INSERT INTO agents (id, token_hash, created_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
                .bind(id)
                .bind(&token_hash[..])
                .bind(now_us)
                .execute(&self.pool)
                .await?;
        if done.rows_affected() == 0 {
            return Err(Error::Refused(format!("agent \"{id}\" exists already; remove it first to get a new token")));
        }
        Ok(())
    }

    /// Removes an agent and its claims on cameras; an unknown id is refused.
    pub async fn remove_agent(&self, id: &str) -> Result<()> {
        let done = sqlx::query("DELETE FROM agents WHERE id = ?").bind(id).execute(&self.pool).await?;
        if done.rows_affected() == 0 {
            return Err(Error::Refused(format!("there is no agent \"{id}\"")));
        }
        Ok(())
    }

    /// All agents by id.
    pub async fn agents(&self) -> Result<Vec<AgentRow>> {
        let rows = sqlx::query("SELECT id, token_hash, created_us, seen_us FROM agents ORDER BY id")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(AgentRow {
                    id: row.try_get(0)?,
                    token_hash: row.try_get(1)?,
                    created_us: row.try_get(2)?,
                    seen_us: row.try_get(3)?,
                })
            })
            .collect()
    }

    /// True when the agent exists.
    pub async fn has_agent(&self, id: &str) -> Result<bool> {
        Ok(sqlx::query("SELECT 1 FROM agents WHERE id = ?").bind(id).fetch_optional(&self.pool).await?.is_some())
    }

    /// True when this very agent has this very token.
    pub async fn agent_has_token(&self, id: &str, token_hash: &TokenHash) -> Result<bool> {
        let row = sqlx::query("SELECT 1 FROM agents WHERE id = ? AND token_hash = ?")
            .bind(id)
            .bind(&token_hash[..])
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// Remembers that a session of the agent began or ended now.
    pub async fn note_agent_seen(&self, id: &str, now_us: i64) -> Result<()> {
        sqlx::query("UPDATE agents SET seen_us = ? WHERE id = ?").bind(now_us).bind(id).execute(&self.pool).await?;
        Ok(())
    }
}
