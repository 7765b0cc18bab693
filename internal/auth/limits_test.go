package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/token"
)

// Where logins come from.
const (
	home   = "192.0.2.7"
	cafe   = "198.51.100.7"
	nobody = "nobody@example.org"
	wrong  = "not the password"
)

// limited is each with the limits on, which set may change. After twenty failures
// nobody may try, and not a hundred, unless every test is asked for.
func limited(t *testing.T, set func(*auth.Limits), f func(t *testing.T, s *server, c *clock)) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits.Off, s.Settings.Limits.Most = false, need.Rounds(20, s.Settings.Limits.Most)
		if set != nil {
			set(&s.Settings.Limits)
		}
		s.user(t, ann)
		f(t, s, c)
	})
}

// try logs in and says how that ended: "in", "wrong", or the wait.
func (s *server) try(t *testing.T, address, email, password string) string {
	t.Helper()
	_, err := s.Login(t.Context(), from(address), email, password)
	return outcome(t, err)
}

func outcome(t *testing.T, err error) string {
	t.Helper()
	refusal, is := errors.AsType[*auth.Error](err)
	switch {
	case err == nil:
		return "in"
	case errors.Is(err, auth.ErrCredentials):
		return "wrong"
	case is && refusal.Code == auth.Throttled && refusal.RetryAfter > 0:
		return refusal.RetryAfter.String()
	}
	t.Fatalf("login: %v", err)
	return ""
}

func (s *server) wantTry(t *testing.T, what, address, email, password, want string) {
	t.Helper()
	if got := s.try(t, address, email, password); got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// lock makes unknown networks fail as often as they may, as soon as they may.
func (s *server) lock(t *testing.T, c *clock, email string) {
	t.Helper()
	for n := 0; n < s.Settings.Limits.Most; {
		switch s.try(t, fmt.Sprintf("203.0.%d.1", n), email, wrong) {
		case "wrong":
			n++
		default:
			c.advance(time.Hour)
		}
	}
}

// A known and an unknown address are answered alike, wait by wait, and leave the
// same rows.
func TestGuessesWaitLongerAndLonger(t *testing.T) {
	limited(t, func(l *auth.Limits) { *l = auth.Defaults.Limits }, func(t *testing.T, s *server, c *clock) {
		for n := 1; n <= 100; n++ {
			for _, email := range []string{ann, nobody} {
				s.wantTry(t, fmt.Sprint(email, ": failure ", n), fmt.Sprintf("203.0.%d.1", n), email, wrong, "wrong")
			}
			if n < 5 {
				continue
			}
			wait := time.Hour
			if n == 100 {
				c.advance(24 * time.Hour)
			} else if n-5 < 12 {
				wait = time.Second << (n - 5)
			}
			for _, email := range []string{ann, nobody} {
				s.wantTry(t, fmt.Sprint(email, ": after ", n), cafe, email, wrong, wait.String())
				s.wantTry(t, fmt.Sprint(email, ": after ", n, ", the right one"), cafe, email, oldPassword, wait.String())
			}
			c.advance(wait)
		}
		for _, query := range []string{
			`SELECT COUNT(*) FROM (SELECT failures, until, expires_at FROM attempts WHERE network = '' GROUP BY failures, until, expires_at HAVING COUNT(*) = 2) AS alike`,
			`SELECT COUNT(*) - 1 FROM attempts WHERE network = ''`,
		} {
			if n := s.count(t, query); n != 1 {
				t.Errorf("%d, want 1: %s", n, query)
			}
		}
		if n := s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'login.failed'`); n != 200 {
			t.Errorf("%d failures in the audit log, want 200", n)
		}
	})
}

// However many guesses are made at once, no more are looked at than one after
// the other would have been, through however many replicas.
func TestGuessesAtOnceDontPassEachOtherBy(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		c := newClock()
		replicas := []*server{start(t, url, c.now, nil)}
		if !onSQLite(url) {
			replicas = append(replicas, start(t, url, c.now, replicas[0]))
		}
		for _, s := range replicas {
			s.Settings.Limits.Off = false
		}
		replicas[0].user(t, ann)
		replicas[0].wantTry(t, "the owner", home, ann, oldPassword, "in")
		for name, address := range map[string]func(i int) string{
			"from everywhere":        func(i int) string { return fmt.Sprintf("203.0.%d.1", i) },
			"from the known network": func(int) string { return home },
		} {
			var looked atomic.Int64
			var all sync.WaitGroup
			for i := range 60 {
				all.Go(func() {
					if _, err := replicas[i%len(replicas)].Login(t.Context(), from(address(i)), ann, wrong); errors.Is(err, auth.ErrCredentials) {
						looked.Add(1)
					} else if auth.CodeOf(err) != auth.Throttled {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if looked.Load() != 5 {
				t.Errorf("%s: %d guesses at once were looked at, want 5", name, looked.Load())
			}
		}
		if n := replicas[0].count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'login.failed'`); n != 10 {
			t.Errorf("%d failures in the audit log, want 10", n)
		}
	})
}

