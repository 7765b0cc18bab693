-- One text for SQLite and PostgreSQL. Times are microseconds since 1970, given
-- by the caller; a flag is the time since which it holds, or null.

-- +goose Up

-- oldest_schema: the oldest schema version whose programs can use this
-- database. A migration that they could not live with raises it.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO meta (name, value) VALUES ('oldest_schema', '1');

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
    requested_at BIGINT NOT NULL
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
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE TABLE deliveries (
    event_id   TEXT NOT NULL REFERENCES events (id),
    subscriber TEXT NOT NULL,
    attempts   BIGINT NOT NULL,
    due_at     BIGINT NOT NULL,
    dead_at    BIGINT,
    last_error TEXT NOT NULL,
    PRIMARY KEY (event_id, subscriber)
);
CREATE INDEX deliveries_due ON deliveries (subscriber, due_at) WHERE dead_at IS NULL;

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
    created_at BIGINT NOT NULL
);
