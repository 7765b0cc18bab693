package offline

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"kwai/internal/database"
)

// MoveOptions says what Move moves.
type MoveOptions struct {
	From string // sqlite://PATH
	To   string // postgres://…, of an empty database
	// Progress is called with each step, in a few words; it may be nil.
	Progress func(step string)
	Log      *slog.Logger
}

// MoveReport says what Move did.
type MoveReport struct {
	To     string // HOST:PORT/DATABASE
	Tables []MovedTable
	// Resumed says that an earlier Move had copied everything: Tables is empty.
	Resumed bool
	// Already says that there was nothing left to do.
	Already bool
}

// MovedTable is a table and how many rows it had.
type MovedTable struct {
	Name string
	Rows int64
}

// MoveError refuses a move because of what one of the databases is: nothing has
// been moved, or what an earlier move has done is as it was.
type MoveError struct {
	Target bool // it is the one moved to
	err    error
}

func (e *MoveError) Error() string { return e.err.Error() }
func (e *MoveError) Unwrap() error { return e.err }

// movedTables are all that a move copies, each behind those that it refers to.
var movedTables = []string{"meta", "keys", "users", "sessions", "recovery_requests", "recoveries", "email_changes", "authenticators", "recovery_codes", "passkeys", "apps", "user_groups", "group_members", "app_groups", "grants", "app_sessions", "logouts", "events", "deliveries", "subscribers", "attempts", "audit_log"}

// keptTables are those that it doesn't: a lease ends with the process that holds
// it, and each database has a history of its own.
var keptTables = []string{"leases", "schema_version"}

// A move's marks in meta. At each moment one of the two databases at most can be
// used, and the marks say which:
//
//   - markMove has the move's id. The source gets it before anything else
//     happens, and keeps it: it says whose a copy is. It is copied with the rest.
//   - database.MarkMoving, in the target from the commit of the copy on, has that id too.
//     While it stands the target is refused and takes no row.
//   - database.MarkMoved, in the source from then on, says where it has gone. The source is
//     refused and can't be changed by anybody who had it open.
//   - Then database.MarkMoving goes, and the target can be used.
//
// Programs that don't know the marks are kept out by oldest_schema; the target's
// own waits under markSchema.
const (
	markMove   = "move"
	markSchema = "moving_schema"

	noSchema = math.MaxInt32
)

// Move copies a whole SQLite database into an empty PostgreSQL database, and
// has the old one refuse to be used. All comes along but leases, and the same
// master key opens the copy.
//
// While it runs nobody else can write to the old database. If it is cut off, then
// either nothing has been moved, and the old database can be used; or everything
// has, and neither can be used until Move is called again with the same two. That
// call begins anew, or goes on where the first one ended.
func Move(ctx context.Context, o MoveOptions) (report MoveReport, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	path, ok := strings.CutPrefix(o.From, "sqlite://")
	if !ok {
		return report, &MoveError{false, errors.New("only an SQLite database can be moved")}
	}
	if !strings.HasPrefix(o.To, "postgres://") && !strings.HasPrefix(o.To, "postgresql://") {
		return report, &MoveError{true, errors.New("it must be postgres://USER:PASSWORD@HOST:PORT/DATABASE")}
	}

	// First both are looked at: what is refused has not been changed.
	from, err := openMoveSource(ctx, path)
	if err != nil {
		return report, &MoveError{false, err}
	}
	defer func() { err = errors.Join(err, from.close()) }()
	to, err := openMoveTarget(ctx, o.To, o.Log)
	if err != nil {
		return report, &MoveError{true, err}
	}
	defer func() { err = errors.Join(err, to.close()) }()
	report.To = to.place
	state, err := to.look(ctx)
	if err == nil {
		err = state.accept(from)
	}
	if err != nil {
		return report, &MoveError{true, fmt.Errorf("PostgreSQL at %s: %w", to.place, err)}
	}

	report.Resumed = from.movedTo != ""
	report.Already = report.Resumed && state.marks[database.MarkMoving] == ""
	if !report.Resumed {
		if report.Tables, err = o.copy(ctx, from, to); err != nil {
			return report, err
		}
	}
	if !report.Already {
		// An interrupt doesn't stop this last step, which takes a moment.
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*moveLockTimeout)
		defer cancel()
		if err := to.finish(ending, from.id); err != nil {
			return report, fmt.Errorf("PostgreSQL at %s: %w: all is there, run `kwai move` again to finish", to.place, err)
		}
	}
	return report, nil
}

// copy copies one into the other, and has both refuse to be used.
func (o MoveOptions) copy(ctx context.Context, from *moveSource, to *moveTarget) ([]MovedTable, error) {
	if err := from.hold(ctx, o.Log); err != nil {
		return nil, &MoveError{false, fmt.Errorf("%s: %w", from.path, err)}
	}
	if err := to.migrate(ctx, o.Log); err != nil {
		return nil, &MoveError{true, err}
	}
	tables, err := to.copy(ctx, from, o.Progress)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL at %s: %w", to.place, err)
	}
	o.Progress("the copy is complete")
	if err := from.mark(to.place); err != nil {
		return tables, fmt.Errorf("%s: %w: the copy isn't used, run `kwai move` again", from.path, err)
	}
	o.Progress("the old database refuses to be used")
	return tables, nil
}

const (
	// moveLockTimeout bounds the wait for those who use the target, and
	// sourceLockTimeout the wait for a command that writes to the source.
	moveLockTimeout   = 10 * time.Second
	sourceLockTimeout = 30 * time.Second
)

// steps are statements of which each runs if those before have succeeded.
type steps struct {
	run func(statement string, args ...any) error
	err error // the first
}

func (s *steps) exec(statement string, args ...any) {
	if s.err == nil {
		s.err = s.run(statement, args...)
	}
}

// checksum is the number of rows and the sum of their hashes: the same for the
// same rows, in whatever order they come.
type checksum struct {
	rows  int64
	lanes [4]uint64
}

// add counts a row whose columns appendField has written.
func (c *checksum) add(row []byte) {
	hash := sha256.Sum256(row)
	for i := range c.lanes {
		c.lanes[i] += binary.BigEndian.Uint64(hash[8*i:])
	}
	c.rows++
}

// appendField adds a column, with its length, so that no two rows look the same.
// The value is what PostgreSQL's binary format has; nil is null.
func appendField(row, value []byte) []byte {
	if value == nil {
		return append(row, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	}
	row = binary.BigEndian.AppendUint64(row, uint64(len(value)))
	return append(row, value...)
}
