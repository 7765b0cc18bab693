package auth_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"kwai/internal/auth"
	"kwai/internal/store"
)

const day = 24 * time.Hour

// sweep has a replica go through all tables, without a pause.
func (s *server) sweep(t *testing.T) {
	t.Helper()
	p := s.NewPurger(func() {})
	if !must(p.Sweep(t.Context()))(t) {
		t.Fatal("another replica purges")
	}
	p.Release(t.Context())
}

// Each kind of row goes once it is of no use for longer than any clock is wrong,
// and not a moment before.
func TestWhatIsOverGoesInTime(t *testing.T) {
	const (
		sessions   = `SELECT COUNT(*) FROM sessions`
		recoveries = `SELECT COUNT(*) FROM recoveries`
		attempts   = `SELECT COUNT(*) FROM attempts`
		auditLog   = `SELECT COUNT(*) FROM audit_log`

		appSessions = `SELECT COUNT(*) FROM app_sessions`
	)
	settings := auth.Defaults
	tests := map[string]struct {
		rows string
		make func(t *testing.T, s *server, c *clock, email string)
		life time.Duration // since the call of make
	}{
		"idle session": {sessions, func(t *testing.T, s *server, _ *clock, email string) { s.login(t, email, oldPassword) }, settings.RefreshIdle},
		"session of age": {sessions, func(t *testing.T, s *server, c *clock, email string) {
			tokens := s.login(t, email, oldPassword)
			for range 4 {
				c.advance(20 * day)
				tokens = s.renew(t, tokens)
			}
		}, settings.SessionLife},
		"session that was renewed": {sessions, func(t *testing.T, s *server, c *clock, email string) {
			tokens := s.login(t, email, oldPassword)
			c.advance(20 * day)
			s.renew(t, tokens)
		}, 20*day + settings.RefreshIdle},
		"session that was ended": {sessions, func(t *testing.T, s *server, c *clock, email string) {
			tokens := s.login(t, email, oldPassword)
			c.advance(day)
			ok(t, s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: must(s.User(t.Context(), email))(t).Profile}, tokens.Refresh))
		}, day},
		"session that isn't to stay": {sessions, func(t *testing.T, s *server, _ *clock, email string) { s.browse(t, email, false) }, 12 * time.Hour},
		"open recovery":              {recoveries, func(t *testing.T, s *server, _ *clock, email string) { s.recover(t, email) }, settings.RecoveryLife},
		"used recovery": {recoveries, func(t *testing.T, s *server, _ *clock, email string) {
			ok(t, s.Reset(t.Context(), auth.Client{}, s.recover(t, email), newPassword))
		}, settings.RecoveryLife},
		"failures at an account": {attempts, func(t *testing.T, s *server, _ *clock, _ string) {
			_, err := s.Login(t.Context(), auth.Client{}, "nobody@example.org", oldPassword)
			wantErr(t, "a login of nobody", err, auth.ErrCredentials)
		}, settings.Limits.Remember},
		"failures of a network": {attempts + ` WHERE account = ''`, func(t *testing.T, s *server, _ *clock, _ string) {
			_, err := s.Login(t.Context(), from("192.0.2.1"), "nobody@example.org", oldPassword)
			wantErr(t, "a login of nobody", err, auth.ErrCredentials)
		}, time.Hour / time.Duration(settings.Limits.NetworkHour)},
		"known network": {attempts + ` WHERE account <> ''`, func(t *testing.T, s *server, _ *clock, email string) {
			must(s.Login(t.Context(), from("192.0.2.1"), email, oldPassword))(t)
		}, settings.Limits.Remember},
		"app's session that was ended": {appSessions, func(t *testing.T, s *server, c *clock, email string) {
			v := s.visit(t, s.browse(t, email, true))
			s.openApp(t, v)
			c.advance(day)
			ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, v))
		}, day},
		"app's session": {appSessions, func(t *testing.T, s *server, _ *clock, email string) {
			s.openApp(t, s.visit(t, s.browse(t, email, false)))
		}, 12 * time.Hour},
		"app's offline session": {appSessions, func(t *testing.T, s *server, _ *clock, email string) {
			s.openApp(t, s.visit(t, s.browse(t, email, false)), "offline_access")
		}, settings.RefreshIdle},
		"app's offline session of age": {appSessions, func(t *testing.T, s *server, c *clock, email string) {
			a, tokens := s.openApp(t, s.visit(t, s.browse(t, email, false)), "offline_access")
			for range 4 {
				c.advance(20 * day)
				tokens = s.renewApp(t, a, tokens)
			}
		}, settings.SessionLife},
		"app's offline session in one that is used": {appSessions, func(t *testing.T, s *server, c *clock, email string) {
			cookie := s.browse(t, email, true)
			s.openApp(t, s.visit(t, cookie), "offline_access")
			for range 4 {
				c.advance(20 * day)
				s.visit(t, cookie)
			}
		}, settings.SessionLife},
		"logout": {`SELECT COUNT(*) FROM logouts`, func(t *testing.T, s *server, c *clock, email string) {
			// Others are of older sessions, and happened later.
			s.exec(t, `DELETE FROM logouts`)
			v := s.visit(t, s.browse(t, email, true))
			s.openApp(t, v)
			ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, v))
		}, settings.AuditKeep},
		"audit_log":   {auditLog, func(t *testing.T, s *server, _ *clock, email string) { s.login(t, email, oldPassword) }, settings.AuditKeep},
		"dead letter": {`SELECT COUNT(*) FROM deliveries JOIN events ON id = event_id WHERE user_id = 'u'`, func(t *testing.T, s *server, _ *clock, _ string) { s.deadLetter(t) }, settings.AuditKeep},
		"its event":   {`SELECT COUNT(*) FROM events WHERE user_id = 'u'`, func(t *testing.T, s *server, _ *clock, _ string) { s.deadLetter(t) }, settings.AuditKeep},
	}
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits.Off = false
		s.forApps(t).app(t, "wiki", offline)
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				email := strings.ReplaceAll(name, " ", "-") + "@example.org"
				s.user(t, email)
				c.set(c.now().Add(settings.AuditKeep + 3*day).Truncate(time.Hour))
				s.sweep(t) // what was left so far
				begin := c.now()
				test.make(t, s, c, email)
				before := s.count(t, test.rows)
				if before == 0 {
					t.Fatal("there is no row")
				}
				over := begin.Add(test.life + auth.PurgeMargin)
				c.set(over.Add(-time.Microsecond))
				s.sweep(t)
				if n := s.count(t, test.rows); n != before {
					t.Errorf("%d of %d rows are left just before", n, before)
				}
				c.set(over)
				s.sweep(t)
				if n := s.count(t, test.rows); n != 0 {
					t.Errorf("%d of %d rows are left", n, before)
				}
			})
		}
	})
}

