package store

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/database"
)

// Key is a server key, sealed under a master key.
type Key struct {
	ID        string
	Purpose   string
	Sealed    []byte
	CreatedAt time.Time
	ActiveAt  time.Time // from when on it is used for what is new
}

// Keys lists the server's keys, the newest first.
func (r Reader) Keys() ([]Key, error) {
	return database.QueryRows(r.db, func(scan database.Scan) (k Key, err error) {
		return k, scan(&k.ID, &k.Purpose, &k.Sealed, (*instant)(&k.CreatedAt), (*instant)(&k.ActiveAt))
	}, `SELECT id, purpose, sealed, created_at, active_at FROM keys ORDER BY created_at DESC, id`)
}

// InsertKey adds a key.
func (tx *Tx) InsertKey(k Key) error {
	_, err := tx.Exec(`INSERT INTO keys (id, purpose, sealed, created_at, active_at) VALUES ($1, $2, $3, $4, $5)`,
		k.ID, k.Purpose, k.Sealed, micros(k.CreatedAt), micros(k.ActiveAt))
	return err
}

// ActivateKey has a key become active then.
func (tx *Tx) ActivateKey(id string, at time.Time) error {
	_, err := tx.Exec(`UPDATE keys SET active_at = $2 WHERE id = $1`, id, micros(at))
	return err
}

// ResealKey replaces what is sealed, unless somebody else has: then false.
func (tx *Tx) ResealKey(id string, old, sealed []byte) (bool, error) {
	n, err := tx.Exec(`UPDATE keys SET sealed = $3 WHERE id = $1 AND sealed = $2`, id, old, sealed)
	return n == 1, err
}

// DeleteKey takes a key out.
func (tx *Tx) DeleteKey(id string) error {
	_, err := tx.Exec(`DELETE FROM keys WHERE id = $1`, id)
	return err
}

// EndRecoveriesUnder ends all recoveries whose ids were derived under a MAC key,
// and returns how many. Where the event hasn't been delivered to the subscriber
// yet, the delivery makes another one, under another key: for that, the user's
// time of the latest request goes back by a microsecond. It reads the whole table.
func (tx *Tx) EndRecoveriesUnder(macKey, subscriber string) (int64, error) {
	const undelivered = ` FROM recoveries JOIN deliveries d ON d.event_id = recoveries.request_id
		WHERE mac_key = $1 AND ended_at IS NULL AND d.subscriber = $2 AND d.dead_at IS NULL`
	_, err := tx.Exec(`UPDATE users SET recovery_requested_at = recovery_requested_at - 1 WHERE id IN (SELECT recoveries.user_id`+undelivered+`)`, macKey, subscriber)
	if err != nil {
		return 0, err
	}
	forgotten, err := tx.Exec(`DELETE FROM recoveries WHERE request_id IN (SELECT recoveries.request_id`+undelivered+`)`, macKey, subscriber)
	if err != nil {
		return 0, err
	}
	ended, err := tx.Exec(`UPDATE recoveries SET ended_at = $1 WHERE mac_key = $2 AND ended_at IS NULL`, micros(tx.Now), macKey)
	return forgotten + ended, err
}

// keyCounts is the metric of how many keys there are.
type keyCounts struct{ *Store }

var descKeys = prometheus.NewDesc("kwai_keys", "The server's keys, by what they are for.", []string{"purpose"}, nil)

// Describe is for the registry.
func (keyCounts) Describe(ch chan<- *prometheus.Desc) { ch <- descKeys }

// Collect leaves out what the database doesn't answer.
func (s keyCounts) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), database.ScrapeTimeout)
	defer cancel()
	keys, _ := s.Read(ctx).Keys()
	counts := make(map[string]float64)
	for _, key := range keys {
		counts[key.Purpose]++
	}
	for purpose, n := range counts {
		ch <- prometheus.MustNewConstMetric(descKeys, prometheus.GaugeValue, n, purpose)
	}
}
