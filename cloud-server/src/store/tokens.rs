//! The table of API tokens.

use sqlx::Row;

use super::{Store, TokenHash};
use crate::error::{Error, Result};

/// One API token; the token itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// What the operator calls it.
    pub name: String,
    /// When it was added, microseconds since 1970.
    pub created_us: i64,
}

impl Store {
    /// Adds an API token; a name that exists is refused.
    pub async fn add_token(&self, name: &str, token_hash: &TokenHash, now_us: i64) -> Result<()> {
        let done = sqlx::query(
            "INSERT INTO api_tokens (name, token_hash, created_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(name)
        .bind(&token_hash[..])
        .bind(now_us)
        .execute(&self.pool)
        .await?;
        if done.rows_affected() == 0 {
            return Err(Error::Refused(format!("token \"{name}\" exists already; remove it first to get a new one")));
        }
        Ok(())
    }

    /// Removes an API token; an unknown name is refused.
    pub async fn remove_token(&self, name: &str) -> Result<()> {
        let done = sqlx::query("DELETE FROM api_tokens WHERE name = ?").bind(name).execute(&self.pool).await?;
        if done.rows_affected() == 0 {
            return Err(Error::Refused(format!("there is no token \"{name}\"")));
        }
        Ok(())
    }

    /// All API tokens by name.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>> {
        let rows = sqlx::query("SELECT name, created_us FROM api_tokens ORDER BY name").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(TokenRow { name: row.try_get(0)?, created_us: row.try_get(1)? })).collect()
    }

    /// The name of the API token with this hash.
    pub async fn token_name(&self, token_hash: &TokenHash) -> Result<Option<String>> {
        let row = sqlx::query("SELECT name FROM api_tokens WHERE token_hash = ?")
            .bind(&token_hash[..])
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| row.try_get(0)).transpose().map_err(Error::from)
    }
}
