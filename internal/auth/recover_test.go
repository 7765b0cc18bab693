package auth_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"kwai/internal/auth"
	"kwai/internal/mail"
	"kwai/internal/store"
)

// events asks for a recovery and returns its event.
func (s *server) event(t *testing.T, email string) store.Event {
	t.Helper()
	before := s.outbox(t)
	ok(t, s.Recover(t.Context(), auth.Client{}, email))
	must(s.TakeRecoveries(t.Context()))(t)
	after := s.outbox(t)
	if len(after) != len(before)+1 {
		t.Fatalf("%d new events, want one", len(after)-len(before))
	}
	return after[len(after)-1].Event // ids are sorted by time
}

// made is what a delivery of the event mails: "" for nothing.
func (s *server) made(t *testing.T, event store.Event) string {
	t.Helper()
	m, made, err := s.MakeRecovery(t.Context(), event)
	ok(t, err)
	if !made {
		return ""
	}
	return m.ID
}

func (s *server) wantReset(t *testing.T, what, id string, want error) {
	t.Helper()
	wantErr(t, what, s.Reset(t.Context(), auth.Client{}, id, newPassword), want)
}

func TestARecoveryFromTheRequestToTheReset(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		const asGiven = "Ann.Other@Example.org"
		user := s.user(t, asGiven)
		before := []auth.Tokens{s.login(t, asGiven, oldPassword), s.login(t, asGiven, oldPassword)}
		c.advance(time.Minute)
		ok(t, s.Recover(t.Context(), auth.Client{}, "ann.other@EXAMPLE.org "))
		if n := must(s.TakeRecoveries(t.Context()))(t); n != 1 {
			t.Errorf("%d requests were taken, want 1", n)
		}
		mails := s.deliver(t)
		if len(mails) != 1 || mails[0].To != asGiven {
			t.Fatalf("mails %v, want one to the address as it is stored", mails)
		}
		id := idIn(t, mails[0])
		if n := s.count(t, `SELECT COUNT(*) FROM recovery_requests`) + len(s.outbox(t)); n != 0 {
			t.Errorf("%d requests and events stay behind", n)
		}

		// What is refused doesn't use the id up.
		for _, bad := range []string{"", "short", "password1234", "ann.other1234", strings.Repeat("a", 1025), "line\nbreak in it"} {
			if err := s.Reset(t.Context(), auth.Client{}, id, bad); auth.CodeOf(err) != auth.Invalid {
				t.Errorf("the password %q: error %v", bad, err)
			}
		}
		if got := must(s.RecoveryUser(t.Context(), id))(t); got.ID != user.ID {
			t.Errorf("the id is of user %s, want %s", got.ID, user.ID)
		}
		c.advance(time.Minute)
		ok(t, s.Reset(t.Context(), auth.Client{}, id, newPassword))
		s.dead(t, user, before...)
		s.wantReset(t, "the id again", id, auth.ErrRecovery)
		_, err := s.Login(t.Context(), auth.Client{}, asGiven, oldPassword)
		wantErr(t, "the old password", err, auth.ErrCredentials)
		s.alive(t, s.login(t, asGiven, newPassword))
		mails = s.deliver(t)
		if len(mails) != 1 || mails[0].To != asGiven || mails[0].Subject != "Your password for auth.example.org was changed" {
			t.Errorf("mails %v, want the notice", mails)
		}
	})
}

func TestARequestForNobodyLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		ok(t, s.Revoke(t.Context(), ann))
		for _, email := range []string{"unknown@example.org", ann, "malformed", "", "ann@example.org\x00", strings.Repeat("a", 1<<20)} {
			ok(t, s.Recover(t.Context(), auth.Client{}, email))
			must(s.TakeRecoveries(t.Context()))(t)
		}
		for _, table := range []string{"recovery_requests", "recoveries", "events", "deliveries"} {
			if n := s.count(t, `SELECT COUNT(*) FROM `+table); n != 0 {
				t.Errorf("%d rows of %s", n, table)
			}
		}
	})
}

