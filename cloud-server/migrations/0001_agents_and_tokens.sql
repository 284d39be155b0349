-- Agents that may dial, API tokens, and who owns which camera. Times are microseconds since 1970-01-01 UTC.
CREATE TABLE agents (
    id         TEXT PRIMARY KEY NOT NULL,
    token_hash BLOB NOT NULL,           -- SHA-256 of the token
    created_us INTEGER NOT NULL,
    seen_us    INTEGER                  -- last time a session began or ended
) STRICT;

CREATE TABLE api_tokens (
    name       TEXT PRIMARY KEY NOT NULL,
    token_hash BLOB NOT NULL UNIQUE,    -- SHA-256 of the token
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE cameras (
    id         TEXT PRIMARY KEY NOT NULL,
    agent_id   TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    created_us INTEGER NOT NULL
) STRICT;
