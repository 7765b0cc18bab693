-- Apps that let people in by kwai, as an OpenID provider. Servers from before would end
-- browser sessions without their apps' sessions: stop them first.

-- +goose Up

-- A client of OAuth 2. Its addresses are lines of text; options are of: consent,
-- without-pkce, offline.
CREATE TABLE apps (
	id               TEXT PRIMARY KEY, -- the client_id
	name             TEXT NOT NULL,
	secret_hash      BYTEA,            -- SHA-256; null: a public app
	secret_before    BYTEA,            -- that of the one before, which is good, too
	redirect_uris    TEXT NOT NULL,
	post_logout_uris TEXT NOT NULL,
	home_url         TEXT NOT NULL,
	backchannel_url  TEXT NOT NULL,
	options          TEXT NOT NULL,
	created_at       BIGINT NOT NULL
);

CREATE TABLE user_groups (
	name       TEXT PRIMARY KEY,
	created_at BIGINT NOT NULL
);
CREATE TABLE group_members (
	group_name TEXT NOT NULL REFERENCES user_groups (name),
	user_id    TEXT NOT NULL REFERENCES users (id),
	PRIMARY KEY (group_name, user_id)
);
CREATE INDEX group_members_by_user ON group_members (user_id);
-- Who may use an app: members of one of its groups; all, if it has none.
CREATE TABLE app_groups (
	app_id     TEXT NOT NULL REFERENCES apps (id),
	group_name TEXT NOT NULL REFERENCES user_groups (name),
	PRIMARY KEY (app_id, group_name)
);

-- What a user has let an app see.
CREATE TABLE grants (
	user_id    TEXT NOT NULL REFERENCES users (id),
	app_id     TEXT NOT NULL REFERENCES apps (id),
	scopes     TEXT NOT NULL, -- with spaces between them
	granted_at BIGINT NOT NULL,
	taken_back BIGINT NOT NULL, -- how often it was: codes from before are refused
	PRIMARY KEY (user_id, app_id)
);

-- A browser session's child at an app. Its id is that of the code that it came of: so a
-- code is good once. It lives as long as its parent, or on its own if it is offline.
-- counter to prior are those of sessions.
CREATE TABLE app_sessions (
	id         TEXT PRIMARY KEY,
	user_id    TEXT NOT NULL REFERENCES users (id),
	parent_id  TEXT NOT NULL, -- the browser session
	app_id     TEXT NOT NULL,
	sid        TEXT NOT NULL, -- one for a browser session at an app
	scopes     TEXT NOT NULL,
	offline    BIGINT,        -- when it was allowed to outlive its parent; null: it wasn't
	amr        TEXT NOT NULL,
	auth_time  BIGINT NOT NULL,
	counter    BIGINT NOT NULL,
	floor      BIGINT NOT NULL,
	mark       BIGINT NOT NULL,
	prior      BIGINT NOT NULL,
	created_at BIGINT NOT NULL,
	renewed_at BIGINT NOT NULL,
	ended_at   BIGINT,
	end_reason TEXT
);
CREATE INDEX app_sessions_by_user ON app_sessions (user_id, ended_at);
CREATE INDEX app_sessions_by_sid ON app_sessions (sid, ended_at);

-- Ends of sessions that an app is still to hear of (OpenID Connect Back-Channel Logout).
CREATE TABLE logouts (
	id         TEXT PRIMARY KEY,
	app_id     TEXT NOT NULL,
	user_id    TEXT NOT NULL,
	sid        TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	attempts   BIGINT NOT NULL,
	due_at     BIGINT NOT NULL,
	dead_at    BIGINT,
	last_error TEXT NOT NULL
);
CREATE INDEX logouts_due ON logouts (app_id, due_at) WHERE dead_at IS NULL;

-- Which app an entry, or an event, is about; null: none.
ALTER TABLE audit_log ADD COLUMN app_id TEXT;
ALTER TABLE events ADD COLUMN app_id TEXT;

UPDATE meta SET value = '6' WHERE name = 'oldest_schema';