// One request per address waits, and not too many in all: then no address,
// known or not, is taken.
func TestRecoveryRequestsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		for range 3 {
			ok(t, s.Recover(t.Context(), auth.Client{}, ann))
			ok(t, s.Recover(t.Context(), auth.Client{}, strings.ToUpper(ann)))
		}
		if n := s.count(t, `SELECT COUNT(*) FROM recovery_requests`); n != 1 {
			t.Errorf("%d requests wait for one address", n)
		}
		for i := range auth.RequestBatch {
			ok(t, s.Recover(t.Context(), auth.Client{}, fmt.Sprintf("nobody%d@example.org", i)))
		}
		var many sync.WaitGroup
		var taken atomic.Int64
		for range 100 {
			many.Go(func() {
				for range auth.MaxRequests / 100 {
					if err := s.Recover(t.Context(), auth.Client{}, ann); err == nil {
						taken.Add(1)
					} else if !errors.Is(err, auth.ErrBusy) {
						t.Error(err)
					}
				}
			})
		}
		many.Wait()
		if n := 2*3 + auth.RequestBatch + int(taken.Load()); n != auth.MaxRequests {
			t.Errorf("%d requests were taken, want %d", n, auth.MaxRequests)
		}
		// Only when all have been looked at are more taken.
		for range 2 {
			for _, email := range []string{ann, "unknown@example.org"} {
				wantErr(t, email, s.Recover(t.Context(), auth.Client{}, email), auth.ErrBusy)
			}
			must(s.TakeRecoveries(t.Context()))(t)
		}
		ok(t, s.Recover(t.Context(), auth.Client{}, "unknown@example.org"))
		if len(s.deliver(t)) != 1 {
			t.Error("the request of a known address was lost in the crowd")
		}
	})
}

func TestTheNewestRecoveryCounts(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		request := func() store.Event {
			c.advance(time.Second)
			return s.event(t, ann)
		}
		one, two := request(), request()
		first := s.made(t, one)
		second := s.made(t, two)
		s.wantReset(t, "a replaced id", first, auth.ErrRecovery)
		if again := s.made(t, one); again != "" {
			t.Error("a repeated delivery mails a replaced id")
		}
		if again := s.made(t, two); again != second {
			t.Errorf("a repeated delivery mails %q, want %q again", again, second)
		}

		// Out of order.
		three, four := request(), request()
		fourth := s.made(t, four)
		if late := s.made(t, three); late != "" {
			t.Error("an older request was mailed after a newer one")
		}
		s.wantReset(t, "a replaced id", second, auth.ErrRecovery)

		// A request that waits while another id is used.
		five := request()
		c.advance(time.Second)
		s.wantReset(t, "the newest id", fourth, nil)
		for i, e := range []store.Event{one, two, three, four, five} {
			if id := s.made(t, e); id != "" {
				t.Errorf("request %d was made again after a reset", i+1)
			}
		}
		for _, id := range []string{first, second, fourth} {
			s.wantReset(t, "an id from before", id, auth.ErrRecovery)
		}
		s.wantReset(t, "the next id", s.made(t, request()), nil)
	})
}

func TestARecoveryExpires(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		life := s.Settings.RecoveryLife
		event := s.event(t, ann)
		c.advance(life - time.Microsecond) // it counts from the request, not from the mail
		id := s.made(t, event)
		must(s.RecoveryUser(t.Context(), id))(t)
		late := s.event(t, ann)
		c.advance(time.Microsecond)
		s.wantReset(t, "an expired id", id, auth.ErrRecovery)
		if s.made(t, event) != "" {
			t.Error("an expired recovery was mailed")
		}
		c.set(late.ExpiresAt)
		if s.made(t, late) != "" {
			t.Error("an expired request was made")
		}
		last := s.event(t, ann)
		id = s.made(t, last)
		c.set(last.ExpiresAt.Add(-time.Microsecond))
		s.wantReset(t, "an id that expires next", id, nil)
	})
}

