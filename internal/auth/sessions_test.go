package auth_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/auth"
	"kwai/internal/store"
)

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
func TestWhatUsersDoIsRecorded(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		first, second, one := s.login(t, ann, oldPassword), s.login(t, ann, oldPassword), s.login(t, ann, oldPassword)
		caller, client := s.caller(t, one), from("192.0.2.7")
		ids := []string{s.session(t, first).ID, s.session(t, second).ID}
		c.advance(time.Second)
		since := c.now()
		wantErr(t, "a wrong password", s.ChangePassword(t.Context(), client, caller, newPassword, third, ""), auth.ErrPassword)
		c.advance(time.Second)
		ok(t, s.EndSession(t.Context(), client, caller, ids[0]))
		c.advance(time.Second)
		ok(t, s.EndOtherSessions(t.Context(), client, caller))
		c.advance(time.Second)
		ok(t, s.ChangePassword(t.Context(), client, caller, oldPassword, newPassword, ""))
		c.advance(time.Second)
		ok(t, s.EndSession(t.Context(), client, caller, caller.SessionID))
		var got [][3]string
		for _, entry := range must(s.Store.Read(t.Context()).AuditLogOfUserAfter(user.ID, "", 100))(t) {
			if entry.At.Before(since) {
				continue
			}
			got = append(got, [3]string{entry.Kind, entry.Reason, entry.SessionID})
			if entry.Address != "192.0.2.7" || entry.UserAgent != "agent of 192.0.2.7" {
				t.Errorf("%+v is not of the client", entry)
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
