package auth_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/token"
)

// replicas makes n servers on one database, with other settings than the default.
// On SQLite, which one process serves, they share what it has opened.
func replicas(t *testing.T, url string, now func() time.Time, n int, set func(*server)) (all []*server) {
	t.Helper()
	first := start(t, url, now, nil)
	for i := range n {
		s := first
		if i > 0 && onSQLite(url) {
			s = &server{test: t, url: url, keySchedule: auth.KeyDefaults, now: now, master: first.master}
			s.Service = &auth.Service{Store: first.Store, Passwords: first.Passwords, Log: first.Log, Settings: first.Settings}
		} else if i > 0 {
			s = start(t, url, now, first)
		}
		set(s)
		s.Keys = must(auth.EnsureKeys(t.Context(), s.Store, s.master, s.keyRules(), s.Log))(t)
		all = append(all, s)
	}
	return all
}

// keys are the keys of a purpose, the latest first.
func (s *server) keys(t *testing.T, purpose token.Purpose) (of []token.KeyStatus) {
	t.Helper()
	for _, key := range must(s.Keys.States(t.Context()))(t) {
		if key.Purpose == purpose {
			of = append(of, key)
		}
	}
	return of
}

// keyBrief is what is compared of a key.
type keyBrief struct {
	ID    string
	State token.State
	From  time.Time
}

func briefsOf(keys []token.KeyStatus) (all []keyBrief) {
	for _, key := range keys {
		all = append(all, keyBrief{key.ID, key.State, key.ActiveAt})
	}
	return all
}

func states(keys []token.KeyStatus) (names []token.State) {
	for _, key := range keys {
		names = append(names, key.State)
	}
	return names
}

// follow is what a second does for servers that follow the keys.
func follow(t *testing.T, all ...*server) {
	t.Helper()
	for _, s := range all {
		ok(t, s.ReadKeys(t.Context()))
	}
}

// Over half a year keys change every ten days on three servers: a client that
// renews each hour of use, one that renews every 29 days and one that holds a
// recovery mail are let in by whichever server they come to. The clock jumps
// now and then, a day forward or an hour back, and is put right.
func TestKeysChangeAndNobodyIsLoggedOut(t *testing.T) {
	longer(t, func(t *testing.T, url string) {
		c := newClock()
		all := replicas(t, url, c.now, 3, func(s *server) { s.keySchedule.Rotation, s.Settings.SessionLife = 10*24*time.Hour, 365*24*time.Hour })
		one := func() *server { return all[rand.IntN(len(all))] }
		all[0].user(t, ann)
		often, seldom := all[0].login(t, ann, oldPassword), all[0].login(t, ann, oldPassword)
		pick := all[0].Ring().DecoyFraction("nobody@example.org")
		made := 0
		visit := func() {
			for range 2 {
				often = one().renew(t, often)
				must(one().Check(t.Context(), often.Access))(t)
				c.advance(30 * time.Minute)
				follow(t, all...)
				must(one().Check(t.Context(), often.Access))(t) // half of its life later
			}
		}
		for day := range 180 {
			follow(t, all...)
			switch day % 20 {
			case 7:
				c.advance(24 * time.Hour)
				follow(t, all...)
				must(one().Keys.Purge(t.Context()))(t)
				c.advance(-24 * time.Hour)
				follow(t, all...)
			case 13:
				visit()
				c.advance(-time.Hour)
				follow(t, all...)
			}
			visit()
			if day%29 == 28 {
				seldom = one().renew(t, seldom)
				must(one().Check(t.Context(), seldom.Access))(t)
			}
			made += len(must(one().Keys.RotateDue(t.Context()))(t))
			must(one().Keys.Purge(t.Context()))(t)
			for _, s := range all {
				if now := s.Ring().DecoyFraction("nobody@example.org"); now != pick {
					t.Fatalf("on day %d an unknown address is at %v, and was at %v", day, now, pick)
				}
			}
			if n := len(must(all[0].Keys.States(t.Context()))(t)); n > 24+19 { // the second are those of apps
				t.Fatalf("on day %d there are %d keys", day, n)
			}
			c.advance(23 * time.Hour)
		}
		if made < 3*16 {
			t.Errorf("only %d keys were made", made)
		}
		// A key goes once all that it made has expired.
		c.advance(366 * 24 * time.Hour)
		follow(t, all...)
		must(one().Keys.RotateDue(t.Context()))(t)
		must(one().Keys.Purge(t.Context()))(t)
		if n := len(must(one().Keys.States(t.Context()))(t)); n > 7+3 {
			t.Errorf("a year later there are %d keys", n)
		}
	})
}

