-- Readings anew, with one index, and roll-ups, which outlive them. migrations/postgres holds the
-- same in PostgreSQL's words.
--
-- The one index serves the look-up by VM and time, and it is what stores a sample once: a
-- sample's id, VM and time never change. Expiry goes from VM to VM by it.

DROP INDEX vm_metrics_vm_time;
DROP INDEX vm_metrics_time;
ALTER TABLE vm_metrics RENAME TO vm_metrics_before;

CREATE TABLE vm_metrics (
    id               BLOB NOT NULL,
    vm_id            BLOB NOT NULL,
    timestamp        TEXT NOT NULL,
    cpu_usage        REAL NOT NULL,
    memory_used      INTEGER NOT NULL,
    memory_total     INTEGER NOT NULL,
    -- Bytes per second; null where the guest does not tell.
    disk_read        REAL,
    disk_written     REAL,
    network_received REAL,
    network_sent     REAL,
    created_at       TEXT NOT NULL,
    -- The frame's whole data.system: JSON, compressed with zstd. Last, because what stands behind
    -- a large value is slow to reach.
    frame            BLOB NOT NULL,
    PRIMARY KEY (vm_id, timestamp, id)
) STRICT;

-- What stood between two times, per VM: sums, so that later readings can be added. Everything is
-- floating point: it is for charts, and no guest's numbers can overflow it.
CREATE TABLE vm_metrics_rollups (
    vm_id                BLOB NOT NULL,
    width_seconds        INTEGER NOT NULL CHECK (width_seconds IN (300, 3600)),
    -- The beginning: a multiple of the width since 1970.
    at                   TEXT NOT NULL,
    count                INTEGER NOT NULL,
    cpu_min              REAL NOT NULL,
    cpu_sum              REAL NOT NULL,
    cpu_max              REAL NOT NULL,
    memory_used_min      REAL NOT NULL,
    memory_used_sum      REAL NOT NULL,
    memory_used_max      REAL NOT NULL,
    memory_total_min     REAL NOT NULL,
    memory_total_sum     REAL NOT NULL,
    memory_total_max     REAL NOT NULL,
    -- Readings that told of disks; of the network.
    disk_count           INTEGER NOT NULL,
    disk_read_min        REAL,
    disk_read_sum        REAL,
    disk_read_max        REAL,
    disk_written_min     REAL,
    disk_written_sum     REAL,
    disk_written_max     REAL,
    network_count        INTEGER NOT NULL,
    network_received_min REAL,
    network_received_sum REAL,
    network_received_max REAL,
    network_sent_min     REAL,
    network_sent_sum     REAL,
    network_sent_max     REAL,
    PRIMARY KEY (vm_id, width_seconds, at)
) STRICT, WITHOUT ROWID;

INSERT INTO vm_metrics (id, vm_id, timestamp, cpu_usage, memory_used, memory_total, created_at, frame)
SELECT id, vm_id, timestamp, cpu_usage, memory_used, memory_total, created_at, system
FROM vm_metrics_before;

INSERT INTO vm_metrics_rollups (vm_id, width_seconds, at, count, cpu_min, cpu_sum, cpu_max,
                                memory_used_min, memory_used_sum, memory_used_max,
                                memory_total_min, memory_total_sum, memory_total_max,
                                disk_count, network_count)
SELECT vm_id, width,
       -- Rounded down, also before 1970; written as the program writes times.
       strftime('%Y-%m-%dT%H:%M:%S+00:00',
                CAST(strftime('%s', timestamp) AS INTEGER)
                - ((CAST(strftime('%s', timestamp) AS INTEGER) % width) + width) % width,
                'unixepoch') AS at,
       count(*),
       min(cpu_usage), sum(cpu_usage), max(cpu_usage),
       min(memory_used), sum(CAST(memory_used AS REAL)), max(memory_used),
       min(memory_total), sum(CAST(memory_total AS REAL)), max(memory_total), 0, 0
FROM vm_metrics_before CROSS JOIN (SELECT 300 AS width UNION ALL SELECT 3600) AS widths
GROUP BY 1, 2, 3;

DROP TABLE vm_metrics_before;