func TestUnknownNetworksDontDelayAKnownOne(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.wantTry(t, "the owner", home, ann, oldPassword, "in")
		s.lock(t, c, ann)
		s.wantTry(t, "at home", home, ann, oldPassword, "in")
		s.wantTry(t, "a neighbour's address", "192.0.2.200", ann, oldPassword, "in")
		s.wantTry(t, "elsewhere: what a success at home clears is its own", cafe, ann, oldPassword, "1h0m0s")
		for range 5 {
			s.wantTry(t, "mistyped at home", home, ann, wrong, "wrong")
		}
		s.wantTry(t, "its own failures count", home, ann, oldPassword, "1s")
		c.advance(time.Second)
		s.wantTry(t, "a second later", home, ann, oldPassword, "in")
		s.wantTry(t, "and begin anew", home, ann, wrong, "wrong")
		for n := 1; n < s.Settings.Limits.Most; {
			if s.try(t, home, ann, wrong) == "wrong" {
				n++
			} else {
				c.advance(time.Hour)
			}
		}
		c.advance(24 * time.Hour)
		s.wantTry(t, "as many of its own", home, ann, oldPassword, "1h0m0s")
		ok(t, s.Unlock(t.Context(), ann))
		s.wantTry(t, "at home, unlocked", home, ann, oldPassword, "in")
		s.wantTry(t, "elsewhere, unlocked", cafe, ann, oldPassword, "in")
	})
}

func TestATravellerGetsInByAReset(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.wantTry(t, "the owner", home, ann, oldPassword, "in")
		s.lock(t, c, ann)
		s.wantTry(t, "elsewhere", cafe, ann, oldPassword, "1h0m0s")
		ok(t, s.Reset(t.Context(), from(cafe), s.recover(t, ann), newPassword))
		s.lock(t, c, ann)
		s.wantTry(t, "where it was reset", cafe, ann, newPassword, "in")
		s.wantTry(t, "at home", home, ann, newPassword, "in")
	})
}

// The folded form of an address may be longer than an address can be. It is an
// account like others: what is forgotten is what was counted of it alone.
func TestAnAddressThatGrowsByFolding(t *testing.T) {
	long := strings.Repeat("\u0130", 22) + "@example.org" // 44 bytes become 66
	limited(t, func(l *auth.Limits) { l.NetworkBurst = 2 }, func(t *testing.T, s *server, c *clock) {
		s.user(t, long)
		s.lock(t, c, long)
		if h := must(s.Throttling(t.Context(), must(s.User(t.Context(), long))(t)))(t); !h.Locked {
			t.Errorf("locked, and shown is %+v", h)
		}
		ok(t, s.Unlock(t.Context(), long))
		s.wantTry(t, "unlocked", home, long, oldPassword, "in")
		s.lock(t, c, long)
		for range 2 {
			s.wantTry(t, "a neighbour", cafe, nobody, wrong, "wrong")
		}
		ok(t, s.Reset(t.Context(), from(cafe), s.recover(t, long), newPassword))
		s.wantTry(t, "the neighbour, whose network has used up its allowance", cafe, nobody, wrong, "18s")
		s.wantTry(t, "where it was reset", cafe, long, newPassword, "in")
	})
}

