package pgtest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// admin makes and drops databases. It does so one at a time, since PostgreSQL refuses two
// copies of one template at once. It uses one connection: a new one each time would cost
// a third more.
type admin struct {
	url string

	mu       sync.Mutex
	conn     *pgx.Conn // nil before the first statement
	strategy string    // how CREATE DATABASE copies
	count    int       // of databases that were made
}

// create makes a database as a copy of another and returns its name, which needs no
// quotes.
func (a *admin) create(template string) (name string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.connect(); err != nil {
		return "", err
	}
	a.count++
	name = fmt.Sprintf("db_%d", a.count)
	return name, a.run("CREATE DATABASE " + name + " TEMPLATE " + template + a.strategy)
}

func (a *admin) exec(sql string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.connect(); err != nil {
		return err
	}
	return a.run(sql)
}

func (a *admin) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn == nil {
		return nil
	}
	return a.conn.Close(context.Background())
}

// connect makes the connection if there is none. The caller holds a.mu; so does the
// caller of run.
func (a *admin) connect() (err error) {
	ctx := context.Background() // the connection outlives each test
	if a.conn != nil && !a.conn.IsClosed() {
		return nil
	}
	if a.conn, err = pgx.Connect(ctx, a.url); err != nil {
		return err
	}
	var version int
	if err := a.conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return err
	}
	if version >= 15_00_00 {
		a.strategy = " STRATEGY file_copy" // half of what the default takes, which writes it all to the log
	}
	return nil
}

const objectInUse = "55006" // SQLSTATE

// run runs a statement. It waits as long as a database is still in use: the
// server itself waits five seconds for connections that it has ended to be gone.
func (a *admin) run(sql string) error {
	for {
		_, err := a.conn.Exec(context.Background(), sql)
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != objectInUse {
			return err
		}
	}
}
