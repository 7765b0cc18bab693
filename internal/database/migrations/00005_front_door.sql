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

-- Which language a user has chosen for mails and pages (BCP 47); '': none.
ALTER TABLE users ADD COLUMN language TEXT NOT NULL DEFAULT '';
-- When the mailbox of its address was proven, or an operator vouched for it; null: never.
ALTER TABLE users ADD COLUMN email_proven_at BIGINT;
UPDATE users SET email_proven_at = created_at;
-- Which address a user has asked for, until the link that was mailed to it is followed.
CREATE TABLE email_changes (
	user_id      TEXT PRIMARY KEY REFERENCES users (id),
	request_id   TEXT NOT NULL, -- the event's
	email        TEXT NOT NULL,
	email_key    TEXT NOT NULL,
	auth_version BIGINT NOT NULL, -- the user's at the request
	expires_at   BIGINT NOT NULL
);
-- The language of the page on which it was requested; '': none.
ALTER TABLE recovery_requests ADD COLUMN language TEXT NOT NULL DEFAULT '';
-- Of mails alone. language: that of the page which caused it, or of a user who is
-- deleted; recipient: where it goes if not to the user's address. '': neither.
ALTER TABLE deliveries ADD COLUMN language TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN recipient TEXT NOT NULL DEFAULT '';

-- A deletion needs all of a user's rows, ended or not.
DROP INDEX sessions_by_user;
CREATE INDEX sessions_by_user ON sessions (user_id, ended_at);
DROP INDEX recoveries_by_user;
CREATE INDEX recoveries_by_user ON recoveries (user_id, ended_at);

UPDATE meta SET value = '5' WHERE name = 'oldest_schema';
