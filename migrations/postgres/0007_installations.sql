-- Installations from a disc. migrations/sqlite holds the same in SQLite's words.
--
-- How far an installer is, and by whose word: of the token that it reports with only the SHA-256 is
-- here, in lower-case hexadecimal, until the installation has ended. How often it said something new
-- is counted, because no installer has much to say.

ALTER TABLE vms ADD COLUMN system_installed_at TIMESTAMPTZ;
ALTER TABLE vms ADD COLUMN boot_replaced_at TIMESTAMPTZ;
ALTER TABLE vms ADD COLUMN install_token_sha256 TEXT;
ALTER TABLE vms ADD COLUMN install_stage TEXT;
ALTER TABLE vms ADD COLUMN install_reported_at TIMESTAMPTZ;
ALTER TABLE vms ADD COLUMN install_reports INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX vms_install_token ON vms (install_token_sha256) WHERE install_token_sha256 IS NOT NULL;
