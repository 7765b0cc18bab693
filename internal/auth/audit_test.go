package auth_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/token"
)

// auditLog is what is recorded from then on.
func (s *server) auditLog(t tb, since time.Time, email string) (all []store.AuditEntry) {
	t.Helper()
	for e, err := range s.AuditLog(t.Context(), since, email) {
		ok(t, err)
		all = append(all, e)
	}
	return all
}

// brief is an entry without its id and time, in a line.
func brief(e store.AuditEntry) string {
	return strings.Join([]string{e.Kind, e.Reason, e.Email, e.SessionID, e.Address, e.UserAgent}, "|")
}

func briefs(all []store.AuditEntry) (lines []string) {
	for _, e := range all {
		lines = append(lines, brief(e))
	}
	slices.Sort(lines) // of one moment they have no order
	return lines
}

// Each thing that happens is recorded once, with whose it was, why, the session
// and the client; and what doesn't happen isn't.
func TestTheAuditLogHasEachThingOnce(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		const bob, carl, home, away = "bob@example.org", "carl@example.org", "192.0.2.1", "2001:db8::7"
		var user store.User
		var one, two, three auth.Tokens
		id, recovery := func(tokens auth.Tokens) string { return s.session(t, tokens).ID }, ""
		login := func(address, email, password string) (tokens auth.Tokens) {
			tokens, _ = s.Login(t.Context(), from(address), email, password)
			return tokens
		}
		agent := func(address string) string { return address + "|agent of " + address }
		for _, step := range []struct {
			what string
			do   func()
			want func() []string
		}{
			{"an account", func() { user = s.user(t, ann) }, func() []string {
				return []string{"user.created|by a command|" + ann + "|||"}
			}},
			{"an invitation", func() { must(s.CreateUser(t.Context(), auth.NewUser{Email: bob}))(t) }, func() []string {
				return []string{"user.created|by a command|" + bob + "|||", "user.invited|by a command|" + bob + "|||"}
			}},
			{"an account that is there", func() { _, _ = s.CreateUser(t.Context(), auth.NewUser{Email: ann}) }, nil},
			{"a login", func() { one = login(home, ann, oldPassword) }, func() []string {
				return []string{"session.opened|by password|" + ann + "|" + id(one) + "|" + agent(home)}
			}},
			{"a login from a new network", func() { two = login(away, ann, oldPassword) }, func() []string {
				return []string{"session.new-network||" + ann + "|" + id(two) + "|" + agent(away), "session.opened|by password|" + ann + "|" + id(two) + "|" + agent(away)}
			}},
			{"a wrong password", func() { login(home, " ANN@example.org", "wrong") }, func() []string {
				return []string{"login.failed|wrong password|" + ann + "||" + agent(home)}
			}},
			{"an unknown account", func() { login(home, "nobody@example.org", oldPassword) }, func() []string {
				return []string{"login.failed|no such account|||" + agent(home)}
			}},
			{"a malformed address", func() { login(home, "nonsense", oldPassword) }, func() []string {
				return []string{"login.failed|no such account|||" + agent(home)}
			}},
			{"an invited user", func() { login(home, bob, oldPassword) }, func() []string {
				return []string{"login.failed|no password is chosen yet|" + bob + "||" + agent(home)}
			}},
			{"a renewal", func() { one = s.renew(t, one) }, nil},
			{"a logout", func() { ok(t, s.Logout(t.Context(), from(home), auth.Caller{Profile: user.Profile}, one.Refresh)) }, func() []string {
				return []string{"session.ended||" + ann + "|" + id(one) + "|" + agent(home)}
			}},
			{"a logout again", func() { _ = s.Logout(t.Context(), from(home), auth.Caller{Profile: user.Profile}, one.Refresh) }, nil},
			{"a replay", func() {
				s.renew(t, two)
				c.advance(time.Hour)
				_, err := s.Renew(t.Context(), from(away), two.Refresh, c.now())
				wantErr(t, "a replay", err, auth.ErrRefresh)
			}, func() []string {
				return []string{"session.replayed||" + ann + "|" + id(two) + "|" + agent(away)}
			}},
			{"the replay again", func() { _, _ = s.Renew(t.Context(), from(away), two.Refresh, c.now()) }, nil},
			{"a recovery", func() {
				ok(t, s.Recover(t.Context(), from(away), ann))
				s.deliver(t)
				must(s.TakeRecoveries(t.Context()))(t)
				recovery = idIn(t, s.deliver(t)[0])
			}, func() []string {
				return []string{"user.recovery||" + ann + "||" + agent(away)}
			}},
			{"a recovery of nobody", func() {
				ok(t, s.Recover(t.Context(), from(away), "nobody@example.org"))
				must(s.TakeRecoveries(t.Context()))(t)
			}, nil},
			{"a reset", func() { ok(t, s.Reset(t.Context(), from(away), recovery, newPassword)) }, func() []string {
				return []string{"user.password-changed|by a recovery|" + ann + "||" + agent(away)}
			}},
			{"the reset again", func() { _ = s.Reset(t.Context(), from(away), recovery, newPassword) }, nil},
			{"a password set", func() { ok(t, s.SetPassword(t.Context(), ann, oldPassword)) }, func() []string {
				return []string{"user.password-changed|by a command|" + ann + "|||"}
			}},
			{"an unlocking", func() { ok(t, s.Unlock(t.Context(), ann)) }, func() []string {
				return []string{"user.unlocked|by a command|" + ann + "|||"}
			}},
			{"logins", func() {
				one, two, three = login(home, ann, oldPassword), login(home, ann, oldPassword), login(away, ann, oldPassword)
			}, func() []string {
				return []string{
					"session.opened|by password|" + ann + "|" + id(one) + "|" + agent(home), "session.opened|by password|" + ann + "|" + id(two) + "|" + agent(home),
					"session.opened|by password|" + ann + "|" + id(three) + "|" + agent(away),
				}
			}},
			{"a session ended", func() { ok(t, s.EndUserSession(t.Context(), id(one))) }, func() []string {
				return []string{"session.ended|by a command|" + ann + "|" + id(one) + "||"}
			}},
			{"the session ended again", func() { wantErr(t, "again", s.EndUserSession(t.Context(), id(one)), auth.ErrNotLive) }, nil},
			{"all sessions ended", func() { ok(t, s.EndUserSessions(t.Context(), ann)) }, func() []string {
				return []string{"session.ended|by a command|" + ann + "|" + id(two) + "||", "session.ended|by a command|" + ann + "|" + id(three) + "||"}
			}},
			{"all sessions ended again", func() { ok(t, s.EndUserSessions(t.Context(), ann)) }, nil},
			{"a revocation", func() { ok(t, s.Revoke(t.Context(), ann)) }, func() []string {
				return []string{"user.revoked|by a command|" + ann + "|||"}
			}},
			{"a revocation again", func() { ok(t, s.Revoke(t.Context(), ann)) }, nil},
			{"a revoked user", func() { login(home, ann, oldPassword) }, func() []string {
				return []string{"login.failed|the user is revoked|" + ann + "||" + agent(home)}
			}},
			{"an enactment", func() { ok(t, s.Reinstate(t.Context(), ann)) }, func() []string {
				return []string{"user.reinstated|by a command|" + ann + "|||"}
			}},
			{"an enactment again", func() { ok(t, s.Reinstate(t.Context(), ann)) }, nil},
			{"a mail sent again", func() {
				must(s.CreateUser(t.Context(), auth.NewUser{Email: carl}))(t)
				waiting := s.outbox(t)
				ok(t, s.ResendMail(t.Context(), waiting[len(waiting)-1].ID))
			}, func() []string {
				return []string{"mail.resent|by a command|" + carl + "|||", "user.created|by a command|" + carl + "|||", "user.invited|by a command|" + carl + "|||"}
			}},
			{"a mail sent again that isn't there", func() {
				wantErr(t, "a mail", s.ResendMail(t.Context(), "nonsense"), auth.ErrNoMail)
			}, nil},
			{"a key", func() {
				ok(t, s.Store.InTx(t.Context(), func(tx *store.Tx) error {
					return auth.RecordKey(tx, auth.AuditKeyMade, "sign", "abc", "by the schedule")
				}))
			}, func() []string { return []string{"key.made|by the schedule: sign abc||||"} }},
		} {
			c.advance(time.Minute)
			began := c.now()
			step.do()
			var want []string
			if step.want != nil {
				want = step.want()
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, briefs(s.auditLog(t, began, ""))); diff != "" {
				t.Errorf("%s is recorded as (-want +got):\n%s", step.what, diff)
			}
		}
		all := s.auditLog(t, time.Time{}, "")
		if !slices.IsSortedFunc(all, func(a, b store.AuditEntry) int { return a.At.Compare(b.At) }) {
			t.Errorf("the audit log isn't in order")
		}
		var want []string
		for _, e := range all {
			if e.Email == ann {
				want = append(want, brief(e))
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, briefs(s.auditLog(t, time.Time{}, "ANN@example.org"))); diff != "" {
			t.Errorf("one account's audit log (-want +got):\n%s", diff)
		}
	})
}

