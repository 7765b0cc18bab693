package auth_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/auth"
	"kwai/internal/token"
	"kwai/verify"
)

func TestTabsThatRenewAtOnceAllGoOn(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, ann)
		first := s.login(t, ann, oldPassword)
		const tabs = 32
		var answers [tabs]auth.Tokens
		var errs [tabs]error
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for i := range tabs {
			wg.Go(func() {
				<-begin
				answers[i], errs[i] = s.Renew(t.Context(), auth.Client{}, first.Refresh, s.Store.Now())
			})
		}
		close(begin)
		wg.Wait()
		for i := range tabs {
			ok(t, errs[i])
			must(s.Check(t.Context(), answers[i].Access))(t)
		}
		for i := range tabs {
			s.renew(t, answers[i])
		}
		if n := s.count(t, `SELECT COUNT(*) FROM sessions`); n != 1 {
			t.Errorf("%d rows for one session", n)
		}
		s.alive(t, first)
	})
}

// The history of one session: each step is a renewal with the token of that
// number. The reuse window is a minute; a token replaced less than that before
// must work, one replaced two windows before must not.
func TestReplacedTokens(t *testing.T) {
	const (
		current = iota
		replaced
		replayed
	)
	type step struct {
		at    time.Duration // when the request arrived, from the first renewal on
		token int
		want  int
	}
	minute, almost := time.Minute, time.Minute-time.Microsecond
	histories := map[string][]step{
		"at once":                        {{0, 0, current}, {0, 0, replaced}},
		"until the window's end":         {{0, 0, current}, {almost, 0, replaced}},
		"after the window":               {{0, 0, current}, {2 * minute, 0, replayed}},
		"long after":                     {{0, 0, current}, {20 * 24 * time.Hour, 0, replayed}},
		"one behind, later":              {{0, 0, current}, {time.Hour, 1, current}, {time.Hour + almost, 1, replaced}},
		"two behind":                     {{0, 0, current}, {minute / 2, 1, current}, {almost, 0, replaced}, {almost, 1, replaced}},
		"three behind":                   {{0, 0, current}, {20 * time.Second, 1, current}, {40 * time.Second, 2, current}, {almost, 0, replaced}},
		"one behind, two out of window":  {{0, 0, current}, {110 * time.Second, 1, current}, {110*time.Second + almost, 1, replaced}, {2*minute + almost, 0, replayed}},
		"two behind in another window":   {{0, 0, current}, {50 * time.Second, 1, current}, {100 * time.Second, 2, current}, {109 * time.Second, 1, replaced}, {2 * minute, 0, replayed}},
		"two behind after a long pause":  {{0, 0, current}, {time.Hour, 1, current}, {time.Hour, 0, replayed}},
		"a reissue lengthens nothing":    {{0, 0, current}, {almost, 0, replaced}, {2 * minute, 0, replayed}},
		"arrived before it was replaced": {{0, 0, current}, {-time.Second, 0, replaced}, {-time.Hour, 0, replaced}},
		"its request waited":             {{0, 0, current}, {minute + 10*time.Millisecond, 1, current}, {minute - 10*time.Millisecond, 0, replaced}},
		"a replay ends the current one":  {{0, 0, current}, {time.Hour, 0, replayed}, {time.Hour, 1, replayed}, {time.Hour, 0, replayed}},
	}
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		for name, steps := range histories {
			// Windows begin at fixed times: where a history begins in one must not matter.
			for _, phase := range []time.Duration{0, time.Microsecond, 30 * time.Second, almost} {
				c.set(c.now().Truncate(minute).Add(time.Hour + phase))
				begin := c.now()
				tokens := []auth.Tokens{s.login(t, ann, oldPassword)}
				for i, step := range steps {
					arrived := begin.Add(step.at)
					if arrived.After(c.now()) {
						c.set(arrived)
					}
					before := s.session(t, tokens[0])
					got, err := s.Renew(t.Context(), auth.Client{}, tokens[step.token].Refresh, arrived)
					after := s.session(t, tokens[0])
					newest := tokens[len(tokens)-1].Refresh
					switch {
					case step.want == replayed:
						wantErr(t, name+": a replay", err, auth.ErrRefresh)
						s.dead(t, user, tokens...)
						continue
					case err != nil:
						t.Fatalf("%s, %v into a window: step %d: %v", name, phase, i, err)
					case step.want == current && got.Refresh != newest && after.Counter == before.Counter+1:
						tokens = append(tokens, got)
					case step.want == replaced && got.Refresh == newest && after == before:
					default:
						t.Fatalf("%s, %v into a window: step %d: the session was %+v and is %+v", name, phase, i, before, after)
					}
					if _, err := s.Check(t.Context(), got.Access); err != nil {
						t.Fatalf("%s: step %d: the new access token: %v", name, i, err)
					}
				}
			}
		}
	})
}

