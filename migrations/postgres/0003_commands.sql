-- Commands that were withdrawn, when one was sent, how long it waited and ran, and the answer that
-- came when nobody waited for it any more.

ALTER TABLE command_log
    DROP CONSTRAINT command_log_status_check,
    ADD CONSTRAINT command_log_status_check CHECK (status IN
        ('pending', 'answered', 'timed_out', 'disconnected', 'lost', 'cancelled')),
    ADD COLUMN sent_at       TIMESTAMPTZ,
    -- Milliseconds: submission to sent, and sent to outcome. Null where it was never sent.
    ADD COLUMN queue_ms      BIGINT,
    ADD COLUMN run_ms        BIGINT,
    ADD COLUMN late_response JSON,
    ADD COLUMN late_at       TIMESTAMPTZ,
    -- A late answer is no outcome: it comes after one.
    ADD CONSTRAINT command_log_late_check CHECK
        ((late_at IS NULL) = (late_response IS NULL)
         AND (late_at IS NULL OR status NOT IN ('pending', 'answered')));