// At the longest lives that can be set, too.
func TestKeysOfTheLongestLives(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		const longest = 100 * 365 * 24 * time.Hour
		l := &s.Settings
		l.RefreshIdle, l.SessionLife, l.ReuseWindow = longest, longest, longest
		l.AccessTTL, l.RecoveryLife, l.InvitationLife = longest, longest, longest
		s.Keys = must(auth.EnsureKeys(t.Context(), s.Store, s.master, s.keyRules(), s.Log))(t)
		s.user(t, ann)
		tokens := s.login(t, ann, oldPassword)
		must(s.Keys.Rotate(t.Context(), token.Sign, token.MAC))(t)
		c.advance(s.Keys.Settings.Lead() + 24*time.Hour)
		follow(t, s)
		must(s.Check(t.Context(), tokens.Access))(t)
		s.renew(t, tokens)
	})
}

// Three servers, eight clients and keys that change every few seconds. Time goes
// on as the clients do: a tenth of a second with each renewal, and not far before
// the servers have looked at their keys.
func TestKeysChangeWhileClientsRenew(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		const seconds, perSecond = 32, 10
		c := newClock()
		all := replicas(t, url, c.now, 3, func(s *server) {
			// An access token outlives the test: each is good.
			s.keySchedule.Rotation, s.keySchedule.JWKSMaxAge, s.Settings.AccessTTL = 8*time.Second, time.Second, time.Minute
		})
		all[0].user(t, ann)
		var running sync.WaitGroup
		renewals := make(chan struct{}, perSecond)
		for range 8 {
			tokens := all[0].login(t, ann, oldPassword)
			running.Go(func() {
				for range renewals {
					c.advance(time.Second / perSecond)
					var err error
					if tokens, err = all[rand.IntN(3)].Renew(t.Context(), auth.Client{}, tokens.Refresh, c.now()); err != nil {
						t.Errorf("a renewal: %v", err)
						break
					}
					if _, err = all[rand.IntN(3)].Check(t.Context(), tokens.Access); err != nil {
						t.Errorf("a check: %v", err)
						break
					}
				}
				for range renewals { // of a client that failed
				}
			})
		}
		var made atomic.Int64
		for range seconds {
			var looking sync.WaitGroup
			for _, s := range all {
				looking.Go(func() {
					if err := s.ReadKeys(t.Context()); err != nil {
						t.Error(err)
					}
					keys, err := s.Keys.RotateDue(t.Context())
					if err != nil {
						t.Error(err)
					}
					made.Add(int64(len(keys)))
				})
			}
			looking.Wait()
			for range perSecond {
				renewals <- struct{}{}
			}
		}
		close(renewals)
		running.Wait()
		// The two keys of apps are made at once. One of each purpose that rotates is made
		// after three seconds, and each eight seconds after; a look comes up to two seconds
		// late.
		if n := made.Load(); n < 2+3*3 || n > 2+3*4 {
			t.Errorf("%d keys were made in %d seconds", n, seconds)
		}
	})
}

