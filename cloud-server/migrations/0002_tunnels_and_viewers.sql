-- Services of cameras as ports of the server, addresses that cameras have of their own, and accounts of viewers.
CREATE TABLE tunnels (
    camera_id   TEXT NOT NULL REFERENCES cameras (id) ON DELETE CASCADE,
    service     TEXT NOT NULL,
    port        INTEGER NOT NULL UNIQUE, -- the server's, given once
    camera_port INTEGER NOT NULL,        -- the camera's own
    mode        TEXT NOT NULL,           -- raw or shared, as the agent says
    paths       TEXT NOT NULL,           -- JSON: [{"source", "path"}] of the camera's RTSP server
    state       TEXT NOT NULL,           -- listening, blocked or withdrawn, as a server last saw it
    reason      TEXT,                    -- why it is blocked
    created_us  INTEGER NOT NULL,
    PRIMARY KEY (camera_id, service)
) STRICT;

CREATE TABLE camera_addresses (
    camera_id   TEXT PRIMARY KEY NOT NULL REFERENCES cameras (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL UNIQUE  -- 127.10.0.0 and this
) STRICT;

CREATE TABLE viewers (
    name        TEXT PRIMARY KEY NOT NULL,
    ha1         TEXT NOT NULL,           -- RFC 2617: MD5 of name:camagent:secret, in hexadecimal digits
    created_us  INTEGER NOT NULL
) STRICT;
