-- People: roles, passwords, sessions, shares, what a token is good for; and what became of what they
-- asked for. migrations/postgres holds the same in PostgreSQL's words.

ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'member'
    CHECK (role IN ('member', 'read_only', 'operator', 'admin'));
UPDATE users SET role = 'admin' WHERE admin;
ALTER TABLE users DROP COLUMN admin;
-- Lower case. Who has none signs in nowhere; he may have tokens.
ALTER TABLE users ADD COLUMN email TEXT;
CREATE UNIQUE INDEX users_email ON users (email);
-- Argon2id, in its own text form.
ALTER TABLE users ADD COLUMN password_hash TEXT;
-- A disabled user's sessions and tokens are good for nothing.
ALTER TABLE users ADD COLUMN disabled INTEGER NOT NULL DEFAULT FALSE;

-- What a token is good for: words, with a blank between.
ALTER TABLE tokens ADD COLUMN scopes TEXT NOT NULL DEFAULT 'read control unsafe_commands telemetry admin';

CREATE TABLE vm_shares (
    vm_id      BLOB NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    user_id    BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    share      TEXT NOT NULL CHECK (share IN ('view', 'use')),
    created_at TEXT NOT NULL,
    PRIMARY KEY (vm_id, user_id)
) STRICT;
CREATE INDEX vm_shares_user ON vm_shares (user_id, vm_id);

-- One sign-in, whose refresh tokens come one after the other. An ended one is deleted.
CREATE TABLE sessions (
    id         BLOB NOT NULL PRIMARY KEY,
    user_id    BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at TEXT NOT NULL,
    used_at    TEXT NOT NULL,
    -- However often it is refreshed.
    expires_at TEXT NOT NULL,
    address    TEXT NOT NULL,
    user_agent TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_end ON sessions (expires_at);

CREATE TABLE session_tokens (
    sha256     BLOB NOT NULL PRIMARY KEY CHECK (length(sha256) = 32),
    session_id BLOB NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL CHECK (kind IN ('access', 'refresh')),
    expires_at TEXT NOT NULL,
    -- A refresh token is taken once; one that comes again was stolen, or its successor was.
    used_at    TEXT
) STRICT;
CREATE INDEX session_tokens_session ON session_tokens (session_id);
CREATE INDEX session_tokens_end ON session_tokens (expires_at);

-- What makes the first user: one row at most, while there is no user.
CREATE TABLE setup_token (
    one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    sha256     BLOB NOT NULL CHECK (length(sha256) = 32),
    created_at TEXT NOT NULL
) STRICT;

-- What became of it, under which code, from where, and by which request.
ALTER TABLE audit_log ADD COLUMN outcome TEXT NOT NULL DEFAULT 'done'
    CHECK (outcome IN ('done', 'refused', 'failed'));
ALTER TABLE audit_log ADD COLUMN code TEXT;
ALTER TABLE audit_log ADD COLUMN address TEXT;
ALTER TABLE audit_log ADD COLUMN request_id BLOB;
CREATE INDEX audit_log_user ON audit_log (user_id, id);
-- What was written stays as it was, until it is old enough to expire.
CREATE TRIGGER audit_log_is_not_changed BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_log_is_not_removed BEFORE DELETE ON audit_log
WHEN OLD.at > strftime('%Y-%m-%dT%H:%M:%S', 'now', '-12 hours')
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