// deadLetter has an event that was given up now.
func (s *server) deadLetter(t *testing.T) {
	t.Helper()
	ok(t, s.Store.InTx(t.Context(), func(tx *store.Tx) error {
		e := s.request(store.User{Profile: store.Profile{ID: "u"}})
		if err := tx.Publish(e, auth.SubscriberMail); err != nil {
			return err
		}
		return tx.DeliveryFailed(auth.SubscriberMail, e.ID, "refused", time.Time{})
	}))
}

// Mail that waits isn't given up, and one event may be dead for one subscriber
// and wait for another.
func TestUndeliveredMailStaysUntilItIsGivenUp(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		id := uuid.NewString()
		ok(t, s.Store.InTx(t.Context(), func(tx *store.Tx) error {
			err := tx.Publish(store.Event{ID: id, Type: "test", UserID: "u", CreatedAt: tx.Now, ExpiresAt: tx.Now}, auth.SubscriberMail, "other")
			if err == nil {
				err = tx.DeliveryFailed(auth.SubscriberMail, id, "refused", time.Time{})
			}
			return err
		}))
		c.advance(s.Settings.AuditKeep + auth.PurgeMargin)
		s.sweep(t)
		db := s.Store.Read(t.Context())
		_, err := db.DeliveryByID(auth.SubscriberMail, id)
		wantErr(t, "the dead letter", err, store.ErrNotFound)
		must(db.DeliveryByID("other", id))(t)
	})
}

