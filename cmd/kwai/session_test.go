package main

import (
	"testing"

	"kwai/internal/testing/storetest"
)

// A session that a command ends is over at every server at once.
func TestACommandEndsASessionAtEachReplica(t *testing.T) {
	t.Parallel()
	database := storetest.Postgres(t)
	one, two := start(t, database), start(t, database)
	one.user("ann@example.org", "a rather long one")
	a := one.post("login", "", "username", "ann@example.org", "password", "a rather long one")
	for _, s := range []*site{one, two} {
		if a := s.get(userPath, a.field("access_token")); a.Status != 200 {
			t.Fatal(a)
		}
	}
	one.mustCommand("", "session", "end", "--user=ann@example.org")
	for _, s := range []*site{one, two} {
		s.get(userPath, a.field("access_token")).problem(t, 401)
		s.post("access_token", "", "refresh_token", a.field("refresh_token")).problem(t, 401)
	}
}
