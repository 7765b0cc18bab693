package auth_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/auth"
	"kwai/internal/store"
)

const third = "twelve orange lanterns" // a password

// gone is one of the ways in which a change learns that its session is over or
// its user's password another one.
func gone(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, auth.ErrNotLoggedIn) && !errors.Is(err, auth.ErrPassword) {
		t.Fatalf("%s: error %v", what, err)
	}
}

func TestAPasswordChangeAndAResetMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		in := r.one.login(t, user.Email, oldPassword)
		caller, id := r.one.caller(t, in), r.other.recovery(t, user)
		return contest{
			one: func(ctx context.Context) error {
				return r.one.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword)
			},
			other: func(ctx context.Context) error { return r.other.Reset(ctx, auth.Client{}, id, third) },
			judge: func(change, reset error) bool {
				if change == nil {
					wantErr(t, "a reset that came too late", reset, auth.ErrRecovery)
					r.other.alive(t, in)
					r.other.login(t, user.Email, newPassword)
					return true
				}
				gone(t, "a change that came too late", change)
				ok(t, reset)
				r.one.dead(t, user, in)
				r.one.login(t, user.Email, third)
				return false
			},
		}
	})
}

// Whatever ends the session while the new password is hashed keeps it from being
// set.
func TestAPasswordChangeAndTheEndOfItsSessionMeet(t *testing.T) {
	for _, end := range []struct {
		name string
		end  func(ctx context.Context, s *server, user store.User, in auth.Tokens) error
	}{
		{"logout", func(ctx context.Context, s *server, user store.User, in auth.Tokens) error {
			return s.Logout(ctx, auth.Client{}, auth.Caller{Profile: user.Profile}, in.Refresh)
		}},
		{"revoke", func(ctx context.Context, s *server, user store.User, _ auth.Tokens) error {
			return s.Revoke(ctx, user.Email)
		}},
	} {
		t.Run(end.name, func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				in := r.one.login(t, user.Email, oldPassword)
				caller := r.one.caller(t, in)
				return contest{
					one: func(ctx context.Context) error {
						return r.one.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword)
					},
					other: func(ctx context.Context) error { return end.end(ctx, r.other, user, in) },
					judge: func(change, ended error) bool {
						ok(t, ended)
						r.one.dead(t, user, in)
						ok(t, r.one.Reinstate(t.Context(), user.Email))
						if change == nil {
							r.other.login(t, user.Email, newPassword)
							return true
						}
						wantErr(t, "a change that came too late", change, auth.ErrNotLoggedIn)
						r.other.login(t, user.Email, oldPassword)
						return false
					},
				}
			})
		})
	}
}

func TestOneOfTwoPasswordChangesSucceeds(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		first, second := r.one.login(t, user.Email, oldPassword), r.other.login(t, user.Email, oldPassword)
		one, other := r.one.caller(t, first), r.other.caller(t, second)
		return contest{
			one: func(ctx context.Context) error {
				return r.one.ChangePassword(ctx, auth.Client{}, one, oldPassword, newPassword)
			},
			other: func(ctx context.Context) error {
				return r.other.ChangePassword(ctx, auth.Client{}, other, oldPassword, third)
			},
			judge: func(oneErr, otherErr error) bool {
				won, lost, lostErr, password := first, second, otherErr, newPassword
				if oneErr != nil {
					ok(t, otherErr)
					won, lost, lostErr, password = second, first, oneErr, third
				}
				gone(t, "the second change", lostErr)
				r.one.alive(t, won)
				r.one.dead(t, user, lost)
				r.one.login(t, user.Email, password)
				return oneErr == nil
			},
		}
	})
}

// From one session, too, which both leave alive: the second finds another password
// than it was given.
func TestOfTwoPasswordChangesFromOneSessionOneSucceeds(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		in := r.one.login(t, user.Email, oldPassword)
		caller := r.one.caller(t, in)
		return contest{
			one: func(ctx context.Context) error {
				return r.one.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword)
			},
			other: func(ctx context.Context) error {
				return r.other.ChangePassword(ctx, auth.Client{}, caller, oldPassword, third)
			},
			judge: func(one, other error) bool {
				lost, password := other, newPassword
				if one != nil {
					ok(t, other)
					lost, password = one, third
				}
				wantErr(t, "the second change", lost, auth.ErrPassword)
				r.one.alive(t, in)
				r.one.login(t, user.Email, password)
				return one == nil
			},
		}
	})
}

