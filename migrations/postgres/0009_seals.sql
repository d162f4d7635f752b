-- What a VM's channel is sealed with: random, made with the VM, and gone with it. migrations/sqlite holds
-- the same in SQLite's words.
--
-- A table of its own, so that no list of VMs ever reads it. VMs that have no row speak unsealed.

CREATE TABLE vm_seals (
    vm_id      UUID NOT NULL PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
    key        BYTEA NOT NULL CHECK (octet_length(key) = 32),
    created_at TIMESTAMPTZ NOT NULL
);