// A revoked key's tokens are refused by each server from KeysFollow on, also by
// one that stood still, and by one that can't read the keys.
func TestRevokedKeysTokensAreRefused(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		c := newClock()
		all := replicas(t, url, c.now, 3, func(*server) {})
		a, b, cut := all[0], all[1], all[2]
		user := a.user(t, ann)
		for _, purpose := range []token.Purpose{token.Sign, token.MAC} {
			c.advance(time.Minute)
			tokens := a.login(t, ann, oldPassword)
			must(b.Check(t.Context(), tokens.Access))(t) // it is remembered there
			id := a.recovery(t, user)
			was := a.keys(t, purpose)[0]
			r := must(a.Keys.Revoke(t.Context(), was.ID))(t)
			recoveries := map[token.Purpose]int64{token.Sign: 0, token.MAC: 1}[purpose]
			same(t, "what was revoked", keyBrief{r.ID, r.State, r.ActiveAt}, keyBrief{was.ID, token.Active, was.ActiveAt})
			same(t, "recoveries that ended", r.Recoveries, recoveries)
			if r.Replacement == nil {
				t.Fatal("nothing is used instead of an active key")
			}
			same(t, "keys afterwards", briefsOf(a.keys(t, purpose)), []keyBrief{{r.Replacement.ID, token.Active, was.ActiveAt}})
			for _, s := range []*server{a, b} {
				s.Age(auth.KeysFollow + time.Millisecond)
				_, checked := s.Check(t.Context(), tokens.Access)
				_, renewed := s.Renew(t.Context(), auth.Client{}, tokens.Refresh, c.now())
				if purpose == token.Sign {
					wantErr(t, "a check with a revoked key's token", checked, auth.ErrNotLoggedIn)
					ok(t, renewed)
				} else {
					ok(t, checked)
					wantErr(t, "a renewal with a revoked key's token", renewed, auth.ErrRefresh)
					wantErr(t, "a logout with a revoked key's token", s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, tokens.Refresh), auth.ErrNoSession)
				}
			}
			if err := b.Reset(t.Context(), auth.Client{}, id, newPassword); (purpose == token.MAC) != errors.Is(err, auth.ErrRecovery) {
				t.Errorf("a reset by a link of %s: %v", r.ID, err)
			} else if err == nil {
				ok(t, a.SetPassword(t.Context(), ann, oldPassword))
			}
		}
		_, err := a.Keys.Revoke(t.Context(), "nonsense")
		if auth.CodeOf(err) != auth.NotFound {
			t.Errorf("the revocation of a key that isn't there: %v", err)
		}
		published := len(cut.Keys.JWKS(t.Context()).Keys)
		tokens := cut.login(t, ann, oldPassword)
		must(cut.Check(t.Context(), tokens.Access))(t)
		ok(t, cut.Store.Close())
		cut.Age(auth.KeysFollow + time.Millisecond)
		for what, do := range map[string]func() error{
			"a check":   func() error { _, err := cut.Check(t.Context(), tokens.Access); return err },
			"a renewal": func() error { _, err := cut.Renew(t.Context(), auth.Client{}, tokens.Refresh, c.now()); return err },
			"readiness": func() error { return cut.Keys.Ready(t.Context()) },
		} {
			if err := do(); auth.CodeOf(err) != auth.Unavailable {
				t.Errorf("%s by a server that can't read the keys: %v", what, err)
			}
		}
		if n := len(cut.Keys.JWKS(t.Context()).Keys); n != published {
			t.Errorf("while the database is away %d keys are published, and %d before", n, published)
		}
	})
}

// A server that hasn't read a key yet asks the database before it refuses what
// another one has made with it: once a second, whatever is forged.
func TestServersThatLagRefuseNobody(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		synctest.Test(t, func(t *testing.T) {
			c := newClock()
			all := replicas(t, url, c.now, 2, func(*server) {})
			a, b := all[0], all[1]
			a.user(t, ann)
			for _, purpose := range []token.Purpose{token.Sign, token.MAC} {
				must(a.Keys.Revoke(t.Context(), a.keys(t, purpose)[0].ID))(t)
				follow(t, a)
				tokens := a.login(t, ann, oldPassword)
				must(b.Check(t.Context(), tokens.Access))(t)
				b.renew(t, tokens)
			}
			ok(t, b.NewerKeys(t.Context()))
			begun := time.Now()
			ok(t, b.NewerKeys(t.Context()))
			ok(t, b.NewerKeys(t.Context()))
			if took := time.Since(begun); took != 2*time.Second {
				t.Errorf("three unknown keys had the database asked within %v", took)
			}
		})
	})
}

// What an unknown address costs doesn't change with the keys, until its own key is
// revoked.
func TestDecoysStayAsKeysChange(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		first := s.Keys.DecoyFraction(ann)
		for range 3 {
			c.advance(100 * 24 * time.Hour)
			follow(t, s)
			for _, key := range must(s.Keys.RotateDue(t.Context()))(t) {
				if key.Purpose == token.Decoy {
					t.Errorf("the schedule made %s", key.ID)
				}
			}
			must(s.Keys.Purge(t.Context()))(t)
			follow(t, s)
		}
		same(t, "the fraction", s.Keys.DecoyFraction(ann), first)
		decoys := s.keys(t, token.Decoy)
		same(t, "its key's state", states(decoys), []token.State{token.Active})
		must(s.Keys.Revoke(t.Context(), decoys[0].ID))(t)
		follow(t, s)
		if s.Keys.DecoyFraction(ann) == first {
			t.Error("the revoked key still decides")
		}
	})
}

