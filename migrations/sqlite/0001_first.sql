-- The first schema. migrations/postgres holds the same in PostgreSQL's words.
--
-- What tells of a VM's past (operations, command_log, vm_errors, vm_metrics, audit_log) names the
-- VM without a foreign key: history outlives the VM, until it expires.
--
-- JSON that comes from guests is kept as text.
-- Identifiers are 16 bytes, times RFC 3339 text in UTC with at most microseconds.

CREATE TABLE vms (
    id               BLOB NOT NULL PRIMARY KEY,
    host_id          BLOB NOT NULL,
    owner_id         BLOB NOT NULL,
    name             TEXT NOT NULL,
    spec             TEXT NOT NULL,
    power            TEXT NOT NULL CHECK (power IN ('running', 'stopped', 'forced_off')),
    deleting         INTEGER NOT NULL DEFAULT FALSE,
    generation       INTEGER NOT NULL CHECK (generation >= 1),
    satisfied        INTEGER NOT NULL CHECK (satisfied >= 0),
    given_up         INTEGER NOT NULL DEFAULT 0 CHECK (given_up >= 0),
    asked_at         TEXT NOT NULL,
    disk_created_at  TEXT,
    seed_written_at  TEXT,
    defined_at       TEXT,
    first_started_at TEXT,
    first_seen_at    TEXT,
    installed_at     TEXT,
    seed_scrubbed_at TEXT,
    status           TEXT,
    created_at       TEXT NOT NULL,
    CHECK (satisfied <= generation AND given_up <= satisfied)
) STRICT;
-- A VM's name is its domain's name: unique on its host.
CREATE UNIQUE INDEX vms_host_name ON vms (host_id, name);
CREATE INDEX vms_owner ON vms (owner_id, id);

CREATE TABLE resources (
    vm_id BLOB NOT NULL REFERENCES vms (id),
    kind  TEXT NOT NULL CHECK (kind IN ('volume', 'seed', 'console_log')),
    place TEXT NOT NULL,
    name  TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('creating', 'created')),
    PRIMARY KEY (vm_id, kind, place, name)
) STRICT;

CREATE TABLE operations (
    id            BLOB NOT NULL PRIMARY KEY,
    vm_id         BLOB NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('create', 'start', 'stop', 'delete')),
    status        TEXT NOT NULL CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'superseded')),
    progress      INTEGER NOT NULL CHECK (progress BETWEEN 0 AND 100),
    stage         TEXT NOT NULL,
    error_code    TEXT,
    error_message TEXT,
    generation    INTEGER NOT NULL,
    requested_by  BLOB NOT NULL,
    created_at    TEXT NOT NULL,
    finished_at   TEXT,
    CHECK ((status IN ('pending', 'running')) = (finished_at IS NULL))
) STRICT;
CREATE INDEX operations_vm ON operations (vm_id);
CREATE INDEX operations_open ON operations (vm_id) WHERE finished_at IS NULL;
CREATE INDEX operations_finished ON operations (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE vm_metrics (
    id            BLOB NOT NULL PRIMARY KEY,
    vm_id         BLOB NOT NULL,
    timestamp     TEXT NOT NULL,
    cpu_usage     REAL NOT NULL,
    memory_used   INTEGER NOT NULL,
    memory_total  INTEGER NOT NULL,
    disk_usage    TEXT,
    network_stats TEXT,
    -- The frame's whole data.system: JSON, compressed with zstd.
    system        BLOB NOT NULL,
    created_at    TEXT NOT NULL
) STRICT;
CREATE INDEX vm_metrics_vm_time ON vm_metrics (vm_id, timestamp);
CREATE INDEX vm_metrics_time ON vm_metrics (timestamp);

CREATE TABLE command_log (
    id           BLOB NOT NULL PRIMARY KEY,
    vm_id        BLOB NOT NULL,
    kind         TEXT NOT NULL,
    command      TEXT NOT NULL,
    response     TEXT,
    status       TEXT NOT NULL
                 CHECK (status IN ('pending', 'answered', 'timed_out', 'disconnected', 'lost')),
    success      INTEGER,
    execution_ms INTEGER,
    requested_by BLOB NOT NULL,
    created_at   TEXT NOT NULL,
    CHECK ((status = 'pending') = (success IS NULL))
) STRICT;
CREATE INDEX command_log_vm_time ON command_log (vm_id, created_at);
CREATE INDEX command_log_time ON command_log (created_at);
CREATE INDEX command_log_pending ON command_log (vm_id) WHERE status = 'pending';

CREATE TABLE vm_errors (
    id         BLOB NOT NULL PRIMARY KEY,
    vm_id      BLOB NOT NULL,
    error      TEXT NOT NULL,
    details    TEXT NOT NULL,
    timestamp  TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX vm_errors_vm_time ON vm_errors (vm_id, created_at);
CREATE INDEX vm_errors_time ON vm_errors (created_at);

CREATE TABLE users (
    id         BLOB NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    admin      INTEGER NOT NULL,
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE permissions (
    user_id    BLOB NOT NULL REFERENCES users (id),
    permission TEXT NOT NULL,
    PRIMARY KEY (user_id, permission)
) STRICT;

CREATE TABLE tokens (
    id         BLOB NOT NULL PRIMARY KEY,
    user_id    BLOB NOT NULL REFERENCES users (id),
    label      TEXT NOT NULL,
    sha256     BLOB NOT NULL UNIQUE CHECK (length(sha256) = 32),
    created_at TEXT NOT NULL,
    expires_at TEXT
) STRICT;
CREATE INDEX tokens_user ON tokens (user_id);

-- Who asked for what, of which VM, when; details hold no secrets.
CREATE TABLE audit_log (
    id      BLOB NOT NULL PRIMARY KEY,
    at      TEXT NOT NULL,
    user_id BLOB NOT NULL,
    action  TEXT NOT NULL,
    vm_id   BLOB,
    details TEXT NOT NULL
) STRICT;
CREATE INDEX audit_log_time ON audit_log (at);
CREATE INDEX audit_log_vm ON audit_log (vm_id);
