package database

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"
)

const (
	// clockEvery is how often the offset to the database's clock is measured.
	clockEvery = 3 * time.Second
	clockTries = 5
	// clockError bounds how wrong a measurement may be: replicas agree to
	// within a second. A slower one is thrown away.
	clockError = 400 * time.Millisecond
)

// clockSkew is a duration that the local clock is wrong by, so that a test of
// several replicas on one machine can give each a clock of its own:
//
//	go build -ldflags "-X kwai/internal/database.clockSkew=30s" ./cmd/kwai
//
// It can be set only there: no flag or variable may shift a server's time.
var clockSkew string

// clock is the local monotonic clock plus the offset to the database's: so
// replicas agree on the time to within the network's delay, whatever their own
// clocks say.
type clock struct {
	started time.Time // with a monotonic reading
	skew    time.Duration
	offset  atomic.Int64 // nanoseconds
}

// newClock has the skew parsed; none is "".
func newClock(skew string) *clock {
	c := &clock{started: time.Now()}
	if skew != "" {
		var err error
		if c.skew, err = time.ParseDuration(skew); err != nil {
			panic(fmt.Sprintf("database: clockSkew, set by the linker: %v", err))
		}
	}
	return c
}

// local is what this machine's clock says, and goes on by its monotonic one
// alone: setting the clock changes nothing. The skew is added last, since
// time.Since would take it out again.
func (c *clock) local() time.Time { return c.started.Add(time.Since(c.started) + c.skew) }

func (c *clock) now() time.Time { return c.local().Add(time.Duration(c.offset.Load())) }

// measure asks the database a few times and believes the quickest answer, which
// leaves the least room for error: half the time it took.
func (c *clock) measure(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	// One connection for all: to wait for one is not to wait for an answer.
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	quickest := time.Duration(math.MaxInt64)
	var offset int64
	for range clockTries {
		before := c.local()
		var database int64
		if err := conn.QueryRowContext(ctx, `SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)`).Scan(&database); err != nil {
			return err
		}
		if took := c.local().Sub(before); took < quickest {
			quickest = took
			offset = int64(time.UnixMicro(database).Sub(before.Add(took / 2)))
		}
	}
	if quickest/2 > clockError {
		return fmt.Errorf("it answers too slowly (%v) to tell the time by", quickest.Round(time.Millisecond))
	}
	c.offset.Store(offset)
	return nil
}

func (c *clock) follow(ctx context.Context, db *sql.DB, log *slog.Logger) {
	tick := time.Tick(clockEvery)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			// While the database is away the last offset stands: the local
			// clock's own drift is small.
			if err := c.measure(ctx, db); err != nil && ctx.Err() == nil {
				log.Debug("measuring the database's clock", "error", err)
			}
		}
	}
}
