-- Commands that were withdrawn, when one was sent, how long it waited and ran, and the answer that
-- came when nobody waited for it any more.

-- SQLite cannot change a constraint: the table is made anew.
CREATE TABLE command_log_new (
    id            BLOB NOT NULL PRIMARY KEY,
    vm_id         BLOB NOT NULL,
    kind          TEXT NOT NULL,
    command       TEXT NOT NULL,
    response      TEXT,
    status        TEXT NOT NULL CHECK (status IN
                      ('pending', 'answered', 'timed_out', 'disconnected', 'lost', 'cancelled')),
    success       INTEGER,
    execution_ms  INTEGER,
    requested_by  BLOB NOT NULL,
    created_at    TEXT NOT NULL,
    sent_at       TEXT,
    -- Milliseconds: submission to sent, and sent to outcome. Null where it was never sent.
    queue_ms      INTEGER,
    run_ms        INTEGER,
    late_response TEXT,
    late_at       TEXT,
    CHECK ((status = 'pending') = (success IS NULL)),
    -- A late answer is no outcome: it comes after one.
    CHECK ((late_at IS NULL) = (late_response IS NULL)
           AND (late_at IS NULL OR status NOT IN ('pending', 'answered')))
) STRICT;
INSERT INTO command_log_new
    (id, vm_id, kind, command, response, status, success, execution_ms, requested_by, created_at)
    SELECT id, vm_id, kind, command, response, status, success, execution_ms, requested_by, created_at
    FROM command_log;
DROP TABLE command_log;
ALTER TABLE command_log_new RENAME TO command_log;
CREATE INDEX command_log_vm_time ON command_log (vm_id, created_at);
CREATE INDEX command_log_time ON command_log (created_at);
CREATE INDEX command_log_pending ON command_log (vm_id) WHERE status = 'pending';