// A server may stand still with a request in its hands while others go on.
// counted is the sum of a metric over all outcomes.
func (s *server) counted(t *testing.T, name string) (n float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.Metrics()...)
	for _, family := range must(registry.Gather())(t) {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestALateRequestIsNoReplay(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		first := s.login(t, ann, oldPassword)
		arrived, newest := c.now(), first
		for range 4 {
			c.advance(2 * auth.Defaults.ReuseWindow)
			newest = s.renew(t, newest)
		}
		_, err := s.Renew(t.Context(), auth.Client{}, first.Refresh, arrived)
		wantErr(t, "a request that arrived when its token was the current one", err, auth.ErrBusy)
		s.alive(t, newest)
		if n := s.counted(t, "kwai_renewals_total"); n != 6 { // alive renews, too
			t.Errorf("%v of 6 renewals were counted", n)
		}
	})
}

func TestAReplayIsMailedOnce(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		stolen := s.login(t, ann, oldPassword)
		other := s.login(t, ann, oldPassword)
		owners := s.renew(t, stolen)
		c.advance(time.Hour)
		var wg sync.WaitGroup
		errs := make([]error, 16)
		for i := range errs {
			wg.Go(func() { _, errs[i] = s.Renew(t.Context(), auth.Client{}, stolen.Refresh, c.now()) })
		}
		wg.Wait()
		for _, err := range errs {
			wantErr(t, "a replay", err, auth.ErrRefresh)
		}
		s.dead(t, user, stolen, owners)
		s.renew(t, other)
		mails := s.deliver(t)
		if len(mails) != 1 || mails[0].To != ann || mails[0].Subject != "Your session at auth.example.org was used elsewhere" {
			t.Errorf("mails %v, want the notice", mails)
		}
	})
}

// However two replays meet, the owner gets one mail.
func TestTwoReplaysThatMeetAreMailedOnce(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		c := newClock()
		r := startRivals(t, url, c.now)
		for step, more := 1, true; more; step++ {
			user := r.one.user(t, fmt.Sprintf("user%d@example.org", step))
			stolen := r.one.login(t, user.Email, oldPassword)
			r.one.renew(t, stolen)
			c.advance(time.Hour)
			replay := func(s *server) operation {
				return func(ctx context.Context) error { return second(s.Renew(ctx, auth.Client{}, stolen.Refresh, c.now())) }
			}
			var one, other error
			more, one, other = r.one.interrupt(t, step, replay(r.one), replay(r.other))
			wantErr(t, "a replay", one, auth.ErrRefresh)
			wantErr(t, "the other replay", other, auth.ErrRefresh)
			notices := 0
			for _, d := range r.one.outbox(t) {
				if d.UserID == user.ID {
					notices++
				}
			}
			if notices != 1 {
				t.Errorf("before step %d: the owner got %d notices", step, notices)
			}
		}
	})
}

// A thief who renews first is found out when the owner comes back.
func TestAStolenTokenIsFoundOutByItsOwner(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		owners := s.login(t, ann, oldPassword)
		thiefs := s.renew(t, owners)
		for range 5 {
			c.advance(time.Hour)
			thiefs = s.renew(t, thiefs)
		}
		_, err := s.Renew(t.Context(), auth.Client{}, owners.Refresh, c.now())
		wantErr(t, "the owner's renewal", err, auth.ErrRefresh)
		s.dead(t, user, thiefs, owners)
		if len(s.deliver(t)) != 1 {
			t.Error("the owner got no notice")
		}
	})
}