// An expired key is removed only a week later, by the clock: one that jumps
// forward by less and back has lost none.
func TestPurgeKeysWaitsForTheClock(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		must(s.Keys.Rotate(t.Context(), token.Sign))(t)
		c.advance(s.Keys.Settings.Lead() + s.Settings.AccessTTL + time.Minute)
		if got := states(s.keys(t, token.Sign)); !slices.Equal(got, []token.State{token.Active, token.Expired}) {
			t.Fatal(got)
		}
		c.advance(auth.KeysKept - time.Microsecond)
		if n := must(s.Keys.Purge(t.Context()))(t); n != 0 {
			t.Errorf("%d keys were removed too early", n)
		}
		c.advance(time.Microsecond)
		if n := must(s.Keys.Purge(t.Context()))(t); n != 1 {
			t.Errorf("%d keys were removed, want 1", n)
		}
		c.advance(-time.Hour) // before all
		if got := states(s.keys(t, token.Sign)); !slices.Equal(got, []token.State{token.Active}) {
			t.Error(got)
		}
	})
}

// A key is published before it is used, and there is one next key at most.
func TestNextKeysArePublishedFirst(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		old := s.keys(t, token.Sign)[0]
		made := must(s.Keys.Rotate(t.Context(), token.Sign, token.MAC))(t)
		follow(t, s)
		kids := func() (ids []string) {
			for _, key := range s.Keys.JWKS(t.Context()).Keys {
				ids = append(ids, key.KeyID)
			}
			return ids
		}
		if len(made) != 2 || !made[0].ActiveAt.Equal(c.now().Add(s.Keys.Settings.Lead())) || !slices.Equal(kids(), []string{old.ID, made[0].ID}) {
			t.Errorf("made %+v, published %v", made, kids())
		}
		for _, purpose := range []token.Purpose{token.Sign, token.MAC} {
			if _, err := s.Keys.Rotate(t.Context(), purpose); auth.CodeOf(err) != auth.Conflict {
				t.Errorf("a second next key: %v", err)
			}
		}
		c.advance(s.Keys.Settings.Lead() - time.Microsecond)
		follow(t, s)
		if !slices.Equal(kids(), []string{old.ID, made[0].ID}) || s.Ring().RecoveryKey() == made[1].ID {
			t.Error("the next key is used too early")
		}
		c.advance(time.Microsecond)
		follow(t, s)
		if !slices.Equal(kids(), []string{made[0].ID, old.ID}) || s.Ring().RecoveryKey() != made[1].ID {
			t.Error("the next key isn't used in time")
		}

		// The next takes the place of one that is revoked.
		next := must(s.Keys.Rotate(t.Context(), token.Sign))(t)[0]
		r := must(s.Keys.Revoke(t.Context(), made[0].ID))(t)
		follow(t, s)
		if r.Replacement == nil || r.Replacement.ID != next.ID {
			t.Errorf("instead of a revoked key %+v is used, want the next", r.Replacement)
		}
		same(t, "published keys after a revocation", kids(), []string{next.ID, old.ID})
		c.advance(-2 * time.Hour) // before all: no key is used that was to come later
		if _, err := s.Keys.Rotate(t.Context(), token.MAC); auth.CodeOf(err) != auth.Conflict {
			t.Errorf("a key beside the one that is next once more: %v", err)
		}
		follow(t, s)
		if s.Ring().RecoveryKey() == made[1].ID {
			t.Error("after the clock was set back the later key is used")
		}
	})
}

func TestKeysAreMadeOnSchedule(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		c := newClock()
		all := replicas(t, url, c.now, 3, func(s *server) { s.keySchedule.Rotation = 90 * 24 * time.Hour })
		s := all[0]
		rotate := func() (made []token.Key) {
			t.Helper()
			follow(t, all...)
			var mu sync.Mutex
			var running sync.WaitGroup
			for _, s := range all {
				running.Go(func() {
					keys, err := s.Keys.RotateDue(t.Context())
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					made = append(made, keys...)
				})
			}
			running.Wait()
			return made
		}
		if made := rotate(); len(made) != 2 || made[0].Purpose != token.ID || made[1].Purpose != token.Seal {
			t.Fatalf("made at the start by three servers: %+v", made)
		}
		lead := s.Keys.Settings.Lead()
		begin := s.keys(t, token.Sign)[0].ActiveAt
		c.set(begin.Add(s.Keys.Settings.Rotation - lead - time.Microsecond))
		if made := rotate(); len(made) != 0 {
			t.Fatalf("made too early: %+v", made)
		}
		c.advance(2 * time.Microsecond)
		if made := rotate(); len(made) != 3 || made[0].ActiveAt.Before(begin.Add(s.Keys.Settings.Rotation)) || made[0].ActiveAt.After(c.now().Add(lead)) {
			t.Fatalf("made by three servers: %+v", made)
		}
		if made := rotate(); len(made) != 0 {
			t.Fatalf("there is a next key, and %+v was made", made)
		}
		// Late, since no server ran: a whole lead nevertheless.
		c.advance(200 * 24 * time.Hour)
		if made := rotate(); len(made) != 3 || !made[0].ActiveAt.Equal(c.now().Add(lead)) {
			t.Fatalf("made late: %+v", made)
		}
		// Switched off.
		c.advance(200 * 24 * time.Hour)
		for _, s := range all {
			s.Keys.Settings.Rotation = 0
		}
		if made := rotate(); len(made) != 0 {
			t.Fatalf("made without a schedule: %+v", made)
		}
	})
}

