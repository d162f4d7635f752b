-- Readings anew: a partition per day, so that expiry drops tables instead of deleting rows, and
-- roll-ups, which outlive them. migrations/sqlite holds the same in SQLite's words.
--
-- The one index serves the look-up by VM and time, and it is what stores a sample once: a
-- sample's id, VM and time never change.

ALTER TABLE vm_metrics RENAME TO vm_metrics_before;
ALTER TABLE vm_metrics_before RENAME CONSTRAINT vm_metrics_pkey TO vm_metrics_before_pkey;

CREATE TABLE vm_metrics (
    id               UUID NOT NULL,
    vm_id            UUID NOT NULL,
    timestamp        TIMESTAMPTZ NOT NULL,
    cpu_usage        DOUBLE PRECISION NOT NULL,
    memory_used      BIGINT NOT NULL,
    memory_total     BIGINT NOT NULL,
    -- Bytes per second; null where the guest does not tell.
    disk_read        DOUBLE PRECISION,
    disk_written     DOUBLE PRECISION,
    network_received DOUBLE PRECISION,
    network_sent     DOUBLE PRECISION,
    -- The frame's whole data.system: JSON, compressed with zstd.
    frame            BYTEA NOT NULL,
    created_at       TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (vm_id, timestamp, id)
) PARTITION BY RANGE (timestamp);
-- Compressed already; a second attempt would only cost time.
ALTER TABLE vm_metrics ALTER COLUMN frame SET STORAGE EXTERNAL;

-- What stood between two times, per VM: sums, so that later readings can be added. Everything is
-- floating point: it is for charts, and no guest's numbers can overflow it.
CREATE TABLE vm_metrics_rollups (
    vm_id                UUID NOT NULL,
    width_seconds        INTEGER NOT NULL CHECK (width_seconds IN (300, 3600)),
    -- The beginning: a multiple of the width since 1970.
    at                   TIMESTAMPTZ NOT NULL,
    count                BIGINT NOT NULL,
    cpu_min              DOUBLE PRECISION NOT NULL,
    cpu_sum              DOUBLE PRECISION NOT NULL,
    cpu_max              DOUBLE PRECISION NOT NULL,
    memory_used_min      DOUBLE PRECISION NOT NULL,
    memory_used_sum      DOUBLE PRECISION NOT NULL,
    memory_used_max      DOUBLE PRECISION NOT NULL,
    memory_total_min     DOUBLE PRECISION NOT NULL,
    memory_total_sum     DOUBLE PRECISION NOT NULL,
    memory_total_max     DOUBLE PRECISION NOT NULL,
    -- Readings that told of disks; of the network.
    disk_count           BIGINT NOT NULL,
    disk_read_min        DOUBLE PRECISION,
    disk_read_sum        DOUBLE PRECISION,
    disk_read_max        DOUBLE PRECISION,
    disk_written_min     DOUBLE PRECISION,
    disk_written_sum     DOUBLE PRECISION,
    disk_written_max     DOUBLE PRECISION,
    network_count        BIGINT NOT NULL,
    network_received_min DOUBLE PRECISION,
    network_received_sum DOUBLE PRECISION,
    network_received_max DOUBLE PRECISION,
    network_sent_min     DOUBLE PRECISION,
    network_sent_sum     DOUBLE PRECISION,
    network_sent_max     DOUBLE PRECISION,
    PRIMARY KEY (vm_id, width_seconds, at)
-- Each row is updated until its time is over: room for that on its page keeps the index out of it.
) WITH (fillfactor = 70);

-- What is there is carried over. The readings' partitions are named and made as the program does
-- it: a row with its frame stays on one page, which is faster to write and to read than two.
DO $$
DECLARE
    day DATE;
BEGIN
    FOR day IN SELECT DISTINCT (timestamp AT TIME ZONE 'UTC')::date FROM vm_metrics_before LOOP
        EXECUTE format(
            'CREATE TABLE vm_metrics_%s PARTITION OF vm_metrics FOR VALUES FROM (%L) TO (%L)
             WITH (toast_tuple_target = 8160)',
            to_char(day, 'YYYYMMDD'),
            day::timestamp AT TIME ZONE 'UTC',
            (day + 1)::timestamp AT TIME ZONE 'UTC');
    END LOOP;
END
$$;

INSERT INTO vm_metrics (id, vm_id, timestamp, cpu_usage, memory_used, memory_total, frame, created_at)
SELECT id, vm_id, timestamp, cpu_usage, memory_used, memory_total, system, created_at
FROM vm_metrics_before;

INSERT INTO vm_metrics_rollups (vm_id, width_seconds, at, count, cpu_min, cpu_sum, cpu_max,
                                memory_used_min, memory_used_sum, memory_used_max,
                                memory_total_min, memory_total_sum, memory_total_max,
                                disk_count, network_count)
SELECT vm_id, width, date_bin(width * interval '1 second', timestamp, '0001-01-01 00:00:00+00'), count(*),
       min(cpu_usage), sum(cpu_usage), max(cpu_usage),
       min(memory_used), sum(memory_used::float8), max(memory_used),
       min(memory_total), sum(memory_total::float8), max(memory_total), 0, 0
FROM vm_metrics_before CROSS JOIN (VALUES (300), (3600)) AS widths (width)
GROUP BY 1, 2, 3;

DROP TABLE vm_metrics_before;