// Owner and thief both log the other out: one of them stays.
func TestOfTwoSessionsThatEndEachOtherOneStays(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		first, second := r.one.login(t, user.Email, oldPassword), r.other.login(t, user.Email, oldPassword)
		one, other := r.one.caller(t, first), r.other.caller(t, second)
		return contest{
			one:   func(ctx context.Context) error { return r.one.EndOtherSessions(ctx, auth.Client{}, one) },
			other: func(ctx context.Context) error { return r.other.EndOtherSessions(ctx, auth.Client{}, other) },
			judge: func(oneErr, otherErr error) bool {
				if oneErr == nil {
					wantErr(t, "the second end", otherErr, auth.ErrNotLoggedIn)
					r.one.alive(t, first)
					r.one.dead(t, user, second)
					return true
				}
				wantErr(t, "the first end", oneErr, auth.ErrNotLoggedIn)
				ok(t, otherErr)
				r.one.alive(t, second)
				r.one.dead(t, user, first)
				return false
			},
		}
	})
}

// A login that hashes the same password anew comes between a change's look at the
// old hash and its write: that is no change.
func TestAPasswordChangeAndALoginMeetAtAnImportedHash(t *testing.T) {
	hash := bcryptOf(t, oldPassword)
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		in := r.one.login(t, user.Email, oldPassword)
		caller := r.one.caller(t, in)
		must(r.one.database(t).ExecContext(t.Context(), `UPDATE users SET password_hash = $1 WHERE id = $2`, hash, user.ID))(t)
		return contest{
			one: func(ctx context.Context) error {
				return r.one.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword)
			},
			other: func(ctx context.Context) error {
				_, err := r.other.Login(ctx, auth.Client{}, user.Email, oldPassword)
				return err
			},
			judge: func(change, login error) bool {
				ok(t, change)
				r.one.alive(t, in)
				r.one.login(t, user.Email, newPassword)
				if login == nil {
					return false
				}
				wantErr(t, "a login that came too late", login, auth.ErrCredentials)
				return true
			},
		}
	})
}

func TestAPasswordChangeOfAnImportedHash(t *testing.T) {
	hash := bcryptOf(t, oldPassword)
	each(t, func(t *testing.T, s *server, _ *clock) {
		must(s.CreateUser(t.Context(), auth.NewUser{Email: ann, Hash: hash}))(t)
		in := s.login(t, ann, oldPassword)
		ok(t, s.ChangePassword(t.Context(), auth.Client{}, s.caller(t, in), oldPassword, newPassword))
		s.alive(t, in)
	})
}

func TestAllOtherSessionsEndHoweverManyThereAre(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		in := s.login(t, ann, oldPassword) // the oldest
		var others []auth.Tokens
		for i := range 3 {
			if i > 0 {
				s.insert(t, c.now(), user.ID, auth.MaxSessions-1, insertSessions)
			}
			c.advance(time.Millisecond)
			others = append(others, s.login(t, ann, oldPassword))
			c.advance(time.Millisecond)
		}
		caller := s.caller(t, in)
		listed := must(s.Sessions(t.Context(), caller))(t)
		if len(listed) != auth.MaxSessions || listed[0].ID != s.session(t, others[2]).ID {
			t.Errorf("%d sessions are listed, want %d from the newest on", len(listed), auth.MaxSessions)
		}
		ok(t, s.EndOtherSessions(t.Context(), auth.Client{}, caller))
		s.dead(t, user, others...)
		if listed := must(s.Sessions(t.Context(), caller))(t); len(listed) != 1 || listed[0].ID != caller.SessionID {
			t.Errorf("the sessions afterwards are %v", listed)
		}
		s.alive(t, in)
	})
}

// What users do with their own account is recorded, and how.
func TestTheOwnHandIsRecorded(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		first, second, one := s.login(t, ann, oldPassword), s.login(t, ann, oldPassword), s.login(t, ann, oldPassword)
		caller, client := s.caller(t, one), from("192.0.2.7")
		ids := []string{s.session(t, first).ID, s.session(t, second).ID}
		c.advance(time.Second)
		since := c.now()
		wantErr(t, "a wrong password", s.ChangePassword(t.Context(), client, caller, newPassword, third), auth.ErrPassword)
		c.advance(time.Second)
		ok(t, s.EndSession(t.Context(), client, caller, ids[0]))
		c.advance(time.Second)
		ok(t, s.EndOtherSessions(t.Context(), client, caller))
		c.advance(time.Second)
		ok(t, s.ChangePassword(t.Context(), client, caller, oldPassword, newPassword))
		c.advance(time.Second)
		ok(t, s.EndSession(t.Context(), client, caller, caller.SessionID))
		var got [][3]string
		for _, trace := range must(s.Store.Read(t.Context()).AuditLogOfUserAfter(user.ID, "", 100))(t) {
			if trace.At.Before(since) {
				continue
			}
			got = append(got, [3]string{trace.Kind, trace.Reason, trace.SessionID})
			if trace.Address != "192.0.2.7" || trace.UserAgent != "agent of 192.0.2.7" {
				t.Errorf("%+v is not of the client", trace)
			}
		}
		want := [][3]string{
			{auth.AuditPasswordRefused, "wrong password", caller.SessionID},
			{auth.EventEnded, "by the user, from another session", ids[0]},
			{auth.EventEnded, "by the user, from another session", ids[1]},
			{auth.EventPasswordChanged, auth.ByUser, caller.SessionID},
			{auth.EventEnded, "", caller.SessionID},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the audit log (-want +got):\n%s", diff)
		}
	})
}