// A clock that jumps forward by a day and is put right, or back by an hour,
// takes nothing from anybody.
func TestAClockThatJumpsMakesNothingGo(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.AuditKeep = day
		s.Settings.Limits.Off = false
		s.user(t, ann)
		home := from("192.0.2.1")
		tokens := must(s.Login(t.Context(), home, ann, oldPassword))(t)
		c.advance(s.Settings.RefreshIdle - 2*time.Hour)
		bob := s.user(t, "bob@example.org")
		id := s.recover(t, "bob@example.org")
		entries := s.count(t, `SELECT COUNT(*) FROM audit_log WHERE user_id = '`+bob.ID+`'`)
		for _, jump := range []time.Duration{-time.Hour, time.Hour, day, -day} {
			c.advance(jump)
			s.sweep(t)
		}
		s.renew(t, tokens)
		ok(t, s.Reset(t.Context(), auth.Client{}, id, newPassword))
		if n := s.count(t, `SELECT COUNT(*) FROM audit_log WHERE user_id = '`+bob.ID+`'`); n < entries {
			t.Errorf("%d of %d entries are left", n, entries)
		}
		if n := s.count(t, `SELECT COUNT(*) FROM attempts WHERE network = '192.0.2.0/24' AND account <> ''`); n != 1 {
			t.Error("the known network is forgotten")
		}
	})
}

// rows writes n of each kind that are over now.
func (s *server) rows(t *testing.T, user store.User, n int) {
	t.Helper()
	hash := "CAST(id AS BYTEA)"
	if onSQLite(s.url) {
		hash = "CAST(id AS BLOB)"
	}
	s.insert(t, s.Store.Now().Add(-1000*day), user.ID, n, insertSessions,
		`INSERT INTO recoveries (request_id, mac_key, id_hash, user_id, expires_at) SELECT id, '', `+hash+`, user_id, at FROM made`,
		`INSERT INTO attempts (account, network, failures, until, expires_at) SELECT id, 'n', 0, 0, at FROM made`,
		`INSERT INTO audit_log (id, at, kind, reason, address, user_agent) SELECT id, at, '', '', '', '' FROM made`,
		`INSERT INTO events (id, type, user_id, created_at, expires_at) SELECT id, '', '', at, at FROM made`,
		`INSERT INTO deliveries (event_id, subscriber, attempts, due_at, dead_at, last_error, position)
			SELECT id, '`+auth.SubscriberMail+`', 1, at, at, 'refused', number FROM made`)
}

// left counts the rows of all tables that are purged.
func (s *server) left(t *testing.T) int {
	t.Helper()
	return s.count(t, `SELECT (SELECT COUNT(*) FROM sessions) + (SELECT COUNT(*) FROM recoveries) + (SELECT COUNT(*) FROM attempts)
		+ (SELECT COUNT(*) FROM audit_log) + (SELECT COUNT(*) FROM deliveries)`)
}