// A database that lost its latest commits must not take its clients for thieves.
func TestTokensAheadOfARestoredDatabaseAreAccepted(t *testing.T) {
	for name, order := range map[string][]int{"the newest first": {3, 2, 3}, "the oldest first": {2, 3, 2}} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *server, c *clock) {
				s.user(t, ann)
				tokens := []auth.Tokens{s.login(t, ann, oldPassword)}
				db := s.database(t)
				must(db.ExecContext(t.Context(), `CREATE TABLE backup AS SELECT * FROM sessions`))(t) //nolint:unqueryvet // the row as it is, whatever is in it
				for range 3 {
					c.advance(20 * time.Minute)
					tokens = append(tokens, s.renew(t, tokens[len(tokens)-1]))
				}
				for _, restore := range []string{`DELETE FROM sessions`, `INSERT INTO sessions SELECT * FROM backup`, `DROP TABLE backup`} {
					must(db.ExecContext(t.Context(), restore))(t)
				}
				c.advance(10 * time.Second)
				// Two tabs, one of which had not heard of the last renewal yet.
				for _, number := range order {
					s.renew(t, tokens[number])
				}
				if mails := s.deliver(t); len(mails) != 0 {
					t.Errorf("the owner got a notice of a replay: %v", mails)
				}
			})
		})
	}
}

func TestForgedTokensChangeNothing(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		tokens := s.login(t, ann, oldPassword)
		session := s.session(t, tokens)
		theirs := must(token.ParseMaster([]byte(token.NewMasterKey())))(t)
		ring := must(theirs.OpenKeyring(token.KeyStatuses([]token.Key{
			must(theirs.NewKey(token.Sign, c.now()))(t), must(theirs.NewKey(token.MAC, c.now()))(t), must(theirs.NewKey(token.Decoy, c.now()))(t),
		}, c.now(), token.Lifetimes{}), nil))(t)
		for _, refresh := range []string{
			"", "x", tokens.Access, tokens.Refresh + "A", tokens.Refresh[1:], strings.ToUpper(tokens.Refresh), tokens.Refresh + "\n",
			ring.Refresh(uuid.MustParse(session.ID), 0), ring.Refresh(uuid.MustParse(session.ID), 1),
			s.Ring().Refresh(uuid.New(), 0), // none of this database
		} {
			_, err := s.Renew(t.Context(), auth.Client{}, refresh, c.now())
			wantErr(t, "a renewal with "+refresh, err, auth.ErrRefresh)
			wantErr(t, "a logout with "+refresh, s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, refresh), auth.ErrNoSession)
		}
		// Our own signature under what was never so.
		claims := verify.Claims{
			Issuer: s.Settings.Issuer, Audience: s.Settings.Audience, ClientID: s.Settings.Audience, Subject: user.ID, SessionID: session.ID,
			ID: uuid.NewString(), IssuedAt: c.now(), AuthTime: c.now(), ExpiresAt: c.now().Add(time.Hour),
		}
		must(s.Check(t.Context(), must(s.Ring().Sign(claims))(t)))(t)
		claims.Subject = s.user(t, "bob@example.org").ID
		others := must(s.Ring().Sign(claims))(t)
		for _, access := range []string{"", "x", tokens.Refresh, tokens.Access + "A", tokens.Access[1:], others} {
			_, err := s.Check(t.Context(), access)
			wantErr(t, "a check of "+access, err, auth.ErrNotLoggedIn)
		}
		if now := s.session(t, tokens); now != session {
			t.Errorf("the session was %+v and is %+v", session, now)
		}
	})
}

