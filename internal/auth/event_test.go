package auth_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/auth"
	"kwai/internal/store"
)

const outside = "outside"

// published is what waits for the subscriber outside, in order; it removes it.
func (s *server) published(t *testing.T) (kinds []string) {
	t.Helper()
	for _, d := range must(s.Store.Read(t.Context()).NextDeliveries(outside, 100))(t) {
		kinds = append(kinds, d.Type)
		ok(t, s.Store.InTx(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Delivered(outside, d.ID)
			return err
		}))
	}
	return kinds
}

func (s *server) subscribe(t *testing.T) {
	t.Helper()
	ok(t, s.Store.Statement(t.Context(), func(tx *store.Tx) error { return tx.Subscribe(outside) }))
	ok(t, s.RefreshSubscribers(t.Context()))
}

func TestEveryEventIsPublishedOutside(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.subscribe(t)
		var session, other auth.Tokens
		var user store.User
		id := ""
		for _, step := range []struct {
			what string
			do   func()
			want []string
		}{
			{"an account", func() { user = s.user(t, ann) }, []string{auth.EventCreated}},
			{"an account without a password", func() {
				must(s.CreateUser(t.Context(), auth.NewUser{Email: "bob@example.org"}))(t)
			}, []string{auth.EventCreated, auth.EventInvitation}},
			{"a login", func() { session = s.login(t, ann, oldPassword) }, []string{auth.EventOpened}},
			{"a wrong password", func() { _, _ = s.Login(t.Context(), auth.Client{}, ann, "wrong") }, nil},
			{"a renewal", func() { s.renew(t, session) }, nil},
			{"a replay", func() {
				c.advance(time.Hour)
				_, err := s.Renew(t.Context(), auth.Client{}, session.Refresh, c.now())
				wantErr(t, "a replay", err, auth.ErrRefresh)
			}, []string{auth.EventReplay}},
			{"another login", func() { other = s.login(t, ann, oldPassword) }, []string{auth.EventOpened}},
			{"a logout", func() { ok(t, s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, other.Refresh)) }, []string{auth.EventEnded}},
			{"a logout again", func() {
				wantErr(t, "a logout again", s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, other.Refresh), auth.ErrNoSession)
			}, nil},
			{"a recovery", func() { id = s.recover(t, ann) }, []string{auth.EventRecovery}},
			{"a recovery of nobody", func() {
				ok(t, s.Recover(t.Context(), auth.Client{}, "nobody@example.org"))
				must(s.TakeRecoveries(t.Context()))(t)
			}, nil},
			{"a reset", func() { ok(t, s.Reset(t.Context(), auth.Client{}, id, newPassword)) }, []string{auth.EventPasswordChanged}},
			{"a password set", func() { ok(t, s.SetPassword(t.Context(), ann, oldPassword)) }, []string{auth.EventPasswordChanged}},
			{"a change", func() {
				s.login(t, ann, oldPassword)
				other = s.login(t, ann, oldPassword)
				ok(t, s.ChangePassword(t.Context(), auth.Client{}, s.caller(t, other), oldPassword, newPassword, ""))
			}, []string{auth.EventOpened, auth.EventOpened, auth.EventPasswordChanged}},
			{"a change with a wrong password", func() {
				wantErr(t, "a change", s.ChangePassword(t.Context(), auth.Client{}, s.caller(t, other), oldPassword, newPassword, ""), auth.ErrPassword)
			}, nil},
			{"the end of another session", func() {
				id := s.session(t, s.login(t, ann, newPassword)).ID
				ok(t, s.EndSession(t.Context(), auth.Client{}, s.caller(t, other), id))
				wantErr(t, "the end again", s.EndSession(t.Context(), auth.Client{}, s.caller(t, other), id), auth.ErrNotOwn)
			}, []string{auth.EventOpened, auth.EventEnded}},
			{"the end of all others", func() {
				s.login(t, ann, newPassword)
				s.login(t, ann, newPassword)
				ok(t, s.EndOtherSessions(t.Context(), auth.Client{}, s.caller(t, other)))
				ok(t, s.EndOtherSessions(t.Context(), auth.Client{}, s.caller(t, other)))
			}, []string{auth.EventOpened, auth.EventOpened, auth.EventEnded, auth.EventEnded}},
			{"a revocation", func() { ok(t, s.Revoke(t.Context(), ann)) }, []string{auth.EventRevoked}},
			{"a revocation again", func() { ok(t, s.Revoke(t.Context(), ann)) }, nil},
			{"an enactment", func() { ok(t, s.Reinstate(t.Context(), ann)) }, []string{auth.EventReinstated}},
			{"an enactment again", func() { ok(t, s.Reinstate(t.Context(), ann)) }, nil},
		} {
			step.do()
			if diff := cmp.Diff(step.want, s.published(t)); diff != "" {
				t.Errorf("the event of %s (-want +got):\n%s", step.what, diff)
			}
		}
	})
}

// The events of a session name it: who checks access tokens alone can refuse its
// tokens from then on.
func TestEventsOfASessionNameIt(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		user := s.user(t, ann)
		s.subscribe(t)
		session := s.login(t, ann, oldPassword)
		ok(t, s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, session.Refresh))
		want := s.session(t, session).ID
		events := must(s.Store.Read(t.Context()).NextDeliveries(outside, 100))(t)
		if len(events) != 2 {
			t.Fatalf("%d events, want a login's and a logout's", len(events))
		}
		for _, e := range events {
			if e.SessionID != want || e.UserID != user.ID {
				t.Errorf("%s is about session %q of %q, want %q of %q", e.Type, e.SessionID, e.UserID, want, user.ID)
			}
		}
	})
}

func TestWithoutASubscriberNothingIsWritten(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		user := s.user(t, ann)
		session := s.login(t, ann, oldPassword)
		ok(t, s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, session.Refresh))
		s.subscribe(t)
		ok(t, s.Store.Statement(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Unsubscribe(outside, tx.Now)
			return err
		}))
		ok(t, s.RefreshSubscribers(t.Context()))
		s.login(t, ann, oldPassword)
		if n := s.count(t, `SELECT COUNT(*) FROM events`); n != 0 {
			t.Errorf("%d events were written for no subscriber", n)
		}
	})
}

// Events of a user are published in the order in which they happened, also those of
// different clients.
func TestEventsOfAUserAreInOrder(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, ann)
		s.subscribe(t)
		var want []string
		for range 20 {
			ok(t, s.Revoke(t.Context(), ann))
			ok(t, s.Reinstate(t.Context(), ann))
			want = append(want, auth.EventRevoked, auth.EventReinstated)
		}
		if got := s.published(t); !slices.Equal(got, want) {
			t.Errorf("published %v, want %v", got, want)
		}
	})
}
