-- What a VM's channel is sealed with: random, made with the VM, and gone with it. migrations/postgres holds
-- the same in PostgreSQL's words.
--
-- A table of its own, so that no list of VMs ever reads it. VMs that have no row speak unsealed.

CREATE TABLE vm_seals (
    vm_id      BLOB NOT NULL PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
    key        BLOB NOT NULL CHECK (length(key) = 32),
    created_at TEXT NOT NULL
) STRICT;
