-- Disks and discs that are brought in. migrations/sqlite holds the same in SQLite's words.
--
-- A row is there before the first byte is, and names every file there may be: the one being
-- written by the row's id, the finished one by its name.

CREATE TABLE media (
    id              UUID NOT NULL PRIMARY KEY,
    host_id         UUID NOT NULL,
    name            TEXT NOT NULL,
    kind            TEXT NOT NULL,
    source_kind     TEXT NOT NULL,
    source          TEXT NOT NULL,
    expected_sha256 TEXT,
    sha256          TEXT,
    -- What the image library is told of a disk image.
    disk            JSON,
    state           TEXT NOT NULL,
    -- What is on the disk for certain; what else a crash left is written again.
    bytes_done      BIGINT NOT NULL DEFAULT 0 CHECK (bytes_done >= 0),
    bytes_total     BIGINT CHECK (bytes_total >= 0),
    validator       TEXT,
    -- A file that is not in its place yet may be there; and: it is to be removed.
    partial         BOOLEAN NOT NULL DEFAULT FALSE,
    discard         BOOLEAN NOT NULL DEFAULT FALSE,
    facts           JSON NOT NULL,
    error_code      TEXT,
    error_message   TEXT,
    requested_by    UUID NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    started_at      TIMESTAMPTZ,
    finished_at     TIMESTAMPTZ
);
CREATE UNIQUE INDEX media_host_name ON media (host_id, name);