// However much is over, it goes a few rows at a time, and between two steps the
// database is everybody's.
func TestPurgeGoesInSmallSteps(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		user := s.user(t, ann)
		tokens := s.login(t, ann, oldPassword)
		kept := s.left(t)
		for range 5 {
			s.rows(t, user, auth.PurgeBatch/2)
		}
		left, rests := s.left(t), 0
		p := s.NewPurger(func() {
			n := s.left(t)
			if left-n > auth.PurgeBatch {
				t.Errorf("%d rows went at once", left-n)
			}
			left = n
			rests++
			if rests%4 == 0 {
				tokens = s.renew(t, tokens)
			}
		})
		if !must(p.Sweep(t.Context()))(t) {
			t.Fatal("another replica purges")
		}
		if n := s.left(t); n != kept || left-n > auth.PurgeBatch {
			t.Errorf("%d rows are left, want %d", n, kept)
		}
		if rests < 2*6 {
			t.Errorf("only %d pauses", rests)
		}
	})
}

// One replica purges at a time; another one takes over when it ends, is killed
// or stands still, and what stood still then removes nothing.
func TestOneReplicaPurgesAtATime(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		s.rows(t, user, 2*auth.PurgeBatch)
		other := s.NewPurger(func() {})
		swept := func(p *auth.Purger, want bool, when string) {
			t.Helper()
			if got := must(p.Sweep(t.Context()))(t); got != want {
				t.Fatalf("%s: swept is %v, want %v", when, got, want)
			}
		}
		stands := false
		first := s.NewPurger(func() {
			if stands {
				return
			}
			stands = true
			swept(other, false, "another one while the first goes on")
			c.advance(auth.PurgeLife)
			swept(other, true, "another one after the first stood still")
			s.rows(t, user, 1)
		})
		before := s.left(t)
		swept(first, false, "the one that stood still")
		if n := s.left(t); n == before || n == 0 {
			t.Errorf("%d rows are left of %d", n, before)
		}
		swept(first, false, "within the hour")
		other.Release(t.Context())
		swept(first, true, "after the other one ended")
		c.advance(auth.PurgeEvery - time.Second)
		swept(other, false, "just before the next time")
		swept(first, true, "the same one again")
		c.advance(auth.PurgeEvery + auth.PurgeLook)
		swept(other, true, "after the first was killed")
	})
}

// Renewals, logins and logouts go on while others' sessions are purged, and
// nobody loses one.
func TestNobodyLosesASessionToThePurge(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		user := s.user(t, ann)
		// Of somebody else: a login ends the oldest rows above a bound, which is so low in
		// tests that it would meet the purge at each.
		s.rows(t, s.user(t, "bob@example.org"), 3*auth.PurgeBatch)
		stop := make(chan struct{})
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() {
				for n := 0; ; n++ {
					tokens, err := s.Login(t.Context(), auth.Client{}, ann, oldPassword)
					for range 3 {
						if err == nil {
							tokens, err = s.Renew(t.Context(), auth.Client{}, tokens.Refresh, s.Store.Now())
						}
					}
					if err == nil { // else a later login would end the oldest, above the bound
						err = s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, tokens.Refresh)
					}
					if err != nil {
						t.Errorf("client %d, round %d: %v", i, n, err)
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		s.sweep(t)
		close(stop)
		clients.Wait()
		if n := s.count(t, `SELECT COUNT(*) FROM recoveries`); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// A server begins by itself, soon after its start, and again each hour.
func TestServersPurgeEachHour(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, url, time.Now, nil)
			user := s.user(t, ann)
			kept := s.left(t)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for ctx.Err() == nil {
					s.Purge(ctx)
					time.Sleep(time.Second)
				}
				s.StopPurging(t.Context())
			}()
			for _, wait := range []time.Duration{auth.PurgeLook, auth.PurgeEvery} {
				s.rows(t, user, 1)
				time.Sleep(wait + auth.PurgeLook/2)
				if n := s.left(t); n != kept {
					t.Errorf("%d rows are left after %v, want %d", n, wait, kept)
				}
			}
			stop()
			<-ended
			if n := s.count(t, `SELECT COUNT(*) FROM leases WHERE name = 'purge'`); n != 0 {
				t.Error("the lease is held still")
			}
		})
	})
}
