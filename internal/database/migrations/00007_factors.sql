-- Second factors and passkeys. Servers from before would open sessions without what an
-- account demands: stop them first.

-- +goose Up

-- Since when the user wants two steps at a login; null: one is enough.
ALTER TABLE users ADD COLUMN two_steps_at BIGINT;
-- 1: its members log in by two steps, whatever they want.
ALTER TABLE user_groups ADD COLUMN two_steps BIGINT NOT NULL DEFAULT 0;

-- An authenticator app (RFC 6238).
CREATE TABLE authenticators (
	user_id    TEXT PRIMARY KEY REFERENCES users (id),
	secret     TEXT NOT NULL,   -- sealed under the key that it names
	last_step  BIGINT NOT NULL, -- of the latest code that was used: none up to it is good
	created_at BIGINT NOT NULL,
	used_at    BIGINT
);

-- What gets a user in without the authenticator app. Each is good once.
CREATE TABLE recovery_codes (
	user_id    TEXT NOT NULL REFERENCES users (id),
	hash       BYTEA NOT NULL, -- SHA-256
	created_at BIGINT NOT NULL,
	used_at    BIGINT,
	PRIMARY KEY (user_id, hash)
);

-- A passkey (WebAuthn, a discoverable credential).
CREATE TABLE passkeys (
	id             TEXT PRIMARY KEY, -- the credential's, base64url
	user_id        TEXT NOT NULL REFERENCES users (id),
	rp_id          TEXT NOT NULL,    -- the host that it is for
	name           TEXT NOT NULL,
	credential     TEXT NOT NULL,    -- the public key, flags and counter, as JSON
	last_challenge BIGINT NOT NULL,  -- when the latest that was answered was made: none up to it is good
	created_at     BIGINT NOT NULL,
	used_at        BIGINT
);
CREATE INDEX passkeys_by_user ON passkeys (user_id);

UPDATE meta SET value = '7' WHERE name = 'oldest_schema';
