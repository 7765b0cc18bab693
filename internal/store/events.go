package store

import (
	"slices"
	"time"

	"kwai/internal/database"
)

// Event is something that happened to a user, to be delivered to subscribers.
type Event struct {
	ID        string // UUID
	Type      string
	UserID    string
	SessionID string // of the session that it is about; "" if about none
	AppID     string // of the app that it is about; "" if about none
	CreatedAt time.Time
	ExpiresAt time.Time // mailing it later is of no use

	// Of the mail alone: a subscriber outside gets neither.
	Language  string // of the page that caused it, or of a user who was deleted; "": neither
	Recipient string // where it goes if not to the user's address
}

// SubscriberMail is the subscriber that mails users.
const SubscriberMail = "mail"

// Delivery is an event on its way to a subscriber.
type Delivery struct {
	Event
	Subscriber string
	Attempts   int
	DueAt      time.Time // when it is tried next
	DeadAt     time.Time // zero: it is still tried
	LastError  string
}

// selectDeliveries begins a query of the deliveries of subscriber $1.
const selectDeliveries = `SELECT e.id, e.type, e.user_id, e.session_id, e.app_id, e.created_at, e.expires_at,
	d.subscriber, d.attempts, d.due_at, d.dead_at, d.last_error, d.language, d.recipient
	FROM deliveries d JOIN events e ON e.id = d.event_id WHERE d.subscriber = $1 `

func scanDelivery(scan database.Scan) (d Delivery, err error) {
	return d, scan(&d.ID, &d.Type, &d.UserID, (*nullable)(&d.SessionID), (*nullable)(&d.AppID), (*instant)(&d.CreatedAt), (*instant)(&d.ExpiresAt),
		&d.Subscriber, &d.Attempts, (*instant)(&d.DueAt), (*instant)(&d.DeadAt), &d.LastError, &d.Language, &d.Recipient)
}

// Publish writes an event, to be delivered to the subscribers named; without any
// there is nothing to write.
//
// A subscriber's deliveries are in the order in which they became known: what
// was committed before another event's transaction began comes before it, and
// all that happens to one user is in the order of its commits, if the user's row
// was updated first.
func (tx *Tx) Publish(e Event, subscribers ...string) error {
	if len(subscribers) == 0 {
		return nil
	}
	_, err := tx.Exec(`INSERT INTO events (id, type, user_id, session_id, app_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		e.ID, e.Type, e.UserID, text(e.SessionID), text(e.AppID), micros(e.CreatedAt), micros(e.ExpiresAt))
	for _, name := range subscribers {
		if !slices.Contains(tx.subscribers, name) {
			tx.subscribers = append(tx.subscribers, name)
		}
		language, recipient := e.Language, e.Recipient
		if name != SubscriberMail {
			language, recipient = "", ""
		}
		if err == nil {
			_, err = tx.Exec(`INSERT INTO deliveries (event_id, subscriber, attempts, due_at, last_error, position, language, recipient)
				SELECT $1, $2, 0, $3, '', COALESCE(MAX(position), 0) + 1, $4, $5 FROM deliveries WHERE subscriber = $2`,
				e.ID, name, micros(tx.Now), language, recipient)
		}
	}
	return err
}

// DueDeliveries lists up to n deliveries that are due, the longest due first.
func (r Reader) DueDeliveries(subscriber string, now time.Time, n int) ([]Delivery, error) {
	return database.QueryRows(r.db, scanDelivery, selectDeliveries+`AND d.dead_at IS NULL AND d.due_at <= $2 ORDER BY d.due_at, e.id LIMIT $3`,
		subscriber, micros(now), n)
}

// NextDeliveries lists up to n deliveries in their order, due or not.
func (r Reader) NextDeliveries(subscriber string, n int) ([]Delivery, error) {
	return database.QueryRows(r.db, scanDelivery, selectDeliveries+`ORDER BY d.position, e.id LIMIT $2`, subscriber, n)
}

// Deliveries lists up to n of the subscriber's deliveries, tried or dead, in
// the order of their events' ids, beginning behind the id given.
func (r Reader) Deliveries(subscriber, after string, n int) ([]Delivery, error) {
	return database.QueryRows(r.db, scanDelivery, selectDeliveries+`AND e.id > $2 ORDER BY e.id LIMIT $3`, subscriber, after, n)
}

// DeliveryByID finds a delivery; ErrNotFound if it succeeded or never was.
func (r Reader) DeliveryByID(subscriber, eventID string) (Delivery, error) {
	return database.QueryRow(r.db, scanDelivery, selectDeliveries+`AND e.id = $2`, subscriber, eventID)
}

// Delivered removes a delivery that succeeded, and its event with the last one.
func (tx *Tx) Delivered(subscriber, eventID string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM deliveries WHERE event_id = $1 AND subscriber = $2`, eventID, subscriber)
	if err == nil {
		err = tx.forgetEvent(eventID)
	}
	return n == 1, err
}

