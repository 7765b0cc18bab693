-- Throttling, keys that rotate, a trail.

-- +goose Up

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
CREATE TABLE trail (
    id         TEXT PRIMARY KEY,
    at         BIGINT NOT NULL,
    kind       TEXT   NOT NULL,
    reason     TEXT   NOT NULL,
    user_id    TEXT,          -- null: nobody's, or nobody in particular
    session_id TEXT,
    address    TEXT   NOT NULL, -- of the client; '' of a command
    user_agent TEXT   NOT NULL
);
CREATE INDEX trail_by_user ON trail (user_id, id);

-- How often throttling refused, by the hour. account and network as in attempts.
CREATE TABLE refusals (
    hour    BIGINT NOT NULL, -- when it began
    account TEXT   NOT NULL,
    network TEXT   NOT NULL,
    count   BIGINT NOT NULL,
    PRIMARY KEY (hour, account, network)
);

-- From when on a key is used for what is new; null of those that were made
-- before keys were changed: since created_at.
ALTER TABLE keys ADD COLUMN active_at BIGINT;

-- Whose request it was, for the trail.
ALTER TABLE recovery_requests ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE recovery_requests ADD COLUMN user_agent TEXT NOT NULL DEFAULT '';
