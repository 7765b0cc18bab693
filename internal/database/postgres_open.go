package database

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// oldestServer is the oldest version whose makers' support had not ended when
// this was written, as server_version_num.
const oldestServer = 130000

const (
	// migrateLock is how long a migration waits for a table in use: meanwhile
	// everybody else who wants that table waits behind it, which must not take
	// as long as their own lockTimeout.
	migrateLock  = time.Second
	migratePause = time.Second
	migrateTries = 120
)

// SQLSTATEs: PostgreSQL's manual, appendix A.
const (
	readOnly         = "25006"
	noPrivilege      = "42501"
	lockNotAvailable = "55P03"
	diskFull         = "53100"
	uniqueViolation  = "23505"
)

// server is what kwai wants to know of a database before it uses it.
type server struct {
	version               int64 // server_version_num
	versionText, encoding string
	fsync                 string
	synchronous, timeout  string // of our own session
	schema, role          string
}

func (e *Postgres) inspect(ctx context.Context) (s server, err error) {
	err = e.db.QueryRowContext(ctx, `SELECT CAST(current_setting('server_version_num') AS BIGINT),
			current_setting('server_version'), current_setting('server_encoding'), current_setting('fsync'),
			current_setting('synchronous_commit'), current_setting('statement_timeout'),
			COALESCE(current_schema(), ''), current_user`).
		Scan(&s.version, &s.versionText, &s.encoding, &s.fsync, &s.synchronous, &s.timeout, &s.schema, &s.role)
	return s, err
}

func (s server) check() error {
	switch {
	case s.version < oldestServer:
		return fmt.Errorf("it is version %s: kwai needs PostgreSQL %d or newer", s.versionText, oldestServer/10000)
	case s.encoding != "UTF8":
		return fmt.Errorf("the database's encoding is %s: make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", s.encoding)
	case s.synchronous != "on" || s.timeout != "5s":
		return errors.New("a pooler in between keeps the settings of kwai's sessions from it: connect to PostgreSQL itself")
	case s.schema == "":
		return fmt.Errorf("role %q has no schema to make tables in: GRANT USAGE, CREATE ON SCHEMA public TO it, or give it one of its own", s.role)
	}
	return nil
}