func TestNetworksAndFailuresAreForgotten(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		const life = 90 * 24 * time.Hour
		s.wantTry(t, "the owner", home, ann, oldPassword, "in")
		s.lock(t, c, ann)
		s.wantTry(t, "at home, which makes it known for longer", home, ann, oldPassword, "in")
		last := c.now()
		c.set(last.Add(life - 2*time.Hour))
		s.wantTry(t, "unknown network, long after", cafe, ann, wrong, "1h0m0s")
		c.set(last.Add(life))
		if held := must(s.Throttling(t.Context(), must(s.User(t.Context(), ann))(t)))(t); held != (auth.Throttling{}) {
			t.Errorf("90 days after the last failure there is still %+v", held)
		}
		s.wantTry(t, "90 days after the last failure", cafe, ann, wrong, "wrong")
		for range 4 {
			s.wantTry(t, "at home, which is unknown now", home, ann, wrong, "wrong")
		}
		s.wantTry(t, "at home, delayed by an unknown network", home, ann, oldPassword, "1s")
	})
}

func TestAClockThatJumpsLocksNobodyOut(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.wantTry(t, "the owner", home, ann, oldPassword, "in")
		for _, jump := range []time.Duration{-time.Hour, 24 * time.Hour, -24 * time.Hour, time.Hour} {
			for range 7 {
				s.try(t, home, ann, wrong)
				s.try(t, cafe, ann, wrong)
			}
			c.advance(jump)
			c.advance(time.Hour + store.ClockSlack) // no wait is longer
			s.wantTry(t, fmt.Sprint("at home, an hour after a jump by ", jump), home, ann, oldPassword, "in")
			s.wantTry(t, fmt.Sprint("elsewhere, an hour after a jump by ", jump), cafe, ann, oldPassword, "in")
		}
	})
}

func TestANetworkFailsAtAccountsSoOften(t *testing.T) {
	small := func(l *auth.Limits) { l.NetworkBurst, l.NetworkHour = 10, 60 }
	limited(t, small, func(t *testing.T, s *server, c *clock) {
		s.user(t, "bob@example.org")
		s.wantTry(t, "ann, who is known there then", home, ann, oldPassword, "in")
		for i := range 10 {
			s.wantTry(t, fmt.Sprint("account ", i), "192.0.2.99", fmt.Sprint("nobody", i, "@example.org"), wrong, "wrong")
		}
		for _, email := range []string{"bob@example.org", nobody, "malformed"} {
			s.wantTry(t, email+" once it is used up", home, email, oldPassword, "1m0s")
		}
		for range 3 {
			s.wantTry(t, "whom it knows", home, ann, wrong, "wrong")
		}
		s.wantTry(t, "whom it knows", home, ann, oldPassword, "in")
		s.wantTry(t, "another network", cafe, "bob@example.org", oldPassword, "in")
		c.advance(time.Minute)
		for range 3 {
			s.wantTry(t, "a success takes nothing", home, "bob@example.org", oldPassword, "in")
		}
		s.wantTry(t, "one more a minute", home, nobody, wrong, "wrong")
		s.wantTry(t, "and no other", home, nobody, wrong, "1m0s")
	})
}

// A network is a /24 or a /56, however an address is written.
func TestNetworks(t *testing.T) {
	once := func(l *auth.Limits) { l.NetworkBurst, l.NetworkHour = 1, 1 }
	limited(t, once, func(t *testing.T, s *server, c *clock) {
		for i, n := range []struct{ one, other, want string }{
			{"192.0.2.1", "192.0.2.255", "1h0m0s"},
			{"192.0.3.1", "192.0.4.1", "wrong"},
			{"198.51.100.1", "::ffff:198.51.100.9", "1h0m0s"},
			{"::ffff:203.0.113.1", "::ffff:203.1.113.1", "wrong"},
			{"2001:db8:0:ff00::1", "2001:db8:0:ffff:ffff::", "1h0m0s"},
			{"2001:db8:1:ff00::1", "2001:db8:1:fe00::1", "wrong"},
			{"fe80::1%eth0", "fe80::2%eth1", "1h0m0s"},
		} {
			s.wantTry(t, n.one, n.one, fmt.Sprint("one", i, "@example.org"), wrong, "wrong")
			s.wantTry(t, n.other+" after "+n.one, n.other, fmt.Sprint("other", i, "@example.org"), wrong, n.want)
		}
		// Where it isn't known whose an address is, none is counted nor known.
		client := auth.Client{Address: netip.MustParseAddr("10.0.0.1")}
		for i := range 4 {
			_, err := s.Login(t.Context(), client, fmt.Sprint("none", i, "@example.org"), wrong)
			wantErr(t, "no network", err, auth.ErrCredentials)
		}
		must(s.Login(t.Context(), client, ann, oldPassword))(t)
		if n := s.count(t, `SELECT COUNT(*) FROM attempts WHERE network LIKE '10.%'`); n != 0 {
			t.Errorf("%d rows of a network that isn't known", n)
		}
	})
}

