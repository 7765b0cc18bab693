-- Events for subscribers outside of kwai: in order, and about sessions too.

-- +goose Up

ALTER TABLE events ADD COLUMN session_id TEXT;

-- position is the order of a subscriber's deliveries.
ALTER TABLE deliveries ADD COLUMN position BIGINT NOT NULL DEFAULT 0;
CREATE INDEX deliveries_in_order ON deliveries (subscriber, position);

-- Who is told every event, beside the mail; seen_at is when a server last ran
-- that tells it, or 0 once it is told no more. It stands here so that every replica and every command knows.
CREATE TABLE subscribers (
    name    TEXT PRIMARY KEY,
    seen_at BIGINT NOT NULL
);