// DropDeliveries removes all of a user's deliveries to a subscriber, tried or dead, and
// says which they were.
func (tx *Tx) DropDeliveries(subscriber, userID string) ([]Delivery, error) {
	dropped, err := database.QueryRows(tx.db, scanDelivery, selectDeliveries+`AND e.user_id = $2 ORDER BY e.id`, subscriber, userID)
	for _, d := range dropped {
		if err == nil {
			_, err = tx.Delivered(subscriber, d.ID)
		}
	}
	return dropped, err
}

// forgetEvent removes an event if the delivery just removed was its last one.
func (tx *Tx) forgetEvent(id string) error {
	gone, err := tx.dropEvent(id)
	if err == nil && gone == 0 {
		// Another delivery is left, or another transaction is removing it and still
		// sees this one. The second of the two to get the event's row sees neither.
		if _, err = tx.Exec(`UPDATE events SET type = type WHERE id = $1`, id); err == nil {
			_, err = tx.dropEvent(id)
		}
	}
	return err
}

// dropEvent removes an event that has no delivery.
func (tx *Tx) dropEvent(id string) (int64, error) {
	return tx.Exec(`DELETE FROM events WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id = $1)`, id)
}

// DeliveryFailed notes a failed attempt: it is tried again at due, or never
// where due is zero.
func (tx *Tx) DeliveryFailed(subscriber, eventID, reason string, due time.Time) error {
	dead := time.Time{}
	if due.IsZero() {
		dead, due = tx.Now, tx.Now
	}
	_, err := tx.Exec(`UPDATE deliveries SET attempts = attempts + 1, last_error = $1, due_at = $2, dead_at = $3 WHERE event_id = $4 AND subscriber = $5`,
		reason, micros(due), optional(dead), eventID, subscriber)
	return err
}

// Subscriber is a program outside that every event is delivered to.
type Subscriber struct {
	Name string
	// SeenAt is when a server that delivers to it last ran; zero once it has been
	// unsubscribed.
	SeenAt time.Time
}

// Subscribers lists those that are subscribed, and those that were.
func (r Reader) Subscribers() ([]Subscriber, error) {
	return database.QueryRows(r.db, func(scan database.Scan) (s Subscriber, err error) {
		return s, scan(&s.Name, (*instant)(&s.SeenAt))
	}, `SELECT name, NULLIF(seen_at, 0) FROM subscribers ORDER BY name`)
}

// Subscribe has every event delivered to the subscriber from now on.
func (tx *Tx) Subscribe(name string) error {
	_, err := tx.Exec(`INSERT INTO subscribers (name, seen_at) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET seen_at = `+later(`subscribers.seen_at`, `excluded.seen_at`), name, micros(tx.Now))
	return err
}

// Unsubscribe ends what Subscribe began, unless a server that delivers to
// the subscriber was seen after that time; true if it did. Its deliveries stay. So
// does its row: some server may not know for a second, and write more of them.
func (tx *Tx) Unsubscribe(name string, unseenSince time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE subscribers SET seen_at = 0 WHERE name = $1 AND seen_at <= $2`, name, micros(unseenSince))
	return n == 1, err
}

// Outbox is what waits for a subscriber.
type Outbox struct {
	Subscriber string
	Waiting    int64 // deliveries that are still tried
	Dead       int64 // those that were given up
	// OldestAt is when the first happened that waits for no reason of its own; zero
	// if none does.
	OldestAt time.Time
}

// What the reason begins with of a delivery that failed for a reason of its own,
// which says nothing of the others.
const (
	Refused = "refused"
	Alone   = "this one alone"
)

// Outbox counts by indices alone, some 100 ms where a million wait: due_at is
// there to have SQLite choose the one of those that are still tried.
func (r Reader) Outbox(subscriber string) (Outbox, error) {
	return database.QueryRow(r.db, func(scan database.Scan) (Outbox, error) {
		o := Outbox{Subscriber: subscriber}
		var all int64
		err := scan(&all, &o.Waiting, (*instant)(&o.OldestAt))
		o.Dead = all - o.Waiting
		return o, err
	}, `SELECT (SELECT COUNT(*) FROM deliveries WHERE subscriber = $1),
		(SELECT COUNT(*) FROM deliveries WHERE subscriber = $1 AND dead_at IS NULL AND due_at > 0),
		(SELECT created_at FROM events WHERE id = (SELECT event_id FROM deliveries
			WHERE subscriber = $1 AND dead_at IS NULL
				AND (last_error NOT LIKE $2 AND last_error NOT LIKE $3 OR EXISTS (SELECT 1 FROM subscribers WHERE name = $1))
			ORDER BY position LIMIT 1))`, subscriber, Refused+": %", Alone+": %")
}
