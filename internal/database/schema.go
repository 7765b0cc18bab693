package database

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var embedded embed.FS

var (
	migrations, _ = fs.Sub(embedded, "migrations")
	// schemaVersion is the newest migration that this program knows.
	schemaVersion = newest(migrations)
)

// newest is the number of the last file, by which goose orders them.
func newest(migrations fs.FS) int64 {
	names, err := fs.Glob(migrations, "*.sql") // in their order
	if err != nil || len(names) == 0 {
		panic("database: no migrations are embedded")
	}
	number, err := goose.NumericComponent(names[len(names)-1])
	if err != nil {
		panic(err)
	}
	return number
}

// SchemaVersion is the newest that this program knows.
func SchemaVersion() int64 { return schemaVersion }

// firstSchema is that of 0.1.0. Databases from before it can't be used.
const firstSchema = 4

var errBefore = errors.New("it is of a kwai from before 0.1.0, whose databases no later one can use: start with an empty folder or database")

func migrate(ctx context.Context, dialect goose.Dialect, db *sql.DB, log *slog.Logger, opts ...goose.ProviderOption) error {
	opts = append(opts, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()), goose.WithTableName("schema_version"))
	provider, err := goose.NewProvider(dialect, db, migrations, opts...)
	if err != nil {
		return err
	}
	have, err := provider.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	if have > 0 && have < firstSchema {
		return errBefore
	}
	done, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	for _, d := range done {
		log.Info("migrated the database", "version", d.Source.Version, "took", d.Duration)
	}
	return nil
}

// CheckVersion refuses a database that this program can't use: one that is
// older than its queries, or newer in a way that says so.
func (db *DB) CheckVersion(ctx context.Context) error {
	r := db.Read(ctx)
	if err := r.Usable(); err != nil {
		return err
	}
	have, err := QueryRow(r, Column[int64], `SELECT COALESCE(MAX(version_id), 0) FROM schema_version`)
	if err != nil {
		return err
	}
	if have < schemaVersion {
		return fmt.Errorf("its schema is of an older kwai (%d, this program needs %d): start `kwai serve` once to migrate it", have, schemaVersion)
	}
	return nil
}

// A move's marks in meta, which package offline sets: at each moment one of the two
// databases at most can be used, and they say which. MarkMoving stands in the one
// moved into, until it is whole; MarkMoved in the one that has been moved.
const (
	MarkMoving = "moving"
	MarkMoved  = "moved"
)

// RefuseMoved refuses the source of a move, and a target while it isn't whole.
func (r Reader) RefuseMoved() error {
	type mark struct{ name, value string }
	m, err := QueryRow(r, func(scan Scan) (m mark, err error) {
		return m, scan(&m.name, &m.value)
	}, `SELECT name, value FROM meta WHERE name IN ($1, $2)`, MarkMoved, MarkMoving)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case m.name == MarkMoving:
		return errors.New("a move into it has begun and isn't finished: run `kwai move` again")
	default:
		return fmt.Errorf("it has been moved to PostgreSQL (%s): use --database=postgres://…", m.value)
	}
}

// Usable refuses a database that no migration makes one that this program can use.
func (r Reader) Usable() error {
	text, err := QueryRow(r, Column[string], `SELECT value FROM meta WHERE name = 'oldest_schema'`)
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	if err != nil {
		return fmt.Errorf("it is no kwai database, or it is damaged: %w", err)
	}
	if err := r.RefuseMoved(); err != nil {
		return err
	}
	oldest, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("its oldest_schema is no number: %q", text)
	}
	if oldest < firstSchema {
		return errBefore
	}
	if oldest > schemaVersion {
		return fmt.Errorf("it is of a newer kwai (schema %d, this program knows %d): use that one", oldest, schemaVersion)
	}
	return nil
}
