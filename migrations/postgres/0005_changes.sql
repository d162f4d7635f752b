-- Changes beyond power and end. migrations/sqlite holds the same in SQLite's words.
--
-- Which words a column may hold is said where they are written and read, and nowhere else from here
-- on: a list of them in the schema would have to be rebuilt with each new kind.

ALTER TABLE vms DROP CONSTRAINT vms_power_check;
ALTER TABLE resources DROP CONSTRAINT resources_kind_check;
ALTER TABLE operations DROP CONSTRAINT operations_kind_check;

-- What is to be changed, whole: a crash finds in it what is left to be done. And when it took hold.
ALTER TABLE operations ADD COLUMN change JSON;
ALTER TABLE operations ADD COLUMN effect TEXT;
-- Changes of one VM come one after the other.
CREATE UNIQUE INDEX operations_one_change ON operations (vm_id)
    WHERE finished_at IS NULL AND change IS NOT NULL;
