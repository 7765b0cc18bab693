-- The schema of 0.1.0. Its number is 4, so that databases from before, 1 to 3,
-- are told apart. Migrations after this one only expand.
--
-- One text for SQLite and PostgreSQL. Times are microseconds since 1970, given
-- by the caller; a flag is the time since which it holds, or null.

-- +goose Up

-- oldest_schema: the oldest schema version whose programs can use this
-- database. A migration that they could not live with raises it.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO meta (name, value) VALUES ('oldest_schema', '4');

CREATE TABLE users (
    id                    TEXT PRIMARY KEY,     -- UUID v4
    email                 TEXT NOT NULL,        -- as given; mail goes here
    email_key             TEXT NOT NULL UNIQUE, -- folded; found by this
    first_name            TEXT NOT NULL,
    last_name             TEXT NOT NULL,
    password_hash         TEXT,                 -- PHC; null until one is chosen
    password_cost         TEXT,                 -- what verifying the hash costs
    password_set_at       BIGINT,
    recovery_requested_at BIGINT,               -- of the latest recovery made
    last_login_at         BIGINT,
    revoked_at            BIGINT,
    created_at            BIGINT NOT NULL
);
CREATE INDEX users_by_password_cost ON users (password_cost);

-- counter is that of the current refresh token, renewed_at when it became
-- current. Time is cut into reuse windows; mark, floor and prior are the first
-- tokens replaced in renewed_at's window, in that and the one before, and in
-- those and the one before that.
CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id),
    counter    BIGINT NOT NULL,
    floor      BIGINT NOT NULL,
    mark       BIGINT NOT NULL,
    prior      BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    renewed_at BIGINT NOT NULL,
    ended_at   BIGINT,
    end_reason TEXT
);
CREATE INDEX sessions_by_user ON sessions (user_id) WHERE ended_at IS NULL;

-- What the recover endpoint writes, alike for known and unknown addresses.
CREATE TABLE recovery_requests (
    id           TEXT PRIMARY KEY,
    email_key    TEXT NOT NULL UNIQUE,
    requested_at BIGINT NOT NULL,
    address      TEXT NOT NULL, -- whose request it was, for the audit log
    user_agent   TEXT NOT NULL
);

-- The unique id of the mail is derived from request_id under mac_key; only its
-- hash is here. A used or replaced row stays until it expires, so that a
-- repeated delivery cannot make it valid again.
CREATE TABLE recoveries (
    request_id TEXT PRIMARY KEY,
    mac_key    TEXT NOT NULL,
    id_hash    BYTEA NOT NULL UNIQUE,
    user_id    TEXT NOT NULL REFERENCES users (id),
    expires_at BIGINT NOT NULL,
    ended_at   BIGINT
);
CREATE INDEX recoveries_by_user ON recoveries (user_id) WHERE ended_at IS NULL;

-- The outbox: events are written in the transaction of what they tell.
CREATE TABLE events (
    id         TEXT PRIMARY KEY,
    type       TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    session_id TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- position is the order of a subscriber's deliveries.
CREATE TABLE deliveries (
    event_id   TEXT NOT NULL REFERENCES events (id),
    subscriber TEXT NOT NULL,
    attempts   BIGINT NOT NULL,
    due_at     BIGINT NOT NULL,
    dead_at    BIGINT,
    last_error TEXT NOT NULL,
    position   BIGINT NOT NULL,
    PRIMARY KEY (event_id, subscriber)
);
CREATE INDEX deliveries_due ON deliveries (subscriber, due_at) WHERE dead_at IS NULL;
CREATE INDEX deliveries_in_order ON deliveries (subscriber, position);

-- Who is told every event, beside the mail; seen_at is when a server last ran
-- that tells it, or 0 once it is told no more. It stands here so that every
-- replica and every command knows.
CREATE TABLE subscribers (
    name    TEXT PRIMARY KEY,
    seen_at BIGINT NOT NULL
);

CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    owner      TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Signing and MAC keys, sealed under a master key that is not in the database.
CREATE TABLE keys (
    id         TEXT PRIMARY KEY,
    purpose    TEXT NOT NULL,
    sealed     BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    active_at  BIGINT NOT NULL -- from when on it is used for what is new
);

-- What is counted of logins before their passwords are looked at. account is a
-- hash of the folded address, known or not; network is a client's prefix.
-- There are three kinds of rows:
--   account, ''       failures in a row from networks that the account hasn't logged in from
--   account, network  the account has logged in from there; failures in a row since, from there
--   '', network       failures there at accounts for which it is not such a network
-- until: no attempt before then. Of a network alone: by when it has all of its
-- allowance again. A row counts for nothing from expires_at on.
CREATE TABLE attempts (
    account    TEXT   NOT NULL,
    network    TEXT   NOT NULL,
    failures   BIGINT NOT NULL,
    until      BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (account, network)
);
CREATE INDEX attempts_by_expiry ON attempts (expires_at);

-- What happened, for those who run the server. id is a UUID v7, and that of the
-- event where one tells the same.
CREATE TABLE audit_log (
    id         TEXT PRIMARY KEY,
    at         BIGINT NOT NULL,
    kind       TEXT   NOT NULL,
    reason     TEXT   NOT NULL,
    user_id    TEXT,          -- null: nobody's, or nobody in particular
    session_id TEXT,
    address    TEXT   NOT NULL, -- of the client; '' of a command
    user_agent TEXT   NOT NULL
);
CREATE INDEX audit_log_by_user ON audit_log (user_id, id);