// What is typed into the wrong field may be a password: nothing of it is kept.
func TestWhatIsNoAddressLeavesNothing(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		for i := range 30 {
			s.wantTry(t, "no address", home, fmt.Sprint(oldPassword, i), wrong, "wrong")
		}
		if n := s.count(t, `SELECT COUNT(*) FROM attempts WHERE account <> ''`); n != 0 {
			t.Errorf("%d counts of what is no address", n)
		}
	})
}

// An inconclusive attempt counts for nothing, and leaves no row of an account.
func TestAnAttemptWithoutAVerdictIsNone(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.wantTry(t, "the owner", home, ann, oldPassword, "in")
		s.Passwords.Close()
		gone, leave := context.WithCancel(t.Context())
		leave()
		for _, email := range []string{ann, nobody} {
			for range 20 {
				for _, address := range []string{home, cafe} {
					_, err := s.Login(t.Context(), from(address), email, wrong)
					if auth.CodeOf(err) != auth.Unavailable {
						t.Fatalf("too busy: %v", err)
					}
				}
				_, err := s.Login(gone, from(cafe), email, wrong)
				wantErr(t, "a client that has gone", err, context.Canceled)
			}
		}
		if n := s.count(t, `SELECT COUNT(*) FROM attempts WHERE account <> '' AND (network = '' OR failures > 0)`); n != 0 {
			t.Errorf("%d counts are left", n)
		}
	})
}

// One address that tries all the names there are leaves so many rows as its
// allowance has failures.
func TestRowsOfAFloodAreBounded(t *testing.T) {
	few := func(l *auth.Limits) { l.NetworkBurst = need.Rounds(30, l.NetworkBurst) }
	limited(t, few, func(t *testing.T, s *server, c *clock) {
		burst := s.Settings.Limits.NetworkBurst
		for i := range 3 * burst {
			s.try(t, home, fmt.Sprint("nobody", i, "@example.org"), wrong)
		}
		for table, want := range map[string]int{"attempts": burst + 1, "audit_log WHERE kind = 'login.failed'": burst} {
			if n := s.count(t, `SELECT COUNT(*) FROM `+table); n != want {
				t.Errorf("%d rows of %s, want %d", n, table, want)
			}
		}
		// From everywhere at one account: none at all once it is locked.
		s.lock(t, c, nobody)
		before := s.count(t, `SELECT (SELECT COUNT(*) FROM attempts) + (SELECT COUNT(*) FROM audit_log)`)
		for i := range 100 {
			s.try(t, fmt.Sprintf("2001:db8:%x::1", i), nobody, wrong)
		}
		if n := s.count(t, `SELECT (SELECT COUNT(*) FROM attempts) + (SELECT COUNT(*) FROM audit_log)`); n != before {
			t.Errorf("%d rows more", n-before)
		}
	})
}

func TestLimitsOff(t *testing.T) {
	limited(t, func(l *auth.Limits) { l.Off = true }, func(t *testing.T, s *server, c *clock) {
		for range 150 {
			s.wantTry(t, "a failure", cafe, ann, wrong, "wrong")
		}
		s.wantTry(t, "the owner", cafe, ann, oldPassword, "in")
	})
}

