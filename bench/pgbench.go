package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"kwai/bench/internal/load"
	"kwai/internal/auth"
	"kwai/internal/testing/cluster"
	"kwai/internal/testing/pgcluster"
)

// renewal is the statement by which kwai renews a session; a test holds it
// against the store's.
const renewal = `UPDATE sessions SET ` + renewalSets + renewalWhere + renewalReturns

// renewalSets and renewalWhere are what kwai sets, and where.
const (
	renewalSets = `
			counter = $1,
			mark = CASE WHEN renewed_at / $2 >= $3 THEN mark ELSE counter END,
			floor = CASE WHEN renewed_at / $2 >= $3 THEN floor WHEN renewed_at / $2 = $4 THEN mark ELSE counter END,
			prior = CASE WHEN renewed_at / $2 >= $3 THEN prior WHEN renewed_at / $2 = $4 THEN floor
				WHEN renewed_at / $2 = $5 THEN mark ELSE counter END,
			renewed_at = CASE WHEN renewed_at > $6 THEN renewed_at ELSE $6 END`
	renewalWhere = `
		WHERE id = $7 AND kind = 'api' AND counter <= $8 AND ended_at IS NULL AND created_at > $9 AND renewed_at > $10
		RETURNING `
)

// renewalReturns are the columns that kwai reads.
const renewalReturns = `sessions.id, sessions.user_id, sessions.counter, sessions.mark, sessions.floor, sessions.prior, sessions.created_at, sessions.renewed_at, sessions.ended_at, sessions.kind, sessions.amr, sessions.auth_time, sessions.ends_at`

const (
	pgbenchClients = 64
	// pgbench has no list to choose ids from: its sessions, as many as kwai's
	// clients renew, have ids that it can count.
	pgbenchSessions = walked
	pgbenchIDs      = "00000000-0000-7000-8000-" // twelve digits follow
	pgbenchFirst    = 100_000_000_000
	pgbenchCounter  = 1 // of a session that it has renewed
)

// besidePgbench compares renewals with pgbench's.
func (b *bench) besidePgbench(ctx context.Context, c comparison, server *cluster.Server, s *site) error {
	program, err := pgcluster.Program("pgbench")
	if err != nil {
		b.report.missing("pgbench", err)
		return nil
	}
	if err := addPgbenchSessions(ctx, s.Database); err != nil {
		return err
	}
	script := filepath.Join(b.folder, "renew.sql")
	if err := os.WriteFile(script, []byte(pgbenchScript(time.Now())), 0o600); err != nil {
		return err
	}
	op := load.Renew(pgbenchClients, s.sessions)
	c.Operation, c.Connections, c.Beside = op.Name, op.Connections, "pgbench"
	return b.compare(ctx, c, b.drive(always(op), server.Address), func(ctx context.Context, _ int) (load.Figures, error) {
		f, err := runPgbench(ctx, program, script, s.Database, b.round())
		if err == nil {
			err = checkPgbench(ctx, s.Database)
		}
		return f, err
	})
}

func addPgbenchSessions(ctx context.Context, database string) error {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `INSERT INTO sessions (id, user_id, counter, floor, mark, prior, created_at, renewed_at)
		SELECT $1 || ($2 + row_number() OVER ()), user_id, 0, 0, 0, 0, created_at, renewed_at FROM sessions LIMIT $3`,
		pgbenchIDs, pgbenchFirst, pgbenchSessions)
	return errors.Join(err, conn.Close(ctx))
}

// checkPgbench makes sure that pgbench's statements have renewed sessions: it
// doesn't look at what they return.
func checkPgbench(ctx context.Context, database string) error {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	renewed := 0
	err = conn.QueryRow(ctx, `SELECT count(*) FROM sessions WHERE id LIKE $1 || '%' AND counter = $2`, pgbenchIDs, pgbenchCounter).Scan(&renewed)
	if err == nil && renewed == 0 {
		err = errors.New("pgbench has renewed nothing")
	}
	return errors.Join(err, conn.Close(ctx))
}

// pgbenchScript is a renewal as pgbench runs it: each client has sessions of its
// own, as kwai's clients have, and each renewal succeeds, since the counter that
// it sets is one that it takes for current.
func pgbenchScript(now time.Time) string {
	d := auth.Defaults
	micros, window := now.UnixMicro(), d.ReuseWindow.Microseconds()
	values := []struct {
		name  string
		value any
	}{
		{"next", pgbenchCounter},
		{"window", window}, {"this", micros / window}, {"last", micros/window - 1}, {"before", micros/window - 2},
		{"now", micros},
		{"n", fmt.Sprintf("%d + :client_id + %d * random(0, %d)", pgbenchFirst+1, pgbenchClients, pgbenchSessions/pgbenchClients-1)},
		{"counter", pgbenchCounter},
		{"opened", micros - d.SessionLife.Microseconds()}, {"renewed", micros - d.RefreshIdle.Microseconds()},
	}
	var script strings.Builder
	sql := strings.Replace(renewal, "$7", "'"+pgbenchIDs+"' || $7", 1)
	for i, v := range slices.Backward(values) { // $10 before $1
		fmt.Fprintf(&script, "\\set %s %v\n", v.name, v.value)
		sql = strings.ReplaceAll(sql, "$"+strconv.Itoa(i+1), ":"+v.name)
	}
	script.WriteString(sql + ";\n")
	return script.String()
}

// runPgbench runs the script for at least so long. pgbench counts in whole seconds
// and in them the time for its connections, which its rate leaves out.
func runPgbench(ctx context.Context, program, script, database string, duration time.Duration) (f load.Figures, err error) {
	u, err := url.Parse(database)
	if err != nil {
		return f, err
	}
	password, _ := u.User.Password()
	seconds := int(math.Ceil(duration.Seconds())) + 1
	cmd := exec.CommandContext(ctx, program, "--no-vacuum", "--protocol=prepared", //nolint:gosec // where PostgreSQL is
		"--jobs="+strconv.Itoa(min(pgbenchClients, runtime.GOMAXPROCS(0))),
		"--client="+strconv.Itoa(pgbenchClients), "--time="+strconv.Itoa(seconds), "--file="+script)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGHOST="+u.Hostname(), "PGPORT="+u.Port(), "PGUSER="+u.User.Username(),
		"PGPASSWORD="+password, "PGDATABASE="+strings.TrimPrefix(u.Path, "/"), "PGSSLMODE=disable")
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err == nil {
		f, err = parsePgbench(string(out))
	}
	if err != nil {
		return f, fmt.Errorf("pgbench: %w\n%s%s", err, out, log.Bytes())
	}
	f.Seconds = float64(seconds)
	return f, nil
}

var (
	pgbenchDone = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	pgbenchRate = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`)
)

// parsePgbench reads what pgbench prints at its end.
func parsePgbench(out string) (f load.Figures, err error) {
	done, rate := pgbenchDone.FindStringSubmatch(out), pgbenchRate.FindStringSubmatch(out)
	switch {
	case done == nil:
		return f, errors.New("its output can't be read: version 14 or newer is needed")
	case done[1] == "0":
		return f, nil // the machine was busy with other things: there is no rate
	case rate == nil:
		return f, errors.New("its output has no rate")
	}
	var err1, err2 error
	f.Operations, err1 = strconv.Atoi(done[1])
	f.PerSecond, err2 = strconv.ParseFloat(rate[1], 64)
	return f, errors.Join(err1, err2)
}