// A server starts without the keys of apps, and makes them in the background. Of the two
// one rotates: what it signed is read for as long as a session can last.
func TestKeysOfApps(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		v := s.visit(t, s.browse(t, user.Email, true))
		same(t, "keys of apps at the start", len(s.keys(t, token.ID))+len(s.keys(t, token.Seal)), 0)
		a, _ := s.app(t, "wiki")
		_, _, err := s.Authorize(t.Context(), auth.Client{}, v, s.asks(a), false)
		wantErr(t, "a code before there is a key", err, auth.ErrBusy)
		s.Keys.Tend(t.Context())
		follow(t, s)
		tokens := s.exchange(t, a, s.code(t, v, a))
		first, sealed := s.keys(t, token.ID), s.keys(t, token.Seal)
		same(t, "states", append(states(first), states(sealed)...), []token.State{token.Active, token.Active})
		published := func() (kinds []string) {
			for _, key := range s.Keys.JWKS(t.Context()).Keys {
				kinds = append(kinds, key.Algorithm)
			}
			return kinds
		}
		same(t, "what is published", published(), []string{"ES256", "RS256"})
		c.advance(s.Keys.Settings.Rotation)
		must(s.Keys.RotateDue(t.Context()))(t)
		c.advance(s.Keys.Settings.Lead())
		follow(t, s)
		same(t, "states of ID keys", states(s.keys(t, token.ID)), []token.State{token.Active, token.Retired})
		same(t, "the key that seals", briefsOf(s.keys(t, token.Seal)), briefsOf(sealed))
		same(t, "how long the retired one is accepted", s.keys(t, token.ID)[1].Until, s.keys(t, token.ID)[0].ActiveAt.Add(s.Settings.SessionLife))
		c.advance(s.Settings.SessionLife - time.Second)
		follow(t, s)
		same(t, "what is published until a session's end", published(), []string{"ES256", "RS256", "RS256"})
		_, known, err := s.ReadHint(t.Context(), tokens.ID)
		ok(t, err)
		same(t, "a hint of the retired key", known, true)
		c.advance(time.Second)
		follow(t, s)
		same(t, "what is published then", published(), []string{"ES256", "RS256"})
		_, known, err = s.ReadHint(t.Context(), tokens.ID)
		ok(t, err)
		same(t, "a hint of the expired key", known, false)
	})
}