// Users are told of logins from networks that are new to them, and only then.
func TestWhoIsToldOfANewNetwork(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		day := 24 * time.Hour
		for _, step := range []struct {
			what, address string
			after         time.Duration
			prepare       func()
			want          int // notices
		}{
			{"the first login", "192.0.2.1", 0, nil, 0},
			{"the same network", "192.0.2.9", time.Hour, nil, 0},
			{"another one", "198.51.100.1", time.Hour, nil, 1},
			{"that one again", "198.51.100.1", time.Hour, nil, 0},
			{"nothing is remembered, as before an upgrade", "203.0.113.1", time.Hour, func() {
				must(s.database(t).ExecContext(t.Context(), `DELETE FROM attempts`))(t)
			}, 0},
			{"a network that was forgotten with all others", "203.0.113.1", 91 * day, nil, 1},
			{"a new one chosen with a password", "233.252.0.1", time.Hour, func() {
				ok(t, s.Reset(t.Context(), from("233.252.0.1"), s.recovery(t, must(s.User(t.Context(), ann))(t)), oldPassword))
			}, 0},
		} {
			c.advance(step.after)
			if step.prepare != nil {
				step.prepare()
			}
			s.deliver(t)
			must(s.Login(t.Context(), from(step.address), ann, oldPassword))(t)
			if n := len(s.deliver(t)); n != step.want {
				t.Errorf("%s: %d notices, want %d", step.what, n, step.want)
			}
		}
		for i, want := range []int{5, 5} { // each day
			c.advance(day + time.Second)
			for j := range 8 {
				must(s.Login(t.Context(), from(fmt.Sprintf("10.%d.%d.1", i, j)), ann, oldPassword))(t)
			}
			if n := len(s.deliver(t)); n != want {
				t.Errorf("%d notices within day %d, want %d", n, i, want)
			}
		}
	})
}

// A clock that is in 1970 when a machine boots, and put right later, has nothing
// forgotten, and nobody told of what isn't new.
func TestAClockIn1970ForgetsNothing(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.wantTry(t, "the owner", home, ann, oldPassword, "in")
		for range 4 {
			s.wantTry(t, "a stranger", cafe, ann, wrong, "wrong")
		}
		right := c.now()
		c.set(time.Unix(60, 0))
		s.wantTry(t, "the owner, in 1970", home, ann, oldPassword, "in")
		s.wantTry(t, "a stranger, in 1970", cafe, ann, wrong, "wrong")
		c.set(right.Add(time.Minute))
		s.wantTry(t, "a stranger, the sixth time", cafe, ann, wrong, "wrong")
		s.wantTry(t, "a stranger, held back", cafe, ann, wrong, "2s")
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

// An operator ends all of a user's sessions, however many there are.
func TestAnOperatorEndsAllSessions(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		oldest := s.login(t, ann, oldPassword)
		s.insert(t, c.now(), user.ID, 300, insertSessions)
		c.advance(time.Millisecond)
		newest := s.login(t, ann, oldPassword)
		ok(t, s.EndUserSessions(t.Context(), ann))
		s.dead(t, user, oldest, newest)
	})
}

// While the database is away nobody is told to log in again.
func TestAnOutageIsNoRefusal(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		tokens := s.login(t, ann, oldPassword)
		ok(t, s.Store.Close())
		_, checked := s.Check(t.Context(), tokens.Access)
		_, renewed := s.Renew(t.Context(), auth.Client{}, tokens.Refresh, c.now())
		_, in := s.Login(t.Context(), auth.Client{}, ann, oldPassword)
		for what, err := range map[string]error{"a check": checked, "a renewal": renewed, "a login": in} {
			if err == nil || auth.CodeOf(err) == auth.Unauthenticated {
				t.Errorf("%s while the database is away: %v", what, err)
			}
		}
	})
}
