package auth

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"kwai/internal/store"
)

// newID is a UUID v7 of that time, and sorted by it. It is for what nobody outside sees,
// or what shows its time anyway; users' ids are v4. The library's would be of the
// machine's clock, but the database's counts.
func newID(now time.Time) string {
	id := uuid.New()
	stamp(&id, now)
	return id.String()
}

// nextID is newID of a transaction's time. Ids of one transaction, or of several that
// are committed together, are sorted in the order in which they were made.
func nextID(tx *store.Tx) string {
	id := uuid.New()
	stamp(&id, tx.Now)
	n := tx.Next()
	id[8], id[9], id[10] = 0x80|byte(n>>16)&0x3f, byte(n>>8), byte(n) // above the variant's bits and the random ones
	return id.String()
}

// firstID is the least id of that time.
func firstID(at time.Time) string {
	var id uuid.UUID
	id[8] = 0x80
	stamp(&id, at)
	return id.String()
}

// stamp writes the milliseconds, and of the next one the fraction in 4096ths
// (RFC 9562, 5.7 and 6.2, method 3).
func stamp(id *uuid.UUID, t time.Time) {
	us := max(t.UnixMicro(), 0)
	binary.BigEndian.PutUint64(id[:8], uint64(us/1000)<<16|0x7000|uint64(us%1000*4096/1000))
}

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