// The master key changes under three servers: all at once seal what is sealed
// under the old one, and where one is cut off the next goes on.
func TestMasterKeyChanges(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		c := newClock()
		old, fresh := token.NewMasterKey(), token.NewMasterKey()
		parse := func(text string) *token.Master { return must(token.ParseMaster([]byte(text)))(t) }
		all := replicas(t, url, c.now, 3, func(*server) {})
		for _, s := range all { // under a master key whose text is known
			s.master = parse(old)
		}
		s := all[0]
		s.user(t, ann)
		_ = must(s.database(t).ExecContext(t.Context(), `DELETE FROM keys`))(t)
		for _, s := range all {
			s.Keys = must(auth.EnsureKeys(t.Context(), s.Store, s.master, s.keyRules(), s.Log))(t)
		}
		must(s.Keys.Rotate(t.Context(), token.Sign, token.MAC))(t)
		follow(t, all...)
		tokens := s.login(t, ann, oldPassword)

		wantErr(t, "another master key", s.Keys.UseMaster(t.Context(), parse(fresh)), token.ErrNoMaster)
		s.alive(t, tokens)

		both := parse(fresh + "\n" + old)
		// One was cut off after one key.
		key := s.keys(t, token.Sign)[0].Key
		anew := must(both.Reseal(key))(t)
		ok(t, s.Store.Statement(t.Context(), func(tx *store.Tx) error {
			done, err := tx.ResealKey(key.ID, key.Sealed, anew.Sealed)
			if !done {
				t.Error("not done")
			}
			return err
		}))
		for _, s := range all {
			ok(t, s.Keys.UseMaster(t.Context(), both))
		}
		var resealed atomic.Int64
		var running sync.WaitGroup
		for _, s := range all {
			running.Go(func() {
				n, err := s.Keys.Reseal(t.Context())
				if err != nil {
					t.Error(err)
				}
				resealed.Add(int64(n))
			})
		}
		running.Wait()
		rows := must(s.Store.Read(t.Context()).Keys())(t)
		if int(resealed.Load()) != len(rows)-1 {
			t.Errorf("%d keys were sealed anew of %d, of which one had been", resealed.Load(), len(rows))
		}
		ok(t, auth.CheckKeys(parse(fresh), rows))
		follow(t, all...)
		for _, s := range all {
			s.alive(t, s.login(t, ann, oldPassword), tokens)
			if n := must(s.Keys.Reseal(t.Context()))(t); n != 0 {
				t.Errorf("%d keys were sealed a second time", n)
			}
		}
		// The old one is no longer of use.
		_, err := auth.EnsureKeys(t.Context(), s.Store, s.master, s.keyRules(), s.Log)
		wantErr(t, "a start with the old master key", err, token.ErrNoMaster)
		must(auth.EnsureKeys(t.Context(), s.Store, parse(fresh), s.keyRules(), s.Log))(t)
	})
}

// How long a key is accepted follows from when the one after it became active: to
// revoke that one must not bring it back.
func TestARevocationRevivesNoExpiredKey(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		first := s.login(t, ann, oldPassword)
		next := func() {
			must(s.Keys.Rotate(t.Context(), token.MAC))(t)
			c.advance(s.Keys.Settings.Lead() + time.Second)
		}
		next()
		c.advance(100 * 24 * time.Hour)
		next()
		keys := s.keys(t, token.MAC)
		if len(keys) != 3 || keys[1].State != token.Retired || keys[2].State != token.Expired {
			t.Fatalf("the keys are %+v", keys)
		}
		must(s.Keys.Revoke(t.Context(), keys[1].ID))(t)
		s.Age(auth.KeysFollow + time.Millisecond)
		now := s.keys(t, token.MAC)
		if last := now[len(now)-1]; last.ID != keys[2].ID || last.State != token.Expired || !last.Until.Equal(keys[2].Until) {
			t.Errorf("the expired key is %+v, and was %+v", last, keys[2])
		}
		_, err := s.Renew(t.Context(), auth.Client{}, first.Refresh, c.now())
		wantErr(t, "a renewal with the expired key's token", err, auth.ErrRefresh)
	})
}

// The next key takes a revoked one's place from that one's time on: for the keys
// before nothing changes, and no server whose clock is behind is left without one.
func TestTheNextKeyTakesARevokedOnesPlace(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		for _, purpose := range []token.Purpose{token.Sign, token.MAC} {
			must(s.Keys.Rotate(t.Context(), purpose))(t)
			c.advance(s.Keys.Settings.Lead() + time.Second)
			must(s.Keys.Rotate(t.Context(), purpose))(t)
			c.advance(time.Second)
			was := s.keys(t, purpose)
			if len(was) != 3 || was[0].State != token.Next || was[1].State != token.Active || was[2].State != token.Retired {
				t.Fatalf("the keys are %+v", was)
			}
			r := must(s.Keys.Revoke(t.Context(), was[1].ID))(t)
			if r.Replacement == nil || r.Replacement.ID != was[0].ID {
				t.Errorf("%+v is used instead, want the next key, %s", r.Replacement, was[0].ID)
			}
			now := s.keys(t, purpose)
			same(t, "the keys", briefsOf(now), []keyBrief{{was[0].ID, token.Active, was[1].ActiveAt}, {was[2].ID, token.Retired, was[2].ActiveAt}})
			same(t, "until when the one before is accepted", now[1].Until, was[2].Until)
		}
	})
}

// The keys of apps are there as soon as they are made, after one turn in the background.
func TestKeysOfAppsAreUsedAtOnce(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		s := start(t, url, newClock().now, nil)
		s.Keys.Tend(t.Context())
		for _, key := range s.Keys.JWKS(t.Context()).Keys {
			if key.Algorithm == "RS256" {
				return
			}
		}
		t.Error("no key of ID tokens is published")
	})
}
