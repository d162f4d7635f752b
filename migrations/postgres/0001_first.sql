-- The first schema. migrations/sqlite holds the same in SQLite's words.
--
-- What tells of a VM's past (operations, command_log, vm_errors, vm_metrics, audit_log) names the
-- VM without a foreign key: history outlives the VM, until it expires.
--
-- JSON that comes from guests is kept as text (json, not jsonb): jsonb refuses the
-- escape \u0000, and a guest must not be able to make a whole batch fail.

CREATE TABLE vms (
    id               UUID NOT NULL PRIMARY KEY,
    host_id          UUID NOT NULL,
    owner_id         UUID NOT NULL,
    name             TEXT NOT NULL,
    spec             JSON NOT NULL,
    power            TEXT NOT NULL CHECK (power IN ('running', 'stopped', 'forced_off')),
    deleting         BOOLEAN NOT NULL DEFAULT FALSE,
    generation       BIGINT NOT NULL CHECK (generation >= 1),
    satisfied        BIGINT NOT NULL CHECK (satisfied >= 0),
    given_up         BIGINT NOT NULL DEFAULT 0 CHECK (given_up >= 0),
    asked_at         TIMESTAMPTZ NOT NULL,
    disk_created_at  TIMESTAMPTZ,
    seed_written_at  TIMESTAMPTZ,
    defined_at       TIMESTAMPTZ,
    first_started_at TIMESTAMPTZ,
    first_seen_at    TIMESTAMPTZ,
    installed_at     TIMESTAMPTZ,
    seed_scrubbed_at TIMESTAMPTZ,
    status           JSON,
    created_at       TIMESTAMPTZ NOT NULL,
    CHECK (satisfied <= generation AND given_up <= satisfied)
);
-- A VM's name is its domain's name: unique on its host.
CREATE UNIQUE INDEX vms_host_name ON vms (host_id, name);
CREATE INDEX vms_owner ON vms (owner_id, id);

CREATE TABLE resources (
    vm_id UUID NOT NULL REFERENCES vms (id),
    kind  TEXT NOT NULL CHECK (kind IN ('volume', 'seed', 'console_log')),
    place TEXT NOT NULL,
    name  TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('creating', 'created')),
    PRIMARY KEY (vm_id, kind, place, name)
);

CREATE TABLE operations (
    id            UUID NOT NULL PRIMARY KEY,
    vm_id         UUID NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('create', 'start', 'stop', 'delete')),
    status        TEXT NOT NULL CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'superseded')),
    progress      INTEGER NOT NULL CHECK (progress BETWEEN 0 AND 100),
    stage         TEXT NOT NULL,
    error_code    TEXT,
    error_message TEXT,
    generation    BIGINT NOT NULL,
    requested_by  UUID NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL,
    finished_at   TIMESTAMPTZ,
    CHECK ((status IN ('pending', 'running')) = (finished_at IS NULL))
);
CREATE INDEX operations_vm ON operations (vm_id);
CREATE INDEX operations_open ON operations (vm_id) WHERE finished_at IS NULL;
CREATE INDEX operations_finished ON operations (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE vm_metrics (
    id            UUID NOT NULL PRIMARY KEY,
    vm_id         UUID NOT NULL,
    timestamp     TIMESTAMPTZ NOT NULL,
    cpu_usage     DOUBLE PRECISION NOT NULL,
    memory_used   BIGINT NOT NULL,
    memory_total  BIGINT NOT NULL,
    disk_usage    JSON,
    network_stats JSON,
    -- The frame's whole data.system: JSON, compressed with zstd.
    system        BYTEA NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL
);
CREATE INDEX vm_metrics_vm_time ON vm_metrics (vm_id, timestamp);
-- Rows come in the order of time, so that a block range index of a few pages finds the expired.
CREATE INDEX vm_metrics_time ON vm_metrics USING brin (timestamp);
-- Compressed already; a second attempt would only cost time.
ALTER TABLE vm_metrics ALTER COLUMN system SET STORAGE EXTERNAL;

CREATE TABLE command_log (
    id           UUID NOT NULL PRIMARY KEY,
    vm_id        UUID NOT NULL,
    kind         TEXT NOT NULL,
    command      JSON NOT NULL,
    response     JSON,
    status       TEXT NOT NULL
                 CHECK (status IN ('pending', 'answered', 'timed_out', 'disconnected', 'lost')),
    success      BOOLEAN,
    execution_ms BIGINT,
    requested_by UUID NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL,
    CHECK ((status = 'pending') = (success IS NULL))
);
CREATE INDEX command_log_vm_time ON command_log (vm_id, created_at);
CREATE INDEX command_log_time ON command_log (created_at);
CREATE INDEX command_log_pending ON command_log (vm_id) WHERE status = 'pending';

CREATE TABLE vm_errors (
    id         UUID NOT NULL PRIMARY KEY,
    vm_id      UUID NOT NULL,
    error      TEXT NOT NULL,
    details    JSON NOT NULL,
    timestamp  TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX vm_errors_vm_time ON vm_errors (vm_id, created_at);
CREATE INDEX vm_errors_time ON vm_errors (created_at);

CREATE TABLE users (
    id         UUID NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    admin      BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE permissions (
    user_id    UUID NOT NULL REFERENCES users (id),
    permission TEXT NOT NULL,
    PRIMARY KEY (user_id, permission)
);

CREATE TABLE tokens (
    id         UUID NOT NULL PRIMARY KEY,
    user_id    UUID NOT NULL REFERENCES users (id),
    label      TEXT NOT NULL,
    sha256     BYTEA NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ
);
CREATE INDEX tokens_user ON tokens (user_id);

-- Who asked for what, of which VM, when; details hold no secrets.
CREATE TABLE audit_log (
    id      UUID NOT NULL PRIMARY KEY,
    at      TIMESTAMPTZ NOT NULL,
    user_id UUID NOT NULL,
    action  TEXT NOT NULL,
    vm_id   UUID,
    details JSON NOT NULL
);
CREATE INDEX audit_log_time ON audit_log (at);
CREATE INDEX audit_log_vm ON audit_log (vm_id);