// A revocation suspends an id, and its holder learns why.
func TestARecoveryOutlivesARevocation(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		tokens := s.login(t, ann, oldPassword)
		id := s.recover(t, ann)
		waiting := s.event(t, ann)
		ok(t, s.Revoke(t.Context(), ann))
		s.dead(t, user, tokens)
		s.wantReset(t, "while revoked", id, auth.ErrRevoked)
		if _, err := s.RecoveryUser(t.Context(), id); err != auth.ErrRevoked { //nolint:errorlint // the very same
			t.Errorf("the page, while revoked: error %v", err)
		}
		if mails := s.deliver(t); len(mails) != 0 || s.made(t, waiting) != "" {
			t.Errorf("a revoked user is mailed: %v", mails)
		}
		ok(t, s.Revoke(t.Context(), ann))
		ok(t, s.Reinstate(t.Context(), ann))
		ok(t, s.Reinstate(t.Context(), ann))
		s.dead(t, user, tokens)
		s.login(t, ann, oldPassword)
		s.wantReset(t, "after enact", id, nil)

		c.advance(time.Second)
		id = s.recover(t, ann)
		ok(t, s.Revoke(t.Context(), ann))
		c.advance(s.Settings.RecoveryLife)
		s.wantReset(t, "expired while revoked", id, auth.ErrRecovery)
		ok(t, s.Reinstate(t.Context(), ann))
		s.wantReset(t, "expired", id, auth.ErrRecovery)
	})
}

// One id has one spelling.
func TestAnIDIsTakenAsItWasMailed(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		id := s.recover(t, ann)
		for _, other := range []string{
			"", " ", strings.ToUpper(id), "{" + id + "}", "urn:uuid:" + id, strings.ReplaceAll(id, "-", ""),
			" " + id, id + " ", id + "\n", id + "\x00", id[1:], id + "0", strings.Replace(id, "-", "_", 1),
			uuid.NewString(), uuid.Nil.String(), strings.Repeat("0", 1<<20),
		} {
			s.wantReset(t, other, other, auth.ErrRecovery)
		}
		s.wantReset(t, "as it was mailed", id, nil)
	})
}

// A password set by the operator ends what a reset ends.
func TestSettingAPasswordEndsAllFromBefore(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		bob := s.user(t, "bob@example.org")
		tokens, bobs := s.login(t, ann, oldPassword), s.login(t, "bob@example.org", oldPassword)
		id, bobsID := s.recover(t, ann), s.recovery(t, bob)
		waiting := s.event(t, ann)
		c.advance(time.Second)
		if err := s.SetPassword(t.Context(), ann, "short"); auth.CodeOf(err) != auth.Invalid {
			t.Errorf("a short password: error %v", err)
		}
		s.renew(t, tokens)
		ok(t, s.SetPassword(t.Context(), ann, newPassword))
		s.dead(t, user, tokens)
		s.wantReset(t, "an id from before", id, auth.ErrRecovery)
		if s.made(t, waiting) != "" {
			t.Error("a request from before was made")
		}
		s.login(t, ann, newPassword)
		s.alive(t, bobs)
		s.wantReset(t, "another user's id", bobsID, nil)
		wantErr(t, "nobody's password", s.SetPassword(t.Context(), "unknown@example.org", newPassword), auth.ErrNoUser)
	})
}