// An entry has the id of its event.
func TestAnAuditEntryHasItsEventsID(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.subscribe(t)
		user := s.user(t, ann)
		ok(t, s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, s.login(t, ann, oldPassword).Refresh))
		ok(t, s.Recover(t.Context(), auth.Client{}, ann))
		must(s.TakeRecoveries(t.Context()))(t)
		recorded := make(map[string]string)
		for _, e := range s.auditLog(t, time.Time{}, "") {
			if e.Kind != auth.AuditKeyMade { // at the start: there is no event
				recorded[e.ID] = e.Kind
			}
		}
		events := make(map[string]string)
		for _, d := range must(s.Store.Read(t.Context()).NextDeliveries(outside, 100))(t) {
			events[d.ID] = d.Type
		}
		if diff := cmp.Diff(events, recorded); diff != "" || len(events) != 4 {
			t.Errorf("events and what is recorded (-events +recorded):\n%s", diff)
		}
	})
}

// What can't be recorded doesn't happen, and what doesn't happen isn't recorded.
func TestTheAuditLogIsWrittenWithTheChange(t *testing.T) {
	for _, missing := range []string{"audit_log", "deliveries"} {
		t.Run("without "+missing, func(t *testing.T) {
			each(t, func(t *testing.T, s *server, c *clock) {
				s.subscribe(t)
				user := s.user(t, ann)
				s.user(t, "revoked@example.org")
				ok(t, s.Revoke(t.Context(), "revoked@example.org"))
				session, replaced := s.login(t, ann, oldPassword), s.login(t, ann, oldPassword)
				s.renew(t, replaced)
				c.advance(time.Hour)
				recovery := s.recovery(t, user)
				ok(t, s.Recover(t.Context(), auth.Client{}, ann))
				state := func() map[string]int {
					counts := make(map[string]int)
					for _, query := range []string{
						`users`, `users WHERE revoked_at IS NULL`, `users WHERE password_set_at > created_at`, `sessions WHERE ended_at IS NULL`,
						`recoveries WHERE ended_at IS NULL`, `recovery_requests`, `events`, `audit_log`, `deliveries`,
					} {
						counts[query] = s.count(t, `SELECT COUNT(*) FROM `+query)
					}
					return counts
				}
				before := state()
				s.exec(t, `ALTER TABLE `+missing+` RENAME TO gone`)
				for what, err := range map[string]error{
					"a login":            second(s.Login(t.Context(), auth.Client{}, ann, oldPassword)),
					"a logout":           s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, session.Refresh),
					"a replay":           second(s.Renew(t.Context(), auth.Client{}, replaced.Refresh, c.now())),
					"a recovery":         second(s.TakeRecoveries(t.Context())),
					"a reset":            s.Reset(t.Context(), auth.Client{}, recovery, newPassword),
					"a session ended":    s.EndUserSession(t.Context(), s.session(t, session).ID),
					"all sessions ended": s.EndUserSessions(t.Context(), ann),
					"a revocation":       s.Revoke(t.Context(), ann),
					"an enactment":       s.Reinstate(t.Context(), "revoked@example.org"),
					"a password set":     s.SetPassword(t.Context(), ann, newPassword),
					"an account":         second(s.CreateUser(t.Context(), auth.NewUser{Email: "new@example.org"})),
				} {
					if err == nil || auth.CodeOf(err) == auth.Unauthenticated {
						t.Errorf("%s: error %v, want that of the database", what, err)
					}
				}
				s.exec(t, `ALTER TABLE gone RENAME TO `+missing)
				if diff := cmp.Diff(before, state()); diff != "" {
					t.Errorf("what failed has left (-before +after):\n%s", diff)
				}
			})
		})
	}
}

