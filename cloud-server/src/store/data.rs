//! What agents used of their uplinks, by month. An agent tells sums since its start; what a sum grew by since it was told last counts for the month
//! in which it is told. So nothing counts twice, neither a repeat nor a restart of either end.

use sqlx::Row;

use super::Store;
use crate::error::Result;

/// Runs of an agent whose last sums are kept. One that is older than so many others and speaks again would count anew.
const BOOTS: i64 = 8;

/// Octets of one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataRow {
    /// The camera; empty for what is of none.
    pub camera: String,
    /// `live:SOURCE`, `tunnel:SERVICE`, `backfill`, `control`, `overhead` or `received`; `backfill:SOURCE` and `received:SERVICE` are parts of these.
    pub cause: String,
    /// How many.
    pub octets: i64,
}

impl DataRow {
    /// Whether another row has these octets too.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.cause.starts_with("backfill:") || self.cause.starts_with("received:")
    }

    /// All octets of these rows, each counted once.
    #[must_use]
    pub fn total(rows: &[Self]) -> i64 {
        rows.iter().filter(|row| !row.is_part()).map(|row| row.octets).fold(0, i64::saturating_add)
    }
}

impl Store {
    /// An agent's run has told its sums; they count for `month`, as `2026-11`.
    pub async fn add_data(
        &self,
        agent: &str,
        boot: &[u8; 16],
        month: &str,
        told: &[DataRow],
        now_us: i64,
    ) -> Result<()> {
        // A transaction that reads first and then wants to write is refused at once when somebody else wrote in between: whoever means to write
        // waits in line from the beginning.
        let mut work = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for row in told {
            let before = sqlx::query(
                "SELECT octets FROM data_boots WHERE agent_id = ? AND boot = ? AND camera = ? AND cause = ?",
            )
            .bind(agent)
            .bind(&boot[..])
            .bind(&row.camera)
            .bind(&row.cause)
            .fetch_optional(&mut *work)
            .await?;
            let before: i64 = before.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
            let grown = row.octets.saturating_sub(before);
            if grown <= 0 {
                continue;
            }
            sqlx::query(
                "INSERT INTO data_boots (agent_id, boot, camera, cause, octets, told_us) VALUES (?, ?, ?, ?, ?, ?) \
                 ON CONFLICT DO UPDATE SET octets = excluded.octets, told_us = excluded.told_us",
            )
            .bind(agent)
            .bind(&boot[..])
            .bind(&row.camera)
            .bind(&row.cause)
            .bind(row.octets)
            .bind(now_us)
            .execute(&mut *work)
            .await?;
            sqlx::query(
                "INSERT INTO data_months (agent_id, month, camera, cause, octets) VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT DO UPDATE SET octets = octets + excluded.octets",
            )
            .bind(agent)
            .bind(month)
            .bind(&row.camera)
            .bind(&row.cause)
            .bind(grown)
            .execute(&mut *work)
            .await?;
        }
        sqlx::query(
            "DELETE FROM data_boots WHERE agent_id = ?1 AND boot NOT IN (SELECT boot FROM data_boots WHERE agent_id = ?1 \
             GROUP BY boot ORDER BY max(told_us) DESC, boot = ?3 DESC LIMIT ?2)",
        )
        .bind(agent)
        .bind(BOOTS)
        .bind(&boot[..])
        .execute(&mut *work)
        .await?;
        work.commit().await?;
        Ok(())
    }

    /// What an agent used in a month, by camera and cause.
    pub async fn data(&self, agent: &str, month: &str) -> Result<Vec<DataRow>> {
        let rows = sqlx::query(
            "SELECT camera, cause, octets FROM data_months WHERE agent_id = ? AND month = ? ORDER BY camera, cause",
        )
        .bind(agent)
        .bind(month)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| Ok(DataRow { camera: row.try_get(0)?, cause: row.try_get(1)?, octets: row.try_get(2)? }))
            .collect()
    }

    /// The months of which something is known, the newest first.
    pub async fn data_months(&self, agent: &str) -> Result<Vec<String>> {
        let rows = sqlx::query("SELECT DISTINCT month FROM data_months WHERE agent_id = ? ORDER BY month DESC")
            .bind(agent)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(camera: &str, cause: &str, octets: i64) -> DataRow {
        DataRow { camera: camera.into(), cause: cause.into(), octets }
    }

    #[tokio::test]
    async fn sums_of_a_boot_count_once_and_boots_add_up() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::open(folder.path()).await.expect("opens");
        store.add_agent("a", &[1; 32], 1).await.expect("adds");
        let (first, second) = ([1; 16], [2; 16]);
        let told = [row("gate", "live:main", 1_000), row("", "control", 50)];
        for _ in 0..3 {
            store.add_data("a", &first, "2026-11", &told, 1).await.expect("writes");
        }
        store.add_data("a", &first, "2026-11", &[row("gate", "live:main", 1_500)], 2).await.expect("writes");
        assert_eq!(
            store.data("a", "2026-11").await.expect("reads"),
            [row("", "control", 50), row("gate", "live:main", 1_500)]
        );
        // A restart counts from nothing; the first run's last words come late.
        store.add_data("a", &second, "2026-11", &[row("gate", "live:main", 300)], 3).await.expect("writes");
        store.add_data("a", &first, "2026-11", &[row("gate", "live:main", 1_400)], 4).await.expect("writes");
        assert_eq!(store.data("a", "2026-11").await.expect("reads")[1].octets, 1_800);
        store.add_data("a", &second, "2026-12", &[row("gate", "live:main", 1_000)], 5).await.expect("writes");
        assert_eq!(store.data("a", "2026-12").await.expect("reads"), [row("gate", "live:main", 700)]);
        assert_eq!(store.data_months("a").await.expect("reads"), ["2026-12", "2026-11"]);
        store.remove_agent("a").await.expect("removes");
        assert!(store.data("a", "2026-11").await.expect("reads").is_empty(), "gone with its agent");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn agents_that_come_back_together_are_all_counted() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::open(folder.path()).await.expect("opens");
        let mut agents = tokio::task::JoinSet::new();
        for number in 0..8_u8 {
            store.add_agent(&format!("a{number}"), &[number; 32], 1).await.expect("adds");
        }
        for number in 0..8_u8 {
            let store = store.clone();
            agents.spawn(async move {
                let agent = format!("a{number}");
                for octets in 1..5 {
                    let told = [row("gate", "live:main", octets * 100)];
                    store.add_data(&agent, &[number; 16], "2026-11", &told, octets).await.expect("waits for its turn");
                }
                store.data(&agent, "2026-11").await.expect("reads")
            });
        }
        while let Some(data) = agents.join_next().await {
            assert_eq!(data.expect("no panic"), [row("gate", "live:main", 400)]);
        }
    }

    #[tokio::test]
    async fn an_agent_that_makes_up_boots_takes_no_room() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::open(folder.path()).await.expect("opens");
        store.add_agent("a", &[1; 32], 1).await.expect("adds");
        for boot in 0..30 {
            store
                .add_data("a", &[boot; 16], "2026-11", &[row("", "control", 1)], i64::from(boot))
                .await
                .expect("writes");
        }
        let kept = sqlx::query("SELECT count(*) FROM data_boots").fetch_one(&store.pool).await.expect("reads");
        assert_eq!(kept.try_get::<i64, _>(0).expect("a number"), BOOTS);
    }
}