func TestAnInvitationLetsTheUserChooseAPassword(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		must(s.CreateUser(t.Context(), auth.NewUser{Email: ann, FirstName: "Ann", LastName: "Other"}))(t)
		mails := s.deliver(t)
		if len(mails) != 1 || mails[0].Subject != "Your account at auth.example.org" {
			t.Fatalf("mails %v, want the invitation", mails)
		}
		id := idIn(t, mails[0])
		c.advance(s.Settings.InvitationLife - time.Microsecond)
		must(s.RecoveryUser(t.Context(), id))(t)
		s.wantReset(t, "the id in the invitation", id, nil)
		s.login(t, ann, newPassword)

		// Who was too late asks for a recovery as others do.
		const late = "late@example.org"
		must(s.CreateUser(t.Context(), auth.NewUser{Email: late, FirstName: "Ann", LastName: "Other"}))(t)
		mails = slices.DeleteFunc(s.deliver(t), func(m mail.Message) bool { return m.To != late })
		c.advance(s.Settings.InvitationLife)
		s.wantReset(t, "an invitation that has expired", idIn(t, mails[0]), auth.ErrRecovery)
		s.wantReset(t, "a recovery afterwards", s.recover(t, late), nil)
		s.login(t, late, newPassword)
	})
}

// A mail that was given up can be sent again; its recovery begins anew.
func TestAResentRecoveryHasAnotherID(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		event := s.event(t, ann)
		never := s.made(t, event) // and then the mail server was away
		c.advance(s.Settings.RecoveryLife)
		if mails := s.deliver(t); len(mails) != 0 {
			t.Fatalf("an expired recovery was mailed: %v", mails)
		}
		var dead []auth.Undelivered
		for u, err := range s.UndeliveredMail(t.Context()) {
			ok(t, err)
			dead = append(dead, u)
		}
		if len(dead) != 1 {
			t.Fatalf("undelivered mail %+v, want the recovery", dead)
		}
		same(t, "the undelivered mail's event", dead[0].ID, event.ID)
		same(t, "the undelivered mail's address", dead[0].Email, ann)
		same(t, "the mail is given up", !dead[0].DeadAt.IsZero(), true)
		ok(t, s.ResendMail(t.Context(), event.ID))
		wantErr(t, "the same again", s.ResendMail(t.Context(), event.ID), auth.ErrNoMail)
		mails := s.deliver(t)
		if len(mails) != 1 {
			t.Fatalf("%d mails, want the recovery", len(mails))
		}
		id := idIn(t, mails[0])
		if id == never {
			t.Error("the mail has the old id")
		}
		c.advance(s.Settings.RecoveryLife - time.Microsecond)
		s.wantReset(t, "the old id", never, auth.ErrRecovery)
		s.wantReset(t, "the new id", id, nil)
	})
}

// A clock that was a day ahead has been put right: what it stamped doesn't hold
// up what is requested now.
func TestAClockThatWasAheadHoldsUpNoRecovery(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		c.advance(24 * time.Hour)
		s.recover(t, ann)
		ok(t, s.SetPassword(t.Context(), ann, newPassword))
		c.advance(-24 * time.Hour)
		s.wantReset(t, "an id requested after the clock was put right", s.recover(t, ann), nil)
	})
}

// A notice that is resent says when it happened, not when it was resent.
func TestAResentNoticeSaysWhenItHappened(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		must(s.Login(t.Context(), from(home), ann, oldPassword))(t)
		for _, notice := range []struct {
			of    string
			cause func()
		}{
			{auth.EventNewNetwork, func() { must(s.Login(t.Context(), from(cafe), ann, oldPassword))(t) }},
			{auth.EventPasswordChanged, func() { ok(t, s.SetPassword(t.Context(), ann, newPassword)) }},
		} {
			notice.cause()
			first := s.outbox(t)
			if len(first) != 1 || first[0].Type != notice.of {
				t.Fatalf("to be told: %+v, want one %s", first, notice.of)
			}
			c.advance(48 * time.Hour)
			ok(t, s.ResendMail(t.Context(), first[0].ID))
			again := s.outbox(t)
			if len(again) != 1 || again[0].ID == first[0].ID || !again[0].CreatedAt.Equal(first[0].CreatedAt) {
				t.Fatalf("resent %+v, first %+v", again, first)
			}
			if !again[0].ExpiresAt.After(first[0].ExpiresAt) {
				t.Errorf("%s: it has no longer to be delivered than before", notice.of)
			}
			s.deliver(t)
		}
	})
}