// leaving is the context of a client that disconnects at the first look at it after
// its password was hashed.
type leaving struct {
	context.Context //nolint:containedctx // it is one
	look            func()
}

func (l leaving) Done() <-chan struct{} {
	l.look()
	return l.Context.Done()
}

func (l leaving) Err() error {
	l.look()
	return l.Context.Err()
}

// A failure is recorded even if the client disconnects as soon as it is found: at
// the next look at its context, or when the transaction that records it begins.
func TestAFailureOfAClientThatDisconnectsIsRecorded(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		var began atomic.Pointer[func()] // what is done when a transaction begins
		s := start(t, url, func() time.Time {
			if do := began.Load(); do != nil {
				(*do)()
			}
			return time.Now()
		}, nil)
		user := s.user(t, ann)
		caller := s.caller(t, s.login(t, ann, oldPassword))
		for kind, guess := range map[string]func(context.Context) error{
			auth.AuditLoginFailed: func(ctx context.Context) error { return second(s.Login(ctx, from(cafe), ann, wrong)) },
			auth.AuditPasswordRefused: func(ctx context.Context) error {
				return s.ChangePassword(ctx, from(cafe), caller, wrong, newPassword, "")
			},
		} {
			ctx, leave := context.WithCancel(t.Context())
			before := s.hashed(t)
			look := func() {
				// The pool's own look may come before it says what it found.
				if s.hashed(t) > before && !bytes.Contains(debug.Stack(), []byte("kwai/internal/password.")) {
					leave()
				}
			}
			began.Store(&look)
			_ = guess(leaving{ctx, look})
			began.Store(nil)
			if ctx.Err() == nil {
				t.Fatalf("%s: the client never left", kind)
			}
			if n := s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = '`+kind+`' AND user_id = '`+user.ID+`'`); n != 1 {
				t.Errorf("%d entries of %s, want 1", n, kind)
			}
		}
	})
}

// hashed is how many passwords have been hashed.
func (s *server) hashed(t *testing.T) (n uint64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.Passwords.Metrics()...)
	for _, family := range must(registry.Gather())(t) {
		if family.GetName() == "kwai_hashing_seconds" {
			for _, m := range family.GetMetric() {
				n += m.GetHistogram().GetSampleCount()
			}
		}
	}
	return n
}

func second[T any](_ T, err error) error { return err }

func (s *server) exec(t *testing.T, statement string) {
	t.Helper()
	must(s.database(t).ExecContext(t.Context(), statement))(t)
}

// Entries are read in pages, from the very microsecond on that is asked for, in
// the order of time.
func TestTheAuditLogIsReadInPages(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		began := c.now().Add(time.Hour)
		const pages, page = 3, auth.AuditPage
		c.set(began.Add(pages * page * time.Microsecond))
		const atOnce = page / 10
		for first := 0; first < pages*page; first += atOnce {
			ok(t, s.Store.InTx(t.Context(), func(tx *store.Tx) error {
				now := tx.Now
				defer func() { tx.Now = now }()
				for i := first; i < first+atOnce; i++ {
					tx.Now = began.Add(time.Duration(i) * time.Microsecond)
					if err := auth.RecordKey(tx, auth.AuditKeyMade, "sign", fmt.Sprint(i), "by a test"); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		for _, from := range []int{0, 1, page - 1, page, page + 1, pages*page - 1, pages * page} {
			var reasons []string
			for _, e := range s.auditLog(t, began.Add(time.Duration(from)*time.Microsecond), "") {
				reasons = append(reasons, e.Reason)
			}
			var want []string
			for i := from; i < pages*page; i++ {
				want = append(want, fmt.Sprintf("by a test: sign %d", i))
			}
			if diff := cmp.Diff(want, reasons); diff != "" {
				t.Errorf("from the microsecond %d on (-want +got):\n%s", from, diff)
			}
		}
		for range s.AuditLog(t.Context(), time.Time{}, user.Email) {
			break // that ends it
		}
		for e, err := range s.AuditLog(t.Context(), time.Time{}, "nobody@example.org") {
			if wantErr(t, "nobody's audit log", err, auth.ErrNoUser); e.ID != "" {
				t.Errorf("nobody's audit log: %v", e)
			}
		}
	})
}

// What is recorded holds nothing that lets anybody in.
func TestTheAuditLogHoldsNoSecret(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		const unknown, wrong = "unknown@example.org", "a wrong password"
		s.Settings.Limits = auth.Defaults.Limits
		s.Settings.Limits.Free = 3
		user := s.user(t, ann)
		first := s.login(t, ann, oldPassword)
		next := s.renew(t, first)
		for _, email := range []string{ann, unknown} {
			for range 4 {
				_, _ = s.Login(t.Context(), from("192.0.2.1"), email, wrong)
			}
		}
		c.advance(time.Hour)
		_, _ = s.Renew(t.Context(), auth.Client{}, first.Refresh, c.now())
		id := s.recover(t, ann)
		ok(t, s.Reset(t.Context(), auth.Client{}, id, newPassword))
		secrets := map[string]string{
			"a password": oldPassword, "the new password": newPassword, "a wrong password": wrong, "an unknown address": unknown,
			"an access token": first.Access, "a refresh token": first.Refresh, "another": next.Refresh, "a recovery's id": id,
			"its hash": fmt.Sprintf("%x", token.HashRecoveryID(id)), "a hash": user.PasswordHash,
		}
		all := s.auditLog(t, time.Time{}, "")
		if len(all) < 10 {
			t.Fatalf("only %d entries", len(all))
		}
		for _, e := range all {
			for what, secret := range secrets {
				if strings.Contains(fmt.Sprintf("%+v", e), secret) {
					t.Errorf("%+v holds %s", e, what)
				}
			}
		}
	})
}

// What one transaction records at one time is read in the order in which it
// happened, again and again.
func TestTheAuditLogKeepsTheOrderWithinAMicrosecond(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		for n := range 8 {
			must(s.CreateUser(t.Context(), auth.NewUser{Email: fmt.Sprintf("user%d@example.org", n)}))(t)
		}
		kinds := make(map[string][]string) // of each user
		for e, err := range s.AuditLog(t.Context(), time.Time{}, "") {
			ok(t, err)
			if e.Kind == auth.EventCreated || e.Kind == auth.EventInvitation {
				kinds[e.UserID] = append(kinds[e.UserID], e.Kind)
			}
		}
		for user, got := range kinds {
			if want := []string{auth.EventCreated, auth.EventInvitation}; !slices.Equal(got, want) {
				t.Errorf("of %s the audit log has %q, want %q", user, got, want)
			}
		}
		if len(kinds) != 8 {
			t.Errorf("the audit log has %d users", len(kinds))
		}
	})
}
