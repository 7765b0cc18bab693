-- What browser sessions, second factors and apps stand on. Servers of 0.1.0 would
-- open sessions without looking at it: stop them first.

-- +goose Up

-- Raised by all that changes what a login must show, or may come to: a login whose
-- proof was verified before finds another number and is refused.
ALTER TABLE users ADD COLUMN auth_version BIGINT NOT NULL DEFAULT 0;

-- What a session is for: each door takes its own kind alone.
ALTER TABLE sessions ADD COLUMN kind TEXT NOT NULL DEFAULT 'api';
-- What its user has shown last (RFC 8176), and when; null: at created_at.
ALTER TABLE sessions ADD COLUMN amr TEXT NOT NULL DEFAULT 'pwd';
ALTER TABLE sessions ADD COLUMN auth_time BIGINT;
-- The end of a browser session that isn't to stay on its device; null: as all others.
ALTER TABLE sessions ADD COLUMN ends_at BIGINT;

UPDATE meta SET value = '5' WHERE name = 'oldest_schema';
