-- What operators are told without asking. migrations/sqlite holds the same in SQLite's words.
--
-- A row is both the alert and the message about it that is still to be told: it is stored in the
-- transaction of what it tells about, and told from here. Like all history it names its VM
-- without a foreign key.

CREATE TABLE alerts (
    id              UUID NOT NULL PRIMARY KEY,
    host_id         UUID NOT NULL,
    kind            TEXT NOT NULL CHECK (kind IN ('guest_error', 'vm_offline', 'install_stuck', 'clock_skew',
                                                  'readings_lost')),
    vm_id           UUID,
    vm_name         TEXT,
    -- Kind, VM and, of a guest's error, its fingerprint.
    dedup_key       TEXT NOT NULL,
    severity        TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    summary         TEXT NOT NULL,
    details         JSON NOT NULL,
    count           BIGINT NOT NULL CHECK (count >= 1),
    first_at        TIMESTAMPTZ NOT NULL,
    last_at         TIMESTAMPTZ NOT NULL,
    resolved_at     TIMESTAMPTZ,
    -- The newest message: its state, and when it, or the next one, is due; NULL: nothing more.
    state           TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'suppressed')),
    attempts        BIGINT NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMPTZ,
    failing_since   TIMESTAMPTZ,
    last_error      TEXT,
    delivered_at    TIMESTAMPTZ,
    -- Messages that arrived, and the count that the last of them gave.
    notified        BIGINT NOT NULL DEFAULT 0,
    told_count      BIGINT NOT NULL DEFAULT 0
);
-- The same is one alert while it is open.
CREATE UNIQUE INDEX alerts_open ON alerts (host_id, dedup_key) WHERE resolved_at IS NULL;
CREATE INDEX alerts_due ON alerts (host_id, next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX alerts_vm ON alerts (vm_id, kind);
