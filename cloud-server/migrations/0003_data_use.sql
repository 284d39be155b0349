-- Octets of agents by cause: what each run of an agent told last, and the sums of calendar months (UTC).
-- camera is '' for what is of no camera; cause is live:SOURCE, tunnel:SERVICE, backfill, control, overhead or received.
CREATE TABLE data_boots (
    agent_id    TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    boot        BLOB NOT NULL,
    camera      TEXT NOT NULL,
    cause       TEXT NOT NULL,
    octets      INTEGER NOT NULL,        -- since the start of that run
    told_us     INTEGER NOT NULL,
    PRIMARY KEY (agent_id, boot, camera, cause)
) STRICT, WITHOUT ROWID;

CREATE TABLE data_months (
    agent_id    TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    month       TEXT NOT NULL,           -- 2026-11
    camera      TEXT NOT NULL,
    cause       TEXT NOT NULL,
    octets      INTEGER NOT NULL,
    PRIMARY KEY (agent_id, month, camera, cause)
) STRICT, WITHOUT ROWID;
