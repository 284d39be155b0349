//! The table of cameras: a camera id is unique on the server and belongs to the agent that claimed it first.

use sqlx::Row;

use super::Store;
use crate::error::Result;

/// One camera and its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraRow {
    /// The camera's id.
    pub id: String,
    /// The agent that owns it.
    pub agent_id: String,
}

impl Store {
    /// All cameras by id.
    pub async fn cameras(&self) -> Result<Vec<CameraRow>> {
        let rows = sqlx::query("SELECT id, agent_id FROM cameras ORDER BY id").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(CameraRow { id: row.try_get(0)?, agent_id: row.try_get(1)? })).collect()
    }

    /// Who owns the camera: the agent that claimed it, or, for a camera named as another agent, that agent.
    pub async fn camera_owner(&self, camera: &str) -> Result<Option<String>> {
        let row = sqlx::query(
            "SELECT agent_id FROM cameras WHERE id = ?1 UNION ALL SELECT id FROM agents WHERE id = ?1 LIMIT 1",
        )
        .bind(camera)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Remembers the claim; does nothing when the camera has an owner, and does not wait for those who write then.
    pub async fn claim_camera(&self, camera: &str, agent: &str, now_us: i64) -> Result<()> {
        if sqlx::query("SELECT 1 FROM cameras WHERE id = ?").bind(camera).fetch_optional(&self.pool).await?.is_some() {
            return Ok(());
        }
        sqlx::query("INSERT INTO cameras (id, agent_id, created_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(camera)
            .bind(agent)
            .bind(now_us)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_claim_wins_and_an_agent_id_is_a_camera_id_of_its_own() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::open(folder.path()).await.expect("opens");
        store.add_agent("a", &[1; 32], 1).await.expect("adds");
        store.add_agent("b", &[2; 32], 1).await.expect("adds");
        store.claim_camera("door", "a", 1).await.expect("claims");
        store.claim_camera("door", "b", 1).await.expect("is ignored");
        assert_eq!(store.camera_owner("door").await.expect("reads").as_deref(), Some("a"));
        assert_eq!(store.camera_owner("b").await.expect("reads").as_deref(), Some("b"));
        assert_eq!(store.camera_owner("roof").await.expect("reads"), None);
        store.remove_agent("a").await.expect("removes");
        assert_eq!(store.camera_owner("door").await.expect("reads"), None);
    }
}
