package load

import (
	"time"

	"github.com/google/uuid"
)

// What is read of procfs, and how clients share what there is.
var (
	ParsePss       = parsePss
	ParseStartTime = parseStartTime
	ParseCPU       = parseCPU
	Rounds         = rounds
	NewWindow      = newWindow
)

// SpreadIDs spreads sessions with these ids among others, n in all, and returns
// the ids of all in the order of the rows.
func SpreadIDs(ids []uuid.UUID, n int) (all []uuid.UUID, err error) {
	t := sessions{columns: []string{"created_at", "id", "renewed_at", "user_id"}, ids: ids, users: []string{"u"}}
	for _, id := range ids {
		t.rows = append(t.rows, []any{int64(1), id.String(), int64(1), "u"})
	}
	n, row := t.spread(n)
	for i := range n {
		values, err := row(i)
		if err != nil {
			return nil, err
		}
		id, err := uuid.Parse(values[1].(string))
		if err != nil {
			return nil, err
		}
		all = append(all, id)
	}
	return all, nil
}

// Arrived, At and Lasted take times since the window was made.
func (w *window) Arrived(since time.Duration) { w.arrived(w.start.Add(since)) }

// At is at.
func (w *window) At(since time.Duration) (counts, over bool) { return w.at(w.start.Add(since)) }

// Lasted is lasted.
func (w *window) Lasted(since time.Duration) time.Duration { return w.lasted(w.start.Add(since)) }
