package load

import "kwai/internal/testing/pgcluster"

// ErrNoPostgres says that PostgreSQL isn't installed, or not where it is looked
// for: see package pgcluster.
var ErrNoPostgres = pgcluster.ErrNoPrograms

// StartPostgres starts a PostgreSQL server with default settings, durable
// commits among them, and room for a few servers of kwai and pgbench. The caller
// stops it. A database for [cluster.Kwai.Database] is made and named by
//
//	name, err := postgres.Create(ctx, "template0")
//	… postgres.URL(name) …
func StartPostgres() (*pgcluster.Cluster, error) {
	return pgcluster.Start(pgcluster.Options{Settings: []string{"max_connections=300"}})
}
