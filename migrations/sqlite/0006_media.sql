-- Disks and discs that are brought in. migrations/postgres holds the same in PostgreSQL's words.
--
-- A row is there before the first byte is, and names every file there may be: the one being
-- written by the row's id, the finished one by its name.

CREATE TABLE media (
    id              BLOB NOT NULL PRIMARY KEY,
    host_id         BLOB NOT NULL,
    name            TEXT NOT NULL,
    kind            TEXT NOT NULL,
    source_kind     TEXT NOT NULL,
    source          TEXT NOT NULL,
    expected_sha256 TEXT,
    sha256          TEXT,
    -- What the image library is told of a disk image.
    disk            TEXT,
    state           TEXT NOT NULL,
    -- What is on the disk for certain; what else a crash left is written again.
    bytes_done      INTEGER NOT NULL DEFAULT 0 CHECK (bytes_done >= 0),
    bytes_total     INTEGER CHECK (bytes_total >= 0),
    validator       TEXT,
    -- A file that is not in its place yet may be there; and: it is to be removed.
    partial         INTEGER NOT NULL DEFAULT FALSE,
    discard         INTEGER NOT NULL DEFAULT FALSE,
    facts           TEXT NOT NULL,
    error_code      TEXT,
    error_message   TEXT,
    requested_by    BLOB NOT NULL,
    created_at      TEXT NOT NULL,
    started_at      TEXT,
    finished_at     TEXT
) STRICT;
CREATE UNIQUE INDEX media_host_name ON media (host_id, name);