// Of recoveries that are asked for too often some are dropped; the answer is the same.
func TestRecoveryMailsAreBounded(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		mails := func(every time.Duration, asked int) (n int) {
			for range asked {
				ok(t, s.Recover(t.Context(), from(cafe), ann))
				must(s.TakeRecoveries(t.Context()))(t)
				n += len(s.deliver(t))
				c.advance(every)
			}
			return n
		}
		if n := mails(time.Second, 60); n != 1 {
			t.Errorf("%d mails in a minute, want 1", n)
		}
		c.advance(2 * time.Hour)
		if n := mails(61*time.Second, 50); n != 5 {
			t.Errorf("%d mails in 50 minutes, want 5", n)
		}
		c.advance(2 * time.Hour)
		if n := mails(24*time.Hour, 3); n != 3 {
			t.Errorf("%d mails in 3 days, want 3", n)
		}
		// Those of a clock that was a day ahead hold up none.
		c.advance(24 * time.Hour)
		mails(0, 1)
		c.advance(-24 * time.Hour)
		if n := mails(0, 1); n != 1 {
			t.Errorf("%d mails after a clock was put right, want 1", n)
		}
	})
}

// Who has somebody's password can't keep the owner from a new one by using up the
// owner's mails and ending the links in them.
func TestLinksThatAPasswordChangeEndedHoldUpNone(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		ask := func(what string) {
			mails := 0
			for range 20 {
				ok(t, s.Recover(t.Context(), from(cafe), ann))
				must(s.TakeRecoveries(t.Context()))(t)
				mails += len(s.deliver(t))
				c.advance(61 * time.Second)
			}
			if mails != 5 {
				t.Errorf("%s: %d mails, want 5", what, mails)
			}
		}
		thief := s.caller(t, s.login(t, ann, oldPassword))
		ask("the thief")
		ok(t, s.ChangePassword(t.Context(), from(cafe), thief, oldPassword, newPassword, ""))
		id := s.recover(t, ann)
		c.advance(time.Second)
		ok(t, s.Reset(t.Context(), from(home), id, oldPassword))
		s.deliver(t)
		ask("unknown network after that")
	})
}

// Links that have ended hold up none either: there must be one that works, or that
// will once it is mailed.
func TestLinksThatEndedHoldUpNone(t *testing.T) {
	limited(t, func(l *auth.Limits) { l.MailHour = 1 }, func(t *testing.T, s *server, c *clock) {
		request := func() {
			ok(t, s.Recover(t.Context(), from(cafe), ann))
			must(s.TakeRecoveries(t.Context()))(t)
		}
		held := func(what string) {
			t.Helper()
			request()
			if mails := s.deliver(t); len(mails) != 0 {
				t.Errorf("%s: %d mails, want none beside the one before", what, len(mails))
			}
		}
		s.recover(t, ann)
		for _, tc := range []struct {
			name string
			end  func()
		}{
			{"a key was revoked", func() { must(s.Keys.Revoke(t.Context(), s.keys(t, token.MAC)[0].ID))(t); follow(t, s) }},
			{"a key was revoked while the mail server was away", func() {
				c.advance(s.Settings.RecoveryLife)
				request()
				never := s.made(t, s.outbox(t)[0].Event)
				must(s.Keys.Revoke(t.Context(), s.keys(t, token.MAC)[0].ID))(t)
				follow(t, s)
				request() // it is as good
				mails := s.deliver(t)
				if len(mails) != 1 || idIn(t, mails[0]) == never {
					t.Fatalf("mails %v, want one with a link under another key", mails)
				}
				s.wantReset(t, "a revoked key's id", never, auth.ErrRecovery)
				ok(t, s.Reset(t.Context(), auth.Client{}, idIn(t, mails[0]), newPassword))
				s.deliver(t)
			}},
			{"a backup was restored", func() {
				now := fmt.Sprint(c.now().UnixMicro())
				s.exec(t, `UPDATE recoveries SET ended_at = `+now+` WHERE ended_at IS NULL`)
				s.exec(t, `UPDATE users SET recovery_requested_at = `+now)
			}},
			{"a backup was restored that had a request", func() {
				c.advance(s.Settings.RecoveryLife)
				request() // nothing is made of it yet
				c.advance(time.Second)
				s.exec(t, `UPDATE users SET recovery_requested_at = `+fmt.Sprint(c.now().UnixMicro()))
			}},
			{"it was revoked and enacted while the mail server was away", func() {
				c.advance(s.Settings.RecoveryLife)
				request()
				s.made(t, s.outbox(t)[0].Event)
				ok(t, s.Revoke(t.Context(), ann))
				if mails := s.deliver(t); len(mails) != 0 {
					t.Errorf("a revoked user is mailed: %v", mails)
				}
				ok(t, s.Reinstate(t.Context(), ann))
			}},
			{"its life is over", func() {
				s.Settings.RecoveryLife = time.Minute
				c.advance(2 * time.Hour)
				s.recover(t, ann)
				held("a link that is to live for a minute")
				c.advance(time.Minute)
			}},
		} {
			held("before " + tc.name)
			c.advance(time.Second)
			tc.end()
			c.advance(time.Second)
			s.recover(t, ann)
		}

		// One that waits to be mailed is as good as one that was.
		c.advance(time.Minute)
		request()
		c.advance(time.Second)
		request()
		if n := len(s.outbox(t)); n != 1 {
			t.Errorf("%d recoveries wait, want the first", n)
		}
	})
}