// Migrate brings the schema up to date while other replicas use it. It has
// connections of its own, since a migration may take longer than a statement.
func (e *Postgres) Migrate(ctx context.Context, log *slog.Logger) error {
	config := e.config.Copy()
	config.RuntimeParams["statement_timeout"] = "0"
	config.RuntimeParams["lock_timeout"] = milliseconds(migrateLock)
	e = &Postgres{config: config, db: openPool(config)}
	defer e.db.Close()
	if err := e.RefuseForeign(ctx); err != nil {
		return err
	}
	for try := 1; ; try++ {
		// Replicas that start together take turns; a turn is looked for each
		// second, as migrating takes no longer, for five minutes.
		turns, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return err
		}
		err = migrate(ctx, goose.DialectPostgres, e.db, log, goose.WithSessionLocker(turns))
		pg, ok := errors.AsType[*pgconn.PgError](err)
		if again := retryable(err) || ok && pg.Code == lockNotAvailable; !again || try == migrateTries {
			return err
		}
		log.Info("a table to migrate is in use: it is tried again", "error", err)
		select {
		case <-time.After(migratePause + rand.N(migratePause)): //nolint:gosec // no secret
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// RefuseForeign refuses a schema that has tables of another program: a wrong URL
// must not put kwai's tables among them.
func (e *Postgres) RefuseForeign(ctx context.Context) error {
	rows := viaSQL{e.db}
	columns := make(map[string]string) // of each table, but for those of extensions
	err := rows.Query(ctx, func(scan Scan) (bool, error) {
		var table, names string
		err := scan(&table, &names)
		columns[table] = names
		return true, err
	}, `SELECT c.relname, array_to_string(ARRAY(SELECT a.attname FROM pg_attribute a
			WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum), ' ')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
			AND NOT EXISTS (SELECT 1 FROM pg_depend d
				WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`)
	if err != nil {
		return err
	}
	// The table of versions stands alone where a first start was interrupted.
	versions := strings.HasPrefix(columns["schema_version"], "id version_id is_applied")
	meta := strings.HasPrefix(columns["meta"], "name value")
	if len(columns) == 0 || versions && (meta || len(columns) == 1) {
		return nil
	}
	tables := slices.Sorted(maps.Keys(columns))
	if len(tables) > 3 {
		tables = append(tables[:3], "…")
	}
	return fmt.Errorf("it has tables that aren't kwai's (%s): make a database, or a schema, for kwai alone", strings.Join(tables, ", "))
}

// Explain says what to do about an error of opening, in one line.
func (e *Postgres) Explain(err error) error {
	advice := ""
	pg, fromServer := errors.AsType[*pgconn.PgError](err)
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, pgconn.ErrReadOnlyConnection):
		advice = "it can't be written, so it is a standby: name the primary, or all hosts, separated by commas"
	case fromServer:
		switch pg.Code {
		case "28P01", "28000":
			advice = fmt.Sprintf("user %q may not log in: look at the user, the password and pg_hba.conf", e.config.User)
		case "3D000":
			advice = fmt.Sprintf("make the database first: CREATE DATABASE %s OWNER %s ENCODING 'UTF8' TEMPLATE template0",
				pgx.Identifier{e.config.Database}.Sanitize(), pgx.Identifier{e.config.User}.Sanitize())
		case noPrivilege:
			advice = fmt.Sprintf("user %q lacks a right: let it own the database and the tables in it", e.config.User)
		case "53300":
			advice = "all its connections are taken: raise its max_connections, or lower --database-connections"
		case "42704":
			if connecting {
				advice = "its URL has a parameter that PostgreSQL doesn't know: leave it out (a schema is named by search_path=NAME)"
				if strings.Contains(e.config.ConnString(), "password=") {
					return errors.New(advice) // a raw & may have made it of the password
				}
			}
		case "57P03":
			advice = "it is starting or stopping: try again"
		case "08P01":
			advice = "a pooler in between refuses the settings of kwai's sessions: connect to PostgreSQL itself"
		}
	case connecting:
		advice = "it can't be reached: does it run, and are host, port and sslmode right?"
	}
	if advice == "" {
		if !connecting {
			return err
		}
		return errors.New(strings.Join(causes(err), "; "))
	}
	return fmt.Errorf("%s (%s)", advice, strings.Join(causes(err), "; "))
}

// causes lists what went wrong with each host, in one line each.
func causes(err error) (all []string) {
	list := []error{err}
	if connecting, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		list = []error{connecting.Unwrap()}
		if several, ok := list[0].(interface{ Unwrap() []error }); ok {
			list = several.Unwrap()
		}
	}
	// With sslmode=prefer, which is the default, a server without TLS is asked once
	// more without: that it has none is not what went wrong.
	if some := slices.DeleteFunc(slices.Clone(list), func(err error) bool { return strings.Contains(err.Error(), "server refused TLS connection") }); len(some) > 0 {
		list = some
	}
	for _, err := range list {
		// With and without TLS it is mostly the same.
		if text := strings.Join(strings.Fields(err.Error()), " "); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

// hosts are those that a URL names.
func hosts(config *pgx.ConnConfig) string {
	var all []string
	add := func(host string, port uint16) {
		if !strings.HasPrefix(host, "/") { // a folder with a socket
			host = net.JoinHostPort(host, strconv.Itoa(int(port)))
		}
		if !slices.Contains(all, host) {
			all = append(all, host)
		}
	}
	add(config.Host, config.Port)
	for _, f := range config.Fallbacks {
		add(f.Host, f.Port)
	}
	return strings.Join(all, ", ")
}
