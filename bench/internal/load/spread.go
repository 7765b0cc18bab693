package load

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// SpreadSessions adds sessions to a database that none serves now, up to n in
// all. Those that are there lie evenly among the new ones afterwards, in the
// table as in its indexes, as sessions do that go on among all those opened
// before and after: each on a page of its own, if there are many. The new ones
// belong to users chosen by chance, were opened and renewed within the last 20
// days, and go on.
func SpreadSessions(ctx context.Context, database string, n int) (err error) {
	db, err := open(database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	t, err := readSessions(ctx, db)
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "DELETE FROM sessions"); err != nil {
		return err
	}
	n, row := t.spread(n)
	if err := insert(ctx, database, "sessions", t.columns, n, row); err != nil {
		return fmt.Errorf("adding sessions: %w", err)
	}
	if strings.HasPrefix(database, "sqlite://") {
		return nil
	}
	// As it would be after a quiet night: nothing is left to be done beside the
	// measurements.
	for _, sql := range []string{"VACUUM (FREEZE, ANALYZE)", "CHECKPOINT"} {
		if _, err := db.ExecContext(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// sessions are all rows of the table, in the order of their ids, and the ids of
// all users.
type sessions struct {
	columns []string
	rows    [][]any
	ids     []uuid.UUID
	users   []string
}

func readSessions(ctx context.Context, db *sql.DB) (t sessions, err error) {
	//nolint:unqueryvet // rows are written back as they are, whatever they hold
	if t.columns, t.rows, err = readAll(ctx, db, "SELECT * FROM sessions ORDER BY id"); err != nil {
		return t, err
	}
	if len(t.rows) == 0 {
		return t, errors.New("there is no session to spread")
	}
	column := slices.Index(t.columns, "id")
	for _, row := range t.rows {
		id, err := uuid.Parse(fmt.Sprint(row[column]))
		if err != nil {
			return t, err
		}
		t.ids = append(t.ids, id)
	}
	_, users, err := readAll(ctx, db, "SELECT id FROM users")
	for _, row := range users {
		t.users = append(t.users, fmt.Sprint(row[0]))
	}
	return t, err
}

func readAll(ctx context.Context, db *sql.DB, query string) (columns []string, all [][]any, err error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	if columns, err = rows.Columns(); err != nil {
		return nil, nil, err
	}
	for rows.Next() {
		row := make([]any, len(columns))
		dest := make([]any, len(columns))
		for i := range row {
			dest[i] = &row[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, nil, err
		}
		all = append(all, row)
	}
	return columns, all, rows.Err()
}

// spread gives the rows of a table of n, or of as many as there are if that is
// more, in the order of their ids.
func (t sessions) spread(n int) (total int, row func(i int) ([]any, error)) {
	n = max(n, len(t.rows))
	each := n / len(t.rows)                                // so many for each that is there, which comes last of them
	now, chance := time.Now(), rand.New(rand.NewPCG(1, 2)) //nolint:gosec // no secret, and the same in each run
	return n, func(i int) ([]any, error) {
		k := min(i/each, len(t.rows))
		at, of := i-k*each+1, each
		if k == len(t.rows) {
			of = n - k*each // what is left over comes last of all
		} else if at == of {
			return t.rows[k], nil
		}
		row := slices.Clone(t.rows[min(k, len(t.rows)-1)])
		age := time.Duration(chance.Int64N(int64(20 * 24 * time.Hour)))
		for column, value := range map[string]any{
			"id":         t.between(k, float64(at)/float64(of), chance).String(),
			"user_id":    t.users[chance.IntN(len(t.users))],
			"created_at": now.Add(-age).UnixMicro(),
			"renewed_at": now.Add(-time.Duration(float64(age) * chance.Float64())).UnixMicro(),
		} {
			row[slices.Index(t.columns, column)] = value
		}
		return row, nil
	}
}

// between is a new id: that part of the way from session k-1's to session k's.
func (t sessions) between(k int, part float64, chance *rand.Rand) (id uuid.UUID) {
	const apart = 1 << 20 // before the first and after the last
	var from, to uint64
	switch k {
	case 0:
		to = head(t.ids[0])
		from = to - apart
	case len(t.ids):
		from = head(t.ids[k-1])
		to = from + apart
	default:
		from, to = head(t.ids[k-1]), head(t.ids[k])
	}
	binary.BigEndian.PutUint64(id[:8], from+uint64(part*float64(to-from)))
	binary.BigEndian.PutUint64(id[8:], chance.Uint64())
	return id
}

// head is the half of an id that grows with the time at which it was made.
func head(id uuid.UUID) uint64 { return binary.BigEndian.Uint64(id[:8]) }