// A request for a recovery of an account that was just made gives it another
// link, not one that ends earlier.
func TestNobodyShortensAnInvitation(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits.Off = false
		must(s.CreateUser(t.Context(), auth.NewUser{Email: ann}))(t)
		ok(t, s.Recover(t.Context(), auth.Client{}, ann)) // before the invitation is mailed
		must(s.TakeRecoveries(t.Context()))(t)
		s.deliver(t)
		c.advance(time.Hour)
		id := s.recover(t, ann)
		c.advance(s.Settings.InvitationLife - time.Microsecond)
		s.wantReset(t, "just before the end of an invitation", id, nil)

		// An invited user's mail that is sent again, too.
		const bob = "bob@example.org"
		must(s.CreateUser(t.Context(), auth.NewUser{Email: bob}))(t)
		s.deliver(t)
		c.advance(time.Second)
		ok(t, s.Recover(t.Context(), auth.Client{}, bob))
		must(s.TakeRecoveries(t.Context()))(t)
		ok(t, s.ResendMail(t.Context(), s.outbox(t)[0].ID))
		mails := s.deliver(t)
		c.advance(s.Settings.InvitationLife - time.Microsecond)
		s.wantReset(t, "just before the end of one sent again", idIn(t, mails[0]), nil)
	})
}

// A clock that is in 1970 when a machine boots, and put right later, has nothing
// forgotten, and nobody gets a mail about what isn't new.
func TestAClockIn1970ForgetsNothing(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.wantTry(t, "the owner", home, ann, oldPassword, "in")
		for range 4 {
			s.wantTry(t, "unknown network", cafe, ann, wrong, "wrong")
		}
		right := c.now()
		c.set(time.Unix(60, 0))
		s.wantTry(t, "the owner, in 1970", home, ann, oldPassword, "in")
		s.wantTry(t, "unknown network, in 1970", cafe, ann, wrong, "wrong")
		c.set(right.Add(time.Minute))
		s.wantTry(t, "unknown network, the sixth time", cafe, ann, wrong, "wrong")
		s.wantTry(t, "unknown network, held back", cafe, ann, wrong, "2s")
		s.wantTry(t, "the owner, later", home, ann, oldPassword, "in")
		if user := must(s.User(t.Context(), ann))(t); !user.LastLoginAt.Equal(c.now()) {
			t.Errorf("the last login was at %v", user.LastLoginAt)
		}
		// Nor does the first login after it come from a new network where none is
		// known, as behind a proxy until it is named.
		must(s.database(t).ExecContext(t.Context(), `DELETE FROM attempts`))(t)
		c.set(time.Unix(60, 0))
		must(s.Login(t.Context(), auth.Client{}, ann, oldPassword))(t)
		c.set(right.Add(time.Hour))
		s.wantTry(t, "the owner, whose network was not known", home, ann, oldPassword, "in")
		if mails := s.deliver(t); len(mails) > 0 {
			t.Errorf("%d mails, the first: %s", len(mails), mails[0].Subject)
		}
	})
}
