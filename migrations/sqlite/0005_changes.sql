-- Changes beyond power and end. migrations/postgres holds the same in PostgreSQL's words.
--
-- Which words a column may hold is said where they are written and read, and nowhere else from here
-- on: a list of them in the schema would have to be rebuilt with each new kind. SQLite cannot drop a
-- constraint, so these tables are built anew; resources stand aside meanwhile, because they name vms.

CREATE TEMP TABLE kept_resources AS SELECT * FROM resources;
DROP TABLE resources;

CREATE TABLE vms_anew (
    id               BLOB NOT NULL PRIMARY KEY,
    host_id          BLOB NOT NULL,
    owner_id         BLOB NOT NULL,
    name             TEXT NOT NULL,
    spec             TEXT NOT NULL,
    power            TEXT NOT NULL,
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
INSERT INTO vms_anew SELECT
    id, host_id, owner_id, name, spec, power, deleting, generation, satisfied, given_up, asked_at,
    disk_created_at, seed_written_at, defined_at, first_started_at, first_seen_at, installed_at,
    seed_scrubbed_at, status, created_at FROM vms;
DROP TABLE vms;
ALTER TABLE vms_anew RENAME TO vms;
CREATE UNIQUE INDEX vms_host_name ON vms (host_id, name);
CREATE INDEX vms_owner ON vms (owner_id, id);

CREATE TABLE resources (
    vm_id BLOB NOT NULL REFERENCES vms (id),
    kind  TEXT NOT NULL,
    place TEXT NOT NULL,
    name  TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('creating', 'created')),
    PRIMARY KEY (vm_id, kind, place, name)
) STRICT;
INSERT INTO resources SELECT vm_id, kind, place, name, state FROM kept_resources;
DROP TABLE kept_resources;

CREATE TABLE operations_anew (
    id            BLOB NOT NULL PRIMARY KEY,
    vm_id         BLOB NOT NULL,
    kind          TEXT NOT NULL,
    status        TEXT NOT NULL CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'superseded')),
    progress      INTEGER NOT NULL CHECK (progress BETWEEN 0 AND 100),
    stage         TEXT NOT NULL,
    error_code    TEXT,
    error_message TEXT,
    generation    INTEGER NOT NULL,
    requested_by  BLOB NOT NULL,
    created_at    TEXT NOT NULL,
    finished_at   TEXT,
    -- What is to be changed, whole: a crash finds in it what is left to be done. And when it took
    -- hold.
    change        TEXT,
    effect        TEXT,
    CHECK ((status IN ('pending', 'running')) = (finished_at IS NULL))
) STRICT;
INSERT INTO operations_anew SELECT
    id, vm_id, kind, status, progress, stage, error_code, error_message, generation, requested_by,
    created_at, finished_at, NULL, NULL FROM operations;
DROP TABLE operations;
ALTER TABLE operations_anew RENAME TO operations;
CREATE INDEX operations_vm ON operations (vm_id);
CREATE INDEX operations_open ON operations (vm_id) WHERE finished_at IS NULL;
CREATE INDEX operations_finished ON operations (finished_at) WHERE finished_at IS NOT NULL;
-- Changes of one VM come one after the other.
CREATE UNIQUE INDEX operations_one_change ON operations (vm_id)
    WHERE finished_at IS NULL AND change IS NOT NULL;
