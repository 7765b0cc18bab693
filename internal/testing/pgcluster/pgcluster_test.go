package pgcluster_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"kwai/internal/testing/memory"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgcluster"
)

func TestMain(m *testing.M) {
	defer memory.TempDir()()
	m.Run()
}

// requirePostgres is pgtest.Require, whose package builds on this one.
func requirePostgres(t *testing.T) {
	t.Helper()
	if err := pgcluster.Available(); err != nil {
		need.Missing(t, err)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func exec(t *testing.T, url, sql string) {
	t.Helper()
	if _, err := connect(t, url).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func query(t *testing.T, url, sql string) (value string) {
	t.Helper()
	if err := connect(t, url).QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}