func TestSessionsEndInTime(t *testing.T) {
	const tick = time.Microsecond
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		settings := s.Settings
		for _, fraction := range []time.Duration{0, 123456 * time.Microsecond, time.Second - tick} {
			begin := c.now().Truncate(time.Hour).Add(time.Hour + fraction)
			c.set(begin)
			// An access token: whole seconds, never longer than it may.
			tokens := s.login(t, ann, oldPassword)
			if want := begin.Truncate(time.Second).Add(settings.AccessTTL); !tokens.ExpiresAt.Equal(want) || tokens.ExpiresIn != settings.AccessTTL {
				t.Errorf("the access token expires at %v, in %v; want %v", tokens.ExpiresAt, tokens.ExpiresIn, want)
			}
			c.set(tokens.ExpiresAt.Add(-tick))
			must(s.Check(t.Context(), tokens.Access))(t)
			c.advance(tick)
			_, err := s.Check(t.Context(), tokens.Access)
			wantErr(t, "a check with an expired token", err, auth.ErrNotLoggedIn)

			// A session that isn't used.
			c.set(begin.Add(settings.RefreshIdle - tick))
			tokens = s.renew(t, tokens)
			renewed := c.now()
			c.set(renewed.Add(settings.RefreshIdle))
			s.dead(t, user, tokens)

			// One that is used, and ends nevertheless.
			c.set(c.now().Truncate(time.Second).Add(fraction))
			begin = c.now()
			end := begin.Add(settings.SessionLife)
			tokens = s.login(t, ann, oldPassword)
			for c.now().Add(settings.RefreshIdle - tick).Before(end) {
				c.advance(settings.RefreshIdle - tick)
				tokens = s.renew(t, tokens)
			}
			for _, left := range []time.Duration{settings.AccessTTL, time.Minute, time.Second, tick} {
				c.set(end.Add(-left))
				tokens = s.renew(t, tokens)
				if tokens.ExpiresAt.After(end) || tokens.ExpiresIn < 0 {
					t.Errorf("%v before the session's end: the access token expires at %v, in %v; the session ends at %v", left, tokens.ExpiresAt, tokens.ExpiresIn, end)
				}
			}
			c.set(end)
			s.dead(t, user, tokens)
		}
		if mails := s.outbox(t); len(mails) != 0 {
			t.Errorf("an expired session was taken for a replay: %v", mails)
		}

		// However long access tokens may live.
		s.Settings.AccessTTL = 2 * s.Settings.SessionLife
		begin := c.now()
		tokens := s.login(t, ann, oldPassword)
		if end := begin.Add(s.Settings.RefreshIdle).Truncate(time.Second); !tokens.ExpiresAt.Equal(end) {
			t.Errorf("the access token expires at %v; unless it is renewed the session ends at %v", tokens.ExpiresAt, end)
		}
	})
}

func TestLogoutEndsTheSessionOfAnyOfItsTokens(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user, bob := s.user(t, ann), s.user(t, "bob@example.org")
		for _, which := range []int{0, 1, 2} {
			tokens := []auth.Tokens{s.login(t, ann, oldPassword)}
			other := s.login(t, ann, oldPassword)
			for range 2 {
				c.advance(time.Hour)
				tokens = append(tokens, s.renew(t, tokens[len(tokens)-1]))
			}
			wantErr(t, "another user's logout", s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: bob.Profile}, tokens[which].Refresh), auth.ErrNoSession)
			ok(t, s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, tokens[which].Refresh))
			s.dead(t, user, tokens...)
			s.renew(t, other)
		}
		if mails := s.outbox(t); len(mails) != 0 {
			t.Errorf("a renewal after a logout was taken for a replay: %v", mails)
		}
	})
}

// A user who has as many sessions replayed as there are gets five mails a day.
func TestReplayNoticesAreBounded(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		var old []auth.Tokens
		for range 7 {
			tokens := s.login(t, ann, oldPassword)
			s.renew(t, tokens)
			old = append(old, tokens)
		}
		s.deliver(t)
		c.advance(time.Hour)
		s.subscribe(t)
		for _, tokens := range old {
			_, err := s.Renew(t.Context(), auth.Client{}, tokens.Refresh, s.Store.Now())
			wantErr(t, "a replay", err, auth.ErrRefresh)
		}
		same(t, "events outside", len(s.published(t)), len(old))
		same(t, "mails", len(s.deliver(t)), 5)
		c.advance(25 * time.Hour)
		tokens := s.login(t, ann, oldPassword)
		s.renew(t, tokens)
		c.advance(time.Hour)
		_, err := s.Renew(t.Context(), auth.Client{}, tokens.Refresh, s.Store.Now())
		wantErr(t, "a replay a day later", err, auth.ErrRefresh)
		same(t, "mails a day later", len(s.deliver(t)), 1)
	})
}
