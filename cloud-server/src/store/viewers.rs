//! The table of viewer accounts. What is kept is the HA1 of RFC 2617, which Digest needs; it is worth as much as the secret
//! at this server and nothing elsewhere, because secrets are generated.

use sqlx::Row;

use super::Store;
use crate::error::{Error, Result};

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewerRow {
    /// The user name.
    pub name: String,
    /// When it was added, microseconds since 1970.
    pub created_us: i64,
}

impl Store {
    /// Adds an account; a name that exists is refused.
    pub async fn add_viewer(&self, name: &str, ha1: &str, now_us: i64) -> Result<()> {
        let done = sqlx::query("INSERT INTO viewers (name, ha1, created_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(ha1)
            .bind(now_us)
            .execute(&self.pool)
            .await?;
        if done.rows_affected() == 0 {
            return Err(Error::Refused(format!(
                "viewer \"{name}\" exists already; remove it first to get a new secret"
            )));
        }
        Ok(())
    }

    /// Removes an account; an unknown name is refused.
    pub async fn remove_viewer(&self, name: &str) -> Result<()> {
        let done = sqlx::query("DELETE FROM viewers WHERE name = ?").bind(name).execute(&self.pool).await?;
        if done.rows_affected() == 0 {
            return Err(Error::Refused(format!("there is no viewer \"{name}\"")));
        }
        Ok(())
    }

    /// All accounts by name.
    pub async fn viewers(&self) -> Result<Vec<ViewerRow>> {
        let rows = sqlx::query("SELECT name, created_us FROM viewers ORDER BY name").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(ViewerRow { name: row.try_get(0)?, created_us: row.try_get(1)? })).collect()
    }

    /// The HA1 of an account.
    pub async fn viewer_ha1(&self, name: &str) -> Result<Option<String>> {
        let row = sqlx::query("SELECT ha1 FROM viewers WHERE name = ?").bind(name).fetch_optional(&self.pool).await?;
        row.map(|row| row.try_get(0)).transpose().map_err(Error::from)
    }
}
